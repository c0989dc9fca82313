package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// A watcher that comes and goes while commands are decided misses none.
func TestWatcherRestartsInMidStream(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	w := node("w1")
	author := m.operators(m.members[0])
	var last *registrypb.SubmitResponse
	for i := range 30 {
		last = m.do(author, institution(fmt.Sprintf("i%d", i)))
		if i%10 == 5 {
			if err := m.stop(w); err != nil {
				t.Fatal(err)
			}
		}
		if i%10 == 8 {
			m.start(w)
		}
	}
	m.waitApplied(w, last.Index)
	for i := range 30 {
		if !m.has(w, fmt.Sprintf("i%d", i)) {
			t.Errorf("i%d is missing", i)
		}
	}
}

// A member that dies takes no watcher with it.
func TestWatcherTurnsToAnotherMember(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	w := node("w1")
	for _, n := range m.members {
		m.f.isolate(n, []names.NodeID{w}, true) // silent
		resp := m.do(m.operators(m.members[0]), institution("without-"+string(n.Institution)))
		m.waitApplied(w, resp.Index)
		m.f.isolate(n, []names.NodeID{w}, false)
	}
}

// evidence collects the error lines of a log.
type evidence struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (e *evidence) Enabled(context.Context, slog.Level) bool { return true }
func (e *evidence) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return nil
	}
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, line)
	return nil
}

func (e *evidence) WithAttrs([]slog.Attr) slog.Handler { return e }

func (e *evidence) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.lines, "\n")
}

// lying starts watcher w1 of a mesh in which one member lies to it, and gives what
// it logs. The liar is the one the watcher asks first.
func lying(t *testing.T, lie func(first names.NodeID) func(names.NodeID, *registrypb.WatchEvent) *registrypb.WatchEvent) (*mesh, *running, *evidence) {
	m := newMesh(t)
	m.admit("w1")
	var once sync.Once
	var told func(names.NodeID, *registrypb.WatchEvent) *registrypb.WatchEvent
	m.f.mu.Lock()
	m.f.lie = func(n names.NodeID, e *registrypb.WatchEvent) *registrypb.WatchEvent {
		once.Do(func() { told = lie(n) })
		return told(n, e)
	}
	m.f.mu.Unlock()
	log := &evidence{Handler: slog.DiscardHandler}
	m.log = slog.New(log)
	return m, m.start(node("w1")), log
}

func TestSuspendedWatcherIsCutOff(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	m.do(m.operators(m.members[0]), suspend("w1", true))
	// The suspension was acknowledged after every lease had ended.
	if _, err := m.at(node("w1")).Standing(); !errors.Is(err, registry.ErrStale) {
		t.Error("a suspended institution stands", err)
	}
	if _, err := m.at(node("w2")).WaitStanding(m.ctx(patience)); err != nil {
		t.Error(err)
	}
}

// A member that is suspended neither leads, nor votes, nor stands; the others go on.
func TestSuspendedMemberIsCutOff(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	out := m.leader() // the hardest case: it leads
	rest := m.others(out)
	resp := m.do(m.operators(rest[0]), suspend(string(out.Institution), true))
	if _, err := m.at(out).Standing(); !errors.Is(err, registry.ErrStale) {
		t.Error("the suspended member stands", err)
	}
	eventually(t, "another member leads", func() bool { return m.leader(rest...) != out })
	for _, n := range rest {
		if s, err := m.at(n).WaitStanding(m.ctx(patience)); err != nil || s.Index < resp.Index {
			t.Error(n, s.Index, err)
		}
	}
	m.admitThrough(rest[1], "pcsa")
}
