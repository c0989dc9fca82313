package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

func newRegistryHistory() *cobra.Command {
	c := &cobra.Command{
		Use:   "history KIND [ID]",
		Short: "Who changed a record, when, by which signed command",
		Long: `Lists the accepted commands that concerned one public record, oldest first: at most the
newest thousand. KIND is one of ` + strings.Join(record.Kinds, ", ") + `.
An offering's ID is institution:dataset, a subscription's institution:dataset:purpose, a
node's institution/name; members, level and autopilot have none. SIGNED BY names those of the author's keys whose signature holds;
-o json gives each command whole, and its envelope, which proves itself.

With KIND "references" and --subject, it lists what this institution itself has declared
of a subject over time, under any of the subject's numbers; with KIND "mandates", which
mandates of the subject it has registered or taken back. Those look-ups are journaled.`,
		Example: `  crossroads registry history authorization social-inquiry-wages --endpoints net.json --as nsso
  crossroads registry history subscription fpd:person-address/v1:pension-calculation --endpoints net.json --as nsso
  crossroads registry history members --api http://127.0.0.1:7480
  crossroads registry history group @operators --api http://127.0.0.1:7480 -o json
  crossroads registry history references --subject - --endpoints net.json --as pcsa-ghent
  crossroads registry history mandates --subject - --endpoints net.json --as national-register`,
		Args:      cobra.RangeArgs(1, 2),
		ValidArgs: append([]string{"references", "mandates"}, record.Kinds...),
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	r.addReading(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := changes(ctx, client, who, c.InOrStdin(), args)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("INDEX", "TIME", "AUTHOR", "NUMBER", "CHANGE", "SIGNED BY", "COMMAND")
			for _, h := range found.Items {
				change := h.Kind
				if h.Mandate != "" {
					change += " " + string(h.Mandate)
				}
				t.add(h.Index, h.Time.Format(time.RFC3339), h.Author, h.Sequence, change, joined(h.SignedBy), h.SHA256[:16])
			}
			return t.write(w)
		})
	}
	return c
}

func changes(ctx context.Context, client *api.Client, who *subjectFlags, in io.Reader, args []string) (api.List[api.Change], error) {
	var none api.List[api.Change]
	of := client.ReferenceHistory
	switch args[0] {
	case "references":
	case "mandates":
		of = client.MandateHistory
	default:
		id := ""
		if len(args) > 1 {
			id = args[1]
		}
		return client.History(ctx, args[0], id)
	}
	about, err := who.read(in)
	if err != nil {
		return none, err
	}
	if about == nil || len(args) > 1 {
		return none, usage("say the subject with --subject NUMBER, or --subject - to type it")
	}
	return of(ctx, *about)
}
