package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistryGroups() *cobra.Command {
	c := &cobra.Command{
		Use:   "groups",
		Short: "Whose keys sign for the mesh, and what replacement of them waits",
		Long: `Lists the threshold groups: operators, committee and recovery, each with its keys, how
many of them must sign, and the keys that once did. A replacement that the recovery keys
announced is shown with its ID, and how many of the members' institutions say that the
delay is over; the group itself can cancel it: see docs/operations.md.

Anyone may read this: no token is needed.`,
		Example: "  crossroads registry groups --endpoints net.json --as nsso",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	r.addReading(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.Groups(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error { return writeGroups(w, found.Items) })
	}
	return c
}

func writeGroups(w io.Writer, groups []api.KeyGroup) error {
	t := newTable("GROUP", "MUST SIGN", "KEY", "STATE", "PUBLIC KEY")
	for _, g := range groups {
		for _, k := range g.Keys {
			t.add(g.Name, fmt.Sprintf("%d of %d", g.Threshold, len(g.Keys)), k.ID, "signs", k.PublicKey)
		}
		for _, k := range g.Former {
			t.add(g.Name, "", k.ID, "former", k.PublicKey)
		}
		if p := g.Recovery; p != nil {
			for _, k := range p.Keys {
				t.add(g.Name, fmt.Sprintf("%d of %d", p.Threshold, len(p.Keys)), k.ID, "announced", k.PublicKey)
			}
		}
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, g := range groups {
		if p := g.Recovery; p != nil {
			if _, err := fmt.Fprintf(w, "\n%s announced new keys for %s at index %d (%s). They stand when %d members' institutions say that %s have passed; %d do.\nIf the keys of %s are not lost, cancel it: crossroads command make with {\"cancel_recovery\": {\"announcement\": ...}}, ID %s\n",
				p.Announcer, g.Name, p.Index, p.Announced.Format("2006-01-02 15:04:05 MST"), p.Needed, p.Delay, p.Confirmed, g.Name, p.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
