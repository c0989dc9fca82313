package registry_test

import (
	"errors"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Members sign the same states, at marks and as they are; a member that is cut off is not
// needed, and one alone is no majority.
func TestMajoritySignsOneState(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	resp := m.do(m.operators(m.members[0]), suspend("w1", true))
	if len(resp.States) < 2 || !resp.RemovesRight {
		t.Fatalf("acknowledged with %d signed states", len(resp.States))
	}
	for _, n := range m.members {
		agreed, err := m.at(n).MajorityState(m.ctx(patience), resp.Index)
		if err != nil || agreed[0].Index != resp.Index {
			t.Errorf("%s: %v", n, err)
		}
	}
	// The suspended is not told.
	if _, err := m.at(m.members[0]).HandleState(t.Context(), node("w1"), &registrypb.StateRequest{}); !errors.Is(err, registry.ErrNotAdmitted) {
		t.Errorf("told to a suspended node: %v", err)
	}
	cut := m.others(m.leader())
	m.f.isolate(cut[0], m.members, true)
	if _, err := m.at(cut[1]).MajorityState(m.ctx(patience), resp.Index); err != nil {
		t.Error(err)
	}
	if _, err := m.at(cut[0]).MajorityState(m.ctx(time.Second), 0); !errors.Is(err, agree.ErrNoMajority) {
		t.Errorf("one alone is a majority: %v", err)
	}
}

// A leader that acknowledges a revocation by itself, which the others never saw, has
// acknowledged nothing: the author's node asks the members.
func TestRevocationAcknowledgedByTheLeaderAloneIsNone(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	leader := m.leader()
	author := m.others(leader)[0]
	m.f.mu.Lock()
	m.f.answer = func(_, to names.NodeID, method string, req, resp any) {
		if s, ok := resp.(*registrypb.SubmitResponse); ok && to == leader && s.Accepted {
			return
		} else if ok && to == leader {
			*s = registrypb.SubmitResponse{Index: 99, Accepted: true, RemovesRight: true}
		}
	}
	m.f.mu.Unlock()
	// It is refused by all, since the institution does not exist; the leader says otherwise.
	_, err := m.operators(author).Do(m.ctx(2*time.Second), suspend("nobody", true))
	for limit := 4 * time.Second; err != nil && !errors.Is(err, agree.ErrNoMajority) && limit < patience; limit *= 2 {
		_, err = m.operators(author).Do(m.ctx(limit), suspend("nobody", true)) // it was not answered in time
	}
	if !errors.Is(err, agree.ErrNoMajority) {
		t.Fatalf("acknowledged: %v", err)
	}
	t.Log(err)
}
