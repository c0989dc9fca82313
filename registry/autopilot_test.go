package registry_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// quickPilot lets a member vote after a second of keeping up.
func quickPilot(dead time.Duration) *registrypb.Command {
	return &registrypb.Command{Body: &registrypb.Command_SetAutopilot{SetAutopilot: &registrypb.Autopilot{
		StabilizationMs: 1000, MaxTrailing: 250, DeadAfterMs: uint32(dead.Milliseconds())}}}
}

func membersAre(of ...names.NodeID) *registrypb.Command {
	set := new(registrypb.Members)
	for _, n := range of {
		set.Voters = append(set.Voters, &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)})
	}
	return &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: set}}
}

// enlist admits an institution and has its node run as one that may become a member.
func (m *mesh) enlist(id string) names.NodeID {
	m.t.Helper()
	through := m.leader()
	m.admitThrough(through, id)
	m.do(registry.NewAuthor(m.at(through), m.file.Mesh, id, key(id)), setNode(id))
	n := node(id)
	m.members = append(m.members, n)
	m.start(n)
	return n
}

// settled waits until raft's voters are exactly these, as the leader sees it.
func (m *mesh) settled(want ...names.NodeID) *registry.AutopilotState {
	m.t.Helper()
	var last *registry.AutopilotState
	eventually(m.t, "the voters are those of the record", func() bool {
		for _, n := range want {
			s, err := m.at(n).Autopilot()
			if err != nil {
				continue
			}
			last = s
			return s.Healthy && s.Voters == len(want) && len(s.Peers) == len(want)
		}
		return false
	})
	return last
}

// load declares references without a pause until stop is called; each is acknowledged.
// It asks a watcher, which survives every change of membership.
func (m *mesh) load(through names.NodeID) (stop func() (acknowledged int)) {
	ctx, cancel := context.WithCancel(context.Background())
	author := registry.NewAuthor(m.at(through), m.file.Mesh, string(through.Institution), key(string(through.Institution)))
	var wg sync.WaitGroup
	count := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			resp, err := author.Do(ctx, references("74071238186"))
			switch {
			case ctx.Err() != nil:
			case err != nil || !resp.Accepted:
				m.t.Errorf("under load: %v, %v", resp, err)
			default:
				count++
			}
		}
	})
	m.t.Cleanup(func() { cancel(); wg.Wait() })
	return func() int {
		cancel()
		wg.Wait()
		return count
	}
}

// TestMembershipGrowsAndShrinks takes a mesh of one member to three, five and seven, down
// to three that the genesis file does not know, and replaces a disk, all under load.
func TestMembershipGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it waits for many elections")
	}
	m := newMeshOf(t, record.Level, []string{"m1"}, "w1")
	m.do(m.operators(m.members[0]), quickPilot(0))
	stop := m.load(node("w1"))
	operators := func() *registry.Author { return m.operators(node("w1")) }
	for _, grow := range [][]string{{"m2", "m3"}, {"m4", "m5"}, {"m6", "m7"}} {
		for _, id := range grow {
			m.enlist(id)
		}
		m.do(operators(), membersAre(m.members...))
		s := m.settled(m.members...)
		if want := (len(m.members) - 1) / 2; s.FailureTolerance != want {
			t.Errorf("%d members bear the loss of %d, want %d", len(m.members), s.FailureTolerance, want)
		}
	}
	// Only those stay whom the genesis file does not name; the leader too may have to go.
	left := m.members[4:]
	m.do(operators(), membersAre(left...))
	m.settled(left...)
	for _, n := range m.members[:4] {
		if err := m.stop(n); err != nil {
			t.Error(err)
		}
	}
	m.members = left

	// One of them loses its disk, and comes back under its name with an empty one.
	lost := m.others(m.leader())[0]
	if err := m.stop(lost); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, string(lost.Institution))); err != nil {
		t.Fatal(err)
	}
	// It knows m1 from the genesis file, which is gone: whom it was a member with, it is told.
	m.members = append([]names.NodeID{node("m1")}, left...)
	m.start(node("m1"))
	m.start(lost)
	m.members = left
	if _, err := m.at(lost).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	m.settled(left...)
	acknowledged := stop()
	if acknowledged == 0 {
		t.Error("nothing was acknowledged under load")
	}
	t.Logf("%d commands acknowledged, none lost or refused", acknowledged)
	last := m.admitThrough(m.leader(), "last")
	for _, n := range left {
		m.waitApplied(n, last.Index)
	}
	want := m.history(left[0])
	for _, n := range left[1:] {
		if m.history(n) != want {
			t.Errorf("%s differs", n)
		}
	}
}

// TestDeadMemberLosesItsVote, and gets it back when it is well, by itself.
func TestDeadMemberLosesItsVote(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it waits for many elections")
	}
	m := newMeshOf(t, record.Level, []string{"m1", "m2", "m3", "m4", "m5"})
	m.do(m.operators(m.members[0]), quickPilot(10*time.Second))
	leader := m.leader()
	dead := m.others(leader)[0]
	if err := m.stop(dead); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it loses its vote", func() bool {
		s, err := m.at(m.leader()).Autopilot()
		return err == nil && s.Voters == 4 && slices.ContainsFunc(s.Peers, func(p registry.PeerState) bool {
			return p.ID == dead && p.Recorded && p.Suffrage == "nonvoter" && !p.Healthy
		})
	})
	m.start(dead)
	m.settled(m.members...)
	if _, err := m.at(m.others(m.leader())[0]).Autopilot(); !errors.Is(err, registry.ErrNotLeader) {
		t.Errorf("a follower tells how all do: %v", err)
	}
}

// TestEmptyDiskDoesNotFound: a first member whose disk was lost neither founds the log
// again nor votes before it holds everything, and asks nobody's leave to be back.
func TestEmptyDiskDoesNotFound(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var last *registrypb.SubmitResponse
	for _, id := range []string{"i1", "i2", "i3"} {
		last = m.admit(id)
	}
	lost := m.others(m.leader())[0]
	if err := m.stop(lost); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, string(lost.Institution))); err != nil {
		t.Fatal(err)
	}
	m.start(lost)
	mark := filepath.Join(m.dir, string(lost.Institution), "member", "CATCHING-UP")
	m.waitApplied(lost, last.Index)
	if _, err := m.at(lost).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it votes again", func() bool {
		_, err := os.Stat(mark)
		return errors.Is(err, os.ErrNotExist)
	})
	// It votes: with the third away, the two make a leader again.
	third := slices.DeleteFunc(slices.Clone(m.members), func(n names.NodeID) bool { return n == lost })[0]
	if err := m.stop(third); err != nil {
		t.Fatal(err)
	}
	m.leader(m.others(third)...)
	m.admitThrough(m.leader(m.others(third)...), "after")
}
