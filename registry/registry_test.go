package registry_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func TestWholeMesh(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	resp := m.admit("pcsa")
	for n := range m.nodes {
		m.waitApplied(n, resp.Index)
		if !m.has(n, "pcsa") {
			t.Errorf("%s does not know the new institution", n)
		}
		s, err := m.at(n).WaitStanding(m.ctx(patience))
		if err != nil {
			t.Errorf("%s: %v", n, err)
		} else if s.Index > m.at(n).AppliedIndex() {
			t.Errorf("%s stands at %d and has applied %d", n, s.Index, m.at(n).AppliedIndex())
		}
	}
}

// What the leader itself proposes is judged by every replica all the same.
func TestForgedCommandsChangeNothing(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	m.admit("pcsa")
	leader := m.leader()
	accepted := signed(t, m.nextCommand(leader, "pcsa", setNode("pcsa")), key("pcsa"))
	if resp, err := m.at(leader).Submit(m.ctx(patience), accepted); err != nil || !resp.Accepted {
		t.Fatal(resp, err)
	}
	other := m.nextCommand(leader, "pcsa", setNode("pcsa"))
	other.GetSetNode().Address = "10.0.0.1:1"
	forgeries := map[string][]byte{
		"unsigned":              signed(t, other),
		"wrong institution":     signed(t, other, key("w1")),
		"the leader's own key":  signed(t, other, key(string(leader.Institution))),
		"for another":           signed(t, m.nextCommand(leader, "w1", setNode("pcsa")), key("w1")),
		"one operator of two":   signed(t, m.nextCommand(leader, record.Operators, institution("mafia")), key("operator1")),
		"operator counted once": signed(t, m.nextCommand(leader, record.Operators, institution("mafia")), key("operator1"), key("operator1")),
		"replayed":              accepted,
		"not an envelope":       []byte("\xff\xfe hello"),
		"empty":                 nil,
	}
	before := m.history(leader)
	for what, raw := range forgeries {
		res, err := m.at(leader).Propose(raw)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if r, ok := res.(record.Result); ok && r.Accepted && !r.Repeated {
			t.Errorf("%s: accepted", what)
		}
	}
	// One good command shows that all replicas are past the forgeries.
	if _, err := m.at(leader).Propose(nil); err != nil {
		t.Fatal(err)
	}
	end := m.at(leader).AppliedIndex()
	for _, n := range m.members {
		m.waitApplied(n, end)
		if m.history(n) != before {
			t.Errorf("%s was changed", n)
		}
	}
	m.waitApplied(node("w1"), end)
	if m.has(node("w1"), "mafia") {
		t.Error("the watcher took a forgery over")
	}
}

func TestDirectoryIsSeenByMembersAndItsAuthorOnly(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	w1, w2 := node("w1"), node("w2")
	resp := m.do(registry.NewAuthor(m.at(w1), m.file.Mesh, "w1", key("w1")), references("74071238186", "88510521792"))
	for n := range m.nodes {
		m.waitApplied(n, resp.Index)
		var refs []record.Reference
		if err := m.at(n).View(func(v record.View) (err error) {
			refs, err = v.References(subject.Raw("ssin", "74071238186"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if want := n != w2; (len(refs) == 1) != want {
			t.Errorf("%s sees %d references", n, len(refs))
		}
	}
	// The author's next number comes from a view that holds its own chain.
	m.do(registry.NewAuthor(m.at(w1), m.file.Mesh, "w1", key("w1")), references("03022814690"))
	if s, err := m.at(m.members[0]).Status(); err != nil || s.State == "watcher" {
		t.Error(s, err)
	}
	if _, err := m.at(w2).HandleSubmit(context.Background(), w1, &registrypb.SubmitRequest{Envelope: []byte("x")}); !errors.Is(err, registry.ErrNotMember) {
		t.Error(err)
	}
}

func TestRestartContinuesFromDisk(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	follower := m.others(m.leader())[0]
	before := m.admit("before")
	m.waitApplied(follower, before.Index)
	m.waitApplied(node("w1"), before.Index)
	for _, n := range []names.NodeID{follower, node("w1")} {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
	}
	while := m.do(m.operators(m.leader()), institution("while"))
	for _, n := range []names.NodeID{follower, node("w1")} {
		r := m.start(n)
		if at := r.AppliedIndex(); at < before.Index {
			t.Errorf("%s starts again at %d, it had %d", n, at, before.Index)
		}
		m.waitApplied(n, while.Index)
		if !m.has(n, "before") || !m.has(n, "while") {
			t.Errorf("%s lacks something", n)
		}
	}
	// All of them at once.
	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range m.members {
		m.start(n)
	}
	after := m.do(m.operators(m.members[2]), institution("after"))
	want := [32]byte{}
	for i, n := range m.members {
		m.waitApplied(n, after.Index)
		if i == 0 {
			want = m.history(n)
		} else if m.history(n) != want {
			t.Errorf("%s differs from %s", n, m.members[0])
		}
	}
}

// A follower that was away for longer than the log reaches gets a snapshot; one
// whose state is older than its snapshot restores that.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	tuning := quick
	tuning.TrailingLogs, tuning.SnapshotEvery = 2, 1<<30
	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
		m.tuning[n] = tuning
	}
	for _, n := range m.members {
		m.start(n)
	}
	leader := m.leader()
	away := m.others(leader)[0]
	if err := m.stop(away); err != nil {
		t.Fatal(err)
	}
	author := m.operators(leader)
	var last *registrypb.SubmitResponse
	for _, id := range []string{"i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8"} {
		last = m.do(author, institution(id))
	}
	for _, n := range m.others(away) {
		m.waitApplied(n, last.Index)
		before, _ := m.at(n).RaftStats()
		at, err := m.at(n).Compact(m.ctx(patience))
		if err != nil {
			t.Fatal(err)
		}
		if after, _ := m.at(n).RaftStats(); at <= before.LastSnapshotIndex || at != after.LastSnapshotIndex {
			t.Errorf("%s says that its snapshot stands at %d; raft, that it stood at %d before and stands at %d", n, at, before.LastSnapshotIndex, after.LastSnapshotIndex)
		}
	}
	m.start(away)
	m.waitApplied(away, last.Index)
	if m.history(away) != m.history(leader) {
		t.Error("a snapshot gave another history")
	}
	// Its state is lost, but not its log and snapshot.
	if err := m.stop(away); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, string(away.Institution), "member", "state")); err != nil {
		t.Fatal(err)
	}
	m.start(away)
	m.waitApplied(away, last.Index)
	if m.history(away) != m.history(leader) {
		t.Error("a restored snapshot gave another history")
	}
	// What lies on disk is sealed.
	if err := m.stop(away); err != nil {
		t.Fatal(err)
	}
	cfg := m.config(away)
	cfg.StorageKey = make([]byte, 32)
	if r, err := registry.Open(cfg); err == nil {
		r.Close()
		t.Error("opened with another storage key")
	}
	cfg.Raft.Close()
}

// A log without its state, or a state without its log, is not started as if
// nothing were: the member would forget its votes.
func TestLostLogIsNoticed(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	resp := m.admit("pcsa")
	n := m.members[1]
	m.waitApplied(n, resp.Index)
	if err := m.stop(n); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, string(n.Institution), "member", "log")); err != nil {
		t.Fatal(err)
	}
	cfg := m.config(n)
	defer cfg.Raft.Close()
	if r, err := registry.Open(cfg); err == nil {
		r.Close()
		t.Error("a member whose log is gone was opened")
	}
}

// The members record, and nothing else, decides who votes.
func TestMembersFollowTheRecord(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.do(m.operators(m.members[0]), quickPilot(0))
	m.admit("m4")
	m4 := node("m4")
	leader := m.leader()
	m.do(registry.NewAuthor(m.at(leader), m.file.Mesh, "m4", key("m4")), setNode("m4"))
	m.members = append(m.members, m4)
	m.start(m4)

	voters := func(of ...names.NodeID) *registrypb.Command {
		set := new(registrypb.Members)
		for _, n := range of {
			set.Voters = append(set.Voters, &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)})
		}
		return &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: set}}
	}
	resp := m.do(m.operators(m.members[0]), voters(m.members...))
	m.waitApplied(m4, resp.Index)
	if _, err := m.at(m4).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	gone := m.others(m.leader(m.members[:3]...))[0]
	var left []names.NodeID
	for _, n := range m.members {
		if n != gone {
			left = append(left, n)
		}
	}
	m.do(m.operators(left[0]), voters(left...))
	eventually(t, "raft follows the record", func() bool {
		return len(m.at(m.leader(left...)).Voters()) == 3
	})
	eventually(t, "who votes no more stands no more", func() bool {
		_, err := m.at(gone).Standing()
		return errors.Is(err, registry.ErrStale)
	})
}

func TestWatcherIsNotAsked(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	w := m.at(node("w1"))
	ctx := context.Background()
	if _, err := w.HandleGrant(ctx, node("w2"), &registrypb.GrantRequest{Nonce: make([]byte, 32)}); !errors.Is(err, registry.ErrNotMember) {
		t.Error(err)
	}
	if err := w.HandleWatch(ctx, node("w2"), new(registrypb.WatchRequest), nil); !errors.Is(err, registry.ErrNotMember) {
		t.Error(err)
	}
	leader := m.at(m.leader())
	if _, err := leader.HandleGrant(ctx, node("stranger"), &registrypb.GrantRequest{Nonce: make([]byte, 32)}); !errors.Is(err, registry.ErrNotAdmitted) {
		t.Error(err)
	}
	if err := leader.HandleWatch(ctx, node("stranger"), new(registrypb.WatchRequest), nil); !errors.Is(err, registry.ErrNotAdmitted) {
		t.Error(err)
	}
	if _, err := leader.Submit(ctx, nil); !errors.Is(err, registry.ErrMalformed) {
		t.Error(err)
	}
}
