package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newCertsToken() *cobra.Command {
	c := &cobra.Command{
		Use:   "token --authority DIR --institution ID",
		Short: "Make a join token: whoever brings it gets that one identity, once",
		Long: `Prints a token for certs join, so that a node's private key is made where the node is
and never travels. It is a secret until it is used or expires.`,
		Example: "  crossroads certs token --authority ./authority --institution pcsa --ttl 10m",
		Args:    cobra.NoArgs,
	}
	n := addNode(c, time.Hour)
	c.RunE = func(c *cobra.Command, _ []string) error {
		a, id, err := n.open()
		if err != nil {
			return err
		}
		token, err := a.Token(id, n.ttl)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), token)
		return nil
	}
	return c
}
