package clearing

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

const (
	benchSubjects = 125_000
	benchHolders  = 8 // institutions that know each subject
)

// million gives a store on disk with a million references, encrypted.
func million(b *testing.B) (*mesh, *store.Store) {
	m := newMesh(b)
	s, err := store.Open(badgerdb.Config{Dir: b.TempDir(), Key: make([]byte, 32), CacheMB: 64}, m.w.Rules)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	apply := func(raw []byte) {
		m.index++
		results, err := s.ApplyBatch([]store.Entry{{Index: m.index, Envelope: raw}})
		if err != nil || !results[0].Accepted {
			b.Fatal(results, err)
		}
	}
	m.index = 0
	if err := m.view().History(0, func(_ uint64, raw []byte) error { apply(raw); return nil }); err != nil {
		b.Fatal(err)
	}
	for i, holder := range []string{"office", "wages", "fund", "register", "alpha", "beta", "gamma", "delta"}[:benchHolders] {
		quality := []string{"living-wage", "employee"}[min(i, 1)]
		for from := 0; from < benchSubjects; from += record.MaxRows {
			var refs []*pb.Reference
			for n := from; n < min(from+record.MaxRows, benchSubjects); n++ {
				refs = append(refs, recordtest.Reference(recordtest.Person(100+n), quality))
			}
			apply(m.w.Declare(holder, refs...))
		}
	}
	return m, s
}

// BenchmarkDecide is the preventive check alone, for random subjects.
func BenchmarkDecide(b *testing.B) {
	m, s := million(b)
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			req := m.request(recordtest.Person(100 + rand.IntN(benchSubjects)))
			if err := s.View(func(v record.View) error {
				d, err := Decide(v, Case{Self: "alpha", Schemes: m.w.Rules.Schemes, Request: req, At: m.now})
				if d.Outcome != pb.Outcome_PERMIT {
					b.Fatal(d.Outcome, d.Reason)
				}
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("references", func(b *testing.B) {
		for b.Loop() {
			person := recordSubject(recordtest.Person(100 + rand.IntN(benchSubjects)))
			if err := s.View(func(v record.View) error {
				refs, err := v.References(person)
				if len(refs) != benchHolders {
					b.Fatal(len(refs))
				}
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		var snapshot bytes.Buffer
		if err := s.Snapshot(&snapshot); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := s.Restore(bytes.NewReader(snapshot.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(snapshot.Len())/(benchSubjects*benchHolders), "bytes/reference")
		b.ReportMetric(float64(b.N)*benchSubjects*benchHolders/b.Elapsed().Seconds(), "references/s")
	})
}
