package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistryEvidence() *cobra.Command {
	c := &cobra.Command{
		Use:   "evidence",
		Short: "What a registry member found against journals, members and clearing peers",
		Long: `Lists the journals that signed two histories, the members that cosigned both, and the
clearing peers that cleared or refused what they must not, as the member asked found
them. What a journal signed stands by itself: with -o json, the text that anybody with
the public keys can judge. Ask several members: each tells what it found.

Lists also the epochs that journals declared because a disk was restored. Those that were
accepted accuse nobody; members accept few of them, and what they refused stands here.

Anyone may read this: no token is needed. Exits with 5 when anything was found against
anybody, or an epoch refused.`,
		Example: "  crossroads registry evidence --endpoints net.json --as neo\n  crossroads registry evidence --api http://127.0.0.1:7480 -o json",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		list, err := client.Evidence(ctx)
		if err != nil {
			return err
		}
		err = out.print(c.OutOrStdout(), list, func(w io.Writer) error {
			if len(list.Items)+len(list.Decisions)+len(list.Declared) == 0 {
				_, err := fmt.Fprintln(w, "nothing was found")
				return err
			}
			t := newTable("FOUND", "AGAINST", "SAYS")
			for _, e := range list.Items {
				t.add(e.Found.Format(time.RFC3339), e.Journal, e.Says)
			}
			for _, d := range list.Decisions {
				t.add(d.Found.Format(time.RFC3339), d.Clearer, fmt.Sprintf("ticket %s, as of index %d: %s", d.Ticket, d.RegistryIndex, d.Says))
			}
			for _, d := range list.Declared {
				t.add(d.Time.Format(time.RFC3339), d.Journal, fmt.Sprintf("epoch %d was declared: %s", d.Epoch, d.Says))
			}
			return t.write(w)
		})
		refused := slices.ContainsFunc(list.Declared, func(d api.DeclaredEpoch) bool { return !d.Accepted })
		if err == nil && (refused || len(list.Items)+len(list.Decisions) > 0) {
			return &exit{exitFindings, nil}
		}
		return err
	}
	return c
}
