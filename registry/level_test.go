package registry_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func raise(level uint32) *registrypb.Command {
	return &registrypb.Command{Body: &registrypb.Command_SetFeatureLevel{SetFeatureLevel: &registrypb.FeatureLevel{Level: level}}}
}

func older(level uint32) registry.Tuning {
	t := quick
	t.FeatureLevel = level
	return t
}

// TestOlderProgramHalts raises a mesh while one member, and one watcher, run an older
// program: both stop and say why, the others go on, and when the newer program is
// installed the halted ones continue where they stood.
func TestOlderProgramHalts(t *testing.T) {
	t.Parallel()
	m := newMeshAt(t, 0)
	old, watcher := node("m3"), node("w1")
	m.admit("w1")
	if err := m.stop(old); err != nil {
		t.Fatal(err)
	}
	leader := m.leader(m.members[0], m.members[1]) // and not the old one
	m.tuning[old], m.tuning[watcher] = older(1), older(1)
	m.start(old)
	m.start(watcher)
	before := m.admitThrough(leader, "before")
	m.waitApplied(old, before.Index)
	m.waitApplied(watcher, before.Index)

	// The leader asks first, and does not stop a member without need.
	resp, err := m.operators(leader).Do(m.ctx(patience), raise(2))
	if err != nil || resp.Accepted || resp.Index != 0 || !strings.Contains(resp.Refusal, "m3/a runs a program that knows feature level 1 only") {
		t.Fatalf("raised over an older member: %v, %v", resp, err)
	}
	// While nobody can tell that it is older, because it does not answer, it is raised.
	m.f.isolate(old, m.members, true)
	m.do(m.operators(leader), raise(2))
	m.f.isolate(old, m.members, false)
	for _, n := range []names.NodeID{old, watcher} {
		err := m.ended(n)
		if !errors.Is(err, record.ErrOldProgram) || !strings.Contains(err.Error(), "install a newer release") {
			t.Fatalf("%s ended with %v", n, err)
		}
	}
	after := m.admitThrough(m.leader(), "after")
	want := m.history(m.leader())

	// A restart of the older program halts again, and tells the same.
	m.start(old)
	if err := m.ended(old); !errors.Is(err, record.ErrOldProgram) {
		t.Fatalf("the older program goes on: %v", err)
	}
	delete(m.tuning, old)
	delete(m.tuning, watcher)
	m.start(old)
	m.start(watcher)
	m.waitApplied(old, after.Index)
	m.waitApplied(watcher, after.Index)
	if got := m.history(old); got != want {
		t.Error("the member that halted differs")
	}
	// Now the older program does not even open what the newer one wrote.
	if err := m.stop(old); err != nil {
		t.Fatal(err)
	}
	m.tuning[old] = older(1)
	if _, err := registry.Open(m.config(old)); !errors.Is(err, record.ErrOldProgram) {
		t.Fatalf("opened by an older program: %v", err)
	}
	delete(m.tuning, old)
	m.start(old)
}
