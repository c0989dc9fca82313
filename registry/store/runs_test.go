package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// tiny makes a run of almost every commit.
var tiny = limits{recentRows: 2, recentBytes: 1 << 20, pendingRows: 3, pendingBytes: 1 << 20, manyRuns: 5}

func openTiny(t testing.TB, dir string, w *recordtest.World) *Store {
	t.Helper()
	s, err := openWith(badgerdb.Config{Dir: dir, Key: bytes.Repeat([]byte{3}, 32)}, w.Rules, tiny)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func runsOf(s *Store) int {
	v := s.current.currentRuns()
	defer v.Release()
	n, _, _ := v.Runs()
	return n
}

// TestRunsAgree: a store that keeps its directory in runs holds the same rows, the same
// hash of them and gave the same verdicts as a state in memory, in whatever batches it
// was fed, also after it was opened again and after a restore.
func TestRunsAgree(t *testing.T) {
	n, most := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		if n++; n > 12 { // each opens databases on disk
			return
		}
		w := recordtest.New(t, "alpha", "beta", "gamma")
		entries := stream(rt, w)
		memory := new(record.MapState)
		if err := record.Bootstrap(memory, w.Rules); err != nil {
			t.Fatal(err)
		}
		var want []record.Result
		for _, e := range entries {
			var res record.Result
			if len(e.Envelope) > 0 {
				res, _ = record.Apply(memory, w.Rules, e.Index, e.Envelope)
			}
			want = append(want, res)
			if err := record.SetAppliedIndex(memory, e.Index); err != nil {
				t.Fatal(err)
			}
		}
		rowsWanted := dumpRows(t, memory)
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		s := openTiny(t, filepath.Join(dir, "a"), w)
		if rapid.Bool().Draw(rt, "behind") {
			s.Behind(func(err error) { t.Error(err) })
		}
		var got []record.Result
		for rest := entries; len(rest) > 0; {
			n := rapid.IntRange(1, min(4, len(rest))).Draw(rt, "batch")
			got = append(got, apply(t, s, rest[:n]...)...)
			rest = rest[n:]
			most = max(most, runsOf(s))
		}
		if !slices.Equal(got, want) {
			rt.Fatal("verdicts differ")
		}
		var snapshot bytes.Buffer
		if err := s.Snapshot(&snapshot); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTiny(t, filepath.Join(dir, "a"), w)
		defer s.Close()
		other := openTiny(t, filepath.Join(dir, "b"), w)
		defer other.Close()
		if err := other.Restore(&snapshot); err != nil {
			rt.Fatal(err)
		}
		for i, s := range []*Store{s, other} {
			if !maps.Equal(dump(t, s), rowsWanted) {
				rt.Fatalf("store %d holds other rows", i+1)
			}
			wantHash(rt, s, memory)
		}
	})
	if most == 0 {
		t.Error("this test never made a run")
	}
}

func referencesOf(t testing.TB, s *Store, person int) (qualities []string) {
	t.Helper()
	err := s.View(func(v record.View) error {
		refs, err := v.References(subject.Raw(subject.SSIN, recordtest.Person(person)))
		for _, r := range refs {
			qualities = append(qualities, string(r.Quality))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return qualities
}

// TestReadingWhileRunsMerge: what a view shows is of one index, while commits write runs
// and runs are merged under it.
func TestReadingWhileRunsMerge(t *testing.T) {
	t.Run("settled at once", func(t *testing.T) { readingWhileRunsMerge(t, tiny, false) })
	wider := tiny
	wider.recentRows = 25 // a round is settled behind, the third makes a run
	t.Run("settled behind", func(t *testing.T) { readingWhileRunsMerge(t, wider, true) })
}

func readingWhileRunsMerge(t *testing.T, limits limits, behind bool) {
	w := recordtest.New(t, "alpha")
	s, err := openWith(badgerdb.Config{Dir: t.TempDir(), Key: bytes.Repeat([]byte{3}, 32)}, w.Rules, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if behind {
		s.Behind(func(err error) { t.Error(err) })
	}
	index := uint64(1)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	declare := func(round int) {
		var refs []*registrypb.Reference
		for p := range 10 { // each round gives each person one quality more
			refs = append(refs, recordtest.Reference(recordtest.Person(p), fmt.Sprintf("q%d", round)))
		}
		index++
		apply(t, s, Entry{index, w.Declare("office", refs...)})
	}
	declare(0)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				err := s.View(func(v record.View) error {
					first := -1
					for p := range 10 {
						refs, err := v.References(subject.Raw(subject.SSIN, recordtest.Person(p)))
						if err != nil {
							return err
						}
						if first < 0 {
							first = len(refs)
						}
						if len(refs) != first {
							return fmt.Errorf("%d references of one person and %d of another in one view", first, len(refs))
						}
					}
					counts, err := v.Counts()
					if err == nil && counts.References != uint64(10*first) {
						err = fmt.Errorf("%d references counted, %d read of each", counts.References, first)
					}
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for round := 1; round < 60; round++ {
		declare(round)
	}
	close(done)
	readers.Wait()
	if n := len(referencesOf(t, s, 3)); n != 60 {
		t.Errorf("%d references at the end", n)
	}
}

// TestCrashWithRuns takes the files as a crash would leave them, at every commit, merges
// under way included.
func TestCrashWithRuns(t *testing.T) {
	dir := t.TempDir()
	w := recordtest.New(t, "alpha")
	s := openTiny(t, filepath.Join(dir, "live"), w)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	for n := 2; n < 22; n++ {
		var refs []*registrypb.Reference
		for p := range 5 {
			refs = append(refs, recordtest.Reference(recordtest.Person(p*n%17), fmt.Sprintf("q%d", n)))
		}
		apply(t, s, Entry{uint64(n), w.Declare("office", refs...)})
		after := filepath.Join(dir, "after")
		if err := os.RemoveAll(after); err != nil {
			t.Fatal(err)
		}
		// A machine that stops does so at one moment; copying takes longer.
		l := s.current.layers
		l.turn.Lock()
		v := l.tree.Current()
		err := copyTables(after, filepath.Join(dir, "live"))
		v.Release()
		l.turn.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		crashed := openTiny(t, after, w)
		if i := crashed.AppliedIndex(); i != uint64(n) {
			t.Fatalf("after a crash at %d it stands at %d", n, i)
		}
		if !maps.Equal(dump(t, s), dump(t, crashed)) {
			t.Fatalf("after a crash at %d it holds other rows", n)
		}
		if err := crashed.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// copyTables copies a folder in which a merge may be writing, and removing what it wrote.
func copyTables(to, from string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	})
}

// TestDamagedRun: a run that is not what was written is never read as if it were.
func TestDamagedRun(t *testing.T) {
	dir := t.TempDir()
	w := recordtest.New(t, "alpha")
	s := openTiny(t, dir, w)
	var refs []*registrypb.Reference
	for p := range 50 {
		refs = append(refs, recordtest.Reference(recordtest.Person(p), "x"))
	}
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})}, Entry{2, w.Declare("office", refs...)})
	want := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "tables-1", "runs", "*.run"))
	if err != nil || len(files) == 0 {
		t.Fatal("no run", err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 1 + len(good)/12 {
		bad := bytes.Clone(good)
		bad[at] ^= 4
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openWith(badgerdb.Config{Dir: dir, Key: bytes.Repeat([]byte{3}, 32)}, w.Rules, tiny)
		if err != nil {
			continue
		}
		err = s.View(func(v record.View) error {
			for p := range 50 {
				if _, err := v.References(subject.Raw(subject.SSIN, recordtest.Person(p))); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			t.Errorf("byte %d of %d was changed, and nobody noticed", at, len(good))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(files[0], good, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, openTiny(t, dir, w)); !maps.Equal(got, want) {
		t.Error("mended, it holds other rows")
	}
}

// TestForgedHistory: a member that lies puts commands into a snapshot that their authors
// did sign, and that were refused. A store that makes all rows at the end sees it too.
func TestForgedHistory(t *testing.T) {
	reference := func(person, day int) *registrypb.Reference {
		r := recordtest.Reference(recordtest.Person(person), "x")
		r.Period = &registrypb.Period{From: int32(day), Until: int32(day)}
		return r
	}
	withdrawn := reference(1, 7)
	withdrawn.Withdrawn = true
	var many []*registrypb.Reference // one more than an institution may have on one subject
	for day := range 65 {
		many = append(many, reference(2, day))
	}
	var heavy [][]*registrypb.Reference // rows that grow until one command writes too much
	for round := range 60 {
		var rows []*registrypb.Reference
		for person := range 1_500 {
			rows = append(rows, reference(person, round))
		}
		heavy = append(heavy, rows)
	}
	for name, history := range map[string][][]*registrypb.Reference{
		"a withdrawal of nothing":         {{reference(1, 8)}, {withdrawn}},
		"more than fit on a subject":      {{reference(2, 0)}, many},
		"withdrawn twice":                 {{reference(1, 7)}, {withdrawn}, {withdrawn}},
		"withdrawn twice, in one command": {{reference(1, 7)}, {withdrawn, withdrawn}},
		"nothing wrong":                   {{reference(1, 7)}, {withdrawn}, {reference(1, 7), withdrawn, reference(1, 9)}, many[:64]},
		"nothing wrong, and much of it":   heavy,
	} {
		w := recordtest.New(t, "alpha")
		commands := [][]byte{w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})}
		for _, rows := range history {
			commands = append(commands, w.Declare("office", rows...))
		}
		b := forge(w.Rules, 1000, commands...)
		one, other := open(t, "", w), openTiny(t, t.TempDir(), w)
		byOne, byOther := one.Restore(bytes.NewReader(b)), other.Restore(bytes.NewReader(b))
		if (byOne == nil) != (byOther == nil) {
			t.Fatalf("%s: one store says %v, the other %v", name, byOne, byOther)
		}
		if (byOne == nil) != strings.HasPrefix(name, "nothing wrong") || byOther != nil && !errors.Is(byOther, ErrBadSnapshot) {
			t.Errorf("%s: %v", name, byOther)
		}
		if byOther == nil {
			if a, b := dump(t, one), dump(t, other); !maps.Equal(a, b) {
				t.Errorf("%s: the stores hold other rows", name)
			}
			continue
		}
		if other.AppliedIndex() != 0 {
			t.Errorf("%s: the index moved", name)
		}
	}
}

// TestPortion: what is gathered comes out sorted, with all effects on one key in the order
// in which they came, also when one item does not fit where it began.
func TestPortion(t *testing.T) {
	p := new(portion)
	want := make(map[string]string)
	long := strings.Repeat("x", 1<<chunkBits/3)
	for n := range 2_000 {
		k := fmt.Sprintf("key%03d", n*7%501)
		effect := fmt.Sprintf("<%d>", n)
		p.begin([]byte(k), []byte(effect))
		if n%400 == 9 {
			for range 2 {
				p.extend([]byte(long))
				effect += long
			}
		}
		want[k] += effect
	}
	p.sort()
	last := ""
	for k, v := range p.rows {
		if string(k) <= last {
			t.Fatalf("%s after %s", k, last)
		}
		last = string(k)
		if string(v) != want[last] {
			t.Fatalf("%d bytes of effects on %s, want %d", len(v), k, len(want[last]))
		}
		delete(want, last)
	}
	if len(want) > 0 {
		t.Errorf("%d keys were lost", len(want))
	}
	p.empty()
	p.begin([]byte("a"), []byte("b"))
	p.sort()
	for k, v := range p.rows {
		if string(k) != "a" || string(v) != "b" {
			t.Error("used again, it holds what it held before")
		}
	}
}
