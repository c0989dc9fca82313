package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistry() *cobra.Command {
	return group("registry", "What the network agrees on: who takes part, what is offered, who may ask what",
		newRegistryInstitutions(), newRegistryDatasets(), newRegistryOfferings(), newRegistryAuthorizations(),
		newRegistrySubscriptions(),
		newRegistryReferences(), newRegistryAnchors(), newRegistryEvidence(), newRegistryStatus(), newRegistryStateHash(), newRegistrySubmit(),
		newRegistryHistory(), newRegistryGroups())
}

// listing is a verb that prints one public table.
func listing[T any](use, short string, get func(*api.Client, context.Context) (api.List[T], error), heading []string, row func(T) []any) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Long:    short + ".\n\nAnyone may read this: no token is needed.",
		Example: "  crossroads registry " + use + " --endpoints net.json --as pcsa-ghent\n  crossroads registry " + use + " --api http://127.0.0.1:7480 -o json",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	r.addReading(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		list, err := get(client, ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), list, func(w io.Writer) error {
			t := newTable(heading...)
			for _, item := range list.Items {
				t.add(row(item)...)
			}
			return t.write(w)
		})
	}
	return c
}
