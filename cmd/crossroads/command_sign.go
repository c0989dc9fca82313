package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
)

func newCommandSign() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:     "sign FILE --key KEY",
		Short:   "Add a signature to a command",
		Long:    "Adds one signature; whoever has signed before stays. Look at what you sign first: command inspect.",
		Example: "  crossroads command sign revoke.cmd --key committee-1.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			raw, _, _, err := openCommand(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			signer, err := certs.LoadSigner(key)
			if err != nil {
				return err
			}
			signed, err := envelope.AddSignature(raw, signer)
			if err != nil {
				return err
			}
			// Replaced whole: the others' signatures must survive a full disk.
			next := args[0] + ".new"
			if err := writeNew(next, signed); err != nil {
				return err
			}
			if err := os.Rename(next, args[0]); err != nil {
				return err
			}
			opened, err := envelope.Open(envelope.Command, signed)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "signed by %s\n", joined(opened.KeyIDs()))
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "file of the signing key")
	_ = c.MarkFlagRequired("key")
	return c
}
