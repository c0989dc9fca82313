package store

import (
	"bytes"
	"slices"
	"sync"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// maxCached bounds the rows and scans that a cache keeps; a mesh of thousands of
// institutions fits.
const maxCached = 1 << 16

// cache holds rows of the small public tables, absent ones too. It is filled by views of
// presents between which none of them was written, and dropped whole when one is.
type cache struct {
	mu    sync.RWMutex
	rows  map[string][]byte // nil: there is none
	scans map[string][]pair // by prefix
	size  int

	decoded *record.Memo
}

type pair struct{ k, v []byte }

func newCache() *cache {
	return &cache{rows: make(map[string][]byte), scans: make(map[string][]pair), decoded: record.NewMemo()}
}

// full reports whether nothing more is remembered, as when many names are asked that
// nobody has.
func (c *cache) full() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.size >= maxCached || c.decoded.Full()
}

// after gives the cache of what w makes of the tables that c is of; nil: it changes none.
func (c *cache) after(w *writer) *cache {
	if w != nil && (w.public || c.full()) {
		return newCache()
	}
	return c
}

// view begins to read the present; discard ends it.
func (g *generation) view() (_ *cachedRows, discard func()) {
	p := g.acquire()
	r := newRows(p.base, p.above)
	return &cachedRows{r, p.cache}, func() { r.close(); g.letGo(p.base) }
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
