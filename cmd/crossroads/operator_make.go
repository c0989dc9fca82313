package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// draft says what a verb that makes a command needs, beside the node that numbers it.
type draft struct{ mesh, out string }

func addDraft(c *cobra.Command) *draft {
	d := new(draft)
	c.Flags().StringVar(&d.mesh, "mesh", "", "the mesh")
	c.Flags().StringVar(&d.out, "out", "", "file to write the unsigned command to; it must not be there yet")
	return d
}

// write numbers a command after the last one that the node knows of, and writes it.
func (d *draft) write(c *cobra.Command, r *remote, author string, cmd *registrypb.Command) error {
	if d.mesh == "" || d.out == "" {
		return usage("say --mesh MESH and --out FILE")
	}
	cmd.Mesh, cmd.Author, cmd.TimeUnixMs = d.mesh, author, time.Now().UnixMilli()
	if err := followNode(c, cmd, r); err != nil {
		return err
	}
	payload, err := proto.Marshal(cmd)
	if err != nil {
		return err
	}
	raw, err := envelope.Sign(envelope.Command, payload)
	if err != nil {
		return err
	}
	if err := writeNew(d.out, raw); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s is a command of %s that nobody has signed: crossroads command inspect, then sign, then registry submit\n", d.out, author)
	return err
}

func newRaftRemove() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove-peer INSTITUTION/NODE --mesh MESH --out FILE",
		Short: "Make the command that takes a member out of the members record",
		Long: `Nobody leaves the consensus group but by the members record, which M of N operators sign.
This makes that command: the record as it stands, without the one named.`,
		Example: `  crossroads operator raft remove-peer fps-finance/n1 --mesh demo.example --out remove.cmd --api ... --token-file ...
  crossroads command sign remove.cmd --key operator-1.key
  crossroads command sign remove.cmd --key operator-2.key
  crossroads registry submit remove.cmd --timeout 60s --api ... --token-file ...`,
		Args: cobra.ExactArgs(1),
	}
	r, d := addRemote(c), addDraft(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		gone, err := names.ParseNodeID(args[0])
		if err != nil {
			return usage("%w", err)
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		all, err := client.Institutions(ctx)
		if err != nil {
			return err
		}
		set, found := new(registrypb.Members), false
		for _, i := range all.Items {
			for _, n := range i.Nodes {
				switch {
				case !n.Voter:
				case i.ID == gone.Institution && n.Name == gone.Node:
					found = true
				default:
					set.Voters = append(set.Voters, &registrypb.NodeRef{Institution: string(i.ID), Node: string(n.Name)})
				}
			}
		}
		if !found {
			return fmt.Errorf("the members record does not name %s", gone)
		}
		return d.write(c, r, record.Operators, &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: set}})
	}
	return c
}

func newAutopilotConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "The settings of the autopilot, or a command that changes them",
		Long: `Prints the settings that hold; asks the node that leads. With --out it makes the command
that changes those which are given as flags, for M of N operators to sign.`,
		Example: `  crossroads operator autopilot config --endpoints net.json --as nsso
  crossroads operator autopilot config --dead-after 1h --mesh demo.example --out autopilot.cmd --api ... --token-file ...`,
		Args: cobra.NoArgs,
	}
	r, d, out := addRemote(c), addDraft(c), addFormat(c)
	stable := c.Flags().Duration("stabilization", 0, "how long a new member must keep up before it votes")
	trailing := c.Flags().Uint64("max-trailing", 0, "how many entries a member may lag and count as caught up")
	dead := c.Flags().Duration("dead-after", 0, "how long a member must be silent before its vote is taken; 0: never")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		a, err := client.AutopilotState(ctx)
		if err != nil {
			return err
		}
		s := a.Settings
		if d.out == "" {
			return out.print(c.OutOrStdout(), s, func(w io.Writer) error {
				t := newTable("STABILIZATION", "MAX TRAILING", "DEAD AFTER")
				t.add(span(s.StabilizationMs), s.MaxTrailing, span(s.DeadAfterMs))
				return t.write(w)
			})
		}
		if c.Flags().Changed("stabilization") {
			s.StabilizationMs = stable.Milliseconds()
		}
		if c.Flags().Changed("max-trailing") {
			s.MaxTrailing = *trailing
		}
		if c.Flags().Changed("dead-after") {
			s.DeadAfterMs = dead.Milliseconds()
		}
		return d.write(c, r, record.Operators, &registrypb.Command{Body: &registrypb.Command_SetAutopilot{SetAutopilot: &registrypb.Autopilot{
			StabilizationMs: uint32(s.StabilizationMs), MaxTrailing: s.MaxTrailing, DeadAfterMs: uint32(s.DeadAfterMs)}}})
	}
	return c
}

func newOperatorKeys() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "Whose keys sign for the mesh",
		Long:    "The same as crossroads registry groups.\n\nAnyone may read this: no token is needed.",
		Example: "  crossroads operator keys list --endpoints net.json --as nsso", Args: cobra.NoArgs,
	}
	r, out := addRemote(list), addFormat(list)
	list.RunE = func(c *cobra.Command, _ []string) error {
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
	return group("keys", "The keys that sign for the mesh, and commands that change them", list, newKeysRotate())
}

func newKeysRotate() *cobra.Command {
	var name, recover string
	var add, remove []string
	var threshold int
	c := &cobra.Command{
		Use:   "rotate --group GROUP --mesh MESH --out FILE",
		Short: "Make the command that changes a group's keys",
		Long: `Makes a command that adds and removes keys of @operators, @committee or @recovery. The
group's present threshold signs it, and so does its new one, so that no key gets in that
nobody holds. --add names files of public keys, as crossroads certs keygen signing --public writes them; a key
that left never comes back.

When the threshold itself is lost, --recover REASON makes the announcement instead: the
recovery keys sign it (for @recovery: the operators), and the new threshold. It is public,
and takes effect after the delay of the genesis file unless the group cancels it.`,
		Example: `  crossroads operator keys rotate --group @operators --add new.pub --remove ed25519-abc... --mesh demo.example --out rotate.cmd --api ... --token-file ...
  crossroads operator keys rotate --group @operators --add a.pub --add b.pub --add c.pub --remove all --threshold 2 \
      --recover "two of three keys burned" --mesh demo.example --out recover.cmd --api ... --token-file ...`,
		Args: cobra.NoArgs,
	}
	r, d := addRemote(c), addDraft(c)
	f := c.Flags()
	f.StringVar(&name, "group", "", "@operators, @committee or @recovery")
	f.StringArrayVar(&add, "add", nil, "file of a public key that is to sign; may be repeated")
	f.StringArrayVar(&remove, "remove", nil, "ID of a key that is to sign no more, or all; may be repeated")
	f.IntVar(&threshold, "threshold", 0, "how many must sign; left out: as many as now")
	f.StringVar(&recover, "recover", "", "the threshold is lost, and this is why")
	_ = c.MarkFlagRequired("group")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		all, err := client.Groups(ctx)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(all.Items, func(g api.KeyGroup) bool { return g.Name == name })
		if at < 0 {
			return usage("--group: want one of %s", strings.Join(record.GroupNames(), ", "))
		}
		next, err := rotated(all.Items[at], add, remove, threshold)
		if err != nil {
			return err
		}
		if recover == "" {
			return d.write(c, r, name, &registrypb.Command{Body: &registrypb.Command_SetGroup{SetGroup: next}})
		}
		author := record.Recovery
		if name == record.Recovery {
			author = record.Operators
		}
		return d.write(c, r, author, &registrypb.Command{Body: &registrypb.Command_AnnounceRecovery{
			AnnounceRecovery: &registrypb.RecoveryAnnouncement{Group: next, Reason: recover}}})
	}
	return c
}

// rotated gives the group as it is to be.
func rotated(g api.KeyGroup, add, remove []string, threshold int) (*registrypb.Group, error) {
	next := &registrypb.Group{Name: g.Name, Threshold: uint32(g.Threshold)}
	if threshold > 0 {
		next.Threshold = uint32(threshold)
	}
	for _, id := range remove {
		if id != "all" && !slices.ContainsFunc(g.Keys, func(k api.PublicKey) bool { return string(k.ID) == id }) {
			return nil, usage("--remove: %s is no key of %s", id, g.Name)
		}
	}
	for _, k := range g.Keys {
		if slices.Contains(remove, string(k.ID)) || slices.Contains(remove, "all") {
			continue
		}
		pub, err := certs.ParsePublicKey([]byte(k.PublicKey))
		if err != nil {
			return nil, err
		}
		next.PublicKeys = append(next.PublicKeys, pub)
	}
	for _, path := range add {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		pub, err := certs.ParsePublicKey(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		next.PublicKeys = append(next.PublicKeys, pub)
	}
	if int(next.Threshold) > len(next.PublicKeys) {
		return nil, usage("%d of %d keys cannot sign", next.Threshold, len(next.PublicKeys))
	}
	return next, nil
}
