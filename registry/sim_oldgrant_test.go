package registry_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// backward is a member that lies to who asks it: at every moment it signs that nothing was
// decided since one moment, and tells who follows it of nothing that was.
type backward struct {
	*sim
	liar *simMember
	// claims: it tells of progress where it leaves something out, so that nobody sends that
	// again, and signs an invented history up to there; else it stays where it was.
	claims bool
	past   registrypb.Grant // what it goes on signing
}

// lies has it begin.
func (b *backward) lies() {
	b.t.Helper()
	if err := b.liar.running().View(func(v record.View) (err error) {
		if b.past.CommitIndex, err = v.AppliedIndex(); err != nil {
			return err
		}
		past, err := v.PublicPast()
		b.past.PublicIndex, b.past.PublicHash = past.Index, past.Hash
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	b.net.lie = func(member names.NodeID, e *registrypb.WatchEvent) *registrypb.WatchEvent {
		switch {
		case member != b.liar.id || e.Index <= b.past.CommitIndex:
			return e
		case b.claims:
			return &registrypb.WatchEvent{Index: e.Index}
		}
		return &registrypb.WatchEvent{Index: b.past.CommitIndex}
	}
	b.net.answer = func(from, to names.NodeID, req, resp proto.Message, err error) (proto.Message, error) {
		if to != b.liar.id {
			return resp, err
		}
		if _, ok := req.(*registrypb.RemovalsRequest); ok {
			return &registrypb.RemovalsResponse{}, nil
		}
		q, ok := req.(*registrypb.GrantRequest)
		if !ok {
			return resp, err
		}
		g := proto.Clone(&b.past).(*registrypb.Grant)
		g.Mesh, g.Nonce, g.Holder, g.Leader, g.Term = string(b.file.Mesh), q.Nonce, q.Holder, refTo(b.liar.id), 1
		if b.claims {
			g.CommitIndex = b.liar.running().AppliedIndex()
		}
		if g.Holder == nil {
			g.Holder = refTo(from)
		}
		g.LeaderTimeUnixMs = b.liar.now().UnixMilli()
		payload, err := proto.Marshal(g)
		if err != nil {
			return nil, err
		}
		raw, err := envelope.Sign(envelope.Grant, payload, key(string(b.liar.id.Institution)))
		return &registrypb.GrantResponse{Grant: raw}, err
	}
}

func refTo(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

// stands reports whether a node would act on its view, and whether it knows there that
// pcsa is suspended.
func (b *backward) stands(m *simMember) (stands, knows bool) {
	b.t.Helper()
	r := m.running()
	if r == nil {
		return false, false
	}
	_, err := r.Standing()
	if failed := r.View(func(v record.View) error {
		i, err := v.Institution("pcsa")
		knows = i.GetSuspended()
		return err
	}); failed != nil {
		b.t.Fatal(failed)
	}
	return err == nil, knows
}

// never wants that m does not act, for so long, on a view without the suspension. If it
// ended, it is started again, as whoever runs it would.
func (b *backward) never(m *simMember, within time.Duration, when string) {
	b.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // virtual
		b.supervise(m)
		if stands, knows := b.stands(m); stands && !knows {
			b.t.Errorf("%s: %s acts on what was before the suspension", when, m.id)
			return
		}
	}
}

func (b *backward) supervise(m *simMember) {
	if m.running() == nil {
		b.start(m)
	}
}

// TestOldGrantsBlindNobody: a leader signs old commit indexes to everybody and keeps a
// suspension from who follows it, after that was acknowledged: nobody acts as of before,
// neither the other members nor any watcher, the liar's own followers included. When another
// leads, all stand and know.
func TestOldGrantsBlindNobody(t *testing.T) {
	for name, claims := range map[string]bool{"stands still": false, "claims progress": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { blindNobody(t, claims) })
		})
	}
}

func blindNobody(t *testing.T, claims bool) {
	b := &backward{claims: claims, sim: newSim(t, 1, 3, func(s *sim) { s.file.Bounds = revocationBounds })}
	defer b.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	b.admit("pcsa")
	b.liar = b.members[2] // whom two of the watchers ask first, by their names
	others := b.members[:2]
	if leader := b.leader(b.members...); leader != b.liar {
		if err := leader.running().HandOver(b.liar.id); err != nil {
			t.Fatal(err)
		}
		b.leader(b.liar)
	}
	follows := map[names.NodeID]names.NodeID{}
	b.net.mu.Lock()
	b.net.watched = func(from, to names.NodeID) { follows[from] = to }
	b.net.mu.Unlock()
	var watchers []*simMember
	for _, id := range []string{"w1", "w2", "w3", "w4"} {
		admitted := b.admit(id)
		for _, m := range b.members { // or the watcher would be turned away there
			b.waitApplied(m, admitted.Index)
		}
		w := simWatcher(id, 1)
		b.start(w)
		defer b.kill(w)
		watchers = append(watchers, w)
		if _, err := w.running().WaitStanding(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var blinded, honest []*simMember
	b.net.mu.Lock()
	for _, w := range watchers {
		if follows[w.id] == b.liar.id {
			blinded = append(blinded, w)
		} else {
			honest = append(honest, w)
		}
	}
	b.net.mu.Unlock()
	if len(blinded) == 0 || len(honest) == 0 {
		t.Fatalf("%d watchers follow the liar, and %d another: this shows nothing", len(blinded), len(honest))
	}
	for _, m := range slices.Concat(watchers, b.members) {
		if err := m.running().CatchUp(ctx); err != nil {
			t.Fatal(m.id, err)
		}
	}
	b.lies()

	resp := b.set(others[0], record.Operators, "operator1", suspend("pcsa", true))
	if len(resp.States) < 2 {
		t.Errorf("acknowledged by %d", len(resp.States))
	}
	for _, m := range slices.Concat(others, watchers) {
		b.never(m, 10*time.Second, "the liar leads")
	}
	for _, m := range others {
		if stands, _ := b.stands(m); stands {
			t.Errorf("%s knows better than the grants of the liar, and stands by them", m.id)
		}
	}
	if err := b.liar.running().HandOver(others[1].id); err != nil {
		t.Fatal(err)
	}
	b.leader(others...)
	for _, m := range slices.Concat(others, watchers) {
		b.supervise(m)
		if _, err := m.running().WaitStanding(ctx); err != nil {
			t.Fatal(m.id, err)
		}
		b.never(m, 10*time.Second, "another leads")
		if stands, knows := b.stands(m); !stands || !knows {
			t.Errorf("another leads, and %s stands: %v, knows: %v", m.id, stands, knows)
		}
	}
}
