package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newRegistryStateHash() *cobra.Command {
	c := &cobra.Command{
		Use:   "state-hash",
		Short: "Whether the node's copy of the registry is the one that the members signed",
		Long: `Every node keeps a hash of the registry's tables. The members sign theirs at fixed indexes,
and every node asks each member and compares: members all tables, other nodes the public ones.

A member whose state is another than most members signed stops clearing, and its log names
the first record that differs. Start it again: it makes its tables anew from its log.

Exit code 1: the node's copy must not be relied on.`,
		Example: "  crossroads registry state-hash --endpoints net.json --as nsso",
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
		if err := out.print(c.OutOrStdout(), s.StateHash, func(w io.Writer) error {
			if s.StateHash == nil {
				_, err := fmt.Fprintf(w, "%s has compared nothing yet: there is no mark of its state.\n", s.Node)
				return err
			}
			t := newTable("NODE", "INDEX", "ROOT", "SAME", "DIFFER", "SILENT")
			t.add(s.Node, s.StateHash.Index, s.StateHash.Root, listed(s.StateHash.Same), listed(s.StateHash.Differ), listed(s.StateHash.Silent))
			return t.write(w)
		}); err != nil {
			return err
		}
		if s.StateHash != nil && s.StateHash.Diverged != "" {
			return &exit{exitFailure, fmt.Errorf("%s must not be relied on: %s", s.Node, s.StateHash.Diverged)}
		}
		return nil
	}
	return c
}

func listed(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}
