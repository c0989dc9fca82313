package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// reads looks an institution up at a level of consistency.
func (m *mesh) reads(ctx context.Context, n names.NodeID, want registry.Reading, id string) (found bool, age time.Duration, err error) {
	err = m.at(n).Read(ctx, want, func(v record.View, a time.Duration) error {
		age = a
		i, err := v.Institution(names.InstitutionID(id))
		found = i != nil
		return err
	})
	return found, age, err
}

// TestReadsAtThreeLevels asks a watcher whose stream is held up: what is acknowledged
// elsewhere is not in a stale reading, may be missing from a leased one while the lease
// lasts, and is in every linearizable one.
func TestReadsAtThreeLevels(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	w := node("w1")
	if _, err := m.at(w).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	linear := registry.Reading{Consistency: registry.Linearizable}
	// Read your own, and everybody's, writes: each through another node than wrote.
	for i, id := range []string{"i1", "i2", "i3", "i4"} {
		m.admitThrough(m.members[i%3], id)
		for _, n := range []names.NodeID{w, m.members[(i+1)%3], m.members[(i+2)%3]} {
			asked := time.Now()
			found, age, err := m.reads(m.ctx(patience), n, linear, id)
			if err != nil || !found {
				t.Fatalf("%s does not read %s, which was acknowledged: %v", n, id, err)
			}
			if took := time.Since(asked); age < 0 || age > took {
				t.Errorf("a fresh view is said to be %s old, and was asked for %s ago", age, took)
			}
		}
	}

	// Cut off, it still tells what it holds, within a bound if one is set, and nothing else.
	m.f.isolate(w, m.members, true)
	m.admitThrough(m.members[0], "later")
	if found, _, err := m.reads(context.Background(), w, registry.Reading{}, "i4"); err != nil || !found {
		t.Errorf("a stale reading: %t, %v", found, err)
	}
	eventually(t, "the lease ends", func() bool {
		_, _, err := m.reads(context.Background(), w, registry.Reading{Consistency: registry.Leased}, "i4")
		return errors.Is(err, registry.ErrStale)
	})
	if _, _, err := m.reads(context.Background(), w, registry.Reading{MaxStale: bounds.Lease}, "i4"); !errors.Is(err, registry.ErrStale) {
		t.Errorf("older than the bound, and read: %v", err)
	}
	if found, age, err := m.reads(context.Background(), w, registry.Reading{MaxStale: time.Hour}, "later"); err != nil || found || age < bounds.Lease {
		t.Errorf("within an hour: %t, age %s, %v", found, age, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, _, err := m.reads(ctx, w, linear, "later"); !errors.Is(err, registry.ErrStale) {
		t.Errorf("linearizable without a leader: %v", err)
	}
	m.f.isolate(w, m.members, false)
	if found, _, err := m.reads(m.ctx(patience), w, linear, "later"); err != nil || !found {
		t.Errorf("after it came back: %t, %v", found, err)
	}
	if _, err := registry.ParseConsistency("strong"); !errors.Is(err, registry.ErrMalformed) {
		t.Error("a word that means nothing is taken")
	}
}
