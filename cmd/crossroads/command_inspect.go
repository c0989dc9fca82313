package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
)

func newCommandInspect() *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Print what a command says, and which keys claim to have signed it",
		Long:    "Prints the command as JSON. Signatures are not verified here: the registry does, against the keys it knows.",
		Example: "  crossroads command inspect revoke.cmd",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			_, opened, cmd, err := openCommand(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			b, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(cmd)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s\nsigned by: %s\n", b, joined(opened.KeyIDs()))
			return err
		},
	}
}
