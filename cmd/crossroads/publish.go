package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newPublish() *cobra.Command {
	var causedBy string
	var fields []string
	c := &cobra.Command{
		Use:   "publish",
		Short: "Publish a change about a subject to everybody concerned",
		Long: `Hands a change to the node, which keeps it durably, has a registry member that is no
party decide who is subscribed, authorized and has a file, and tells each of them directly,
with the fields that it may have; as long as it takes, also to those that are down.

Publishing again under the same --client-ticket is publishing once. Later:
  crossroads publish status CLIENT-TICKET    who is told, and who has it
  crossroads deliveries list                 what waits
  crossroads trace TICKET                    the whole story, from all journals

Exit code 3 means that this institution may not publish it; the reason is printed.`,
		Example: `  crossroads publish --endpoints net.json --as national-register --as-user jan \
      --dataset person-address/v1 --subject 74071238186 --record moved.json --from 2026-02-01

  # without the number in the shell's history, only what changed, and the record inline:
  crossroads publish --endpoints net.json --as national-register --as-user jan --dataset person-address/v1 --subject - \
      --field house_number --record '{"street":"Long","house_number":"8","postal_code":"9000","municipality":"Ghent","start_date":"2026-02-01","end_date":null}'`,
		Args: cobra.NoArgs,
	}
	r, sent, out := addRemote(c), addChange(c, "publication", "CHANGED, CORRECTED or CANCELLED; the latter two with --refers-to"), addFormat(c)
	f := c.Flags()
	f.StringSliceVar(&fields, "field", nil, "only this field changed; repeat for more (default: all that the record holds)")
	f.StringVar(&causedBy, "caused-by", "", "ticket of the declaration that led to it")
	c.RunE = func(c *cobra.Command, _ []string) error {
		m, err := sent.read(c.InOrStdin())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := client.Publish(ctx, api.PublicationRequest{
			ClientTicket: m.ClientTicket, Subject: m.Subject, Dataset: m.Dataset, Period: m.Period, Record: m.Record, Change: m.Change, RefersTo: m.RefersTo,
			Fields: typed[names.FieldName](fields), CausedBy: names.Ticket(causedBy),
		})
		if err != nil {
			return sent.failed(c, *out, err, "publish")
		}
		err = out.print(c.OutOrStdout(), done, func(w io.Writer) error {
			t := newTable("STATUS", done.Status)
			for _, p := range [][2]string{{"REASON", done.Reason}, {"", done.Explanation}, {"TICKET", string(done.Ticket)}, {"CLIENT TICKET", string(done.ClientTicket)}} {
				if p[1] != "" {
					t.add(p[0], p[1])
				}
			}
			return t.write(w)
		})
		if err == nil && done.Status != "ACCEPTED" {
			return &exit{code: exitRefused}
		}
		return err
	}
	c.AddCommand(newPublishStatus())
	return c
}

func newPublishStatus() *cobra.Command {
	c := &cobra.Command{
		Use:     "status CLIENT-TICKET",
		Short:   "Who is told of a change, and who has it",
		Long:    "Tells how far a change has come that was published under this client ticket, while the\nnode keeps it (notify.keep).",
		Example: "  crossroads publish status MOVE-17 --endpoints net.json --as national-register",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		st, err := client.PublicationStatus(ctx, names.ClientTicket(args[0]))
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), st, func(w io.Writer) error {
			switch {
			case !st.Decided:
				fmt.Fprintln(w, "No clearing peer has decided yet who is to be told.")
			case st.Reason != "":
				fmt.Fprintf(w, "Nobody is told: %s: %s\n", st.Reason, st.Explanation)
			case len(st.Recipients) == 0:
				fmt.Fprintln(w, "Nobody is to be told.")
			}
			t := newTable("RECIPIENT", "PURPOSE", "STATE")
			for _, x := range st.Recipients {
				t.add(x.Recipient, x.Purpose, x.State)
			}
			return t.write(w)
		})
	}
	return c
}
