package store

import (
	"bytes"
	"slices"
	"sync"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/runs"
)

// maxCached bounds the rows and scans that a cache keeps; a mesh of thousands of
// institutions fits.
const maxCached = 1 << 16

// cache belongs to one version of the tables, and is filled by views of that version
// alone; see generation.view. The next commit puts another in its place.
type cache struct {
	*catalogue
	runs uint64 // id of the version of the runs

	resting sync.Mutex // guards what follows
	free    []*reading // that nobody uses
	over    bool       // another cache came in its place
}

// catalogue holds rows of the small public tables, absent ones too. Versions between
// which none of them was written share it.
type catalogue struct {
	mu    sync.RWMutex
	rows  map[string][]byte // nil: there is none
	scans map[string][]pair // by prefix
	size  int

	decoded *record.Memo
}

// maxResting is how many transactions of a cache wait for the next view.
const maxResting = 64

// reading is a read transaction of the version that a cache is of. It serves one view
// after another: beginning one costs more than most views do, since a view finds in the
// cache what it wants.
type reading struct{ cachedRows }

// take gives a transaction that nobody uses, or nil.
func (c *cache) take() *reading {
	c.resting.Lock()
	defer c.resting.Unlock()
	n := len(c.free)
	if n == 0 {
		return nil
	}
	r := c.free[n-1]
	c.free = c.free[:n-1]
	return r
}

// end lets the next view have the transaction, if there may be one.
func (r *reading) end() {
	if r.reader != nil {
		r.reader.Close() // it gives back memory that others use meanwhile
	}
	c := r.cache
	c.resting.Lock()
	rests := !c.over && len(c.free) < maxResting
	if rests {
		c.free = append(c.free, r)
	}
	c.resting.Unlock()
	if !rests {
		r.discard()
	}
}

// retire ends the transactions that rest; those in use end with their view.
func (c *cache) retire() {
	c.resting.Lock()
	free := c.free
	c.free, c.over = nil, true
	c.resting.Unlock()
	for _, r := range free {
		r.discard()
	}
}

// replaceCache puts another cache, or none, in place of what was there, which it gives.
func (g *generation) replaceCache(by *cache) (old *cache) {
	if old = g.cache.Swap(by); old != nil {
		old.retire()
	}
	return old
}

type pair struct{ k, v []byte }

func newCatalogue() *catalogue {
	return &catalogue{rows: make(map[string][]byte), scans: make(map[string][]pair), decoded: record.NewMemo()}
}

// full reports whether nothing more is remembered, as when many names are asked that
// nobody has.
func (c *catalogue) full() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.size >= maxCached || c.decoded.Full()
}

func newCache(runs uint64) *cache { return &cache{catalogue: newCatalogue(), runs: runs} }

// after gives the cache of the version that w made of the one that c is of; c may be nil.
func (c *cache) after(w *writer, runs uint64) *cache {
	if c == nil || w.public || c.catalogue.full() {
		return newCache(runs)
	}
	return &cache{catalogue: c.catalogue, runs: runs}
}

// view calls fn with a view. A cache may be used only by a transaction that
// reads the version the cache is of. A writer takes the cache away before it commits and
// puts an empty one in place after; so if the same cache is there before and after the
// transaction begins, no commit lies between, and it is of this version. The same holds
// for the runs: a merge changes no row.
//
// A transaction that began so reads that version for as long as it lives. A view that
// takes it up later found the cache in place when it began, so what it sees is no older
// than that moment.
func (g *generation) view(fn func(record.View) error) error {
	if c := g.cache.Load(); c != nil {
		if r := c.take(); r != nil {
			defer r.end()
			return fn(record.NewCachedView(r, g.names, c.decoded))
		}
	}
	r, c, err := g.read()
	if err != nil {
		return err
	}
	if c == nil {
		defer r.discard()
		return fn(record.NewCachedView(&r, g.names, nil))
	}
	kept := &reading{cachedRows{r, c}}
	defer kept.end()
	return fn(record.NewCachedView(kept, g.names, c.decoded))
}

// read begins to read; the cache is nil when there is none that fits.
func (g *generation) read() (rows, *cache, error) {
	for {
		c := g.cache.Load()
		txn := g.db.NewTransaction(false)
		if c != nil && g.cache.Load() != c {
			c = nil
		}
		if g.layers == nil {
			return rows{txn: txn}, c, nil
		}
		var v *runs.Version
		if c != nil {
			v, _ = g.layers.tree.Acquire(c.runs)
		}
		if v == nil {
			var err error
			if v, err = g.runsOf(txn); err != nil {
				txn.Discard()
				return rows{}, nil, err
			}
		}
		if v != nil {
			return newRows(txn, v), c, nil
		}
		txn.Discard() // the version was let go of since the transaction began
	}
}

// cachedRows reads through a cache. Slices it gives are copies.
type cachedRows struct {
	rows
	cache *cache
}

// Get gives a copy of the value of k, or nil.
func (r *cachedRows) Get(k []byte) ([]byte, error) {
	if !record.OfCatalogue(k) {
		return r.rows.Get(k)
	}
	r.cache.mu.RLock()
	v, ok := r.cache.rows[string(k)]
	r.cache.mu.RUnlock()
	if ok {
		return bytes.Clone(v), nil
	}
	v, err := r.rows.Get(k)
	if err != nil {
		return nil, err
	}
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	if r.cache.size < maxCached {
		r.cache.rows[string(k)] = bytes.Clone(v)
		r.cache.size++
	}
	return v, nil
}

// Scan calls fn with copies of keys and values.
func (r *cachedRows) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	if !record.OfCatalogue(prefix) || len(prefix) < 2 || !bytes.Equal(prefix, start) {
		return r.rows.Scan(prefix, start, fn)
	}
	r.cache.mu.RLock()
	found, ok := r.cache.scans[string(prefix)]
	r.cache.mu.RUnlock()
	if !ok {
		if err := r.rows.Scan(prefix, start, func(k, v []byte) error {
			found = append(found, pair{k, v})
			return nil
		}); err != nil {
			return err
		}
		r.cache.mu.Lock()
		if r.cache.size+len(found) < maxCached {
			r.cache.scans[string(prefix)] = found
			r.cache.size += 1 + len(found)
		}
		r.cache.mu.Unlock()
	}
	for _, p := range found {
		if err := fn(slices.Clone(p.k), slices.Clone(p.v)); err != nil {
			return err
		}
	}
	return nil
}

var _ record.Getter = (*reading)(nil)
