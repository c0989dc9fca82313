package journal

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// dumb is Find as one would write it without an index.
func dumb(all []*nodepb.Entry, q Query) []uint64 {
	var found []uint64
	for i, e := range all {
		when := time.UnixMilli(e.TimeUnixMs)
		if (q.Ticket == "" || e.Ticket == string(q.Ticket)) &&
			(q.User == "" || e.User == string(q.User)) &&
			(q.Requester == "" || e.Requester.Institution == string(q.Requester)) &&
			(q.Subject.IsZero() || slices.ContainsFunc(append([]*registrypb.Subject{e.Subject}, e.AlsoSubjects...), func(s *registrypb.Subject) bool {
				return s.Number == q.Subject.Number() && s.Scheme == string(q.Subject.Scheme())
			})) &&
			(q.From.IsZero() || !when.Before(q.From)) && (q.Until.IsZero() || when.Before(q.Until)) {
			found = append(found, uint64(i))
		}
	}
	slices.SortStableFunc(found, func(a, b uint64) int { return cmp.Compare(all[a].TimeUnixMs, all[b].TimeUnixMs) })
	if q.NewestFirst {
		slices.Reverse(found)
	}
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[:q.Limit]
	}
	return found
}

// TestFindAgainstDumb compares every combination of filters with the dumb search,
// over entries of many months and out of order of time.
func TestFindAgainstDumb(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := disktest.New()
		j, err := Open(small(fs))
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		few := func(prefix string) *rapid.Generator[string] {
			return rapid.SampledFrom([]string{prefix + "a", prefix + "b", prefix + "c"})
		}
		instant := rapid.Custom(func(t *rapid.T) time.Time {
			return epoch.Add(time.Duration(rapid.IntRange(0, 100*24).Draw(t, "hours")) * time.Hour)
		})
		var all []*nodepb.Entry
		for range rapid.IntRange(0, 40).Draw(t, "entries") {
			e := &nodepb.Entry{
				TimeUnixMs: instant.Draw(t, "time").UnixMilli(), Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED,
				Ticket: few("t").Draw(t, "ticket"), User: few("u").Draw(t, "user"),
				Requester: &registrypb.NodeRef{Institution: few("i").Draw(t, "requester")},
				Subject:   &registrypb.Subject{Scheme: few("s").Draw(t, "scheme"), Number: few("").Draw(t, "number")},
			}
			for range rapid.IntRange(0, 3).Draw(t, "other subjects") {
				e.AlsoSubjects = append(e.AlsoSubjects, &registrypb.Subject{Scheme: few("s").Draw(t, "scheme"), Number: few("").Draw(t, "number")})
			}
			if _, err := j.Append(context.Background(), e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		for range 8 {
			q := Query{Limit: rapid.IntRange(0, 10).Draw(t, "limit"), NewestFirst: rapid.Bool().Draw(t, "newest first")}
			if rapid.Bool().Draw(t, "by ticket") {
				q.Ticket = names.Ticket(few("t").Draw(t, "ticket"))
			}
			if rapid.Bool().Draw(t, "by user") {
				q.User = names.UserID(few("u").Draw(t, "user"))
			}
			if rapid.Bool().Draw(t, "by requester") {
				q.Requester = names.InstitutionID(few("i").Draw(t, "requester"))
			}
			if rapid.Bool().Draw(t, "by subject") {
				q.Subject = subject.Raw(subject.Scheme(few("s").Draw(t, "scheme")), few("").Draw(t, "number"))
			}
			sub := time.Duration(rapid.IntRange(0, 1).Draw(t, "within a millisecond")) * time.Microsecond
			if rapid.Bool().Draw(t, "from") {
				q.From = instant.Draw(t, "from").Add(sub)
			}
			if rapid.Bool().Draw(t, "until") {
				q.Until = instant.Draw(t, "until").Add(sub)
			}
			got, err := j.Find(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			var seqs []uint64
			for _, s := range got {
				seqs = append(seqs, s.Sequence)
			}
			if want := dumb(all, q); !slices.Equal(seqs, want) {
				t.Fatalf("%+v: found %v, want %v", q, seqs, want)
			}
		}
	})
}

// TestReadYourWrites: whoever got a number finds the entry, at once, with others
// appending, reading and verifying at the same time.
func TestReadYourWrites(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir(), SegmentSize: 64 << 10, ChunkSize: 16 << 10})
	ctx := context.Background()
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := range 30 {
				e := entry(w*1000 + i)
				n, err := j.Append(ctx, e)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := j.Find(ctx, Query{Ticket: names.Ticket(e.Ticket)})
				if err != nil || len(got) != 1 || got[0].Sequence != n {
					t.Errorf("entry %d: found %d, %v", n, len(got), err)
					return
				}
				if c := EntryCommitment(got[0].Salt, got[0].Raw); c != got[0].Commitment {
					t.Error("another commitment")
				}
				if i%10 == 0 {
					if _, err := j.Verify(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
}

func FuzzRecord(f *testing.F) {
	v := loadVectors(f)
	good := unhex(f, v.Record.Bytes)
	ring := &keyRing{keys: map[period]*periodKey{}}
	if err := ring.add(1, unhex(f, v.Record.PeriodKey)); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:headerSize])
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseRecord(b)
		if err == nil {
			if h.size() > int64(len(b)) || h.length > maxBody {
				t.Fatal("a record larger than its bytes")
			}
			_, _, _ = openRecord(b, h, ring.get(1).aead)
		}
		err = unacknowledged(b, scanned{offset: 64, sequence: 3})
		if err == nil && len(b) > 0 && !allZero(b) && !lacksSector(b, 64, len(b)) {
			t.Fatal("whole sectors of something were cleared away")
		}
		if err != nil && errors.Is(err, ErrCorrupt) {
			t.Fatal("the position is missing")
		}
	})
}
