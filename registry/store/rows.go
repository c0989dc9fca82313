package store

import (
	"bytes"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/runs"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// manifestKey is the row that says which runs count. It is no row of the tables, which
// all replicas share: how a replica lays its rows out is its own affair.
var manifestKey = []byte("\xffruns")

// rows is a record.Getter on one transaction, and on the version of the runs that
// belongs to it (runs.go). It is not safe for concurrent use.
type rows struct {
	txn     *badger.Txn
	version *runs.Version // nil: everything is in the database
	reader  *runs.Reader  // of version
}

func newRows(txn *badger.Txn, v *runs.Version) rows {
	r := rows{txn: txn, version: v}
	if v != nil {
		r.reader = v.Reader()
	}
	return r
}

// discard ends the reading.
func (r rows) discard() {
	r.txn.Discard()
	if r.version != nil {
		r.reader.Close()
		r.version.Release()
	}
}

// Get gives a copy of the value of k, or nil.
func (r rows) Get(k []byte) ([]byte, error) {
	if r.version == nil || !record.OfDirectory(k) {
		return r.fromDatabase(k)
	}
	if r.version.Above.May(k) {
		v, err := r.fromDatabase(k)
		if err != nil || v != nil {
			return orNone(v), err
		}
	}
	v, _, err := r.reader.Get(k)
	return orNone(v), err
}

// fromDatabase tells an empty value, which is not nil, from none.
func (r rows) fromDatabase(k []byte) ([]byte, error) {
	item, err := r.txn.Get(k)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return item.ValueCopy([]byte{})
}

func orNone(v []byte) []byte {
	if len(v) == 0 {
		return nil
	}
	return v
}

// Scan gives copies of keys and values.
func (r rows) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	if bytes.Compare(start, prefix) < 0 {
		start = prefix
	}
	if r.version == nil || len(prefix) > 0 && !record.OfDirectory(prefix) {
		return r.scanDatabase(prefix, start, fn)
	}
	older, err := r.version.Iterate(start)
	if err != nil {
		return err
	}
	// Up to and with the key upTo; nil: to the end of the prefix.
	runOn := func(upTo []byte) error {
		for older.Valid() {
			k, v := older.Row()
			if !bytes.HasPrefix(k, prefix) || upTo != nil && bytes.Compare(k, upTo) > 0 {
				return nil
			}
			if len(v) > 0 && !bytes.Equal(k, upTo) { // the database is newer
				if err := fn(bytes.Clone(k), bytes.Clone(v)); err != nil {
					return err
				}
			}
			if err := older.Next(); err != nil {
				return err
			}
		}
		return nil
	}
	err = r.scanDatabase(prefix, start, func(k, v []byte) error {
		if err := runOn(k); err != nil || len(v) == 0 {
			return err
		}
		return fn(k, v)
	})
	if err != nil {
		return err
	}
	return runOn(nil)
}

// scanDatabase reads no value ahead: there may be commands of a megabyte among them.
func (r rows) scanDatabase(prefix, start []byte, fn func(k, v []byte) error) error {
	opts := badger.DefaultIteratorOptions
	opts.PrefetchValues = false
	opts.Prefix = prefix
	it := r.txn.NewIterator(opts)
	defer it.Close()
	for it.Seek(start); it.ValidForPrefix(prefix); it.Next() {
		k := it.Item().KeyCopy(nil)
		if bytes.Equal(k, manifestKey) {
			continue
		}
		v, err := it.Item().ValueCopy(nil)
		if err != nil {
			return err
		}
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

// writer is a record.State on one transaction that knows how full it is, and keeps
// the hash of the state. Rows of the directory wait beside the transaction, if there are
// runs that they may go to.
type writer struct {
	rows
	bytes, count int
	public       bool // a row of the small public tables was written

	hash    *hasher                // as before the transaction
	touched map[string]*change     // rows read and written
	sums    map[int]*statehash.Sum // of the buckets that changed
	marks   []uint64               // set in this transaction

	limits       limits
	pending      []string // keys of touched that wait, in no order
	pendingBytes int

	discarded bool
}

// discard ends the writing, committed or not. It may be called more than once.
func (w *writer) discard() {
	if !w.discarded {
		w.discarded = true
		w.rows.discard()
	}
}

func newWriter(g *generation) *writer {
	w := &writer{
		rows: newRows(g.db.NewTransaction(true), g.currentRuns()),
		hash: g.hash, touched: make(map[string]*change), sums: make(map[int]*statehash.Sum),
	}
	if g.layers != nil {
		w.limits = g.layers.limits
	}
	return w
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
	w.public = w.public || record.OfCatalogue(k)
	w.bytes += len(k) + min(len(v), valueLog) + 16
	w.count++
	return w.txn.Set(k, v)
}

// Delete takes a row away.
func (w *writer) Delete(k []byte) error {
	if waits, err := w.note(k, nil); err != nil || waits {
		return err
	}
	w.public = w.public || record.OfCatalogue(k)
	w.bytes += len(k) + 16
	w.count++
	return w.txn.Delete(k)
}

// commit makes what was written durable, and with it that index is applied.
func (w *writer) commit(index uint64) error {
	if err := errors.Join(record.SetAppliedIndex(w, index), w.saveHash()); err != nil {
		return err
	}
	if err := w.txn.Commit(); err != nil {
		return err
	}
	w.saved()
	return nil
}

var _ record.State = (*writer)(nil)
