package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

func newTestnet() *cobra.Command {
	return group("testnet", "A whole network on one machine, with invented persons", newTestnetUp(), newTestnetExamples(), newTestnetRun(), newTestnetToken())
}

func newTestnetUp() *cobra.Command {
	var o testnet.Options
	var also []string
	c := &cobra.Command{
		Use:   "up",
		Short: "Bring up a test network and keep it until Ctrl-C",
		Long: `Brings up institutions with their nodes and systems on this machine, without root,
containers or any other server; prints where each node's API is and how to authenticate;
shows one consultation and its trace; and stays up until Ctrl-C. Nothing is left behind
unless --dir says where to keep it.

The nodes run the same code as node run. With --processes each is a process of its own.
The same --seed gives the same persons, references and answers. All persons are invented.`,
		Example: `  crossroads testnet up
  crossroads testnet up --nodes 9 --members 5 --persons 100000 --endpoints net.json
  crossroads testnet up --processes --dir ./net`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Also = c.OutOrStdout(), typed[names.InstitutionID](also)
			err := testnet.Up(c.Context(), o)
			if errors.Is(err, testnet.ErrOptions) {
				return usage("%w", err)
			}
			return err
		},
	}
	f := c.Flags()
	f.IntVar(&o.Nodes, "nodes", 7, "institutions, each with one node")
	f.StringSliceVar(&also, "also", nil, "a further institution, whatever its place in the order of joining; repeat for more (testnet run lists who plays in which scenario)")
	f.IntVar(&o.Members, "members", 3, "of them registry members: 1, 3, 5 or 7")
	f.IntVar(&o.Persons, "persons", 10_000, "invented persons")
	f.Uint64Var(&o.Seed, "seed", 1, "of what is invented")
	f.BoolVar(&o.Processes, "processes", false, "run each node in a process of its own")
	f.StringVar(&o.Dir, "dir", "", "where to keep the network (default: a temporary folder, removed at the end)")
	f.StringVar(&o.Endpoints, "endpoints", "", "file to write the nodes' addresses and tokens to, as JSON")
	_ = c.MarkFlagDirname("dir")
	_ = c.MarkFlagFilename("endpoints", "json")
	return c
}
