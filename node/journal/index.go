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

// Rows of the index about itself. Months never begin with 0xff.
var (
	metaNext  = []byte("\xffnext")  // all entries before it are in the index
	metaSafe  = []byte("\xffsafe")  // the rows of all entries before it outlive a loss of power
	metaDirty = []byte("\xffdirty") // present while open: the index was not closed
	metaForm  = []byte("\xffform")  // the form of the rows
	metaMonth = []byte("\xffmonth") // ‖ period (4): the index has rows of that month
)

// How much goes into the index together.
const (
	maxRows    = 16 << 10               // entries
	linger     = 200 * time.Millisecond // for more to come
	rowsPerTxn = 4000                   // of the database; it takes about 12,000
)

// formNow is the form of the rows; an index of another form is made again.
const formNow = 3

// index is the Badger database. Its rows are written by one goroutine.
type index struct {
	db   *badger.DB
	keys *keyRing

	// Of whoever writes: Open, and then the indexer.
	safe uint64 // as metaSafe

	flusher flusher

	mu      sync.Mutex
	next    uint64        // all entries before it can be found
	changed chan struct{} // closed and replaced when next grows or err comes
	err     error         // why the index stopped

	hurry chan struct{} // somebody waits
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
	return &index{db: db, keys: keys, flusher: flusher{dir: dir}, changed: make(chan struct{}), hurry: make(chan struct{}, 1)}, nil
}

// catchUp brings the index up to the log, before anything else uses it.
func (j *Journal) catchUp() error {
	x, until := j.index, j.durable.Load()
	from, safe, dirty, err := x.state()
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
	if same, err := x.sameForm(); err != nil {
		return err
	} else if !same && (from > 0 || dirty) {
		if err := x.db.DropAll(); err != nil {
			return err
		}
		from, dirty = 0, false
	}
	if err := x.dropErased(); err != nil {
		return err
	}
	if dirty {
		from = min(from, safe)
	}
	x.safe = from
	err = x.db.Update(func(tx *badger.Txn) error {
		return errors.Join(tx.Set(metaDirty, nil), tx.Set(metaForm, []byte{formNow}))
	})
	if err != nil {
		return err
	}
	if until-from > 1<<19 {
		j.log.Info("journal: rebuilding the index", "entries", until-from)
	}
	var rows []row
	weight := 0
	err = j.scanAll(from, until, func(at location, h header, b []byte) error {
		e, err := j.decrypt(at, h, b)
		if errors.Is(err, ErrErased) {
			return nil
		}
		if err != nil {
			return err
		}
		rows = append(rows, row{termsOf(e.Entry), h.sequence, at})
		if weight += rows[len(rows)-1].weight(); weight < maxRows {
			return nil
		}
		err = x.put(rows)
		rows, weight = rows[:0], 0
		return err
	})
	if err == nil {
		err = x.put(rows)
	}
	x.next = until
	return err
}

func (x *index) state() (next, safe uint64, dirty bool, err error) {
	err = x.db.View(func(tx *badger.Txn) error {
		for key, n := range map[string]*uint64{string(metaNext): &next, string(metaSafe): &safe} {
			if item, err := tx.Get([]byte(key)); err == nil {
				if err := item.Value(func(v []byte) error {
					*n = binary.BigEndian.Uint64(v)
					return nil
				}); err != nil {
					return err
				}
			} else if !errors.Is(err, badger.ErrKeyNotFound) {
				return err
			}
		}
		switch _, err := tx.Get(metaDirty); {
		case err == nil:
			dirty = true
		case !errors.Is(err, badger.ErrKeyNotFound):
			return err
		}
		return nil
	})
	return next, safe, dirty, err
}

// sameForm tells whether what rows there are have the form of now.
func (x *index) sameForm() (same bool, err error) {
	err = x.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(metaForm)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err == nil {
			err = item.Value(func(v []byte) error {
				same = bytes.Equal(v, []byte{formNow})
				return nil
			})
		}
		return err
	})
	return same, err
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
	defer x.flusher.wait()
	for rows := range work {
		if x.err != nil {
			continue
		}
		rows = x.gather(rows, work)
		err := x.put(rows)
		next := rows[len(rows)-1].sequence + 1
		if err == nil {
			err = x.flusher.begin(next)
		}
		x.advance(next, err)
		if err != nil {
			fail(fmt.Errorf("write the index: %w", err))
		}
	}
}

// gather takes what else comes within a moment: entries of one second share rows. It
// does not linger when somebody waits to find them.
func (x *index) gather(rows []row, work <-chan []row) []row {
	enough := time.NewTimer(linger)
	defer enough.Stop()
	hurry, weighed, weight := false, 0, 0
	for {
		for ; weighed < len(rows); weighed++ {
			weight += rows[weighed].weight()
		}
		if weight >= maxRows {
			return rows
		}
		if hurry {
			select {
			case r := <-work: // nil when it is closed
				if r == nil {
					return rows
				}
				rows = append(rows, r...)
				continue
			default:
				return rows
			}
		}
		select {
		case r, ok := <-work:
			if !ok {
				return rows
			}
			rows = append(rows, r...)
		case <-x.hurry:
			hurry = true
		case <-enough.C:
			return rows
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
		case x.hurry <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (x *index) close(clean bool) error {
	var err error
	if clean {
		err = x.db.Update(func(tx *badger.Txn) error { return tx.Delete(metaDirty) })
	}
	return errors.Join(err, x.db.Close())
}
