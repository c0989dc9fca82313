package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// A subject is found in entries of its own and in entries about many, in order of time,
// within bounds, either way round; the dumb model looks at every entry.
func TestFindAmongMany(t *testing.T) {
	fs := disktest.New()
	cfg := Config{FS: fs, Key: bytes.Repeat([]byte{7}, 32)}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	rnd := rand.New(rand.NewPCG(1, 2))
	number := func(i int) string { return fmt.Sprintf("%011d", i*7919+13) }
	const persons = 400
	begin := time.Date(2026, 5, 31, 23, 59, 50, 0, time.UTC) // over the end of a month
	entries := make([]*nodepb.Entry, 120)
	for i := range entries {
		e := &nodepb.Entry{
			TimeUnixMs: begin.Add(time.Duration(rnd.IntN(20_000)) * time.Millisecond).UnixMilli(),
			Role:       nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Ticket: "T",
		}
		if rnd.IntN(3) == 0 {
			e.Subject = &registrypb.Subject{Scheme: "ssin", Number: number(rnd.IntN(persons))}
		}
		if rnd.IntN(4) > 0 {
			e.Lot = new(nodepb.LotPart)
			of := rnd.Perm(persons)[:1+rnd.IntN(persons-1)]
			for _, part := range [][]int{of[:len(of)/2], of[len(of)/2:]} {
				var list []string
				for _, p := range part {
					list = append(list, number(p))
				}
				if len(list) > 0 {
					e.Lot.Groups = append(e.Lot.Groups, &nodepb.LotSubjects{Subjects: packed.Of("ssin", list)})
				}
			}
		}
		entries[i] = e
		if _, err := j.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	look := func(who string) {
		t.Helper()
		for range 100 {
			id := subject.Raw("ssin", number(rnd.IntN(persons+3)))
			q := Query{Subject: id, NewestFirst: rnd.IntN(2) == 0, Limit: 1 + rnd.IntN(200)}
			if rnd.IntN(2) == 0 {
				q.From = begin.Add(time.Duration(rnd.IntN(10_000)) * time.Millisecond)
				q.Until = q.From.Add(time.Duration(rnd.IntN(10_000)) * time.Millisecond)
			}
			var want []uint64
			for i, e := range entries {
				about := e.Subject.GetNumber() == id.Number() || InLot(e, id) != nil
				at := time.UnixMilli(e.TimeUnixMs)
				if about && !at.Before(q.From) && (q.Until.IsZero() || at.Before(q.Until)) {
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
			want = want[:min(len(want), q.Limit)]
			found, err := j.Find(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for _, f := range found {
				got = append(got, f.Sequence)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %+v: got %v, want %v", who, q.NewestFirst, got, want)
			}
		}
	}
	look("as written")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(cfg); err != nil { // the index was in memory: it is made again
		t.Fatal(err)
	}
	look("rebuilt")
}

func TestLotLimits(t *testing.T) {
	e := func(s ...*registrypb.Subjects) *nodepb.Entry {
		e := &nodepb.Entry{TimeUnixMs: 1, Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Lot: new(nodepb.LotPart)}
		for _, l := range s {
			e.Lot.Groups = append(e.Lot.Groups, &nodepb.LotSubjects{Subjects: l})
		}
		return e
	}
	many := packed.Of("ssin", slices.Repeat([]string{"74071238186"}, MaxLotSubjects))
	if _, err := prepare(e(many)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	for name, bad := range map[string]*nodepb.Entry{
		"one more": e(many, packed.Of("ssin", []string{"74071238186"})), "none": e(nil), "half": e(&registrypb.Subjects{Digits: 11, Numbers: []byte{1}}),
	} {
		if _, err := prepare(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzReadMany(f *testing.F) {
	f.Add([]byte{0, 1, 0, 9, 1, 1, 2, 3, 4, 5, 6, 7})
	f.Fuzz(func(t *testing.T, v []byte) {
		_, _ = readMany(nil, 1, 7, v, []byte{1, 2, 3, 4, 5, 6, 7})
	})
}

// What the index costs for each subject of a chunk, against an entry for each.
func BenchmarkIndexSubjects(b *testing.B) {
	numbers := make([]string, 2048)
	for i := range numbers {
		numbers[i] = fmt.Sprintf("%011d", i*7919+13)
	}
	all := packed.Of("ssin", numbers)
	open := func(b *testing.B) *Journal {
		j, err := Open(Config{Dir: b.TempDir(), Key: bytes.Repeat([]byte{7}, 32)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = j.Close() })
		return j
	}
	rows := func(many bool, n int) (list []row) {
		for i := range n {
			r := row{terms: terms{time: time.UnixMilli(1_800_000_000_000 + int64(i)), ticket: "T"}, sequence: uint64(i)}
			if many {
				r.terms.many = []*registrypb.Subjects{all}
			} else {
				r.terms.subjects = []string{string(subject.Raw("ssin", numbers[i%len(numbers)]).Key())}
			}
			list = append(list, r)
		}
		return list
	}
	for name, c := range map[string]struct {
		many bool
		n    int
	}{"one row each": {false, 2048}, "one chunk": {true, 1}} {
		b.Run(name, func(b *testing.B) {
			j := open(b)
			if _, err := j.keys.make(periodOf(time.UnixMilli(1_800_000_000_000))); err != nil {
				b.Fatal(err)
			}
			list := rows(c.many, c.n)
			for b.Loop() {
				if err := j.index.put(list); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2048, "ns/subject")
		})
	}
}
