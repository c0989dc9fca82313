// Package outbox keeps, for a short time and encrypted, what an exchange must not
// lose between its steps: signed requests before they leave, clearances before
// they are presented, answers until they are acknowledged, and the marks of
// clearances that were used.
//
// It is a table of rows. A write of several rows is one durable step: after a
// crash or power loss either all of it is there or nothing. A row may end at a
// time; from then on it is as if absent, and Sweep takes it off the disk. Writes
// that wait together share one sync.
//
// Each value is sealed with AES-256-GCM and bound to its row and its end, so that
// whoever can write the disk can neither read a value nor move it to another row:
//
//	row    table byte ‖ id
//	value  0x02 ‖ until (int64, Unix ms, 0: kept until deleted) ‖ salt (24 bytes) ‖ nonce (12) ‖ sealed
//	sealed AES-256-GCM(key = HKDF-Expand(root, "value" ‖ salt), nonce, aad = row ‖ 0x02 ‖ until ‖ salt ‖ nonce)
//	root   HKDF-SHA256(storage key, info "crossroads outbox v1 values")
//
// Salt and key are fresh each time the outbox opens, and after 2^28 values; nonces are
// random. Values of an earlier form (0x01: a key each, no nonce) are read too.
//
// On disk lies a log of such rows, in files whose form is told in log.go; rows'
// names are sealed there too. Where each row lies is kept in memory, some 150
// bytes for each. DESIGN.md says why it is so.
package outbox

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

var (
	// ErrNotFound means there is no such row, or it has ended.
	ErrNotFound = errors.New("outbox: no such row")
	// ErrDamaged means that what was read is not what was written: the disk
	// failed, or somebody changed it.
	ErrDamaged = errors.New("outbox: damaged")
	// ErrWrongKey means that the storage key does not open the files.
	ErrWrongKey = errors.New("outbox: the storage key does not open these files; configure the key they were made with")
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
	// FS takes the place of Dir when it is given.
	FS disk.FS
	// StorageKey is the node's storage key, 32 bytes. It must be given.
	StorageKey []byte
	// SegmentSize is the size in bytes at which a new file is begun. 0: 32 MiB.
	SegmentSize int64
	// ChunkSize is how much is zero-filled ahead, in bytes. 0: 1 MiB.
	ChunkSize int64
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
	// Lazy says that a crash may undo this change: it is seen at once, and
	// durable with the next write that is not lazy, or a little later, or when the
	// outbox closes. It counts only if all changes of a write are lazy.
	Lazy bool
}

// Outbox is an open outbox. It is safe for concurrent use.
type Outbox struct {
	cfg   Config
	fs    disk.FS // nil: all is in memory
	lock  io.Closer
	root  []byte // of the keys of values
	files []byte // of the keys of files
	seals seals
	now   func() time.Time

	queue   chan *write
	nudge   chan struct{} // a lazy change waits
	closing chan struct{}
	stopped chan struct{} // closed once the writer has ended
	writer  sync.WaitGroup
	head    *segment // the file being written; the writer's
	buf     []byte   // the group being written; the writer's

	sweeping sync.Mutex // one Sweep at a time

	mu       sync.RWMutex // guards what follows
	tables   map[Table]map[string]entry
	segments []*segment // oldest first; the last is head
	lazy     []*row     // seen, not written yet
	failed   error
	closed   bool
}

// entry says where the value of a row is.
type entry struct {
	at    place
	until int64 // Unix ms; 0: none
	// row, if there is one, holds the value instead: it is not on disk yet. Without
	// a value it is a deletion.
	row *row
}

// row is one change on its way to the disk.
type row struct {
	Key
	raw   []byte // nil: deleted
	until int64
	from  place // of a row that is moved; it is dropped if the row is no longer there
}

// Open opens or makes an outbox. The caller closes it. The error may wrap
// ErrWrongKey, ErrDamaged or disk.ErrLocked.
func Open(cfg Config) (*Outbox, error) {
	if len(cfg.StorageKey) != badgerdb.KeySize {
		return nil, fmt.Errorf("outbox: storage key has %d bytes, want %d", len(cfg.StorageKey), badgerdb.KeySize)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = 32 << 20
	}
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = 1 << 20
	}
	root, err := derive(cfg.StorageKey, "crossroads outbox v1 values")
	if err != nil {
		return nil, err
	}
	files, err := derive(cfg.StorageKey, "crossroads outbox v2 files")
	if err != nil {
		return nil, err
	}
	o := &Outbox{cfg: cfg, fs: cfg.FS, root: root, files: files, now: cfg.Now,
		queue: make(chan *write, maxGroup), nudge: make(chan struct{}, 1),
		closing: make(chan struct{}), stopped: make(chan struct{}), tables: make(map[Table]map[string]entry)}
	if o.fs == nil && cfg.Dir != "" {
		if o.fs, err = disk.OpenDir(cfg.Dir); err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
	}
	if o.fs != nil {
		if o.lock, err = o.fs.Lock("LOCK"); err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
		if err := o.recover(); err != nil {
			o.closeFiles()
			return nil, fmt.Errorf("outbox %s: %w", cfg.Dir, err)
		}
		o.writer.Go(o.run)
	}
	return o, nil
}

func derive(key []byte, info string) ([]byte, error) {
	return hkdf.Key(sha256.New, key, nil, info, badgerdb.KeySize)
}

// Close makes what waits durable and closes the files. Calls after it fail with
// ErrClosed.
func (o *Outbox) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		<-o.stopped
		return nil
	}
	o.closed = true
	o.mu.Unlock()
	close(o.closing)
	o.writer.Wait()
	o.mu.Lock() // no read is under way
	defer o.mu.Unlock()
	close(o.stopped)
	return o.closeFiles()
}

func (o *Outbox) closeFiles() error {
	var errs []error
	for _, s := range o.segments {
		errs = append(errs, s.file.Close())
	}
	if o.lock != nil {
		errs = append(errs, o.lock.Close())
	}
	return errors.Join(errs...)
}

// state says why the outbox cannot be used; the caller holds mu.
func (o *Outbox) state() error {
	if o.closed {
		return ErrClosed
	}
	return o.failed
}

// Get gives the value of a row. The error wraps ErrNotFound or ErrDamaged, or
// comes from the disk.
func (o *Outbox) Get(k Key) (value []byte, err error) {
	raw, err := o.raw(k)
	if err != nil {
		return nil, err
	}
	return o.open(k, raw)
}

func (o *Outbox) raw(k Key) ([]byte, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if err := o.state(); err != nil {
		return nil, err
	}
	e, ok := o.tables[k.Table][k.ID]
	if !ok {
		return nil, ErrNotFound
	}
	return e.read()
}

// read gives the sealed value. The caller holds mu, so that the file stays open.
func (e entry) read() ([]byte, error) {
	if e.row == nil {
		return e.at.read()
	}
	if e.row.raw == nil {
		return nil, ErrNotFound
	}
	return e.row.raw, nil
}

// Write makes all changes in one durable step and returns once they are on disk.
// After an error, other than ErrTooLarge, it is not known whether they are, and
// the outbox refuses everything from then on with ErrFailed.
func (o *Outbox) Write(changes ...Change) error {
	few := new(struct { // made together: most writes have no more
		write
		of   [4]*row
		rows [4]row
	})
	w, rows := &few.write, few.rows[:]
	w.rows = few.of[:min(len(changes), len(few.of))]
	if len(changes) > len(rows) {
		w.rows, rows = make([]*row, len(changes)), make([]row, len(changes))
	}
	lazy := true
	for i, c := range changes {
		r := &rows[i]
		r.Key = c.Key
		if !c.Delete {
			raw, err := o.seal(c.Key, c.Until, c.Value)
			if err != nil {
				return err
			}
			r.raw, r.until = raw, unixMilli(c.Until)
		}
		w.rows[i], w.size, lazy = r, w.size+rowSize(r), lazy && c.Lazy
	}
	if w.size > maxWrite {
		return fmt.Errorf("%w: %d bytes in %d rows", ErrTooLarge, w.size, len(w.rows))
	}
	if lazy || o.fs == nil {
		return o.writeLazily(w.rows)
	}
	w.done = make(chan error, 1)
	return o.enqueue(w)
}

// writeLazily lets changes be seen and leaves the disk to the writer.
func (o *Outbox) writeLazily(rows []*row) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.state(); err != nil {
		return err
	}
	for _, r := range rows {
		o.put(r.Key, entry{until: r.until, row: r}, r.raw == nil && o.fs == nil)
	}
	if o.fs != nil {
		o.lazy = append(o.lazy, rows...)
		select {
		case o.nudge <- struct{}{}:
		default:
		}
	}
	return nil
}

// put sets the entry of a row, or takes it away. The caller holds mu.
func (o *Outbox) put(k Key, e entry, gone bool) {
	table := o.tables[k.Table]
	if table == nil {
		table = make(map[string]entry)
		o.tables[k.Table] = table
	}
	if old, ok := table[k.ID]; ok && old.at.segment != nil {
		old.at.segment.live -= int64(old.at.size)
	}
	if gone {
		delete(table, k.ID)
		return
	}
	if table[k.ID] = e; e.at.segment != nil {
		e.at.segment.live += int64(e.at.size)
	}
}

// Each calls fn with every row of a table that has not ended, in order of id. It
// reads one moment's state, so fn may write. Damaged rows are passed over and
// told in the error at the end, which then wraps ErrDamaged.
func (o *Outbox) Each(t Table, fn func(id string, value []byte) error) error {
	rows, err := o.rowsOf(t)
	if err != nil {
		return err
	}
	var damaged error
	for _, r := range rows {
		value, err := o.open(r.Key, r.raw)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged = err
			continue
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			return err
		}
		if err := fn(r.ID, value); err != nil {
			return err
		}
	}
	return damaged
}

func (o *Outbox) rowsOf(t Table) (rows []*row, err error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if err := o.state(); err != nil {
		return nil, err
	}
	for id, e := range o.tables[t] {
		raw, err := e.read()
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, &row{Key: Key{t, id}, raw: raw})
	}
	slices.SortFunc(rows, func(a, b *row) int { return strings.Compare(a.ID, b.ID) })
	return rows, nil
}

func (k Key) row() []byte { return append([]byte{byte(k.Table)}, k.ID...) }
