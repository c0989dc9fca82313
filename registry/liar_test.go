package registry_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func (m *mesh) suspended(n names.NodeID, id names.InstitutionID) (yes bool) {
	m.t.Helper()
	if err := m.at(n).View(func(v record.View) error {
		i, err := v.Institution(id)
		yes = i.GetSuspended()
		return err
	}); err != nil {
		m.t.Fatal(err)
	}
	return yes
}

// One lie, told once by one member, may cost a watcher its standing and its copy, but
// never makes it stand without what was acknowledged; and it heals.
func TestOneLieBlindsNoWatcher(t *testing.T) {
	t.Parallel()
	const beyond = 1 << 62
	// once tells lie of the first event that is fit, by whichever member the watcher follows
	// then. It may be just turning away from that one, for other reasons, and not hear it:
	// then the lie is told again.
	type liar struct {
		tell func(names.NodeID) func(names.NodeID, *registrypb.WatchEvent) *registrypb.WatchEvent
		told *atomic.Bool
	}
	once := func(fit func(*registrypb.WatchEvent) bool, lie func(*registrypb.WatchEvent)) liar {
		told := new(atomic.Bool)
		return liar{told: told, tell: func(names.NodeID) func(names.NodeID, *registrypb.WatchEvent) *registrypb.WatchEvent {
			return func(_ names.NodeID, e *registrypb.WatchEvent) *registrypb.WatchEvent {
				if !fit(e) || !told.CompareAndSwap(false, true) {
					return e
				}
				e = proto.Clone(e).(*registrypb.WatchEvent)
				lie(e)
				return e
			}
		}}
	}
	empty := func(e *registrypb.WatchEvent) bool { return len(e.Envelope) == 0 }
	late := func(e *registrypb.WatchEvent) bool { return !empty(e) && e.Index > 8<<10 }
	suspension := func(e *registrypb.WatchEvent) bool {
		opened, err := envelope.Open(envelope.Command, e.Envelope)
		c := new(registrypb.Command)
		return err == nil && proto.Unmarshal(opened.Payload, c) == nil && c.GetSetSuspended() != nil
	}
	for name, lie := range map[string]liar{
		"progress beyond all":                once(empty, func(e *registrypb.WatchEvent) { e.Index = beyond }),
		"progress to the end of numbers":     once(empty, func(e *registrypb.WatchEvent) { e.Index = 1<<64 - 1 }),
		"progress a little too far":          once(empty, func(e *registrypb.WatchEvent) { e.Index += 20 << 10 }),
		"a command at a false index":         once(func(e *registrypb.WatchEvent) bool { return !empty(e) }, func(e *registrypb.WatchEvent) { e.Index = beyond }),
		"a command left out":                 once(late, func(e *registrypb.WatchEvent) { e.Envelope = nil }),
		"the author's last command left out": once(suspension, func(e *registrypb.WatchEvent) { e.Envelope = nil }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, w, log := lying(t, lie.tell)
			author := m.operators(m.members[0])
			for i := range 7 {
				m.do(author, institution("i"+string(rune('a'+i))))
			}
			resp := m.do(author, suspend("m3", true)) // acknowledged: holds everywhere
			if s, err := w.Standing(); err == nil && !m.suspended(w.id, "m3") {
				t.Errorf("it stands at index %d and does not know of the suspension at %d", s.Index, resp.Index)
			}
			for round := range 6 {
				select {
				case err := <-w.done:
					if !errors.Is(err, registry.ErrGap) {
						t.Fatalf("it ended with %v", err)
					}
					w.done <- nil
				case <-time.After(15 * time.Second):
					lie.told.Store(false)
					m.do(author, suspend("i"+string(rune('a'+round)), true))
					continue
				}
				break
			}
			if lie.told.Store(true); len(w.done) == 0 {
				t.Fatalf("it goes on; its log:\n%s", log)
			}
			if !strings.Contains(log.String(), "member=m") {
				t.Errorf("no evidence: %q", log)
			}
			if err := m.stop(w.id); err != nil {
				t.Fatal(err)
			}
			again := m.start(w.id)
			s, err := again.WaitStanding(m.ctx(patience))
			if err != nil {
				t.Fatal(err)
			}
			if s.Index < resp.Index || !m.suspended(w.id, "m3") || again.AppliedIndex() > beyond/2 {
				t.Errorf("it stands at %d, applied %d, and the suspension is at %d", s.Index, again.AppliedIndex(), resp.Index)
			}
		})
	}
}
