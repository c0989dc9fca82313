package store

import (
	"errors"
	"maps"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// writer is a record.State above what is decided. It keeps what it writes in memory,
// knows how much that is, and keeps the hash of the state.
type writer struct {
	rows
	of           *generation
	base         *base
	bytes, count int
	public       bool              // a row of the small public tables was written
	own          map[string][]byte // written, but for what waits; empty: the row is gone
	cache        *cache            // of the tables as they were decided before

	hash    *hasher                // as before
	touched map[string]*change     // rows read and written
	changes [][]change             // what touched points to, in the order of first touch
	key     []byte                 // scratch
	sums    map[int]*statehash.Sum // of the buckets that changed
	marks   []uint64               // set by this writer

	limits       limits
	pending      []string // keys of touched, of the directory, in no order
	pendingBytes int

	discarded bool
}

func newWriter(g *generation) *writer {
	p := g.acquire()
	w := &writer{
		rows: newRows(p.base, p.above), of: g, own: make(map[string][]byte),
		hash: g.hash, touched: make(map[string]*change), sums: make(map[int]*statehash.Sum),
	}
	w.base, w.cache = p.base, p.cache
	if g.layers != nil {
		w.limits = g.layers.limits
	}
	return w
}

// discard ends the writing, committed or not. It may be called more than once.
func (w *writer) discard() {
	if !w.discarded {
		w.discarded = true
		w.rows.close()
		w.of.letGo(w.base)
	}
}

// full reports whether the next command might not fit.
func (w *writer) full() bool {
	return w != nil && (w.bytes > softBytes || w.count > softRows || len(w.marks) > 0 ||
		len(w.pending) > w.limits.pendingRows || w.pendingBytes > w.limits.pendingBytes)
}

// Set writes a row.
func (w *writer) Set(k, v []byte) error {
	if waits, err := w.note(k, v); err != nil || waits {
		return err
	}
	w.bytes += len(k) + min(len(v), valueLog) + 16
	w.count++
	w.public = w.public || record.OfCatalogue(k)
	w.own[string(k)] = v
	return nil
}

// Delete takes a row away.
func (w *writer) Delete(k []byte) error {
	if waits, err := w.note(k, nil); err != nil || waits {
		return err
	}
	w.bytes += len(k) + 16
	w.count++
	w.public = w.public || record.OfCatalogue(k)
	w.own[string(k)] = nil
	return nil
}

// Scan sees what the writer wrote, but for the directory, which no command scans.
func (w *writer) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	var mine []pair
	for k, v := range w.own {
		if strings.HasPrefix(k, string(prefix)) && k >= string(start) {
			mine = append(mine, pair{[]byte(k), v})
		}
	}
	sortPairs(mine)
	return scanOver(mine, func(fn func(k, v []byte) error) error { return w.rows.Scan(prefix, start, fn) }, fn)
}

// Decoded implements record.Decoding.
func (w *writer) Decoded() *record.Memo {
	if w.public {
		return nil
	}
	return w.cache.decoded
}

// finish adds what says that index is applied, and the hash.
func (w *writer) finish(index uint64) error {
	return errors.Join(record.SetAppliedIndex(w, index), w.saveHash())
}

// changed is what was written, to be settled.
func (w *writer) changed() changed {
	return changed{plain: maps.All(w.own), directory: w.pending, bytes: w.pendingBytes, value: func(k string) []byte { return w.touched[k].now }}
}

var (
	_ record.State    = (*writer)(nil)
	_ record.Decoding = (*writer)(nil)
)
