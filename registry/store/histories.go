package store

import (
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/seen"
)

// newHistories is for how many rows on numbers more than there are a set of them is made.
const newHistories = 64 << 10

// histories knows which numbers have a row that says what became of them. That is asked in
// every decision and for every reference that is declared, and hardly any has one: Badger,
// to say so, looks into each of its tables' filters, which it decrypts or finds in a cache
// that wakes another goroutine every so often.
//
// Badger's iterators leave out what they cannot read, and say nothing. So the keys that were
// found count only if they are as many as were written; else every question goes to the
// database, which says when it cannot answer.
type histories struct {
	keys  *seen.Keys
	whole bool // keys has all

	// Owned by whoever commits.
	counted, saved bool // count is right; it is in the database
	count          uint64
}

// historiesIn reads the keys of a database. A folder of a build that did not count them has
// every question asked of the database until the replica is restored.
func historiesIn(db *badger.DB) (*histories, error) {
	txn := db.NewTransaction(false)
	defer txn.Discard()
	r := rows{txn: txn}
	said, err := r.fromDatabase(historiesKey)
	if err != nil {
		return nil, err
	}
	index, err := record.NewView(r).AppliedIndex()
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	prefix := record.HistoryPrefix()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		keys = append(keys, it.Item().KeyCopy(nil))
	}
	h := &histories{keys: seen.For(len(keys) + len(keys)/2 + newHistories), saved: said != nil}
	for _, k := range keys {
		h.keys.Add(k)
	}
	switch {
	case len(said) == 8:
		h.counted, h.count = true, binary.BigEndian.Uint64(said)
	case index == 0: // nothing was decided yet
		h.counted = true
	}
	h.whole = h.counted && h.count == uint64(len(keys))
	return h, nil
}

// none reports whether k is the key of a row on a number that certainly has none.
func (h *histories) none(k []byte) bool {
	return h != nil && h.whole && record.OfHistory(k) && !h.keys.May(k)
}

// note takes note of a row on a number that is about to be written in txn; an empty value
// takes it away.
func (h *histories) note(txn *badger.Txn, k, v []byte) error {
	_, err := txn.Get(k)
	there := err == nil
	if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	switch {
	case len(v) > 0 && !there:
		h.count++
		h.saved = false
	case len(v) == 0 && there:
		h.count--
		h.saved = false
	}
	h.keys.Add(k)
	return nil
}

// save writes how many there are, if that is known and changed.
func (h *histories) save(txn *badger.Txn) error {
	if h.saved || !h.counted {
		return nil
	}
	h.saved = true
	return txn.Set(historiesKey, binary.BigEndian.AppendUint64(nil, h.count))
}
