package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/pace"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// halt keeps a store from settling until the function it gives is called.
func halt(s *Store) (goOn func()) {
	l := s.current.layers
	l.turn.Lock()
	return l.turn.Unlock
}

func declaring(w *recordtest.World, n int) Entry {
	var refs []*registrypb.Reference
	for p := range 2 {
		r := recordtest.Reference(recordtest.Person(p*n%7), fmt.Sprintf("q%d", n%5))
		r.Withdrawn = n%5 == 4 && p == 0 && n > 9
		refs = append(refs, r)
	}
	return Entry{uint64(n), w.Declare("office", refs...)}
}

// TestCrashBehind takes the files as a crash leaves them while some of what was decided is
// settled, and some not: the store that opens stands at one index, as it was then, and
// when it is fed what comes after, it comes to hold the same as the one that lived on, its
// hash and the marks included. Feeding it what it holds changes nothing.
func TestCrashBehind(t *testing.T) {
	dir := t.TempDir()
	w := recordtest.New(t, "alpha")
	s := openTiny(t, filepath.Join(dir, "live"), w)
	s.Behind(func(err error) { t.Error(err) })
	states := map[uint64]map[string]string{0: dump(t, s)}
	entries := []Entry{{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})}}
	apply(t, s, entries...)
	states[1] = dump(t, s)
	lagged := 0
	for n := 2; n < 14; n++ {
		goOn := func() {}
		if n%3 > 0 {
			goOn = halt(s)
		}
		for range 3 {
			at := len(entries) + 1
			e := declaring(w, at)
			if at%10 == 0 {
				e.Envelope = MarkHere
			}
			entries = append(entries, e)
			apply(t, s, e)
			states[e.Index] = dump(t, s)
		}
		after := filepath.Join(dir, "after")
		if err := os.RemoveAll(after); err != nil {
			t.Fatal(err)
		}
		if n%3 == 0 { // settling goes on; a machine stops at one moment, and copying takes longer
			goOn = halt(s)
		}
		v := s.current.currentRuns()
		err := copyTables(after, filepath.Join(dir, "live"))
		v.Release()
		goOn()
		if err != nil {
			t.Fatal(err)
		}
		crashed := openTiny(t, after, w)
		at := crashed.AppliedIndex()
		if at < s.AppliedIndex() {
			lagged++
		}
		if want, ok := states[at]; !ok || !maps.Equal(dump(t, crashed), want) {
			t.Fatalf("after a crash at %d it stands at %d and holds other rows than there were", s.AppliedIndex(), at)
		}
		crashed.Behind(func(err error) { t.Error(err) })
		apply(t, crashed, entries[max(0, int(at)-2):]...)
		if !maps.Equal(dump(t, s), dump(t, crashed)) {
			t.Fatalf("after a crash at %d, and what came after, it holds other rows", at)
		}
		one, _ := s.Now()
		other, err := crashed.Now()
		if err != nil || one != other {
			t.Fatalf("after a crash at %d, and what came after, its hash differs: %v", at, err)
		}
		ours, _ := s.Marks(0)
		theirs, err := crashed.Marks(0)
		if err != nil || fmt.Sprint(ours) != fmt.Sprint(theirs) {
			t.Fatalf("marks differ: %v, %v, %v", ours, theirs, err)
		}
		if err := crashed.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lagged == 0 {
		t.Error("no crash came before something was settled")
	}
	if differ, _, err := s.Verify(t.Context(), new(pace.Pace)); err != nil || len(differ) > 0 {
		t.Errorf("buckets %v differ: %v", differ, err)
	}
}

// TestFrozenIsSettled: what a snapshot holds is on disk, whatever was not when it was asked
// for, and so is what is closed.
func TestFrozenIsSettled(t *testing.T) {
	dir := t.TempDir()
	w := recordtest.New(t, "alpha")
	s := openTiny(t, filepath.Join(dir, "live"), w)
	s.Behind(func(err error) { t.Error(err) })
	goOn := halt(s)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	for n := 2; n < 12; n++ {
		apply(t, s, declaring(w, n))
	}
	done := make(chan error)
	go func() {
		f, err := s.Freeze()
		if err == nil {
			if f.Index() != 11 {
				err = fmt.Errorf("frozen at index %d", f.Index())
			}
			f.Release()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("frozen before it was settled: %v", err)
	default:
	}
	goOn()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n, _ := waitingOf(s); n > 0 {
		t.Errorf("%d batches were not settled", n)
	}
	goOn = halt(s)
	apply(t, s, declaring(w, 12))
	want := dump(t, s)
	goOn()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openTiny(t, filepath.Join(dir, "live"), w); again.AppliedIndex() != 12 || !maps.Equal(dump(t, again), want) {
		t.Errorf("closed at index 12 it opens at %d", again.AppliedIndex())
	}
}

func waitingOf(s *Store) (n, bytes int) {
	s.current.mu.Lock()
	defer s.current.mu.Unlock()
	return s.current.waiting()
}

// TestSettlingFails: whoever feeds the store is told, and can neither feed it on nor take a
// snapshot of what is not on disk; what was decided before may be read.
func TestSettlingFails(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := openTiny(t, t.TempDir(), w)
	told := make(chan error, 2)
	s.Behind(func(err error) { told <- err })
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	if err := s.current.settled(); err != nil {
		t.Fatal(err)
	}
	goOn := halt(s)
	apply(t, s, declaring(w, 2))
	if err := s.current.db.Close(); err != nil { // as good as a disk that is gone
		t.Fatal(err)
	}
	goOn()
	if err := <-told; !errors.Is(err, ErrFailed) {
		t.Fatalf("told: %v", err)
	}
	if _, err := s.ApplyBatch([]Entry{declaring(w, 3)}); !errors.Is(err, ErrFailed) {
		t.Errorf("fed after a failure: %v", err)
	}
	if _, err := s.Freeze(); !errors.Is(err, ErrFailed) {
		t.Errorf("frozen after a failure: %v", err)
	}
}

// TestWaitingIsBounded: whoever feeds the store faster than it settles waits.
func TestWaitingIsBounded(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := openTiny(t, t.TempDir(), w)
	s.Behind(func(err error) { t.Error(err) })
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	if err := s.current.settled(); err != nil {
		t.Fatal(err)
	}
	goOn := halt(s)
	fed := make(chan int, 1)
	go func() {
		n := 2
		for ; n < 3*mostAbove; n++ {
			if _, err := s.ApplyBatch([]Entry{{uint64(n), bytes.Clone(MarkHere)}}); err != nil {
				t.Error(err)
				break
			}
		}
		fed <- n
	}()
	if err := s.current.until(func() bool { n, _ := s.current.waiting(); return n == mostAbove }); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-fed:
		t.Errorf("fed up to %d", n)
	default:
	}
	goOn()
	if n := <-fed; n != 3*mostAbove || s.AppliedIndex() != uint64(n-1) {
		t.Errorf("fed up to %d, stands at %d", n, s.AppliedIndex())
	}
}

// TestHotRowsAreTheTables: what is kept of rows that commands read again and again is what the
// tables hold, and a suspension holds from the next command on, of the same batch too.
func TestHotRowsAreTheTables(t *testing.T) {
	const suspended = 20
	w := recordtest.New(t, "alpha")
	s := openTiny(t, t.TempDir(), w)
	s.Behind(func(err error) { t.Error(err) })
	entries := []Entry{{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})}}
	for n := 2; n < 30; n++ {
		e := declaring(w, n)
		if n == suspended {
			e.Envelope = w.Command(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office", Suspended: true}})
		}
		entries = append(entries, e)
	}
	for len(entries) > 0 {
		n := min(3, len(entries))
		for i, res := range apply(t, s, entries[:n]...) {
			if at := entries[i].Index; at >= suspended-1 && res.Accepted != (at <= suspended) {
				t.Errorf("verdict on %d: %+v", at, res)
			}
		}
		entries = entries[n:]
		kept := s.current.hot.rows
		if err := s.read(func(r rows) error {
			for k, v := range kept {
				if is, err := r.Get([]byte(k)); err != nil || !bytes.Equal(is, v) || (is == nil) != (v == nil) {
					t.Errorf("row %q is kept as %x and is %x: %v", k, v, is, err)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.current.hot.rows) == 0 {
		t.Error("nothing is kept")
	}
}
