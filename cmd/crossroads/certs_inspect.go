package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs"
)

func newCertsInspect() *cobra.Command {
	c := &cobra.Command{
		Use:     "inspect DIR",
		Short:   "Say whose identity a folder holds, and until when",
		Example: "  crossroads certs inspect ./pcsa/identity",
		Args:    cobra.ExactArgs(1),
	}
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		svid, bundle, err := certs.ReadDir(args[0])
		if err != nil {
			return err
		}
		leaf := svid.Certificates[0]
		found := struct {
			ID        string    `json:"id"`
			NotBefore time.Time `json:"not_before"`
			NotAfter  time.Time `json:"not_after"`
			Expired   bool      `json:"expired"`
			Roots     int       `json:"roots"`
		}{svid.ID.String(), leaf.NotBefore.UTC(), leaf.NotAfter.UTC(), time.Now().After(leaf.NotAfter), len(bundle.X509Authorities())}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("ID", "FROM", "UNTIL", "ROOTS", "")
			t.add(found.ID, found.NotBefore.Format(time.RFC3339), found.NotAfter.Format(time.RFC3339), found.Roots, yes(found.Expired, "EXPIRED"))
			return t.write(w)
		})
	}
	return c
}
