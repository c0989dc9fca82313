package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

// Rows of the index:
//
//	period (4) ‖ kind (1) ‖ keyed hash of the term (16; none for kind all) ‖ time (8, ms) ‖ sequence (8)
//	  → segment (8) ‖ offset (8)
//
// big-endian, so that rows of one term lie in order of time. The hash is keyed
// per period: with the period's key gone, its rows tell nothing any more.
const (
	byTicket  byte = 't'
	bySubject byte = 's'
	byUser    byte = 'u'
	byTime    byte = 'a'

	macSize   = 16
	tailSize  = 16 // time and sequence
	valueSize = 16
)

// Rows of the index about itself. Months never begin with 0xff.
var (
	metaNext  = []byte("\xffnext")  // all entries before it are in the index
	metaDirty = []byte("\xffdirty") // present while open: the index was not closed
	metaMonth = []byte("\xffmonth") // ‖ period (4): the index has rows of that month
)

// Badger writes its tables behind; without a sync a loss of power can take rows
// out of the middle, but none older than its write buffers hold: well under this
// many entries.
const reindexed = 1 << 18

// rowsPerCommit bounds one Badger transaction, in entries.
const rowsPerCommit = 1000

// index is the Badger database. Its rows are written by one goroutine.
type index struct {
	db   *badger.DB
	keys *keyRing

	mu      sync.Mutex
	next    uint64        // all entries before it can be found
	changed chan struct{} // closed and replaced when next grows or err comes
	err     error         // why the index stopped
}

func openIndex(dir string, keys *keyRing, log *slog.Logger) (*index, error) {
	cfg := badgerdb.Config{Dir: dir, NoSync: true, Log: log}
	if dir != "" {
		cfg.Key = keys.indexKey
	}
	db, err := badgerdb.Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w; the index can be deleted, it is rebuilt from the log", err)
	}
	return &index{db: db, keys: keys, changed: make(chan struct{})}, nil
}

// catchUp brings the index up to the log, before anything else uses it.
func (j *Journal) catchUp() error {
	x, until := j.index, j.durable.Load()
	from, dirty, err := x.state()
	if err != nil {
		return err
	}
	if from > until {
		return fmt.Errorf("%w: the log ends before entry %d, and entries before %d had been acknowledged: "+
			"restore the log; or, to accept the loss, delete the index, which is rebuilt", ErrCorrupt, until, from)
	}
	if err := x.checkKeys(); err != nil {
		return err
	}
	if err := x.dropErased(); err != nil {
		return err
	}
	if dirty {
		from -= min(from, reindexed)
	}
	if err := x.db.Update(func(tx *badger.Txn) error { return tx.Set(metaDirty, nil) }); err != nil {
		return err
	}
	if until-from > reindexed {
		j.log.Info("journal: rebuilding the index", "entries", until-from)
	}
	var rows []row
	err = j.scanAll(from, until, func(at location, h header, b []byte) error {
		e, err := j.decrypt(at, h, b)
		if errors.Is(err, ErrErased) {
			return nil
		}
		if err != nil {
			return err
		}
		rows = append(rows, row{termsOf(e.Entry), h.sequence, at})
		if len(rows) < rowsPerCommit {
			return nil
		}
		err = x.put(rows)
		rows = rows[:0]
		return err
	})
	if err == nil {
		err = x.put(rows)
	}
	x.next = until
	return err
}

func (x *index) state() (next uint64, dirty bool, err error) {
	err = x.db.View(func(tx *badger.Txn) error {
		if item, err := tx.Get(metaNext); err == nil {
			if err := item.Value(func(v []byte) error {
				next = binary.BigEndian.Uint64(v)
				return nil
			}); err != nil {
				return err
			}
		} else if !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		switch _, err := tx.Get(metaDirty); {
		case err == nil:
			dirty = true
		case !errors.Is(err, badger.ErrKeyNotFound):
			return err
		}
		return nil
	})
	return next, dirty, err
}

// checkKeys makes sure that every month that has rows has its key: without it they
// could not be found, and nobody would notice.
func (x *index) checkKeys() error {
	return x.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{Prefix: metaMonth})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			m := period(binary.BigEndian.Uint32(it.Item().Key()[len(metaMonth):]))
			if x.keys.get(m) == nil && !x.keys.isErased(m) {
				return x.keys.missing(m)
			}
		}
		return nil
	})
}

// run is the indexer: it writes what the writer made durable, and ends when work
// is closed and done. A failure stops the journal too.
func (x *index) run(work <-chan []row, fail func(error) error) {
	for rows := range work {
		if x.err != nil {
			continue
		}
	more:
		for len(rows) < rowsPerCommit {
			select {
			case r, ok := <-work:
				if !ok {
					break more
				}
				rows = append(rows, r...)
			default:
				break more
			}
		}
		var err error
		for len(rows) > 0 && err == nil {
			n := min(len(rows), rowsPerCommit)
			err = x.put(rows[:n])
			x.advance(rows[n-1].sequence+1, err)
			rows = rows[n:]
		}
		if err != nil {
			fail(fmt.Errorf("write the index: %w", err))
		}
	}
}

func (x *index) advance(next uint64, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.err = err
	} else {
		x.next = next
	}
	close(x.changed)
	x.changed = make(chan struct{})
}

// wait returns when all entries before next can be found.
func (x *index) wait(ctx context.Context, next uint64) error {
	for {
		x.mu.Lock()
		done, err, changed := x.next >= next, x.err, x.changed
		x.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return fmt.Errorf("%w: the index failed: %w", ErrUnavailable, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put writes the rows of consecutive entries in one transaction.
func (x *index) put(rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	months := map[period]bool{}
	return x.db.Update(func(tx *badger.Txn) error {
		for _, r := range rows {
			value := binary.BigEndian.AppendUint64(make([]byte, 0, valueSize), r.at.segment)
			value = binary.BigEndian.AppendUint64(value, uint64(r.at.offset))
			for _, k := range r.terms.indexed() {
				month := periodOf(r.terms.time)
				prefix, ok := x.prefix(month, k.kind, k.term)
				if !ok {
					continue
				}
				key := rowKey(prefix, r.terms.time, r.sequence)
				if err := tx.Set(key, value); err != nil {
					return err
				}
			}
			months[periodOf(r.terms.time)] = true
		}
		for m := range months {
			if err := tx.Set(binary.BigEndian.AppendUint32(bytes.Clone(metaMonth), uint32(m)), nil); err != nil {
				return err
			}
		}
		return tx.Set(metaNext, binary.BigEndian.AppendUint64(nil, rows[len(rows)-1].sequence+1))
	})
}

// indexedTerm is one thing that an entry can be found by.
type indexedTerm struct {
	kind byte
	term string
}

func (t terms) indexed() []indexedTerm {
	all := []indexedTerm{{byTime, ""}}
	if t.ticket != "" {
		all = append(all, indexedTerm{byTicket, t.ticket})
	}
	if t.user != "" {
		all = append(all, indexedTerm{byUser, t.user})
	}
	for _, s := range t.subjects {
		all = append(all, indexedTerm{bySubject, s})
	}
	return all
}

// prefix gives what all rows of one term in one month begin with; not when the month
// was erased.
func (x *index) prefix(month period, kind byte, term string) ([]byte, bool) {
	key := x.keys.get(month)
	if key == nil {
		return nil, false
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 5+macSize+tailSize), uint32(month))
	b = append(b, kind)
	if kind != byTime {
		b = append(b, key.mac(kind, term)...)
	}
	return b, true
}

func rowKey(prefix []byte, t time.Time, sequence uint64) []byte {
	b := binary.BigEndian.AppendUint64(bytes.Clone(prefix), uint64(t.UnixMilli()))
	return binary.BigEndian.AppendUint64(b, sequence)
}

func (x *index) close(clean bool) error {
	var err error
	if clean {
		err = x.db.Update(func(tx *badger.Txn) error { return tx.Delete(metaDirty) })
	}
	return errors.Join(err, x.db.Close())
}
