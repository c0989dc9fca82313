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

func newSector() *cobra.Command {
	c := group("sector", "A secondary network behind a managing body: who in it has files on whom, and what happened there",
		newSectorMembers(), newSectorReferences(), newSectorReplace(), newSectorTrace(), newSectorSearch(), newSectorView())
	c.Long = `The registry of the mesh holds "has a file in the health-insurance sector" and no more.
Which institution in it has the file is known to the sector's managing body alone: its
node keeps a directory and a journal of its own, which nobody outside can ask for.

Directory verbs take an application of the managing body with admin: true; trace and
search one with officer: true or admin: true. Everything is journaled in the sector.`
	c.Example = `  crossroads sector members --endpoints net.json --as nic
  crossroads sector references --subject - --endpoints net.json --as nic
  crossroads sector trace TICKET --endpoints net.json --as nic`
	return c
}

func newSectorMembers() *cobra.Command {
	c := &cobra.Command{
		Use: "members", Short: "The cooperating institutions of the sector",
		Example: `  crossroads sector members --endpoints net.json --as nic
  crossroads sector members set fund-amber --from 2026-01-01 --endpoints net.json --as nic`,
		Args: cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.SectorMembers(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("INSTITUTION", "FROM", "UNTIL")
			for _, m := range found.Members {
				t.add(m.Institution, m.Period.From, m.Period.Until)
			}
			return t.write(w)
		})
	}
	c.AddCommand(newSectorMembersSet())
	return c
}

func newSectorMembersSet() *cobra.Command {
	var from, until string
	c := &cobra.Command{
		Use: "set INSTITUTION", Short: "Admit a cooperating institution, or change its days",
		Long: `The mesh must list the institution as of this sector. One whose days are over keeps its
references; they lead to it no more.`,
		Example: `  crossroads sector members set fund-amber --endpoints net.json --as nic
  crossroads sector members set fund-amber --from 2020-01-01 --until 2026-06-30 --endpoints net.json --as nic`,
		Args: cobra.ExactArgs(1),
	}
	r := addRemote(c)
	c.Flags().StringVar(&from, "from", "", "first day (default: always)")
	c.Flags().StringVar(&until, "until", "", "last day (default: for ever)")
	c.RunE = func(c *cobra.Command, args []string) error {
		span, err := openPeriod(from, until)
		if err != nil {
			return usage("%w", err)
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		if err := client.SetSectorMember(ctx, api.SectorMember{Institution: names.InstitutionID(args[0]), Period: span}); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is of the sector from %s until %s\n", clean(args[0]), span.From, span.Until)
		return nil
	}
	return c
}

// openPeriod reads days of which either end may be open.
func openPeriod(from, until string) (p names.Period, err error) {
	p = names.Period{From: names.Always, Until: names.Forever}
	if from != "" {
		if p.From, err = names.ParseDate(from); err != nil {
			return p, fmt.Errorf("from: %w", err)
		}
	}
	if until != "" {
		if p.Until, err = names.ParseDate(until); err != nil {
			return p, fmt.Errorf("until: %w", err)
		}
	}
	return p, p.Validate()
}

func newSectorReplace() *cobra.Command {
	var successor string
	c := &cobra.Command{
		Use: "replace", Short: "Say that a subject's number was replaced by another",
		Long:    "References follow: what stands under either number is found by both.",
		Example: "  crossroads sector replace --subject 88510521792 --successor 74071238186 --endpoints net.json --as nic",
		Args:    cobra.NoArgs,
	}
	r, who := addRemote(c), addSubject(c)
	c.Flags().StringVar(&successor, "successor", "", "the number that replaced it")
	_ = c.MarkFlagRequired("subject")
	_ = c.MarkFlagRequired("successor")
	c.RunE = func(c *cobra.Command, _ []string) error {
		old, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if old == nil {
			return usage("--subject is empty")
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		return client.ReplaceInSector(ctx, *old, api.Subject{Scheme: old.Scheme, Number: successor})
	}
	return c
}

func newSectorTrace() *cobra.Command {
	c := &cobra.Command{
		Use: "trace TICKET", Short: "What happened within the sector under a ticket",
		Long: `At the managing body: which institution was asked, what it answered, and, of a ticket on
which the sector asked, which institution and user it was. At a cooperating institution:
its own part. The segments are joined and verified; what the mesh may know is told by
crossroads trace.

Exit code 5 means that something is missing or contradicted.`,
		Example: "  crossroads sector trace TICKET --endpoints net.json --as nic",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	r.officer = true
	c.RunE = func(c *cobra.Command, args []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		story, err := client.SectorTrace(ctx, names.Ticket(args[0]))
		if err != nil {
			return err
		}
		err = out.print(c.OutOrStdout(), story, func(w io.Writer) error {
			for line := range strings.Lines(story.Text) {
				if _, err := fmt.Fprintln(w, strings.TrimRight(clean(strings.TrimSuffix(line, "\n")), " ")); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && len(story.Findings) > 0 {
			return &exit{code: exitFindings}
		}
		return err
	}
	return c
}

func newSectorSearch() *cobra.Command {
	var pseudonym, user, from, until string
	var limit int
	c := &cobra.Command{
		Use: "search", Short: "Search the sector's own journal, for its security officer",
		Long: `A user of a cooperating institution stands outside the sector under a pseudonym, anew for
each question: --pseudonym leads to who it was.`,
		Example: `  crossroads sector search --pseudonym sector-XXXXXXXXXXXXXXXXXXXXXXXXXX --endpoints net.json --as nic
  crossroads sector search --user alice --from 2026-01-01 -o json --endpoints net.json --as fund-amber`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	r.officer = true
	f := c.Flags()
	f.StringVar(&pseudonym, "pseudonym", "", "a user's name as it stands outside")
	f.StringVar(&user, "user", "", "of this user of the sector")
	f.StringVar(&from, "from", "", "from this day (UTC) or time on")
	f.StringVar(&until, "until", "", "before this day or time")
	f.IntVar(&limit, "limit", 1000, "at most so many, 1 to 10000")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		q := api.SectorSearch{Pseudonym: pseudonym, User: names.UserID(user), Limit: limit}
		if q.From, err = moment("--from", from); err != nil {
			return err
		}
		if q.Until, err = moment("--until", until); err != nil {
			return err
		}
		if q.Subject, err = who.read(c.InOrStdin()); err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.SectorSearch(ctx, q)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error { return writeSectorEntries(w, found.Items) })
	}
	return c
}

func writeSectorEntries(w io.Writer, entries []api.SectorEntry) error {
	t := newTable("TIME", "EVENT", "INSTITUTION", "USER", "PSEUDONYM", "TICKET", "DATASET", "PURPOSE", "OUTCOME")
	for _, e := range entries {
		t.add(e.Time.Format(time.RFC3339), e.Event, e.Institution, e.User, e.Pseudonym, e.Ticket, e.Dataset, e.Purpose, outcome(e.JournalEntry))
	}
	return t.write(w)
}

func newSectorView() *cobra.Command {
	c := &cobra.Command{
		Use: "view FILE", Short: "What a subject sees of itself within the sector",
		Long: `FILE holds an identity token in base64, made out to the managing body's node for a
challenge of crossroads subject challenge; - stands for standard input. To the subject
alone the managing body shows with whom in the sector it is, and who did what.`,
		Example: `  crossroads subject challenge --endpoints net.json --as nic > challenge.json
  crossroads testnet token challenge.json --endpoints net.json --subject - > identity.token
  crossroads sector view identity.token --endpoints net.json --as nic`,
		Args: cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		text, err := readFile(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		token, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			return usage("%s holds no identity token in base64", args[0])
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		view, err := client.SectorView(ctx, token)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), view, func(w io.Writer) error {
			t := newTable("WITH", "QUALITY", "FROM", "UNTIL")
			for _, f := range view.References {
				t.add(f.Institution, f.Quality, f.Period.From, f.Period.Until)
			}
			if err := t.write(w); err != nil {
				return err
			}
			fmt.Fprintln(w)
			return writeSectorEntries(w, view.Entries)
		})
	}
	return c
}
