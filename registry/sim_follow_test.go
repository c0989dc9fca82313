package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// lyingSim has play watch, as w1, members of which the one that it asks first lies to it. In
// virtual time, so that no load makes it leave a stream before it has heard the lie.
func lyingSim(t *testing.T, lie func(e *registrypb.WatchEvent) *registrypb.WatchEvent, play func(s *sim, w *simMember, log *evidence)) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newSim(t, 1, 3), &evidence{Handler: slog.DiscardHandler}
		defer s.stop()
		s.admit("w1")
		var once sync.Once
		var first names.NodeID
		s.net.mu.Lock()
		s.net.lie = func(n names.NodeID, e *registrypb.WatchEvent) *registrypb.WatchEvent {
			once.Do(func() { first = n })
			if n == first && len(e.Envelope) > 0 {
				return lie(e)
			}
			return e
		}
		s.net.mu.Unlock()
		s.log = slog.New(log)
		w := simWatcher("w1", 1)
		s.start(w)
		defer s.kill(w)
		play(s, w, log)
	})
}

func (s *sim) waitApplied(m *simMember, index uint64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.running().WaitApplied(ctx, index); err != nil {
		s.t.Fatalf("%s: index %d: %v", m.id, index, err)
	}
}

func (m *simMember) has(t *testing.T, id string) (yes bool) {
	t.Helper()
	if err := m.running().View(func(v record.View) error {
		i, err := v.Institution(names.InstitutionID(id))
		yes = i != nil
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return yes
}

// What a member makes up is not taken over, is told of, and the truth is had from
// another member.
func TestForgedWatchIsRefused(t *testing.T) {
	t.Parallel()
	forged := institution("mafia")
	forged.Mesh, forged.Author, forged.Sequence, forged.TimeUnixMs = "sim.example", "@operators", 1, 1
	raw := signed(t, forged, key("m1"))
	lyingSim(t, func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
		e = proto.Clone(e).(*registrypb.WatchEvent)
		e.Envelope = raw
		return e
	}, func(s *sim, w *simMember, log *evidence) {
		s.waitApplied(w, s.admit("pcsa").Index)
		if w.has(s.t, "mafia") || !w.has(s.t, "pcsa") || !w.has(s.t, "w1") {
			s.t.Error("the watcher believed a forgery, or did not get the truth")
		}
		if said := log.String(); !strings.Contains(said, "member=m") || !strings.Contains(said, "envelope_sha256=") {
			s.t.Errorf("no evidence: %q", said)
		}
	})
}

// What a member leaves out shows at the author's next command. The watcher does not
// go on with a hole in its history, and is whole after it starts anew.
func TestOmissionIsNotPassedOver(t *testing.T) {
	t.Parallel()
	left := false
	lyingSim(t, func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
		if left {
			return e
		}
		left = true
		return &registrypb.WatchEvent{Index: e.Index} // "nothing to see here"
	}, func(s *sim, w *simMember, log *evidence) {
		s.admit("pcsa")
		select {
		case err := <-w.done:
			if !errors.Is(err, registry.ErrGap) {
				s.t.Fatalf("it ended with %v", err)
			}
			w.done <- nil
		case <-time.After(time.Minute): // virtual
			s.t.Fatal("the watcher goes on")
		}
		if !strings.Contains(log.String(), "index=") {
			s.t.Error("no evidence")
		}
		s.kill(w)
		s.start(w)
		s.waitApplied(w, s.admit("energy").Index)
		for _, id := range []string{"w1", "pcsa", "energy"} {
			if !w.has(s.t, id) {
				s.t.Errorf("%s is missing", id)
			}
		}
	})
}

// The same bytes are decided once, whichever member they come through.
func TestSameBytesHaveOneEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1, 3)
		defer s.stop()
		s.admit("pcsa")
		seq, hash, err := s.members[0].running().Head(context.Background(), "m2", registrypb.Chain_PUBLIC, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd := setNode("m2")
		cmd.Mesh, cmd.Author, cmd.Sequence, cmd.Previous, cmd.TimeUnixMs = string(s.file.Mesh), "m2", seq+1, hash, 1
		raw := signed(t, cmd, key("m2"))
		var first *registrypb.SubmitResponse
		for i, m := range s.members {
			resp, err := m.running().Submit(context.Background(), raw)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = resp
			}
			if !resp.Accepted || resp.Index != first.Index || resp.Repeated != (i > 0) {
				t.Errorf("time %d: %v, first %v", i+1, resp, first)
			}
		}
	})
}

// A follower that takes nothing of what a member sends does not keep that member from ending
// when its log fails, nor from being started again.
func TestDeafFollowerDoesNotKeepAMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1, 3)
		defer s.stop()
		s.waitApplied(s.members[1], s.admit("w1").Index)
		m := s.members[1]
		deaf, hears := make(chan struct{}), make(chan struct{})
		isDeaf, watched := sync.OnceFunc(func() { close(deaf) }), make(chan error, 1)
		go func() {
			watched <- m.running().HandleWatch(context.Background(), node("w1"), new(registrypb.WatchRequest), func(*registrypb.WatchEvent) error {
				isDeaf()
				<-hears
				return nil
			})
		}()
		<-deaf
		m.disk.mu.Lock()
		m.disk.failSyncs = 1
		m.disk.mu.Unlock()
		s.admit("pcsa")
		select {
		case err := <-m.done:
			if !errors.Is(err, registry.ErrLogFailed) {
				t.Errorf("it ended with %v", err)
			}
			m.done <- nil
		case <-time.After(time.Minute): // virtual
			close(hears)
			t.Fatal("the member goes on, or does not end")
		}
		s.kill(m)
		s.start(m)
		s.waitApplied(m, s.admit("energy").Index)
		close(hears)
		if err := <-watched; !errors.Is(err, registry.ErrClosed) {
			t.Errorf("the watch of the member that ended: %v", err)
		}
	})
}
