package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/config"
)

func newConfig() *cobra.Command {
	return group("config", "The configuration file of a node", newConfigExample(), newConfigValidate())
}

func newConfigExample() *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a commented configuration file in which every setting stands",
		Example: "  crossroads config example > node.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(config.Example())
			return err
		},
	}
}

func newConfigValidate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Say what is wrong with a configuration file, on which line, and how to mend it",
		Long: `Reads the file as node run would, and says everything that is wrong with it at once.
It looks at the values, not at the files that they name.`,
		Example: "  crossroads config validate node.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			if err != nil {
				fmt.Fprintln(c.ErrOrStderr(), err) // one line each, as a compiler does
				return &exit{code: exitFailure}
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: good: node %s of mesh %s\n", args[0], cfg.Node.ID(), cfg.Mesh)
			return nil
		},
	}
}
