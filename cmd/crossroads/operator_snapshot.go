package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newOperatorSnapshot() *cobra.Command {
	return group("snapshot", "Snapshots of the whole registry", newSnapshotSave(), newSnapshotInspect(), newSnapshotRestore())
}

// saveArchive writes what a node streams to a file that must not be there, and leaves
// none when it is not whole.
func saveArchive(c *cobra.Command, r *remote, what, path string) (err error) {
	if !c.Flags().Changed("timeout") {
		r.timeout = 6 * time.Hour
	}
	client, ctx, cancel, err := r.client(c.Context())
	if err != nil {
		return err
	}
	defer cancel()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	size, err := client.Archive(ctx, what, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d bytes\n", path, size)
	return err
}

func newSnapshotSave() *cobra.Command {
	c := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the registry of a member while it runs",
		Long: `Writes the history of the registry, from which every table follows. It holds the person
directory: keep it as you keep that. It is not encrypted; pipe it through age, or write it
to an encrypted disk. crossroads operator snapshot inspect verifies it. Journaled.`,
		Example: "  crossroads operator snapshot save registry.snapshot --api http://127.0.0.1:7480 --token-file operator.token",
		Args:    cobra.ExactArgs(1),
	}
	r := addRemote(c)
	c.RunE = func(c *cobra.Command, args []string) error { return saveArchive(c, r, "snapshot", args[0]) }
	return c
}

// inspected is what snapshot inspect prints.
type inspected struct {
	Index        uint64         `json:"index"`
	FeatureLevel uint32         `json:"feature_level"`
	Members      []names.NodeID `json:"members"`
	Institutions int            `json:"institutions"`
	Commands     uint64         `json:"commands"`
	Subjects     uint64         `json:"subjects"`
	References   uint64         `json:"references"`
	Root         string         `json:"root"`
	Public       string         `json:"public"`
}

func newSnapshotInspect() *cobra.Command {
	var path, pin, dir string
	c := &cobra.Command{
		Use:   "inspect FILE --genesis FILE",
		Short: "Verify a snapshot with no node at hand, and say what is in it",
		Long: `Judges every command in the snapshot again, from the genesis file on: signatures, chains,
rights. Nobody can have slipped a row in; ROOT is the state hash that the members signed
for that index. What a snapshot may lack is the newest commands. Exit code 5: it does not
hold. It needs the directory's size of disk meanwhile, encrypted under a key that is
forgotten.`,
		Example: "  crossroads operator snapshot inspect registry.snapshot --genesis genesis.json --sha256 HASH",
		Args:    cobra.ExactArgs(1),
	}
	out := addFormat(c)
	c.Flags().StringVar(&path, "genesis", "", "the mesh's genesis file")
	c.Flags().StringVar(&pin, "sha256", "", "the genesis file's hash, from somebody you trust")
	c.Flags().StringVar(&dir, "scratch", "", "where to work; left out: the system's temporary folder")
	_ = c.MarkFlagRequired("genesis")
	c.RunE = func(c *cobra.Command, args []string) error {
		file, err := pinnedGenesis(path, pin, c.InOrStdin())
		if err != nil {
			return err
		}
		in, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		info, err := registry.InspectSnapshot(c.Context(), file, nil, dir, in)
		if errors.Is(err, registry.ErrBadSnapshot) {
			return &exit{exitFindings, err}
		}
		if err != nil {
			return err
		}
		return printSnapshot(c, *out, info)
	}
	return c
}

func pinnedGenesis(path, pin string, in io.Reader) (*genesis.File, error) {
	if pin != "" {
		return genesis.Load(path, pin)
	}
	return readGenesis(path, in)
}

func printSnapshot(c *cobra.Command, out format, info *registry.SnapshotInfo) error {
	v := inspected{
		Index: info.Index, FeatureLevel: info.FeatureLevel, Members: info.Members, Institutions: info.Institutions, Commands: info.Commands,
		Subjects: info.Counts.Subjects, References: info.Counts.References, Root: hex.EncodeToString(info.Root[:]), Public: hex.EncodeToString(info.Public[:]),
	}
	return out.print(c.OutOrStdout(), v, func(w io.Writer) error {
		t := newTable("INDEX", "LEVEL", "INSTITUTIONS", "COMMANDS", "SUBJECTS", "REFERENCES", "MEMBERS", "ROOT")
		var members []string
		for _, m := range v.Members {
			members = append(members, m.String())
		}
		t.add(v.Index, v.FeatureLevel, v.Institutions, v.Commands, v.Subjects, v.References, strings.Join(members, ", "), v.Root)
		return t.write(w)
	})
}

func newSnapshotRestore() *cobra.Command {
	var file string
	var yes bool
	c := &cobra.Command{
		Use:   "restore FILE --config FILE --every-disk-is-lost",
		Short: "Found a stopped member's registry from a snapshot, when every disk is lost",
		Long: `For the day when no member has its registry any more. Every member of the members record
that stands in the snapshot restores the very same file into its empty folder; then they
are started. What was decided after the snapshot is lost; nodes that had followed further
say so and begin anew.

While a majority of the members lives this is the wrong verb: start the member with an
empty folder and join: true, and the others bring it up. The file is verified whole, as by
snapshot inspect, before anything is kept.`,
		Example: "  crossroads operator snapshot restore registry.snapshot --config /etc/crossroads/node.yaml --every-disk-is-lost",
		Args:    cobra.ExactArgs(1),
	}
	addConfig(c, &file)
	c.Flags().BoolVar(&yes, "every-disk-is-lost", false, "say that no member has its registry")
	_ = c.MarkFlagRequired("every-disk-is-lost")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if !yes {
			return usage("--every-disk-is-lost is not said")
		}
		cfg, err := config.Load(file)
		if err != nil {
			return err
		}
		info, err := restoreMember(c, cfg, args[0])
		if errors.Is(err, registry.ErrBadSnapshot) {
			return &exit{exitFindings, err}
		}
		if err != nil {
			return err
		}
		return printSnapshot(c, *out, info)
	}
	return c
}

func restoreMember(c *cobra.Command, cfg *config.Config, path string) (*registry.SnapshotInfo, error) {
	if !cfg.Member {
		return nil, usage("this node's configuration does not say member: true")
	}
	file, err := genesis.Load(cfg.Genesis.File, cfg.Genesis.SHA256)
	if err != nil {
		return nil, err
	}
	key, err := certs.LoadStorageKey(cfg.Data.KeyFile)
	if err != nil {
		return nil, err
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return registry.RestoreSnapshot(c.Context(), registry.Config{
		Self: cfg.Node.ID(), Genesis: file, Dir: filepath.Join(cfg.Data.Dir, "registry"), StorageKey: key, Log: slog.New(slog.DiscardHandler),
	}, in)
}
