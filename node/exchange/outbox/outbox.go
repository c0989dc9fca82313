// Package outbox keeps, for a short time and encrypted, what an exchange must not
// lose between its steps: signed requests before they leave, clearances before
// they are presented, answers until they are acknowledged, and the marks of
// clearances that were used.
//
// It is a table of rows in Badger. A write of several rows is one durable step:
// after a crash or power loss either all of it is there or nothing. A row may end
// at a time; from then on it is as if absent, and Sweep takes it off the disk.
//
// Each value is sealed with AES-256-GCM and bound to its row and its end, so that
// whoever can write the disk can neither read a value nor move it to another row:
//
//	row    table byte ‖ id
//	value  0x01 ‖ until (int64, Unix ms, 0: kept until deleted) ‖ salt (24 bytes) ‖ sealed
//	sealed AES-256-GCM(key = HKDF-Expand(root, "value" ‖ salt), nonce = 0, aad = row ‖ 0x01 ‖ until ‖ salt)
//	root   HKDF-SHA256(storage key, info "crossroads outbox v1 values")
//
// The key is fresh for every value, so one nonce serves and there is no bound on
// the number of values. Badger encrypts its files below that, with a key of its
// own derived likewise, so that rows' names do not show either.
package outbox

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

var (
	// ErrNotFound means there is no such row, or it has ended.
	ErrNotFound = errors.New("outbox: no such row")
	// ErrDamaged means that a value is not what was written in its row: the disk
	// failed, or somebody changed it.
	ErrDamaged = errors.New("outbox: damaged value")
	// ErrWrongKey means that the storage key does not open the database.
	ErrWrongKey = errors.New("outbox: the storage key does not open this database; configure the key it was made with")
	// ErrTooLarge means that the rows of one write do not fit together.
	ErrTooLarge = errors.New("outbox: write too large")
	// ErrFailed means that an earlier write failed, so that it is not known what
	// the disk holds. It stays until the outbox is opened again.
	ErrFailed = errors.New("outbox: an earlier write failed: mend the disk and restart the node")
	// ErrClosed means that the outbox was closed.
	ErrClosed = errors.New("outbox: closed")
)

// Config says where an outbox lies and how it is kept.
type Config struct {
	// Dir is made if absent. Empty keeps the outbox in memory, for tests.
	Dir string
	// StorageKey is the node's storage key, 32 bytes. It must be given.
	StorageKey []byte
	// Now gives the wall-clock time by which rows end. Nil: time.Now.
	Now func() time.Time
	Log *slog.Logger // nil: silent
}

// Table separates kinds of rows.
type Table byte

// Key names one row.
type Key struct {
	Table Table
	ID    string
}

// Change is one row of a write: a value put, or, when Delete is set, the row taken away.
type Change struct {
	Key
	Value  []byte
	Until  time.Time // to the millisecond; zero: kept until deleted
	Delete bool
}

// Outbox is an open outbox. It is safe for concurrent use.
type Outbox struct {
	db   *badger.DB
	root []byte
	now  func() time.Time

	mu     sync.RWMutex // held for writing only to close, or to note a failure
	failed error
	closed bool
}

// Open opens or makes an outbox. The caller closes it.
func Open(cfg Config) (*Outbox, error) {
	if len(cfg.StorageKey) != badgerdb.KeySize {
		return nil, fmt.Errorf("outbox: storage key has %d bytes, want %d", len(cfg.StorageKey), badgerdb.KeySize)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	root, err := derive(cfg.StorageKey, "crossroads outbox v1 values")
	if err != nil {
		return nil, err
	}
	files, err := derive(cfg.StorageKey, "crossroads outbox v1 files")
	if err != nil {
		return nil, err
	}
	db, err := badgerdb.Open(badgerdb.Config{Dir: cfg.Dir, Key: files, Log: cfg.Log})
	if errors.Is(err, badger.ErrEncryptionKeyMismatch) {
		return nil, fmt.Errorf("%w: %s", ErrWrongKey, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return &Outbox{db: db, root: root, now: cfg.Now}, nil
}

func derive(key []byte, info string) ([]byte, error) {
	return hkdf.Key(sha256.New, key, nil, info, badgerdb.KeySize)
}

// Close closes the database. Calls after it fail with ErrClosed.
func (o *Outbox) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	return o.db.Close()
}

// state says why the outbox cannot be used; the caller holds mu.
func (o *Outbox) state() error {
	if o.closed {
		return ErrClosed
	}
	return o.failed
}

// usable takes the read lock; the caller releases it when there is no error.
func (o *Outbox) usable() error {
	o.mu.RLock()
	err := o.state()
	if err != nil {
		o.mu.RUnlock()
	}
	return err
}

// Get gives the value of a row. The error wraps ErrNotFound or ErrDamaged, or
// comes from the disk.
func (o *Outbox) Get(k Key) (value []byte, err error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	defer o.mu.RUnlock()
	err = o.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(k.row())
		if errors.Is(err, badger.ErrKeyNotFound) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		return item.Value(func(raw []byte) error {
			value, err = o.open(k.row(), raw)
			return err
		})
	})
	return value, err
}

// Write makes all changes in one durable step and returns once they are on disk.
// After an error, other than ErrTooLarge, it is not known whether they are, and
// the outbox refuses everything from then on with ErrFailed.
func (o *Outbox) Write(changes ...Change) error {
	if err := o.usable(); err != nil {
		return err
	}
	err := o.write(changes)
	o.mu.RUnlock()
	if err != nil && !errors.Is(err, ErrTooLarge) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failed == nil {
			o.failed = fmt.Errorf("%w (%v)", ErrFailed, err)
		}
	}
	return err
}

func (o *Outbox) write(changes []Change) error {
	txn := o.db.NewTransaction(true)
	defer txn.Discard()
	for _, c := range changes {
		var err error
		if c.Delete {
			err = txn.Delete(c.row())
		} else {
			var raw []byte
			if raw, err = o.seal(c.row(), c.Until, c.Value); err == nil {
				err = txn.Set(c.row(), raw)
			}
		}
		if errors.Is(err, badger.ErrTxnTooBig) {
			return fmt.Errorf("%w: %d rows", ErrTooLarge, len(changes))
		}
		if err != nil {
			return fmt.Errorf("outbox: write: %w", err)
		}
	}
	if err := txn.Commit(); err != nil {
		return fmt.Errorf("outbox: commit: %w", err)
	}
	return nil
}

// Each calls fn with every row of a table that has not ended, in order of id. It
// reads one moment's state, so fn may write. Damaged rows are passed over and
// told in the error at the end, which then wraps ErrDamaged.
func (o *Outbox) Each(t Table, fn func(id string, value []byte) error) error {
	type row struct {
		id    string
		value []byte
	}
	var rows []row
	var damaged error
	err := o.scan([]byte{byte(t)}, func(key, raw []byte) error {
		value, err := o.open(key, raw)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged = err
		case err == nil:
			rows = append(rows, row{string(key[1:]), value})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := fn(r.id, r.value); err != nil {
			return err
		}
	}
	return damaged
}

// sweepBatch is how many rows one transaction of Sweep takes away.
const sweepBatch = 1000

// Sweep takes the rows that have ended off the disk and gives how many they were.
func (o *Outbox) Sweep() (int, error) {
	var ended [][]byte
	err := o.scan(nil, func(key, raw []byte) error {
		if until, err := untilOf(raw); err == nil && o.ended(until) {
			ended = append(ended, key)
		}
		return nil
	})
	total := 0
	for len(ended) > 0 && err == nil {
		batch := ended[:min(sweepBatch, len(ended))]
		ended = ended[len(batch):]
		var n int
		n, err = o.sweep(batch)
		total += n
	}
	if err != nil || total == 0 || o.db.Opts().InMemory {
		return total, err
	}
	return total, o.reclaim()
}

// sweep deletes those of the rows that still have ended: one may have been
// written anew since it was found. No write runs meanwhile.
func (o *Outbox) sweep(rows [][]byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.state(); err != nil {
		return 0, err
	}
	txn := o.db.NewTransaction(true)
	defer txn.Discard()
	for _, row := range rows {
		item, err := txn.Get(row)
		if errors.Is(err, badger.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		var until int64
		err = item.Value(func(raw []byte) (err error) { until, err = untilOf(raw); return err })
		if err != nil || !o.ended(until) {
			continue
		}
		if err := txn.Delete(row); err != nil {
			return 0, fmt.Errorf("outbox: sweep: %w", err)
		}
		n++
	}
	if err := txn.Commit(); err != nil {
		o.failed = fmt.Errorf("%w (%v)", ErrFailed, err)
		return 0, o.failed
	}
	return n, nil
}

// reclaim lets Badger rewrite a file of large values that is mostly dead.
func (o *Outbox) reclaim() error {
	if err := o.usable(); err != nil {
		return err
	}
	defer o.mu.RUnlock()
	err := o.db.RunValueLogGC(0.5)
	if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
		return nil
	}
	return err
}

func (o *Outbox) scan(prefix []byte, fn func(key, raw []byte) error) error {
	if err := o.usable(); err != nil {
		return err
	}
	defer o.mu.RUnlock()
	return o.db.View(func(txn *badger.Txn) error {
		opts := badger.DefaultIteratorOptions
		opts.Prefix = prefix
		it := txn.NewIterator(opts)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			if err := it.Item().Value(func(raw []byte) error { return fn(key, raw) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func (k Key) row() []byte { return append([]byte{byte(k.Table)}, k.ID...) }
