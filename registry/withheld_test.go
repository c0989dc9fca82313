package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestInventedRemovalStopsNobody: a member shows removals that nobody signed who may, and
// junk. All others go on standing, without a gap.
func TestInventedRemovalStopsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, watcher, next := shown(t)
		defer s.stop()
		defer s.kill(watcher)
		liar := s.members[2]
		early := next(suspend("pcsa", true))
		early.Sequence++ // what comes before it was never signed
		s.shows(liar, signed(t, next(suspend("pcsa", true)), key(string(liar.id.Institution)), key("pcsa")),
			signed(t, early, key("operator1"), key("operator2")), signed(t, next(suspend("nobody", true)), key("operator1"), key("operator2")),
			[]byte("no command"), nil)
		for range 1000 { // virtual
			time.Sleep(revocationBounds.Lease / 50)
			for _, m := range append([]*simMember{watcher}, s.members[:2]...) {
				if _, err := m.running().Standing(); err != nil {
					t.Fatalf("%s: %v", m.id, err)
				}
			}
		}
	})
}

// TestShownRemovalIsDecided: a member keeps to itself a removal that its authors signed, and
// shows it. Nobody stands without it for longer than it takes to be decided, which whoever
// is shown it sees to.
func TestShownRemovalIsDecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, watcher, next := shown(t)
		defer s.stop()
		defer s.kill(watcher)
		s.shows(s.members[2], signed(t, next(suspend("pcsa", true)), key("operator1"), key("operator2")))
		for began := time.Now(); ; time.Sleep(50 * time.Millisecond) { // virtual
			knows := 0
			for _, m := range append([]*simMember{watcher}, s.members...) {
				_, err := m.running().Standing()
				if err := m.running().View(func(v record.View) error {
					i, viewed := v.Institution("pcsa")
					if i.GetSuspended() && err == nil {
						knows++
					}
					return viewed
				}); err != nil {
					t.Fatal(err)
				}
			}
			if knows == len(s.members)+1 {
				return
			}
			if time.Since(began) > 10*revocationBounds.Lease {
				t.Fatalf("%d of %d stand and know", knows, len(s.members)+1)
			}
		}
	})
}

// shown makes a mesh with a watcher that stands, and what makes the next operators' command.
func shown(t *testing.T) (s *sim, watcher *simMember, next func(*registrypb.Command) *registrypb.Command) {
	s = newSim(t, 1, 3, func(s *sim) { s.file.Bounds = revocationBounds })
	s.admit("pcsa")
	s.admit("w1")
	watcher = simWatcher("w1", 1)
	s.start(watcher)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range append([]*simMember{watcher}, s.members...) {
		if err := m.running().CatchUp(ctx); err != nil {
			t.Fatal(m.id, err)
		}
	}
	return s, watcher, func(cmd *registrypb.Command) *registrypb.Command {
		seq, hash, err := s.members[0].running().Head(ctx, record.Operators, cmd.Chain, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Mesh, cmd.Author, cmd.Sequence, cmd.Previous, cmd.TimeUnixMs = string(s.file.Mesh), record.Operators, seq+1, hash, 1
		return cmd
	}
}

// shows has a member answer all who ask it for removals with these.
func (s *sim) shows(liar *simMember, envelopes ...[]byte) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.answer = func(_, to names.NodeID, req, resp proto.Message, err error) (proto.Message, error) {
		if _, ok := req.(*registrypb.RemovalsRequest); ok && to == liar.id {
			return &registrypb.RemovalsResponse{Envelopes: envelopes}, nil
		}
		return resp, err
	}
}
