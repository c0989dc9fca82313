package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newDeclare() *cobra.Command {
	var purpose string
	c := &cobra.Command{
		Use:   "declare",
		Short: "Declare something to the authentic source, once",
		Long: `Hands a declaration to the node, which checks it against its schema, keeps it durably, has a
registry member that is no party clear it, and brings it to the authentic source, whose
signed receipt it shows; while the source is down it is SENT, and goes when it is back.
What the source accepts, it publishes to everybody concerned.

Declaring again under the same --client-ticket is declaring once. To see what became of
it: crossroads declaration status CLIENT-TICKET. Exit code 3: the network refused it;
1: it does not match its schema, and every place that does not is told, with how to mend it.`,
		Example: `  crossroads declare --endpoints net.json --as acme-works --as-user hr --dataset employment-relation/v1 \
      --purpose dimona --subject 74071238186 --record start.json --from 2026-02-01`,
		Args: cobra.NoArgs,
	}
	r, sent, out := addRemote(c), addChange(c, "declaration", "CHANGED (to declare something new), CORRECTED or CANCELLED; the latter two with --refers-to"), addFormat(c)
	c.Flags().StringVar(&purpose, "purpose", "", "under which purpose; see registry authorizations")
	_ = c.MarkFlagRequired("purpose")
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
		m.Purpose = names.Purpose(purpose)
		done, err := client.Declare(ctx, m)
		if err != nil {
			return sent.failed(c, *out, err, "declare")
		}
		return printDeclaration(c, *out, done)
	}
	return c
}

func printDeclaration(c *cobra.Command, out format, d api.Declaration) error {
	err := out.print(c.OutOrStdout(), d, func(w io.Writer) error {
		t := newTable("STATE", d.State)
		for _, p := range [][2]string{{"REASON", d.Reason}, {"", d.Explanation}, {"TICKET", string(d.Ticket)}, {"CLIENT TICKET", string(d.ClientTicket)},
			{"SOURCE", string(d.Source)}, {"PUBLISHED AS", string(d.Published)}, {"SUPERSEDED BY", string(d.SupersededBy)}} {
			if p[1] != "" {
				t.add(p[0], p[1])
			}
		}
		for _, r := range d.Reasons {
			t.add("DECLINED", strings.TrimSpace(string(r.Field)+" "+r.Code+": "+r.Text))
		}
		return t.write(w)
	})
	if err == nil && d.State == "REFUSED" {
		return &exit{code: exitRefused}
	}
	return err
}

func newDeclaration() *cobra.Command {
	return group("declaration", "What became of declarations, made or received", newDeclarationStatus(), newDeclarationDecide())
}

func newDeclarationStatus() *cobra.Command {
	c := &cobra.Command{
		Use:     "status CLIENT-TICKET",
		Short:   "What became of a declaration that was made here",
		Long:    "Tells what became of a declaration: SENT, RECEIVED, ACCEPTED, DECLINED with reasons, AMENDED\nby a correction, or ANNULLED by a cancellation.",
		Example: "  crossroads declaration status START-17 --endpoints net.json --as acme-works",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		d, err := client.DeclarationStatus(ctx, names.ClientTicket(args[0]))
		if err != nil {
			return err
		}
		return printDeclaration(c, *out, d)
	}
	return c
}

func newDeclarationDecide() *cobra.Command {
	var accept bool
	var reasons []string
	c := &cobra.Command{
		Use:   "decide TICKET",
		Short: "Decide on a declaration that this institution received",
		Long: `Accepts a declaration, which is then published to everybody concerned, or declines it for
the reasons given. Its system takes declarations with: crossroads inbox take --kind declaration`,
		Example: `  crossroads declaration decide 0123456789abcdefghjkmnpqrs --accept --endpoints net.json --as nsso
  crossroads declaration decide 0123456789abcdefghjkmnpqrs --reason start_date:too-early:before-the-firm-existed --endpoints net.json --as nsso`,
		Args: cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.Flags().BoolVar(&accept, "accept", false, "accept it")
	c.Flags().StringArrayVar(&reasons, "reason", nil, "decline it because of this, as FIELD:CODE:TEXT; repeat for more")
	c.MarkFlagsMutuallyExclusive("accept", "reason")
	c.MarkFlagsOneRequired("accept", "reason")
	c.RunE = func(c *cobra.Command, args []string) error {
		req := api.DecisionRequest{Decision: "ACCEPTED"}
		for _, s := range reasons {
			parts := strings.SplitN(s, ":", 3)
			if len(parts) < 2 {
				return usage("--reason %q: want FIELD:CODE:TEXT", clean(s))
			}
			reason := api.FieldReason{Field: names.FieldName(parts[0]), Code: parts[1]}
			if len(parts) == 3 {
				reason.Text = parts[2]
			}
			req.Decision, req.Reasons = "DECLINED", append(req.Reasons, reason)
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		d, err := client.DecideSubmission(ctx, names.Ticket(args[0]), req)
		if err != nil {
			return err
		}
		return printDeclaration(c, *out, d)
	}
	return c
}
