// Package journal is a node's own log segment: who asked, decided, supplied or
// received what, when, about whom, under which authorization, and with what
// result; never the content itself. No answer leaves a node before its entry
// here is durable, so a node whose journal fails takes no more work.
//
// # The log
//
// Entries lie in an append-only log of our own: files named after the first
// sequence number in them, zero-filled ahead, written by one goroutine that
// commits all waiting entries with one fdatasync. Each record is
//
//	offset  bytes
//	     0      4  "XRJ1"
//	     4      4  CRC-32C of bytes 8..63
//	     8      4  CRC-32C of everything from byte 64 on
//	    12      4  n, the length of the ciphertext
//	    16      4  place of the record in its commit group, from 0
//	    20      4  retention period: year × 12 + month − 1
//	    24      8  sequence number, from 0 for the journal's first entry
//	    32     32  commitment
//	    64      n  AES-256-GCM of (salt ‖ entry)
//	  64+n         0xA5 up to a multiple of 8
//
// all numbers little-endian. The nonce is the first 12 bytes of the commitment,
// which no other record shares; the additional data is
// "crossroads journal record v1\x00" and bytes 12..63, so that a record opens
// only in its own place. The key is that of the entry's retention period (see
// DESIGN.md): destroying it makes the entries of that month unreadable while
// their commitments, and all proofs over them, stay.
//
// # The leaf
//
// What an entry is proven by is fixed for ever (testdata/vectors.json):
//
//	commitment = HMAC-SHA256(salt, entry)     salt: 32 random bytes
//	leaf hash  = SHA-256(0x00 ‖ commitment)   RFC 6962
//	answer     = SHA-256(blinding ‖ content)  blinding: 32 random bytes
//
// # The index
//
// A Badger database finds entries by ticket, subject, user and time. It holds
// keyed hashes, never a subject's number, is written behind the log, and is
// rebuilt from it. Find waits until everything acknowledged is in it.
//
// # Failure
//
// The first failed write or sync ends the journal until it is opened again:
// what a failed fsync has lost cannot be known, so it is never tried again as if
// nothing had been. Healthy says so and why.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

var (
	// ErrUnavailable means the journal takes no entries: a write failed, or it
	// was closed. Whether the entry at hand was written is not known. It does not
	// pass until the journal is opened again.
	ErrUnavailable = errors.New("the journal takes no entries")
	// ErrRefused means the entry is not one a journal may hold; nothing was
	// written, and the journal works on.
	ErrRefused = errors.New("journal entry refused")
	// ErrCorrupt means that what lies on disk is not what was written there. The
	// text says where and what to do.
	ErrCorrupt = errors.New("the journal is damaged")
	// ErrErased means that an entry's retention period was erased: its commitment
	// stands, and a tombstone says when and why. The text says so too.
	ErrErased = errors.New("erased")
)

// IndexDir is the directory of the index, within the journal's. It may be deleted
// while nothing runs.
const IndexDir = "index"

// KeySize is the size of the storage key in bytes.
const KeySize = 32

// Config says where a journal lies and how it is kept.
type Config struct {
	// Dir holds the log (Dir/log) and the index (Dir/index). Empty, with FS set,
	// keeps the index in memory.
	Dir string
	// FS holds the log instead of Dir/log. For tests.
	FS disk.FS
	// Key is the node's storage key, 32 bytes: it wraps the period keys.
	Key []byte
	// Signing is who signs what the journal states of itself. Nil: it erases nothing
	// and begins no epoch.
	Signing *Signing
	// SegmentSize is the size in bytes at which a new file is begun. 0: 64 MiB.
	SegmentSize int64
	// ChunkSize is how much is zero-filled ahead, in bytes. 0: 1 MiB.
	ChunkSize int64
	// Log receives what was repaired and why the journal stopped. Nil: nowhere.
	Log *slog.Logger
}

// Journal is an open journal. All methods are safe for concurrent use.
type Journal struct {
	cfg   Config
	fs    disk.FS
	lock  io.Closer
	keys  *keyRing
	index *index
	log   *slog.Logger

	queue   chan []*pending // what came together
	closing chan struct{}
	tasks   sync.WaitGroup // the writer and the indexer

	durable atomic.Uint64         // sequence of the next entry: all before it are on disk
	failure atomic.Pointer[error] // why the journal stopped; nil: it works

	seg      *segment // owned by the writer: the file being written
	buf      []byte   // owned by the writer: the group being written
	followed place    // of Commitments

	months  sync.RWMutex // held by the writer for each group; taken to close a month
	stating sync.Mutex   // held while the journal states something of itself
	state   statements
	notes   []note // statements as found; Open's alone
	begun   *Epoch // under stating

	open    sync.RWMutex // held by readers; Close takes it to end them
	closed  bool         // under open
	closeMu sync.Once
}

// Open opens the journal, makes it if there is none, repairs what a crash left,
// and brings the index up to date. The caller closes it. The error wraps
// disk.ErrLocked when another process has it open, and ErrCorrupt when it is
// damaged; nothing is changed then.
func Open(cfg Config) (_ *Journal, err error) {
	if len(cfg.Key) != KeySize {
		return nil, fmt.Errorf("journal: the storage key has %d bytes, want %d", len(cfg.Key), KeySize)
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = 64 << 20
	}
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = 1 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{cfg: cfg, fs: cfg.FS, log: cfg.Log, queue: make(chan []*pending), closing: make(chan struct{})}
	indexDir := ""
	if cfg.Dir != "" {
		indexDir = filepath.Join(cfg.Dir, IndexDir)
	}
	if j.fs == nil {
		if cfg.Dir == "" {
			return nil, errors.New("journal: no directory given")
		}
		if j.fs, err = disk.OpenDir(filepath.Join(cfg.Dir, "log")); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open journal %s: %w", cfg.Dir, err)
			j.release()
		}
	}()
	if j.lock, err = j.fs.Lock("LOCK"); err != nil {
		return nil, err
	}
	if err = j.fs.SyncDir(); err != nil {
		return nil, err
	}
	if err = j.openKept(); err != nil {
		return nil, err
	}
	next, err := j.recoverTail()
	if err != nil {
		return nil, err
	}
	j.durable.Store(next)
	if j.index, err = openIndex(indexDir, j.keys, cfg.Log); err != nil {
		return nil, err
	}
	if err = j.catchUp(); err != nil {
		return nil, err
	}
	work := make(chan []row, 256)
	j.tasks.Go(func() { defer close(work); j.write(work) })
	j.tasks.Go(func() { j.index.run(work, j.fail) })
	if err = j.settleAll(); err != nil {
		close(j.closing)
		j.tasks.Wait()
		return nil, err
	}
	return j, nil
}

// Append writes e and returns its sequence number once it is durable.
//
// When ctx ends first, the error wraps its cause and the entry may yet be
// written: cancelling takes nothing back. The error wraps ErrRefused when e is
// not fit for a journal, and ErrUnavailable when the journal has stopped. e is
// not kept and may be changed after the return.
func (j *Journal) Append(ctx context.Context, e *nodepb.Entry) (uint64, error) {
	if err := j.Healthy(); err != nil {
		return 0, err
	}
	p, err := prepare(e)
	if err != nil {
		return 0, err
	}
	p.done = make(chan error, 1)
	if err := j.enqueue(ctx, []*pending{p}); err != nil {
		return 0, err
	}
	if err := await(ctx, p.done); err != nil {
		return 0, err
	}
	return p.sequence, nil
}

// AppendAll writes entries in order, as Append does each, and returns once all are
// durable: for those that come together it is cheaper. Nothing is written if one is not
// fit; after any other error some may be.
func (j *Journal) AppendAll(ctx context.Context, entries []*nodepb.Entry) error {
	if err := j.Healthy(); err != nil {
		return err
	}
	all, done := make([]*pending, len(entries)), make(chan error, len(entries))
	for i, e := range entries {
		p, err := prepare(e)
		if err != nil {
			return err
		}
		p.done, all[i] = done, p
	}
	for rest := all; len(rest) > 0; {
		n, size := 1, len(rest[0].entry)
		for n < len(rest) && n < maxGroup && size < maxGroupBytes {
			size += len(rest[n].entry)
			n++
		}
		if err := j.enqueue(ctx, rest[:n:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	var failed error
	for range all {
		failed = cmp.Or(failed, await(ctx, done))
	}
	return failed
}

// enqueue hands entries to the writer.
func (j *Journal) enqueue(ctx context.Context, together []*pending) error {
	select {
	case j.queue <- together:
		return nil
	case <-j.closing:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("append to the journal: %w", context.Cause(ctx))
	}
}

// await waits for the outcome of one entry.
func await(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("append to the journal (the entry may yet be written): %w", context.Cause(ctx))
	}
}

var errClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)

// Healthy gives nil while the journal takes entries, and otherwise an error that
// wraps ErrUnavailable and says why in plain words.
func (j *Journal) Healthy() error {
	if err := j.failure.Load(); err != nil {
		return *err
	}
	select {
	case <-j.closing:
		return errClosed
	default:
		return nil
	}
}

// Next gives the sequence number of the next entry, which is the number of
// entries that are durable.
func (j *Journal) Next() uint64 { return j.durable.Load() }

// fail stops the journal for good; the first reason stays.
func (j *Journal) fail(cause error) error {
	err := fmt.Errorf("%w: %w; mend the disk and restart the node, nothing acknowledged is lost", ErrUnavailable, cause)
	if j.failure.CompareAndSwap(nil, &err) {
		j.log.Error("the journal stopped", "err", cause)
	}
	return *j.failure.Load()
}

// Close ends the journal: entries being committed are finished, later ones get
// ErrUnavailable, and nothing runs any more when it returns.
func (j *Journal) Close() error {
	var err error
	j.closeMu.Do(func() {
		close(j.closing)
		j.tasks.Wait()
		j.open.Lock()
		defer j.open.Unlock()
		j.closed = true
		err = j.release()
	})
	return err
}

// release lets go of what Open took.
func (j *Journal) release() error {
	var errs []error
	if j.index != nil {
		errs = append(errs, j.index.close(j.failure.Load() == nil))
	}
	if j.seg != nil {
		errs = append(errs, j.seg.file.Close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}
