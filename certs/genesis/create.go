package genesis

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// FileName is the name under which Create writes the genesis file.
const FileName = "genesis.json"

// Role names a threshold group; it begins the names of its key files.
type Role string

// The threshold groups.
const (
	Operator  Role = "operator"
	Committee Role = "committee"
	Recovery  Role = "recovery"
)

// Quorum says that M of N keys must sign together.
type Quorum struct{ M, N int }

// Spec is what a genesis file is made of. Zero fields of Bounds, quorums and
// RecoveryDelay take their defaults.
type Spec struct {
	Mesh          names.MeshID
	Bounds        Bounds // default DefaultBounds
	Operators     Quorum // default 2 of 3, as the others
	Committee     Quorum
	Recovery      Quorum
	RecoveryDelay time.Duration // default 7 days
	FeatureLevel  uint32        // of the registry's rules; 0: the first
	Members       []Member      // whose keys the members made themselves
	Bundle        []byte        // PEM
}

// Create makes the keys of operators, committee and recovery, each in a file of
// its own in dir (operator-1.key ...), and then the genesis file, genesis.json.
// Hand each key to whom it is for and take it away from here. Nothing is
// overwritten: the error wraps fs.ErrExist if any of the files exists. On an error
// nothing new is left.
func Create(spec Spec, dir string) (f *File, err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	if _, err := os.Lstat(filepath.Join(dir, FileName)); err == nil {
		return nil, fmt.Errorf("genesis: %s: %w", filepath.Join(dir, FileName), fs.ErrExist)
	}
	f = &File{
		Mesh: spec.Mesh, Bounds: spec.Bounds, RecoveryDelay: spec.RecoveryDelay, FeatureLevel: spec.FeatureLevel,
		Members: spec.Members, Bundle: string(spec.Bundle),
	}
	if f.Bounds == (Bounds{}) {
		f.Bounds = DefaultBounds()
	}
	if f.RecoveryDelay == 0 {
		f.RecoveryDelay = 7 * 24 * time.Hour
	}
	for _, g := range []struct {
		role   Role
		quorum Quorum
		group  *Group
	}{{Operator, spec.Operators, &f.Operators}, {Committee, spec.Committee, &f.Committee}, {Recovery, spec.Recovery, &f.Recovery}} {
		if g.quorum == (Quorum{}) {
			g.quorum = Quorum{2, 3}
		}
		if g.quorum.M < 1 || g.quorum.M > g.quorum.N || g.quorum.N > maxKeys {
			return nil, fmt.Errorf("genesis: %s: %d of %d keys; want M of N with 1 <= M <= N <= %d", g.role, g.quorum.M, g.quorum.N, maxKeys)
		}
		g.group.Threshold = g.quorum.M
		for i := range g.quorum.N {
			path := KeyPath(dir, g.role, i+1)
			s, err := certs.NewSigner(path)
			if err != nil {
				return nil, fmt.Errorf("genesis: %w", err)
			}
			made = append(made, path)
			g.group.Keys = append(g.group.Keys, s.Public().(ed25519.PublicKey))
		}
	}
	b, err := f.Bytes()
	if err != nil {
		return nil, err
	}
	if f, err = Parse(b); err != nil { // what is written must be readable
		return nil, err
	}
	if err := keyfile.Create(filepath.Join(dir, FileName), b, keyfile.Public); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return f, nil
}

// KeyPath gives the file of the nth key (from 1) of a group, as Create names it.
func KeyPath(dir string, role Role, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%d.key", role, n))
}

// LoadKeys loads the keys of a group that are in dir, in order from the first one
// on: what a test network signs with, where one person plays all the others.
func LoadKeys(dir string, role Role) ([]crypto.Signer, error) {
	var signers []crypto.Signer
	for n := 1; ; n++ {
		s, err := certs.LoadSigner(KeyPath(dir, role, n))
		if errors.Is(err, fs.ErrNotExist) && n > 1 {
			return signers, nil
		}
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
}
