package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newRegistryReferences() *cobra.Command {
	c := &cobra.Command{
		Use:   "references",
		Short: "What this institution has declared of a subject",
		Long: `Lists the references that the node's own institution has declared of a subject: what
others have declared is told to nobody. That you looked is journaled.`,
		Example: `  crossroads registry references --subject 74071238186 --endpoints net.json --as pcsa-ghent
  crossroads registry references declare --subject - --quality living-wage --from 2026-01-01 --until 2026-12-31 \
      --endpoints net.json --as pcsa-ghent`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	_ = c.MarkFlagRequired("subject")
	c.RunE = func(c *cobra.Command, _ []string) error {
		subject, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if subject == nil {
			return usage("--subject is empty")
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.FindReferences(ctx, *subject)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("QUALITY", "FROM", "UNTIL")
			for _, f := range found.References {
				t.add(f.Quality, f.Period.From, f.Period.Until)
			}
			return t.write(w)
		})
	}
	c.AddCommand(
		changeReference("declare", "Declare that this institution has a file on a subject", (*api.Client).DeclareReferences),
		changeReference("withdraw", "Take exactly one declared reference away", (*api.Client).WithdrawReferences),
	)
	return c
}

// changeReference is the verb that declares or withdraws one reference.
func changeReference(use, short string, change func(*api.Client, context.Context, []api.Reference) (api.Submitted, error)) *cobra.Command {
	var quality string
	var days period
	c := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    short + ". It takes an application with admin: true, and is journaled.",
		Example: "  crossroads registry references " + use + " --subject - --quality living-wage --from 2026-01-01 --until 2026-12-31 --endpoints net.json --as pcsa-ghent",
		Args:    cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	c.Flags().StringVar(&quality, "quality", "", "the capacity in which the file exists")
	days.add(c)
	for _, name := range []string{"subject", "quality", "from", "until"} {
		_ = c.MarkFlagRequired(name)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		subject, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if subject == nil {
			return usage("--subject is empty")
		}
		span, err := days.read(time.Now())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := change(client, ctx, []api.Reference{{Subject: *subject, Quality: names.Quality(quality), Period: span}})
		if err != nil {
			return err
		}
		return printSubmitted(c, *out, done)
	}
	return c
}
