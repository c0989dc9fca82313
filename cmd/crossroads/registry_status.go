package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newRegistryStatus() *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "How the node stands to the registry",
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
			t.add(s.Node, s.State, s.Leader, s.Term, s.AppliedIndex, s.CommitIndex, grant, s.Subjects, s.References)
			return t.write(w)
		})
	}
	return c
}
