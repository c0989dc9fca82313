package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newTrace() *cobra.Command {
	c := &cobra.Command{
		Use:   "trace TICKET",
		Short: "Tell what happened under a ticket, from the journals of all who took part",
		Long: `Has the node fetch the journal segments of the consultant, the clearing peers and the
suppliers, verify them against each other, and say in plain words what happened, and what
is missing, changed or contradicted, by whom. That you looked is journaled too.

Exit code 5 means that the story is not consistent.`,
		Example: "  crossroads trace 0123456789abcdefghjkmnpqrs --endpoints net.json --as pcsa-ghent",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		ticket := names.Ticket(args[0])
		if err := ticket.Validate(); err != nil {
			return usage("%w", err)
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		story, err := client.Trace(ctx, ticket)
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), story, func(w io.Writer) error { return story.Write(w) }); err != nil {
			return err
		}
		if story.Verdict != trace.Consistent {
			return &exit{code: exitFindings}
		}
		return nil
	}
	return c
}
