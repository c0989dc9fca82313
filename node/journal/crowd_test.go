package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// rowsOf counts the rows of one kind of a month.
func rowsOf(t *testing.T, j *Journal, month period, kind byte) (n int) {
	t.Helper()
	err := j.index.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{Prefix: append(appendPrefix(nil, month, byTime, [macSize]byte{})[:4], kind)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Whatever seconds were crowded, an entry is found by its ticket and by each subject, in
// order of time, within bounds, either way round; the dumb model looks at every entry.
func TestFindInACrowd(t *testing.T) {
	cfg := Config{FS: disktest.New(), Key: bytes.Repeat([]byte{7}, 32)}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	rnd := rand.New(rand.NewPCG(3, 4))
	const terms = 1500
	ticket := func(i int) string { return fmt.Sprintf("%026d", i) }
	number := func(i int) *registrypb.Subject {
		return &registrypb.Subject{Scheme: "ssin", Number: fmt.Sprintf("%011d", i*7919)}
	}
	begin := time.Date(2026, 5, 31, 23, 59, 58, 0, time.UTC) // over the end of a month
	month := periodOf(begin)
	var entries []*nodepb.Entry
	for second, n := range []int{300, 2 * crowd, crowd + 50, 200} { // the two in the middle are crowded, in two months
		for range n {
			e := &nodepb.Entry{
				TimeUnixMs: begin.Add(time.Duration(second)*time.Second + time.Duration(rnd.IntN(1000))*time.Millisecond).UnixMilli(),
				Role:       nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Ticket: ticket(rnd.IntN(terms)), Subject: number(rnd.IntN(terms)),
			}
			if rnd.IntN(10) == 0 {
				e.AlsoSubjects = []*registrypb.Subject{number(rnd.IntN(terms))}
			}
			entries = append(entries, e)
		}
	}
	rnd.Shuffle(len(entries), func(a, b int) { entries[a], entries[b] = entries[b], entries[a] })
	for _, e := range entries {
		if _, err := j.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	look := func(who string) {
		t.Helper()
		for i := range 600 {
			of := rnd.IntN(terms + 3)
			q := Query{NewestFirst: rnd.IntN(2) == 0, Limit: 1 + rnd.IntN(20)}
			if rnd.IntN(2) == 0 {
				q.From = begin.Add(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				q.Until = q.From.Add(time.Duration(rnd.IntN(2000)) * time.Millisecond)
			}
			matches := func(e *nodepb.Entry) bool { return e.Ticket == ticket(of) }
			if q.Ticket = names.Ticket(ticket(of)); i%2 == 0 {
				q.Ticket, q.Subject = "", subject.Raw("ssin", number(of).Number)
				matches = func(e *nodepb.Entry) bool {
					return slices.ContainsFunc(append(e.AlsoSubjects, e.Subject), func(s *registrypb.Subject) bool { return s.Number == number(of).Number })
				}
			}
			var want, got []uint64
			for i, e := range entries {
				at := time.UnixMilli(e.TimeUnixMs)
				if matches(e) && !at.Before(q.From) && (q.Until.IsZero() || at.Before(q.Until)) {
					want = append(want, uint64(i))
				}
			}
			slices.SortFunc(want, func(a, b uint64) int {
				x, y := posted{when: entries[a].TimeUnixMs, sequence: a}, posted{when: entries[b].TimeUnixMs, sequence: b}
				if q.NewestFirst {
					x, y = y, x
				}
				return compare(x, y)
			})
			found, err := j.Find(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				got = append(got, f.Sequence)
			}
			if !slices.Equal(got, want[:min(len(want), q.Limit)]) {
				t.Fatalf("%s: ticket %q, newest first %t: got %v, want %v", who, q.Ticket, q.NewestFirst, got, want)
			}
		}
	}
	look("as written")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(cfg); err != nil { // the index was in memory: it is made again, all together
		t.Fatal(err)
	}
	for _, m := range []period{month, month + 1} {
		for _, kind := range []byte{crowdedTickets, crowdedSubjects} {
			if n := rowsOf(t, j, m, kind); n == 0 || n > 1024 {
				t.Errorf("%s: %d rows of kind %c", m, n, kind)
			}
		}
		if n := rowsOf(t, j, m, byTicket); n == 0 || n > 300 {
			t.Errorf("%s: %d rows of single tickets", m, n)
		}
	}
	look("rebuilt")
	if err := j.index.drop(month); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []byte{crowdedTickets, crowdedSubjects, byTicket, bySubject, byTime} {
		if n := rowsOf(t, j, month, kind); n > 0 {
			t.Errorf("%d rows of kind %c are left of a dropped month", n, kind)
		}
	}
}

// Entries of many different seconds share nothing, however many go in together: a search
// reads its own rows and no others.
func TestNoCrowdOverSeconds(t *testing.T) {
	var rows []row
	for i := range 3 * (crowd - 1) {
		rows = append(rows, row{terms: terms{time: epoch.Add(time.Duration(i%3) * time.Second)}})
	}
	if got := crowds(rows); len(got) != 0 {
		t.Errorf("%v", got)
	}
	rows = append(rows, rows[0])
	if got := crowds(rows); len(got) != 1 || !got[epoch.Unix()] {
		t.Errorf("%v", got)
	}
}
