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

// Whatever an admitted node sends, only what somebody signed who could goes through
// consensus, and to everybody's disk.
func TestJunkIsNotReplicated(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	leader := m.leader()
	other := m.nextCommand(leader, "w1", setNode("w1"))
	other.Mesh = "other.example"
	stranger := m.nextCommand(leader, "nobody", setNode("nobody"))
	junk := map[string][]byte{
		"no envelope":         make([]byte, 1<<20),
		"another mesh":        signed(t, other, key("w1")),
		"unknown author":      signed(t, stranger, key("nobody")),
		"unsigned":            signed(t, m.nextCommand(leader, "w1", setNode("w1"))),
		"signed by another":   signed(t, m.nextCommand(leader, "w1", setNode("w1")), key("m1")),
		"no signature of two": signed(t, m.nextCommand(leader, record.Operators, institution("mafia")), key("w1")),
	}
	// The marker of the leader's first grant is in the log by then.
	if _, err := m.at(node("w1")).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	before := m.at(leader).AppliedIndex()
	for what, raw := range junk {
		resp, err := m.at(node("w1")).Submit(m.ctx(patience), raw)
		if err != nil || resp.Accepted || resp.Refusal == "" || resp.Index != 0 {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	// A new leader may have put a marker or two there meanwhile.
	if took := (m.at(leader).AppliedIndex() - before) / registry.PlacesPerEntry; took >= uint64(len(junk)) {
		t.Errorf("junk took %d log entries on every member", took)
	}
	// The door is no judge: a command that only comes at the wrong moment gets a verdict.
	late := m.nextCommand(leader, "w1", setNode("w1"))
	late.Sequence += 5
	resp, err := m.at(node("w1")).Submit(m.ctx(patience), signed(t, late, key("w1")))
	if err != nil || resp.Accepted || resp.Index == 0 || !strings.Contains(resp.Refusal, "sequence") {
		t.Errorf("out of order: %v, %v", resp, err)
	}
}

// An author that was admitted by a leader that fell is known at the door of the next.
func TestDoorKnowsWhoWasJustAdmitted(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, id := range []string{"pcsa", "energy"} {
		leader := m.leader()
		m.admitThrough(leader, id)
		rest := m.others(leader)
		m.handOver(leader, rest[0])
		m.do(registry.NewAuthor(m.at(rest[1]), m.file.Mesh, id, key(id)), setNode(id))
	}
}

// One institution's bytes are bounded at each member, another's are not touched by
// that, and a submitter that waits gets through.
func TestBytesOfOneInstitutionAreBounded(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
		m.tuning[n] = quick
		tight := quick
		tight.SubmitRate, tight.SubmitBurst = 1<<20, record.MaxCommand
		m.tuning[n] = tight
	}
	for _, n := range m.members {
		m.start(n)
	}
	leader := m.leader()
	send := func(from names.NodeID) error {
		_, err := m.at(leader).HandleSubmit(m.ctx(patience), from, &registrypb.SubmitRequest{Envelope: make([]byte, 1<<20)})
		if errors.Is(err, registry.ErrNotLeader) || errors.Is(err, registry.ErrNoLeader) {
			return nil // it was not refused for its size
		}
		return err
	}
	if err := send(node("w1")); err != nil {
		t.Fatal(err)
	}
	if err := send(node("w1")); !errors.Is(err, registry.ErrBusy) {
		t.Errorf("the second megabyte at once: %v", err)
	}
	if err := send(node("w2")); err != nil {
		t.Errorf("another institution: %v", err)
	}
	if err := send(m.others(leader)[0]); err != nil {
		t.Errorf("what a member passes on: %v", err)
	}
	m.do(registry.NewAuthor(m.at(node("w1")), m.file.Mesh, "w1", key("w1")), setNode("w1"))
}
