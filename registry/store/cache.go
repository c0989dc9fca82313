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

// cache holds rows of the small public tables as they are in one version of the
// tables, absent ones too. It is filled by views of that version alone, and dropped
// whole with the next commit; see generation.view.
type cache struct {
	mu    sync.RWMutex
	rows  map[string][]byte // nil: there is none
	scans map[string][]pair // by prefix
	size  int
	runs  uint64 // id of the version of the runs

	decoded *record.Memo
}

type pair struct{ k, v []byte }

func newCache(runs uint64) *cache {
	return &cache{rows: make(map[string][]byte), scans: make(map[string][]pair), runs: runs, decoded: record.NewMemo()}
}

// view begins to read; discard ends it. A cache may be used only by a transaction that
// reads the version the cache is of. A writer takes the cache away before it commits and
// puts an empty one in place after; so if the same cache is there before and after the
// transaction begins, no commit lies between, and it is of this version. The same holds
// for the runs: a merge changes no row.
func (g *generation) view() (_ record.Getter, discard func(), err error) {
	r, c, err := g.read()
	switch {
	case err != nil:
		return nil, nil, err
	case c == nil:
		return &r, r.discard, nil
	}
	return &cachedRows{r, c}, r.discard, nil
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

var _ record.Getter = (*cachedRows)(nil)
