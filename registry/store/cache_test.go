package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestCacheIsOfTheView changes a node's address with every third index while many read:
// whatever a view says must be as of the index that the same view stands at, in a
// row and in a scan, and never older than what was applied before the view began.
func TestCacheIsOfTheView(t *testing.T) {
	w := recordtest.New(t, "alpha", "beta")
	s := open(t, "", w)
	var commands []Entry
	const last = 300
	for i := uint64(1); i <= last; i++ {
		switch i % 3 {
		case 1: // no public row changes
			commands = append(commands, Entry{i, nil})
			continue
		case 2:
			commands = append(commands, Entry{i, w.Declare("alpha", recordtest.Reference(recordtest.Person(int(i)), "x"))})
			continue
		}
		n := recordtest.Node("alpha", "n1")
		n.Address = fmt.Sprintf("alpha.example:%d", 1000+i)
		c := w.Draft("alpha", &registrypb.Command_SetNode{SetNode: n})
		w.Follow(c)
		commands = append(commands, Entry{i, w.Sign(c, "alpha")})
	}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				before := s.AppliedIndex()
				if err := s.View(func(v record.View) error { return standsAtOneIndex(v, before) }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, e := range commands {
		before := s.current.cache.Load()
		if r := apply(t, s, e); !r[0].Accepted && len(e.Envelope) > 0 {
			t.Fatal(r[0].Refusal)
		}
		if same := before.catalogue == s.current.cache.Load().catalogue; same != (e.Index%3 != 0) {
			t.Fatalf("index %d: public rows went on: %v", e.Index, same)
		}
	}
	close(stop)
	readers.Wait()
	if err := s.View(func(v record.View) error { return standsAtOneIndex(v, last) }); err != nil {
		t.Fatal(err)
	}
}

func standsAtOneIndex(v record.View, before uint64) error {
	index, err := v.AppliedIndex()
	if err != nil || index < 3 {
		return err
	}
	want := fmt.Sprintf("alpha.example:%d", 1000+index/3*3)
	for range 2 {
		n, err := v.Node(names.NodeID{Institution: "alpha", Node: "n1"})
		if err != nil {
			return err
		}
		all, err := v.NodesOf("alpha")
		if err != nil {
			return err
		}
		if n.GetAddress() != want || len(all) != 1 || all[0].GetAddress() != want || index < before {
			return fmt.Errorf("at index %d, begun at %d: %s, %v", index, before, n.GetAddress(), all)
		}
		n.Address, all[0].Address = "changed by the caller", "changed by the caller"
	}
	return nil
}

// TestCacheIsBounded fills a cache with rows that are not there.
func TestCacheIsBounded(t *testing.T) {
	s := open(t, "", recordtest.New(t, "alpha", "beta"))
	if err := s.View(func(v record.View) error {
		for i := range maxCached + 100 {
			if _, err := v.Dataset(names.DatasetID(fmt.Sprint("d", i))); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if c := s.current.cache.Load(); len(c.rows) > maxCached {
		t.Fatalf("%d rows kept", len(c.rows))
	}
}

// TestTransactionsRest: a view takes up the transaction of the one before, never one that
// is in use or of older tables.
func TestTransactionsRest(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		w := recordtest.New(t, "alpha", "beta")
		s := open(t, dir, w)
		look := func(fn func()) {
			t.Helper()
			if err := s.View(func(v record.View) error { fn(); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		resting := func(c *cache) int {
			c.resting.Lock()
			defer c.resting.Unlock()
			return len(c.free)
		}
		before := s.current.cache.Load()
		look(func() {
			look(func() { // not the same one
				if n := resting(before); n != 0 {
					t.Errorf("%d rest while two are in use", n)
				}
			})
		})
		for range 10 {
			look(func() {})
		}
		if n := resting(before); n != 2 {
			t.Errorf("%d rest after at most two were in use at a time", n)
		}
		look(func() {
			apply(t, s, Entry{1, w.Command("alpha", &registrypb.Command_SetNode{SetNode: recordtest.Node("alpha", "n1")})})
		})
		if n := resting(before); n != 0 {
			t.Errorf("%d transactions of older tables rest", n)
		}
		if err := s.View(func(v record.View) error {
			n, err := v.Node(names.NodeID{Institution: "alpha", Node: "n1"})
			if err == nil && n == nil {
				err = errors.New("the view is older than the tables")
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		now := s.current.cache.Load()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := resting(now); n != 0 {
			t.Errorf("%d transactions outlive the store", n)
		}
	}
}

// BenchmarkView is a view that finds in the cache what it wants, as most do.
func BenchmarkView(b *testing.B) {
	s := open(b, b.TempDir(), recordtest.New(b, "alpha", "beta"))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.View(func(v record.View) error {
			_, err := v.Remembering().Institution("alpha")
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
