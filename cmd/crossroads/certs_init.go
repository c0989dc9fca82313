package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newCertsInit() *cobra.Command {
	var mesh string
	c := &cobra.Command{
		Use:     "init DIR --mesh MESH",
		Short:   "Found an authority for a mesh",
		Example: "  crossroads certs init ./authority --mesh demo.crossroads.example",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := names.MeshID(mesh).Validate(); err != nil {
				return usage("--mesh: %w", err)
			}
			if _, err := authority.New(args[0], names.MeshID(mesh)); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: authority of %s; guard this folder\n", args[0], mesh)
			return nil
		},
	}
	c.Flags().StringVar(&mesh, "mesh", "", "the mesh whose nodes it vouches for")
	_ = c.MarkFlagRequired("mesh")
	return c
}
