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

// view begins to read the present; its end ends that.
func (g *generation) view() *cachedRows {
	p := g.acquire()
	r := idle.Get().(*cachedRows)
	r.of, r.at, r.cache = g, p, p.cache
	r.rows = p.readWith(&r.own, p.above)
	return r
}

// idle holds what views read through, for the next ones: a view is good until its end.
var idle = sync.Pool{New: func() any { return new(cachedRows) }}

// cachedRows reads through a cache. Slices it gives are copies.
type cachedRows struct {
	rows
	cache *cache
	of    *generation
	at    *present
	own   runs.Reader // what rows reads with
	none  []byte      // the last key beyond the cache of which there was no row
}

// end ends the reading. It is called once, and nothing else afterwards.
func (r *cachedRows) end() {
	r.close()
	of, base := r.of, r.at.base
	*r = cachedRows{none: r.none[:0]}
	idle.Put(r)
	of.letGo(base)
}

// Get gives a copy of the value of k, or nil.
func (r *cachedRows) Get(k []byte) ([]byte, error) {
	if !record.OfCatalogue(k) {
		return r.beyond(k)
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

// beyond is Get for what is not in the cache. Most numbers have no history, and whether
// one has is asked several times in a row; every decision names the index it stands at.
func (r *cachedRows) beyond(k []byte) ([]byte, error) {
	if len(k) > 0 && bytes.Equal(k, r.none) {
		return nil, nil
	}
	index := record.OfIndex(k)
	if index {
		if v := r.at.index.Load(); v != nil {
			return bytes.Clone(*v), nil
		}
	}
	v, err := r.rows.Get(k)
	if index && v != nil && err == nil {
		own := bytes.Clone(v)
		r.at.index.Store(&own)
	}
	if v == nil && err == nil {
		r.none = append(r.none[:0], k...)
	}
	return v, err
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
