package store

import (
	"bytes"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/runs"
)

// own begins the keys of rows that are not of the tables, which all replicas share: how a
// replica lays its rows out is its own affair.
const own = "\xff"

var (
	// manifestKey is the row that says which runs count.
	manifestKey = []byte(own + "runs")
	// historiesKey is the row that says how many rows on numbers there are.
	historiesKey = []byte(own + "histories")
)

// rows is a record.Getter on what is decided and not settled, on one transaction, and on
// the version of the runs that belongs to it (runs.go). It is not safe for concurrent use.
type rows struct {
	above     []*delta // oldest first
	txn       *badger.Txn
	version   *runs.Version // nil: everything is in the database
	reader    *runs.Reader  // of version
	histories *histories    // of the database; nil: it is asked
}

func newRows(b *base, above []*delta) rows { return b.readWith(new(runs.Reader), above) }

// readWith is newRows with a reader of the caller's, which is closed.
func (b *base) readWith(reader *runs.Reader, above []*delta) rows {
	r := rows{above: above, txn: b.txn, version: b.version, histories: b.histories}
	if r.version != nil {
		reader.Of(r.version)
		r.reader = reader
	}
	return r
}

// close ends the reading; what was read from is its owner's to let go of.
func (r rows) close() {
	if r.reader != nil {
		r.reader.Close()
	}
}

// Get gives a copy of the value of k, or nil.
func (r rows) Get(k []byte) ([]byte, error) {
	for i := len(r.above) - 1; i >= 0; i-- {
		if v, ok := r.above[i].rows[string(k)]; ok {
			return bytes.Clone(orNone(v)), nil
		}
	}
	if r.histories.none(k) {
		return nil, nil
	}
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
	return scanOver(newestOf(r.above, prefix, start), func(fn func(k, v []byte) error) error {
		return r.scanSettled(prefix, start, fn)
	}, fn)
}

// scanSettled is Scan without what is not settled; start has the prefix, or is above.
func (r rows) scanSettled(prefix, start []byte, fn func(k, v []byte) error) error {
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
		if bytes.HasPrefix(k, []byte(own)) {
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
