package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newRegistryAnchors() *cobra.Command {
	c := &cobra.Command{
		Use:   "anchors",
		Short: "The last anchored checkpoint of every journal",
		Long: "The last checkpoint of every journal that a majority of the registry's members cosigned. " +
			"With -o json, the signed notes by which that is proved.\n\nAnyone may read this: no token is needed.",
		Example: "  crossroads registry anchors --endpoints net.json --as pcsa\n  crossroads registry anchors --api http://127.0.0.1:7480 -o json",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		list, err := client.Anchors(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), list, func(w io.Writer) error {
			t := newTable("JOURNAL", "ENTRIES", "ROOT", "COSIGNED BY")
			for _, a := range list.Items {
				t.add(a.Journal, a.Size, a.Root, strings.Join(a.Witnesses, ", "))
			}
			return t.write(w)
		})
	}
	return c
}
