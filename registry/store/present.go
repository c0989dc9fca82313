package store

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/runs"
)

// base is what is settled: one version of the database, and the runs that belong to it.
// All who read it share its transaction, which writes nothing.
type base struct {
	txn     *badger.Txn
	version *runs.Version // acquired; nil in memory
	users   int           // guarded by generation.mu

	histories *histories // the generation's
}

func (b *base) discard() {
	b.txn.Discard()
	if b.version != nil {
		b.version.Release()
	}
}

// present is the tables at one index: what is settled, what is decided above it, and a
// cache of public rows of just that. It is replaced, never changed.
type present struct {
	*base
	above []*delta // oldest first
	cache *cache
	index atomic.Pointer[[]byte] // the row of the applied index, once it was read
}

// delta is the rows that some entries changed. It is not changed after it is published.
type delta struct {
	rows  map[string][]byte // empty: the row is gone
	bytes int

	sort sync.Once
	keys []string
}

func (d *delta) sorted() []string {
	d.sort.Do(func() { d.keys = slices.Sorted(maps.Keys(d.rows)) })
	return d.keys
}

// newBase begins to read the database as it stands, with the runs in use. No commit may be
// under way.
func (g *generation) newBase() *base {
	return &base{txn: g.db.NewTransaction(false), version: g.currentRuns(), users: 1, histories: g.histories}
}

// acquire gives the present; letGo ends the use of its base.
func (g *generation) acquire() *present {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now.users++
	return g.now
}

func (g *generation) letGo(b *base) {
	g.mu.Lock()
	b.users--
	gone := b.users == 0
	g.mu.Unlock()
	if gone {
		b.discard()
	}
}

// advance makes another present of the one there is. One on another base brings one use of
// that along.
func (g *generation) advance(next func(now *present) *present) {
	g.mu.Lock()
	was := g.now
	g.now = next(was)
	gone := false
	if was.base != g.now.base {
		was.users--
		gone = was.users == 0
	}
	g.moved.Broadcast()
	g.mu.Unlock()
	if gone {
		was.discard()
	}
}

// newestOf gives the rows of some deltas with a prefix, not below start, in order of key.
func newestOf(above []*delta, prefix, start []byte) (found []pair) {
	if len(above) == 0 {
		return nil
	}
	newest := make(map[string][]byte)
	for _, d := range above {
		keys := d.sorted()
		from, _ := slices.BinarySearch(keys, string(start))
		for _, k := range keys[from:] {
			if !strings.HasPrefix(k, string(prefix)) {
				break
			}
			newest[k] = d.rows[k]
		}
	}
	for k, v := range newest {
		found = append(found, pair{[]byte(k), v})
	}
	sortPairs(found)
	return found
}

func sortPairs(p []pair) {
	slices.SortFunc(p, func(a, b pair) int { return cmp.Compare(string(a.k), string(b.k)) })
}

// scanOver scans rows with those of newer in place of, or between, them; empty values
// among the newer say that there is no row.
func scanOver(newer []pair, older func(fn func(k, v []byte) error) error, fn func(k, v []byte) error) error {
	give := func(p pair) error {
		if len(p.v) == 0 {
			return nil
		}
		return fn(p.k, slices.Clone(p.v))
	}
	err := older(func(k, v []byte) error {
		for len(newer) > 0 && string(newer[0].k) < string(k) {
			p := newer[0]
			newer = newer[1:]
			if err := give(p); err != nil {
				return err
			}
		}
		if len(newer) > 0 && string(newer[0].k) == string(k) {
			p := newer[0]
			newer = newer[1:]
			return give(p)
		}
		return fn(k, v)
	})
	for _, p := range newer {
		if err != nil {
			return err
		}
		err = give(p)
	}
	return err
}
