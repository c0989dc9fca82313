package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newMandate() *cobra.Command {
	c := group("mandate", "Let somebody ask for data about you, and take that back", newMandateChallenge(), newMandateGive(), newMandateRevoke(), newMandateList())
	c.Long = `A mandate lets an institution ask for data about whoever gave it, for one purpose, some
datasets and a while. Its giver, a person or an enterprise, proves who it is by a token of
an identity provider, made for a challenge of this node and for exactly these terms.

subject view lists a subject's own mandates.`
	c.Example = `  crossroads mandate challenge --endpoints net.json --as national-register --subject - \
      --holder social-secretariat --purpose pre-contractual-check --dataset employment-regime/v1 --days 30 > challenge.json
  crossroads testnet token challenge.json --endpoints net.json --subject - > identity.token
  crossroads mandate give identity.token --endpoints net.json --as national-register
  crossroads mandate list --endpoints net.json --as social-secretariat`
	return c
}

func newMandateChallenge() *cobra.Command {
	var holder, purpose, enterprise, revoke string
	var datasets []string
	var days int
	c := &cobra.Command{
		Use:   "challenge",
		Short: "Ask the node what the giver's identity token must be made for",
		Long: `Prints the challenge as JSON, for the identity provider; it names the mandate. With --revoke
it is for taking that mandate back. It serves once, for a few minutes, and this application
at this node only.`,
		Example: `  crossroads mandate challenge --endpoints net.json --as national-register --subject 74071238186 \
      --holder social-secretariat --enterprise 0412345614 --purpose pre-contractual-check --dataset employment-regime/v1 --days 30
  crossroads mandate challenge --endpoints net.json --as national-register --subject 74071238186 --revoke national-register/m-1`,
		Args: cobra.NoArgs,
	}
	r, who := addRemote(c), addSubject(c)
	f := c.Flags()
	f.StringVar(&holder, "holder", "", "institution that may use it")
	f.StringVar(&enterprise, "enterprise", "", "CBE number of the enterprise for which the holder uses it (default: for itself)")
	f.StringVar(&purpose, "purpose", "", "what for; see registry authorizations")
	f.StringSliceVar(&datasets, "dataset", nil, "what it opens; repeat for more")
	f.IntVar(&days, "days", 30, "how long, from today on; at most 366")
	f.StringVar(&revoke, "revoke", "", "the mandate to take back")
	_ = c.MarkFlagRequired("subject")
	c.MarkFlagsMutuallyExclusive("revoke", "holder")
	c.MarkFlagsOneRequired("revoke", "holder")
	c.RunE = func(c *cobra.Command, _ []string) error {
		giver, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if giver == nil {
			return usage("--subject is empty")
		}
		in := api.MandateChallenge{}
		if revoke != "" {
			in.Revoke = &api.MandateToRevoke{Mandate: names.MandateID(revoke), Giver: *giver}
		} else {
			today := names.DateOf(time.Now())
			in.Terms = &api.MandateTerms{
				Giver: *giver, Holder: names.InstitutionID(holder), Purpose: names.Purpose(purpose), Datasets: typed[names.DatasetID](datasets),
				Period: &names.Period{From: today, Until: today + names.Date(days)},
			}
			if enterprise != "" {
				in.Terms.OnBehalf = &api.Subject{Scheme: "cbe", Number: enterprise}
			}
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		challenge, err := client.MandateChallenge(ctx, in)
		if err != nil {
			return err
		}
		return format("json").print(c.OutOrStdout(), challenge, nil)
	}
	return c
}

func newMandateGive() *cobra.Command {
	c := &cobra.Command{
		Use:     "give FILE",
		Short:   "Register the mandate that a giver's token agrees to",
		Long:    "FILE holds the identity token in base64, or - stands for standard input.",
		Example: `  crossroads mandate give identity.token --endpoints net.json --as national-register`,
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		token, err := readToken(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := client.GiveMandate(ctx, token)
		if err != nil {
			return err
		}
		return printMandated(c, *out, done)
	}
	return c
}

func newMandateRevoke() *cobra.Command {
	var id string
	c := &cobra.Command{
		Use:   "revoke [FILE]",
		Short: "Take a mandate back, by its giver's token or for your institution",
		Long: `FILE holds the giver's identity token in base64, made for mandate challenge --revoke; or -
stands for standard input. Without it your institution ends a mandate that it registered or
holds: say which with --mandate and --subject.

It returns when nobody relies on the mandate any more, some ten seconds later.`,
		Example: `  crossroads mandate revoke identity.token --endpoints net.json --as national-register
  crossroads mandate revoke --mandate national-register/m-1 --subject 74071238186 --endpoints net.json --as social-secretariat`,
		Args: cobra.MaximumNArgs(1),
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	c.Flags().StringVar(&id, "mandate", "", "the mandate that your institution ends")
	c.Flags().Lookup("timeout").DefValue = "40s"
	r.timeout = 40 * time.Second
	c.RunE = func(c *cobra.Command, args []string) error {
		in := api.MandateRevocation{}
		if (len(args) == 1) == (id != "") {
			return usage("give the file of a token, or --mandate and --subject")
		}
		var err error
		if len(args) == 1 {
			if in.Token, err = readToken(args[0], c.InOrStdin()); err != nil {
				return err
			}
		} else {
			giver, err := who.read(c.InOrStdin())
			if err != nil {
				return err
			}
			if giver == nil {
				return usage("--subject says who gave the mandate")
			}
			in.Revoke = &api.MandateToRevoke{Mandate: names.MandateID(id), Giver: *giver}
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := client.RevokeMandate(ctx, in)
		if err != nil {
			return err
		}
		return printMandated(c, *out, done)
	}
	return c
}

func readToken(path string, in io.Reader) ([]byte, error) {
	text, err := readFile(path, in)
	if err != nil {
		return nil, err
	}
	token, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, usage("%s holds no identity token in base64", path)
	}
	return token, nil
}

func printMandated(c *cobra.Command, f format, done api.MandateSubmitted) error {
	err := f.print(c.OutOrStdout(), done, func(w io.Writer) error {
		t := newTable("MANDATE", string(done.Mandate))
		t.add("TICKET", done.Ticket)
		t.add("ACCEPTED", yes(done.Accepted, "yes")+yes(!done.Accepted, "no"))
		if done.Refusal != "" {
			t.add("REFUSAL", done.Refusal)
		}
		t.add("INDEX", done.Index)
		return t.write(w)
	})
	if err == nil && !done.Accepted {
		return &exit{code: exitRefused}
	}
	return err
}

func newMandateList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the mandates that your institution registered or may use",
		Long: `With --subject, those of one giver alone. That you looked is journaled. Exit code 4 means
that no registry member could be asked which mandates you may use, or that there are more.`,
		Example: `  crossroads mandate list --endpoints net.json --as social-secretariat
  crossroads mandate list --endpoints net.json --as national-register --subject 74071238186 -o json`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		about, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		list, err := client.FindMandates(ctx, api.MandateQuery{Subject: about})
		if err != nil {
			return err
		}
		err = out.print(c.OutOrStdout(), list, func(w io.Writer) error {
			t := newTable("MANDATE", "GIVER", "HOLDER", "FOR", "PURPOSE", "DATASETS", "UNTIL", "ATTESTED BY", "")
			for _, m := range list.Items {
				behalf := ""
				if m.OnBehalf != nil {
					behalf = m.OnBehalf.Number
				}
				state := yes(m.InForce, "in force") + yes(m.Revoked, "revoked")
				t.add(m.ID, m.Giver.Number, m.Holder, behalf, m.Purpose, joined(m.Datasets), m.Period.Until, fmt.Sprintf("%s, level %d", m.Provider, m.AuthLevel), state)
			}
			return t.write(w)
		})
		if err == nil && list.Incomplete {
			return &exit{code: exitIncomplete}
		}
		return err
	}
	return c
}
