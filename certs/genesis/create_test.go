package genesis

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
)

func spec(t testing.TB) Spec {
	e := example(t)
	return Spec{
		Mesh: e.Mesh, Members: e.Members, Bundle: []byte(e.Bundle),
		Operators: Quorum{2, 3}, Committee: Quorum{3, 5}, Recovery: Quorum{1, 1},
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(spec(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(dir, FileName), f.Hash()); err != nil {
		t.Error(err)
	}
	if f.Bounds != DefaultBounds() || f.RecoveryDelay != 7*24*time.Hour {
		t.Errorf("defaults: %+v, %s", f.Bounds, f.RecoveryDelay)
	}
	for _, g := range []struct {
		role Role
		Group
		m, n int
	}{{Operator, f.Operators, 2, 3}, {Committee, f.Committee, 3, 5}, {Recovery, f.Recovery, 1, 1}} {
		if g.Threshold != g.m || len(g.Keys) != g.n {
			t.Errorf("%s: %d of %d", g.role, g.Threshold, len(g.Keys))
		}
		signers, err := LoadKeys(dir, g.role)
		if err != nil || len(signers) != g.n {
			t.Fatalf("%s: %d keys, %v", g.role, len(signers), err)
		}
		for i, s := range signers {
			if !g.Keys[i].Equal(s.Public().(ed25519.PublicKey)) {
				t.Errorf("%s: key %d in the file is another", g.role, i+1)
			}
			info, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%s-%d.key", g.role, i+1)))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v", g.role, err)
			}
		}
	}
	if _, err := Create(spec(t), dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over an old one: %v", err)
	}
	if _, err := Load(filepath.Join(dir, FileName), f.Hash()); err != nil {
		t.Error("the old one is gone")
	}
}

// TestCreateLeavesNothing fails at several points and looks at what is left.
func TestCreateLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		before string // a file that is there already
	}{
		"bad mesh":       {change: func(s *Spec) { s.Mesh = "Not A Mesh" }},
		"bad bounds":     {change: func(s *Spec) { s.Bounds.Lease = time.Second }},
		"no members":     {change: func(s *Spec) { s.Members = nil }},
		"no bundle":      {change: func(s *Spec) { s.Bundle = nil }},
		"4 of 3":         {change: func(s *Spec) { s.Recovery = Quorum{4, 3} }},
		"0 of 3":         {change: func(s *Spec) { s.Recovery = Quorum{0, 3} }},
		"too many":       {change: func(s *Spec) { s.Recovery = Quorum{1, 1000} }},
		"a key is there": {change: func(*Spec) {}, before: "committee-2.key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.before != "" {
				if _, err := certs.NewSigner(filepath.Join(dir, c.before)); err != nil {
					t.Fatal(err)
				}
			}
			s := spec(t)
			c.change(&s)
			if f, err := Create(s, dir); err == nil || f != nil {
				t.Fatalf("made: %v", err)
			}
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if f.Name() != c.before {
					t.Errorf("left behind: %s", f.Name())
				}
			}
			if c.before != "" && len(files) != 1 {
				t.Error("the key that was there is gone")
			}
		})
	}
}

func TestLoadKeysWantsOne(t *testing.T) {
	if _, err := LoadKeys(t.TempDir(), Operator); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no keys: %v", err)
	}
}
