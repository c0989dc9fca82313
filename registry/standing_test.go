package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// ask asks at for a grant, as holder would.
func (m *mesh) ask(at, holder names.NodeID, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_, err := m.at(at).HandleGrant(ctx, holder, &registrypb.GrantRequest{Nonce: make([]byte, lease.NonceSize)})
	return err
}

// A leader that is cut off gives no grant from the moment another may lead, however
// often it is asked.
func TestDeposedLeaderGivesNoGrant(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	leader := m.leader()
	if err := m.ask(leader, node("w1"), patience); err != nil {
		t.Fatal(err)
	}
	m.f.isolate(leader, m.members, true)
	for range 20 {
		if err := m.ask(leader, node("w1"), 50*time.Millisecond); err == nil {
			t.Fatal("granted without a majority")
		}
	}
	next := m.leader(m.others(leader)...)
	eventually(t, "the new leader grants", func() bool { return m.ask(next, node("w1"), time.Second) == nil })
}

// Once a revocation is acknowledged, nobody stands who does not know of it: not
// even a node that was cut off a moment before.
func TestAcknowledgedRevocationHoldsEverywhere(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	m.admit("pcsa")
	for n := range m.nodes {
		if _, err := m.at(n).WaitStanding(m.ctx(patience)); err != nil {
			t.Fatal(n, err)
		}
	}
	leader := m.leader()
	author := m.operators(leader)
	off := []names.NodeID{node("w1"), m.others(leader)[0]}
	for _, n := range off {
		m.f.isolate(n, append([]names.NodeID{node("w1"), node("w2")}, m.members...), true)
	}
	begin := time.Now()
	resp := m.do(author, suspend("pcsa", true))
	took := time.Since(begin)
	if took < m.at(leader).Bound() {
		t.Errorf("acknowledged after %s, the bound is %s", took, m.at(leader).Bound())
	}
	t.Logf("acknowledged after %s, the bound is %s", took.Round(time.Millisecond), m.at(leader).Bound())
	for n := range m.nodes {
		s, err := m.at(n).Standing()
		if err == nil && s.Index < resp.Index {
			t.Errorf("%s stands at index %d, the revocation is at %d", n, s.Index, resp.Index)
		}
	}
	for _, n := range off {
		if _, err := m.at(n).Standing(); !errors.Is(err, registry.ErrStale) {
			t.Errorf("%s is cut off and not stale: %v", n, err)
		}
	}
}

// When the leader goes while a revocation waits, its author is not answered by it;
// the retry finds the command decided, and waits at the new leader.
func TestRevocationSurvivesItsLeader(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	admitted := m.admit("pcsa")
	leader := m.leader()
	rest := m.others(leader)
	m.waitApplied(rest[1], admitted.Index)
	changes, end := m.at(rest[1]).Changes()
	defer end()
	suspended := func() bool {
		var yes bool
		_ = m.at(rest[1]).View(func(v record.View) error {
			i, err := v.Institution("pcsa")
			yes = err == nil && i.Suspended
			return err
		})
		return yes
	}
	author := m.operators(rest[0])
	answered := make(chan *registrypb.SubmitResponse, 1)
	ctx := m.ctx(patience)
	begin := time.Now()
	go func() {
		resp, err := author.Do(ctx, suspend("pcsa", true))
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	for !suspended() {
		select {
		case <-changes:
		case <-ctx.Done():
			t.Fatal("the suspension was not applied")
		}
	}
	m.f.isolate(leader, m.members, true)
	resp := <-answered
	if t.Failed() {
		return
	}
	if took := time.Since(begin); took < m.at(leader).Bound() {
		t.Errorf("acknowledged after %s, the bound is %s", took, m.at(leader).Bound())
	}
	if !resp.GetAccepted() || !resp.GetRepeated() {
		t.Errorf("want the new leader to recognise the command: %v", resp)
	}
}

func TestWhoIsCutOffIsStale(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	everybody := append([]names.NodeID{node("w1")}, m.members...)
	follower := m.others(m.leader())[0]
	for _, n := range []names.NodeID{node("w1"), follower} {
		if _, err := m.at(n).WaitStanding(m.ctx(patience)); err != nil {
			t.Fatal(err)
		}
		m.f.isolate(n, everybody, true)
		cut := time.Now()
		eventually(t, n.String()+" is stale", func() bool {
			asked := time.Since(cut)
			_, err := m.at(n).Standing()
			if err == nil && asked > bounds.Lease {
				t.Errorf("%s stands %s after it was cut off, the lease is %s", n, asked, bounds.Lease)
			}
			return errors.Is(err, registry.ErrStale)
		})
		m.f.isolate(n, everybody, false)
		if _, err := m.at(n).WaitStanding(m.ctx(patience)); err != nil {
			t.Errorf("%s does not recover: %v", n, err)
		}
	}
}

// A frozen member does not stand when it wakes, until it has asked again: what
// reaches it late does not count.
func TestFrozenMember(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	leader := m.leader()
	frozen := m.others(leader)[0]
	if _, err := m.at(frozen).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	_, thaw := m.f.hold(frozen)
	defer thaw()
	resp := m.admitThrough(leader, "pcsa")
	eventually(t, "stale", func() bool {
		_, err := m.at(frozen).Standing()
		return errors.Is(err, registry.ErrStale)
	})
	thaw()
	s, err := m.at(frozen).WaitStanding(m.ctx(patience))
	if err != nil {
		t.Fatal(err)
	}
	if s.Index < resp.Index || !m.has(frozen, "pcsa") {
		t.Errorf("it stands at %d and missed what is at %d", s.Index, resp.Index)
	}
}

func TestWrongClockStandsNowhere(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.admit("w1")
	m.now[node("w1")] = func() time.Time { return time.Now().Add(-bounds.Skew - 300*time.Millisecond) }
	m.start(node("w1"))
	_, err := m.at(node("w1")).WaitStanding(m.ctx(time.Second))
	if !errors.Is(err, registry.ErrStale) {
		t.Error(err)
	}
}
