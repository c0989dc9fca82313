package store

import (
	"bytes"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// TestHistories: what became of a number is known as soon as it is decided, when it is
// settled, in a store that is opened again, and in one that restored a snapshot.
func TestHistories(t *testing.T) {
	w, dir := recordtest.New(t, "alpha", "beta", "gamma"), t.TempDir()
	s := open(t, dir, w)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "register", Type: "register", NumberSchemes: []string{"ssin"}})})
	const persons = 300
	ssin := func(i int) subject.ID { return subject.Raw("ssin", recordtest.SSIN(recordtest.Person(i)).Number) }
	check := func(when string, s *Store, upTo int) {
		t.Helper()
		err := s.View(func(v record.View) error {
			for i := range 2 * persons {
				n, err := v.Number(ssin(i))
				if err != nil {
					return err
				}
				if want := i < upTo; n.Cancelled != want {
					t.Errorf("%s: number %d is cancelled: %v, want %v", when, i, n.Cancelled, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	cancel := func(s *Store, index uint64, from, to int) {
		t.Helper()
		events := new(registrypb.NumberEvents)
		for i := from; i < to; i++ {
			events.Events = append(events.Events, &registrypb.NumberEvent{Subject: recordtest.SSIN(recordtest.Person(i)), Kind: registrypb.NumberEvent_CANCELLED})
		}
		c := w.Draft("register", &registrypb.Command_SetNumbers{SetNumbers: events})
		if r := apply(t, s, Entry{index, w.Sign(c, "register")}); !r[0].Accepted {
			t.Fatal(r[0].Refusal)
		}
		w.Follow(c)
	}
	cancel(s, 2, 0, 100)
	check("at once", s, 100)
	s.Behind(func(err error) { t.Error(err) })
	goOn := halt(s)
	cancel(s, 3, 100, 200)
	check("not settled", s, 200)
	goOn()
	snapshot := snapshotOf(t, s)
	check("settled", s, 200)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, w)
	if !s.current.histories.whole {
		t.Error("reopened, it asks the database for every number")
	}
	check("reopened", s, 200)
	cancel(s, 4, 200, persons)
	check("written to when reopened", s, persons)
	other := open(t, t.TempDir(), w)
	if err := other.Restore(bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	check("restored", other, 200)
}

// TestHistoriesLeftOut: where not as many are found as were written, because Badger left out
// what it could not read, or because nobody counted them, the database is asked.
func TestHistoriesLeftOut(t *testing.T) {
	for what, leaveOut := range map[string]func(*badger.Txn) error{
		"a row": func(txn *badger.Txn) error {
			return txn.Delete(append(record.HistoryPrefix(), "ssin\x00"+recordtest.Person(1)...))
		},
		"their number": func(txn *badger.Txn) error { return txn.Delete(historiesKey) },
	} {
		t.Run(what, func(t *testing.T) {
			w, dir := recordtest.New(t, "alpha", "beta", "gamma"), t.TempDir()
			s := open(t, dir, w)
			apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "register", Type: "register", NumberSchemes: []string{"ssin"}})})
			var events registrypb.NumberEvents
			for i := range 3 {
				events.Events = append(events.Events, &registrypb.NumberEvent{Subject: recordtest.SSIN(recordtest.Person(i)), Kind: registrypb.NumberEvent_CANCELLED})
			}
			if r := apply(t, s, Entry{2, w.Sign(w.Draft("register", &registrypb.Command_SetNumbers{SetNumbers: &events}), "register")}); !r[0].Accepted {
				t.Fatal(r[0].Refusal)
			}
			if got := s.current.histories; !got.whole || got.count != 3 {
				t.Fatalf("%d counted, whole: %v", got.count, got.whole)
			}
			meddle(t, s, leaveOut)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, w)
			if s.current.histories.whole {
				t.Error("what was found counts as all there is")
			}
			dump(t, s) // finds each row alone, too
		})
	}
}
