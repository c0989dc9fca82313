package main

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
)

func newGenesis() *cobra.Command {
	return group("genesis", "The file that a mesh begins with", newGenesisHash(), newGenesisInspect())
}

func newGenesisHash() *cobra.Command {
	return &cobra.Command{
		Use:   "hash FILE",
		Short: "Print the hash that a node's configuration pins",
		Long: `Prints the SHA-256 of the file, for genesis.sha256. Compare it with what the operators of
the mesh published elsewhere: whoever can give you both file and hash can give you
another mesh.`,
		Example: "  crossroads genesis hash genesis.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := readGenesis(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), f.Hash())
			return err
		},
	}
}

func newGenesisInspect() *cobra.Command {
	c := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Say what mesh a genesis file begins, and who decides in it",
		Example: "  crossroads genesis inspect genesis.json",
		Args:    cobra.ExactArgs(1),
	}
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := readGenesis(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		if *out == "json" {
			b, err := f.Bytes()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		}
		return writeGenesis(c.OutOrStdout(), f)
	}
	return c
}

func readGenesis(path string, in io.Reader) (*genesis.File, error) {
	b, err := readFile(path, in)
	if err != nil {
		return nil, err
	}
	// The file is held to its own hash: here it is only looked at.
	if path != "-" {
		return genesis.Load(path, fmt.Sprintf("%x", sha256.Sum256(b)))
	}
	return genesis.Parse(b)
}

func writeGenesis(w io.Writer, f *genesis.File) error {
	t := newTable("MESH", string(f.Mesh))
	t.add("SHA-256", f.Hash())
	for _, g := range []struct {
		name  string
		group genesis.Group
	}{{"OPERATORS", f.Operators}, {"COMMITTEE", f.Committee}, {"RECOVERY", f.Recovery}} {
		t.add(g.name, fmt.Sprintf("%d of %d keys", g.group.Threshold, len(g.group.Keys)))
	}
	t.add("RECOVERY AFTER", f.RecoveryDelay)
	t.add("LEASE", f.Bounds.Lease)
	t.add("CLEARANCE", fmt.Sprintf("presented within %s, released within %s", f.Bounds.PresentLife, f.Bounds.ReleaseLife))
	t.add("CLOCK SKEW", f.Bounds.Skew)
	if err := t.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	m := newTable("FIRST MEMBER", "NAME", "TYPE", "ADDRESS")
	for _, x := range f.Members {
		m.add(x.ID(), x.Name, x.Type, x.Address)
	}
	return m.write(w)
}
