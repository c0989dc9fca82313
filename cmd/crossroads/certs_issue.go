package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
)

func newCertsIssue() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "issue --authority DIR --institution ID --out DIR",
		Short: "Issue a node's identity into a folder",
		Long: `Writes svid.pem, key.pem and bundle.pem, which is what identity.dir of a node's
configuration names. Run it again before the certificate expires: the node takes the new
one up by itself, without a restart.`,
		Example: "  crossroads certs issue --authority ./authority --institution pcsa --node n1 --out ./pcsa/identity",
		Args:    cobra.NoArgs,
	}
	n := addNode(c, authority.DefaultLife)
	c.Flags().StringVar(&out, "out", "", "the folder to write to; made if it is not there")
	_ = c.MarkFlagRequired("out")
	_ = c.MarkFlagDirname("out")
	c.RunE = func(c *cobra.Command, _ []string) error {
		a, id, err := n.open()
		if err != nil {
			return err
		}
		svid, err := a.Issue(id, n.ttl)
		if err != nil {
			return err
		}
		bundle, err := a.Bundle()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(out, 0o700); err != nil {
			return err
		}
		if err := certs.WriteDir(out, svid, bundle); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: %s until %s\n", out, id, svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339))
		return nil
	}
	return c
}
