package store

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/pace"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// wantHash makes the hash anew from rows that something else computed, and wants the
// store to have kept the very same.
func wantHash(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, s *Store, rows record.Getter) {
	t.Helper()
	want := new(statehash.State)
	if err := sumRows(rows, new(statehash.Hasher), want); err != nil {
		t.Fatal(err)
	}
	digests := want.Digests()
	now, err := s.Now()
	if err != nil {
		t.Fatal(err)
	}
	if now != markOf(s.AppliedIndex(), digests) {
		t.Fatalf("at index %d the store kept another hash than its rows have", now.Index)
	}
	if differ, _, err := s.Verify(context.Background(), new(pace.Pace)); err != nil || len(differ) > 0 {
		t.Fatalf("buckets %v differ: %v", differ, err)
	}
}

// TestMarksAreAtFixedIndexes feeds the same commands at the same indexes in batches of
// several sizes, with gaps over the fixed indexes: whatever marks two stores both have are
// equal, and where a command took a right away there is one.
func TestMarksAreAtFixedIndexes(t *testing.T) {
	w := recordtest.New(t, "alpha", "beta")
	var entries []Entry
	index := uint64(0)
	add := func(gap uint64, raw []byte) {
		index += gap
		entries = append(entries, Entry{index, raw})
	}
	for i := range 30 {
		add(1+uint64(i*37%300)*(MarkEvery/256), w.Admit(&registrypb.Institution{Id: fmt.Sprintf("office%d", i), Type: "pcsa"}))
		if i%10 == 0 {
			add(1, nil)
		}
	}
	add(3, w.Command(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office3", Suspended: true}}))
	revoked := index
	add(3*MarkEvery, nil)
	var all [][]Mark
	for _, batch := range []int{1, 2, 7, len(entries)} {
		s := open(t, "", w)
		for part := range slices.Chunk(entries, batch) {
			apply(t, s, part...)
		}
		marks, err := s.Marks(0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, marks)
		if !slices.ContainsFunc(marks, func(m Mark) bool { return m.Index == revoked }) {
			t.Errorf("no mark at %d, where a right was taken away", revoked)
		}
		for _, m := range marks {
			if m.Index%MarkEvery != 0 && m.Index != revoked {
				t.Errorf("a mark at %d", m.Index)
			}
		}
		last := marks[len(marks)-1]
		digests, err := s.Digests(last.Index)
		if err != nil || markOf(last.Index, digests) != last {
			t.Errorf("digests at %d: %v", last.Index, err)
		}
	}
	for _, marks := range all {
		if len(marks) < 8 || !slices.Equal(marks, all[0]) {
			t.Errorf("marks differ:\n%v\n%v", marks, all[0])
		}
	}
}

// TestMarksAreForgotten: they do not grow for ever.
func TestMarksAreForgotten(t *testing.T) {
	s := open(t, t.TempDir(), recordtest.New(t, "alpha"))
	for i := range uint64(keptMarks + 40) {
		apply(t, s, Entry{(i + 1) * MarkEvery, nil})
	}
	count := func(kind byte) (n int) {
		if err := s.read(func(r rows) error {
			return r.Scan(record.StateHashKey(kind), nil, func(_, _ []byte) error { n++; return nil })
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if m, d := count(hashMark), count(hashDigests); m != keptMarks || d != keptDigests {
		t.Errorf("%d marks and %d digests are kept", m, d)
	}
}

// TestHashIsMadeAnewOnce opens a database of a version that kept none.
func TestHashIsMadeAnewOnce(t *testing.T) {
	dir, w := t.TempDir(), recordtest.New(t, "alpha")
	s := open(t, dir, w)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})},
		Entry{2, w.Declare("office", recordtest.Reference(recordtest.Person(1), "x"))})
	want, err := s.Now()
	if err != nil {
		t.Fatal(err)
	}
	meddle(t, s, func(txn *badger.Txn) error {
		for b := range statehash.Buckets {
			if err := txn.Delete(record.StateHashKey(hashSum, byte(b))); err != nil {
				return err
			}
		}
		return txn.Delete(record.StateHashKey(hashVersion))
	})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, w)
		if got, err := s.Now(); err != nil || got != want {
			t.Errorf("another hash: %v", err)
		}
	}
}

// meddle writes behind the store's back.
func meddle(t *testing.T, s *Store, fn func(*badger.Txn) error) {
	t.Helper()
	if err := s.current.db.Update(fn); err != nil {
		t.Fatal(err)
	}
	s.current.rebase(0, &writer{public: true}) // all views share what the last commit saw
}

// TestVerifyFindsAChangedRow writes a row that no command wrote.
func TestVerifyFindsAChangedRow(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := filled(t, w)
	if differ, _, err := s.Verify(t.Context(), new(pace.Pace)); err != nil || len(differ) > 0 {
		t.Fatal(differ, err)
	}
	k := []byte("a forged authorization")
	meddle(t, s, func(txn *badger.Txn) error { return txn.Set(k, []byte("x")) })
	differ, _, err := s.Verify(t.Context(), new(pace.Pace))
	want, _ := statehash.Bucket(k, true)
	if err != nil || !slices.Equal(differ, []int{want}) {
		t.Errorf("%v, want [%d]: %v", differ, want, err)
	}
}

// atErr calls fn when it is first asked whether it ended.
type atErr struct {
	context.Context
	fn func()
}

func (a *atErr) Err() error {
	if fn := a.fn; fn != nil {
		a.fn = nil
		fn()
	}
	return a.Context.Err()
}

// TestVerifyLetsRestore restores a snapshot while rows are being read, which waits for those
// who read; so the reading begins again, in the new tables.
func TestVerifyLetsRestore(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := open(t, t.TempDir(), w)
	var refs []*registrypb.Reference
	for i := range 8 * rowsAtOnce {
		refs = append(refs, recordtest.Reference(recordtest.Person(i), "x"))
	}
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})}, Entry{2, w.Declare("office", refs...)})
	snapshot := snapshotOf(t, s)
	before, restored := s.current, make(chan error, 1)
	ctx := &atErr{Context: t.Context(), fn: func() {
		go func() { restored <- s.Restore(bytes.NewReader(snapshot)) }()
		for s.uses(before) {
			runtime.Gosched()
		}
	}}
	p := new(pace.Pace)
	if differ, _, err := s.Verify(ctx, p); err != nil || len(differ) > 0 {
		t.Error(differ, err)
	}
	if err := <-restored; err != nil {
		t.Error(err)
	}
	if n := p.Done(); n < 8*rowsAtOnce {
		t.Errorf("%d rows were read, want those of the new tables", n)
	}
}

// BenchmarkDeclare is what the hash costs a bulk load: commands of 10,000 references of
// one institution after another on the same persons, verdict and signature included.
func BenchmarkDeclare(b *testing.B) {
	w := recordtest.New(b, "alpha", "beta")
	s := open(b, b.TempDir(), w)
	var refs []*registrypb.Reference
	for i := range record.MaxRows {
		refs = append(refs, recordtest.Reference(recordtest.Person(i), "x"))
	}
	index, n := uint64(0), 0
	for b.Loop() {
		b.StopTimer()
		name := fmt.Sprintf("office%d", n)
		entries := []Entry{{index + 1, w.Admit(&registrypb.Institution{Id: name, Type: "pcsa"})}, {index + 2, w.Declare(name, refs...)}}
		index, n = index+2, n+1
		b.StartTimer()
		apply(b, s, entries...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*record.MaxRows), "ns/reference")
}
