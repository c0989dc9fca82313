package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistrySubmit() *cobra.Command {
	c := &cobra.Command{
		Use:   "submit FILE",
		Short: "Hand a signed command to the registry",
		Long: `Submits a command that crossroads command make and sign made; - reads it from standard
input. It takes an application with admin: true. The registry judges the signatures: the
node that hands it on adds no right.

A command that takes a right away returns only when that holds everywhere, so give it
--timeout 60s. Submitting the same command again changes nothing and says what became of
it. Exit code 3 means that the registry refused it.`,
		Example: "  crossroads registry submit revoke.cmd --timeout 60s --api http://127.0.0.1:7480 --token-file admin.token",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		envelope, err := readFile(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := client.Submit(ctx, envelope)
		if err != nil {
			return err
		}
		return printSubmitted(c, *out, done)
	}
	return c
}

func printSubmitted(c *cobra.Command, out format, s api.Submitted) error {
	err := out.print(c.OutOrStdout(), s, func(w io.Writer) error {
		said := "accepted"
		if !s.Accepted {
			said = "refused: " + clean(s.Refusal)
		}
		_, err := fmt.Fprintf(w, "%s, at index %d%s\n", said, s.Index, yes(s.Repeated, " (it had been decided before)"))
		return err
	})
	if err == nil && !s.Accepted {
		return &exit{code: exitRefused}
	}
	return err
}
