package main

import "github.com/spf13/cobra"

func newNode() *cobra.Command {
	return group("node", "Run a node", newNodeRun(), newNodeHealth())
}
