package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newRegistryStatus() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "How the node stands to the registry",
		Long: `LEADER, TERM and COMMITTED are known to members of the registry only; "-" elsewhere,
and at a member that knows of no leader at the moment.`,
		Example: "  crossroads registry status --endpoints net.json --as nsso",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		s, err := client.RegistryStatus(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), s, func(w io.Writer) error {
			t := newTable("NODE", "STATE", "LEADER", "TERM", "APPLIED", "COMMITTED", "GRANT", "SUBJECTS", "REFERENCES")
			grant := "none"
			if s.GrantValid {
				grant = "valid"
			}
			t.add(s.Node, s.State, known(s.Leader), known(s.Term), s.AppliedIndex, known(s.CommitIndex), grant, s.Subjects, s.References)
			return t.write(w)
		})
	}
	return c
}

// known puts into one cell what only a member of the registry knows, and that perhaps
// not now: a watcher knows of no leader, term or commit index, which are never zero.
func known[T comparable](v T) any {
	var none T
	if v == none {
		return "-"
	}
	return v
}
