package store

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func open(t testing.TB, dir string, w *recordtest.World) *Store {
	t.Helper()
	s, err := Open(badgerdb.Config{Dir: dir}, w.Rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func dump(t testing.TB, s *Store) map[string]string {
	t.Helper()
	g, err := s.use()
	if err != nil {
		t.Fatal(err)
	}
	defer g.users.Done()
	getter := g.view()
	defer getter.end()
	return dumpRows(t, getter)
}

func dumpRows(t testing.TB, g record.Getter) map[string]string {
	all := make(map[string]string)
	if err := g.Scan(nil, nil, func(k, v []byte) error {
		if record.Hashed(k) || k[0] == 'v' { // the hash is compared by itself
			all[string(k)] = string(v)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for k, v := range all { // a row is found, or not, before it is looked for in the database
		if got, err := g.Get([]byte(k)); err != nil || string(got) != v {
			t.Fatalf("row %q is %q in a scan, %q alone: %v", k, v, got, err)
		}
	}
	return all
}

func apply(t testing.TB, s *Store, entries ...Entry) []record.Result {
	t.Helper()
	results, err := s.ApplyBatch(entries)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// stream makes commands, right ones and wrong ones, as any author might.
func stream(rt *rapid.T, w *recordtest.World) (entries []Entry) {
	add := func(index uint64, raw []byte) { entries = append(entries, Entry{index, raw}) }
	index := uint64(1)
	add(index, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"}))
	index++
	add(index, w.Admit(&registrypb.Institution{Id: "register", Type: "register", NumberSchemes: []string{"ssin"}}))
	person := rapid.Map(rapid.IntRange(1, 10), recordtest.Person)
	for range rapid.IntRange(1, 40).Draw(rt, "commands") {
		index += rapid.Uint64Range(1, 3).Draw(rt, "gap")
		author := rapid.SampledFrom([]string{"office", "register", "alpha"}).Draw(rt, "author")
		var body any
		switch rapid.IntRange(0, 4).Draw(rt, "kind") {
		case 0:
			body = &registrypb.Command_SetNode{SetNode: recordtest.Node(author, rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(rt, "node"))}
		case 1:
			body = &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{{
				Subject: recordtest.SSIN(person.Draw(rt, "old")), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(person.Draw(rt, "new")),
			}}}}
		default:
			var refs []*registrypb.Reference
			for range rapid.IntRange(1, 6).Draw(rt, "rows") {
				r := recordtest.Reference(person.Draw(rt, "person"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "quality"))
				r.Withdrawn = rapid.IntRange(0, 9).Draw(rt, "withdrawn") == 0
				refs = append(refs, r)
			}
			body = &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: refs}}
		}
		c := w.Draft(author, body)
		switch rapid.IntRange(0, 9).Draw(rt, "fault") {
		case 0: // signed by another
			add(index, w.Sign(c, "beta"))
			continue
		case 1:
			c.Sequence += 5
			add(index, w.Sign(c, author))
			continue
		case 2: // replayed
			add(index, rapid.SampledFrom(entries).Draw(rt, "replay").Envelope)
			continue
		case 3:
			add(index, nil)
			continue
		}
		raw := w.Sign(c, author)
		add(index, raw)
		// Whether it is accepted decides how the chain goes on; the caller finds out.
		probe := new(record.MapState)
		if err := record.Bootstrap(probe, w.Rules); err != nil {
			rt.Fatal(err)
		}
		var last record.Result
		for _, e := range entries {
			if len(e.Envelope) > 0 {
				last, _ = record.Apply(probe, w.Rules, e.Index, e.Envelope)
			}
		}
		if last.Accepted {
			w.Follow(c)
		}
	}
	return entries
}

// TestReplicasAgree: a state in memory, a store fed in one batch, a store fed in
// other batches and one restored from a snapshot hold the same bytes and gave the
// same verdicts.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
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
				var err error
				if res, err = record.Apply(memory, w.Rules, e.Index, e.Envelope); err != nil {
					t.Fatal(err)
				}
			}
			want = append(want, res)
			if err := record.SetAppliedIndex(memory, e.Index); err != nil {
				t.Fatal(err)
			}
		}
		rowsWanted := dumpRows(t, memory)

		one, other, third := open(t, "", w), open(t, "", w), open(t, "", w)
		defer one.Close()
		defer other.Close()
		defer third.Close()
		got := apply(t, one, entries...)
		var inParts []record.Result
		for rest := entries; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			inParts = append(inParts, apply(t, other, rest[:n]...)...)
			rest = rest[n:]
		}
		if !slices.Equal(got, want) || !slices.Equal(inParts, want) {
			rt.Fatal("verdicts differ")
		}
		var snapshot bytes.Buffer
		if err := one.Snapshot(&snapshot); err != nil {
			t.Fatal(err)
		}
		if err := third.Restore(&snapshot); err != nil {
			rt.Fatal(err)
		}
		for i, s := range []*Store{one, other, third} {
			if !maps.Equal(dump(t, s), rowsWanted) {
				rt.Fatalf("store %d holds other rows", i+1)
			}
			wantHash(rt, s, memory)
		}
		ofOne, err := one.Marks(0)
		if err != nil {
			rt.Fatal(err)
		}
		if ofOther, err := other.Marks(0); err != nil || !slices.Equal(ofOne, ofOther) {
			rt.Fatalf("marks %v and %v: %v", ofOne, ofOther, err)
		}
		// Everything once more, as after a restart: nothing changes.
		apply(t, one, entries...)
		if !maps.Equal(dump(t, one), rowsWanted) {
			rt.Fatal("replaying the log changed rows")
		}
	})
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	w := recordtest.New(t, "alpha", "beta", "gamma")
	s := open(t, dir, w)
	raw := w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})
	apply(t, s, Entry{5, raw}, Entry{9, nil})
	before := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := s.View(func(record.View) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("view of a closed store: %v", err)
	}
	s = open(t, dir, w)
	if i := s.AppliedIndex(); i != 9 {
		t.Errorf("reopened at %d, want 9", i)
	}
	if !maps.Equal(before, dump(t, s)) {
		t.Error("reopened with other rows")
	}
	if res := apply(t, s, Entry{5, raw})[0]; !res.Repeated || res.FirstIndex != 5 {
		t.Errorf("replayed entry: %+v", res)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(badgerdb.Config{Dir: dir}, recordtest.New(t, "alpha").Rules); !errors.Is(err, record.ErrOtherRules) {
		t.Errorf("opened under another genesis: %v", err)
	}
}

// TestCrash takes the files as they lie on disk while the store is open and
// working, as a killed process leaves them.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	w := recordtest.New(t, "alpha", "beta", "gamma")
	s := open(t, filepath.Join(dir, "live"), w)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	for n := 2; n < 12; n++ {
		apply(t, s, Entry{uint64(n), w.Declare("office", recordtest.Reference(recordtest.Person(n), "x"))})
		after := filepath.Join(dir, "after")
		if err := os.RemoveAll(after); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(after, os.DirFS(filepath.Join(dir, "live"))); err != nil {
			t.Fatal(err)
		}
		crashed := open(t, after, w)
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

func TestOutOfOrder(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := open(t, "", w)
	if _, err := s.ApplyBatch([]Entry{{2, nil}, {2, nil}}); !errors.Is(err, ErrFailed) {
		t.Errorf("an index twice: %v", err)
	}
	if _, err := s.ApplyBatch([]Entry{{3, nil}}); !errors.Is(err, ErrFailed) {
		t.Errorf("after a failure: %v", err)
	}
}

// TestFollower: at a command that is refused a follower stops, and goes on from
// there when it is sent the true one.
func TestFollower(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := open(t, "", w)
	admit := w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})
	draft := w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")})
	var refused *RefusedError
	err := s.ApplyAccepted([]Entry{{3, admit}, {5, w.Sign(draft, "alpha")}, {6, nil}})
	if !errors.As(err, &refused) || refused.Index != 5 || s.AppliedIndex() != 3 {
		t.Fatalf("stands at %d: %v", s.AppliedIndex(), err)
	}
	if err := s.ApplyAccepted([]Entry{{5, w.Sign(draft, "office")}, {6, nil}}); err != nil || s.AppliedIndex() != 6 {
		t.Errorf("stands at %d: %v", s.AppliedIndex(), err)
	}
}

func TestWaitAndHook(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := open(t, "", w)
	var seen []Change
	s.OnApply(func(index uint64, changes []Change) {
		seen = append(seen, changes...)
		if err := s.View(func(v record.View) error {
			if i, err := v.AppliedIndex(); i != index {
				t.Errorf("the hook of %d sees %d, %v", index, i, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	done := make(chan error)
	go func() { done <- s.WaitApplied(t.Context(), 2) }()
	apply(t, s, Entry{1, []byte("nonsense")}, Entry{2, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(seen) != 2 || seen[0].Result.Accepted || !seen[1].Result.Accepted || seen[1].Index != 2 {
		t.Errorf("changes %+v", seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitApplied(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("waited with an ended context: %v", err)
	}
	go func() { done <- s.WaitApplied(t.Context(), 3) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("waited for a closed store: %v", err)
	}
}

// TestLargest applies the largest commands there are, one after the other and in
// one batch with small ones: no transaction may be too big.
func TestLargest(t *testing.T) {
	w := recordtest.New(t, "alpha")
	s := open(t, t.TempDir(), w)
	entries := []Entry{{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})},
		{2, w.Admit(&registrypb.Institution{Id: "register", Type: "register", NumberSchemes: []string{"ssin"}})}}
	references := func(quality string) {
		var refs []*registrypb.Reference
		for n := range record.MaxRows {
			refs = append(refs, recordtest.Reference(recordtest.Person(n), quality))
		}
		entries = append(entries, Entry{uint64(len(entries) + 1), w.Declare("office", refs...)})
	}
	for _, q := range []string{"a", "a-quality-with-a-name-as-long-as-names-may-ever-be-in-this-mesh", "c"} {
		references(q[:min(len(q), 63)])
		entries = append(entries, Entry{uint64(len(entries) + 1), w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")})})
	}
	var events []*registrypb.NumberEvent
	for n := range record.MaxRows {
		events = append(events, &registrypb.NumberEvent{Subject: recordtest.SSIN(recordtest.Person(n)),
			Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(recordtest.Person(n + record.MaxRows))})
	}
	entries = append(entries, Entry{uint64(len(entries) + 1), w.Command("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: events}})})
	for i, res := range apply(t, s, entries...) {
		if !res.Accepted {
			t.Errorf("entry %d: %s", i+1, res.Refusal)
		}
	}
	if err := s.View(func(v record.View) error {
		refs, err := v.References(subject.Raw(subject.SSIN, recordtest.Person(record.MaxRows)))
		if len(refs) != 3 {
			t.Errorf("%d references, want 3", len(refs))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
