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
	t.Run("in memory", func(t *testing.T) {
		w := recordtest.New(t, "alpha", "beta")
		cacheIsOfTheView(t, w, open(t, "", w))
	})
	t.Run("settled behind", func(t *testing.T) {
		w := recordtest.New(t, "alpha", "beta")
		s := open(t, t.TempDir(), w)
		s.Behind(func(err error) { t.Error(err) })
		cacheIsOfTheView(t, w, s)
	})
}

func cacheIsOfTheView(t *testing.T, w *recordtest.World, s *Store) {
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
		before := cacheOf(s)
		if r := apply(t, s, e); !r[0].Accepted && len(e.Envelope) > 0 {
			t.Fatal(r[0].Refusal)
		}
		if same := before == cacheOf(s); same != (e.Index%3 != 0) {
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
	if c := cacheOf(s); len(c.rows) > maxCached {
		t.Fatalf("%d rows kept", len(c.rows))
	}
}

func cacheOf(s *Store) *cache {
	p := s.current.acquire()
	defer s.current.letGo(p.base)
	return p.cache
}

// TestViewsShare: views of the same tables share a transaction, which ends with the last
// of them once there are others.
func TestViewsShare(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		w := recordtest.New(t, "alpha", "beta")
		s := open(t, dir, w)
		g := s.current
		usersOf := func(b *base) int {
			g.mu.Lock()
			defer g.mu.Unlock()
			return b.users
		}
		look := func(fn func()) {
			t.Helper()
			if err := s.View(func(v record.View) error { fn(); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		before := g.now.base
		look(func() {
			look(func() {
				if n := usersOf(before); n != 3 {
					t.Errorf("%d use what two views and the present do", n)
				}
			})
			apply(t, s, Entry{1, w.Command("alpha", &registrypb.Command_SetNode{SetNode: recordtest.Node("alpha", "n1")})})
			if n := usersOf(before); n != 1 || g.now.base == before {
				t.Errorf("%d use the older tables, one view does", n)
			}
		})
		if n := usersOf(before); n != 0 {
			t.Errorf("%d use the older tables, and nobody does", n)
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
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := usersOf(g.now.base); n != 0 {
			t.Errorf("%d use the tables of a store that is closed", n)
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
