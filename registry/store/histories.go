package store

import (
	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/seen"
)

// newHistories is for how many rows on numbers more than there are a set of them is made.
const newHistories = 64 << 10

// historiesIn gives the keys of all rows on numbers in a database. Whether a number has a
// history is asked in every decision and for every reference that is declared, and hardly
// any has: Badger, to say so, looks into each of its tables' filters, which it decrypts or
// finds in a cache that wakes another goroutine every so often.
func historiesIn(db *badger.DB) *seen.Keys {
	txn := db.NewTransaction(false)
	defer txn.Discard()
	var keys [][]byte
	prefix := record.HistoryPrefix()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		keys = append(keys, it.Item().KeyCopy(nil))
	}
	s := seen.For(len(keys) + len(keys)/2 + newHistories)
	for _, k := range keys {
		s.Add(k)
	}
	return s
}
