// Package tlog is the Merkle tree over a journal, and what shows it to others
// without showing an entry: signed checkpoints, hash tiles and proofs, in the forms
// that other implementations speak.
//
//	tree         RFC 6962 over journal.LeafHash of each entry's commitment, in sequence
//	tiles        c2sp.org/tlog-tiles, height 8, hashes only: entries are secret, so
//	             there are no entry bundles
//	checkpoint   c2sp.org/tlog-checkpoint: origin, size, root; signed with the
//	             institution's Ed25519 key (c2sp.org/signed-note, algorithm 1), the
//	             key's name being the origin "<mesh>/journal/<institution>/<node>"
//	proof        c2sp.org/tlog-proof@v1
//
// A checkpoint reads
//
//	kszbcss.example/journal/pcsa-ghent/n1
//	923748
//	nND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=
//
//	— kszbcss.example/journal/pcsa-ghent/n1 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//
// # What a checkpoint promises
//
// It is made from the log as it lies on disk, at most once in Config.Every, and
// covers only entries that are durable. It is itself durable before anybody sees
// it, in the file "checkpoints" beside the log, where every one stays. After a
// crash a Log goes on only from a log that agrees with its last checkpoint: else
// Open fails with ErrContradicted. So two checkpoints of one journal never
// contradict each other unless somebody meddled with the disk or holds the key,
// and then the two are the evidence (see Verify).
//
// The tiles are derived: one file for each level, all hashes of it in a row. They
// are made durable before the checkpoint that needs them, are checked against it
// when the Log is opened, and are rebuilt from the log when they are behind, lost
// or wrong.
package tlog

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// Hash is a hash of the tree.
type Hash = merkle.Hash

var (
	// ErrContradicted means that the log is not the one that was signed before:
	// entries are missing or were changed. The text says which, and holds the
	// signed checkpoint.
	ErrContradicted = errors.New("the log contradicts its own signed checkpoint")
	// ErrUnavailable means that no more checkpoints are made: the disk failed, or
	// the Log was closed. It does not pass until it is opened again.
	ErrUnavailable = errors.New("no checkpoints are made")
	// ErrNotInTree means that what was asked for lies beyond the last checkpoint.
	ErrNotInTree = errors.New("not in the tree yet")
)

// DefaultEvery is how often a checkpoint is made at most.
const DefaultEvery = time.Second

// Journal is what a Log follows; *journal.Journal is one.
type Journal interface {
	// Next gives the number of entries that are durable.
	Next() uint64
	// Commitments gives those of the entries from <= sequence < until, in order.
	Commitments(ctx context.Context, from, until uint64, fn func([journal.CommitmentSize]byte) error) error
}

// Config says which journal is followed and where the tree lies.
type Config struct {
	Journal Journal
	// Dir is the journal's directory: checkpoints lie in Dir/log, beside the
	// entries, and tiles in Dir/tiles, which may be deleted when nothing runs.
	Dir string
	// Checkpoints and Tiles replace Dir/log and Dir/tiles. For tests.
	Checkpoints, Tiles disk.FS
	// Origin names the log: see Origin.
	Origin string
	// Epoch of the journal, which its checkpoints name from the second on. 0: the first.
	Epoch int64
	// Signer is the institution's Ed25519 signing key.
	Signer crypto.Signer
	// Every is how often a checkpoint is made at most. 0: DefaultEvery.
	Every time.Duration
	// Log receives what was repaired and why checkpoints stopped. Nil: nowhere.
	Log *slog.Logger
}

// Log is the tree of one journal. All methods are safe for concurrent use.
type Log struct {
	cfg    Config
	signer *noteSigner
	log    *slog.Logger

	// Owned by whoever holds making: the goroutine, Publish, and Open.
	making      sync.Mutex
	tiles       *tiles
	checkpoints *checkpointFile

	mu      sync.Mutex
	shown   Checkpoint    // the last one; its tiles are all readable
	changed chan struct{} // closed and replaced with every new checkpoint

	failure atomic.Pointer[error]
	cancel  context.CancelFunc
	task    sync.WaitGroup
}

// Open opens the tree of a journal, brings it up to date, and makes checkpoints
// until Close. The journal must stay open that long. The error wraps
// ErrContradicted when the log is not what was signed before, and
// journal.ErrCorrupt when it or the file of checkpoints cannot be read.
func Open(ctx context.Context, cfg Config) (_ *Log, err error) {
	if cfg.Every == 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the tree of %s: %w", cfg.Origin, err)
		}
	}()
	l := &Log{cfg: cfg, log: cfg.Log, changed: make(chan struct{})}
	if l.signer, err = newNoteSigner(cfg.Origin, cfg.Signer); err != nil {
		return nil, err
	}
	if cfg.Checkpoints == nil {
		if cfg.Checkpoints, err = disk.OpenDir(filepath.Join(cfg.Dir, "log")); err != nil {
			return nil, err
		}
	}
	if cfg.Tiles == nil {
		if cfg.Tiles, err = disk.OpenDir(filepath.Join(cfg.Dir, TilesDir)); err != nil {
			return nil, err
		}
	}
	l.tiles = &tiles{fs: cfg.Tiles}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.release())
		}
	}()
	if l.checkpoints, err = openCheckpoints(cfg.Checkpoints); err != nil {
		return nil, err
	}
	last, err := l.resume(ctx)
	if err != nil {
		return nil, err
	}
	l.show(last)
	if err := l.Publish(ctx); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.task.Go(func() { l.run(run) })
	return l, nil
}

// run makes checkpoints until ctx ends or one cannot be made.
func (l *Log) run(ctx context.Context) {
	tick := time.NewTicker(l.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := l.Publish(ctx); err != nil {
				return
			}
		}
	}
}

// Publish makes a checkpoint now, if the log has grown since the last. It returns
// when that is durable and shown.
func (l *Log) Publish(ctx context.Context) error {
	l.making.Lock()
	defer l.making.Unlock()
	if err := l.Healthy(); err != nil {
		return err
	}
	next := l.cfg.Journal.Next()
	if last := l.Latest(); len(last.Note) > 0 && int64(next) <= last.Size {
		return nil
	}
	c, err := l.make(ctx, next)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return err // some leaves were added and nothing was signed: the next goes on from there
		}
		l.log.Error("no more checkpoints are made", "origin", l.cfg.Origin, "err", err)
		err = fmt.Errorf("%w: %w; mend the disk and restart the node, nothing is lost", ErrUnavailable, err)
		l.failure.CompareAndSwap(nil, &err)
		return err
	}
	l.show(c)
	return nil
}

// make grows the tree to size and signs it.
func (l *Log) make(ctx context.Context, size uint64) (Checkpoint, error) {
	if err := l.grow(ctx, size); err != nil {
		return Checkpoint{}, err
	}
	c := Checkpoint{Origin: l.cfg.Origin, Size: l.tiles.size(), Root: l.tiles.root(), Epoch: l.cfg.Epoch}
	if err := c.sign(l.signer); err != nil {
		return Checkpoint{}, err
	}
	return c, l.checkpoints.add(c.Note)
}

// grow adds leaves until the tree has size, and makes the tiles durable.
func (l *Log) grow(ctx context.Context, size uint64) error {
	err := l.cfg.Journal.Commitments(ctx, uint64(l.tiles.size()), size, func(c [journal.CommitmentSize]byte) error {
		return l.tiles.add(journal.LeafHash(c))
	})
	if err != nil {
		return err
	}
	return l.tiles.sync()
}

// resume brings the tree to the size of the last checkpoint, and makes sure that
// both agree. With no checkpoint yet it gives the zero one.
func (l *Log) resume(ctx context.Context) (Checkpoint, error) {
	if l.checkpoints.last == nil {
		return Checkpoint{}, nil
	}
	last, err := openOwn(l.signer, l.checkpoints.last)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: the last checkpoint kept: %w", journal.ErrCorrupt, err)
	}
	if next := l.cfg.Journal.Next(); uint64(last.Size) > next {
		return Checkpoint{}, contradiction(last, fmt.Sprintf("the log ends before entry %d, and %d entries were signed", next, last.Size))
	}
	if err := l.tiles.load(last.Size); err == nil && l.tiles.root() == last.Root {
		return last, nil
	}
	l.log.Warn("rebuilding the tree from the log", "origin", l.cfg.Origin, "entries", last.Size)
	l.tiles.reset()
	if err := l.grow(ctx, uint64(last.Size)); err != nil {
		return Checkpoint{}, err
	}
	if root := l.tiles.root(); root != last.Root {
		return Checkpoint{}, contradiction(last, fmt.Sprintf("its first %d entries have the root %v", last.Size, root))
	}
	return last, nil
}

func contradiction(c Checkpoint, says string) error {
	return fmt.Errorf("%w: %s; run crossroads journal verify, which says what was changed; the checkpoint:\n%s", ErrContradicted, says, c.Note)
}

func (l *Log) show(c Checkpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown = c
	close(l.changed)
	l.changed = make(chan struct{})
}

// Latest gives the last checkpoint.
func (l *Log) Latest() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown
}

// Size gives the number of leaves in the last checkpoint.
func (l *Log) Size() int64 { return l.Latest().Size }

// Checkpoint gives the last checkpoint as a signed note.
func (l *Log) Checkpoint() []byte { return l.Latest().Note }

// Origin gives the log's name.
func (l *Log) Origin() string { return l.cfg.Origin }

// Changed gives a channel that is closed when a newer checkpoint than that of the
// call's moment is shown. Ask for it before looking at Latest.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Wait returns the first checkpoint seen that covers entry seq.
func (l *Log) Wait(ctx context.Context, seq int64) (Checkpoint, error) {
	for {
		changed := l.Changed()
		if c := l.Latest(); c.Size > seq {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Checkpoint{}, fmt.Errorf("wait for a checkpoint over entry %d: %w", seq, context.Cause(ctx))
		}
	}
}

// Healthy gives nil while checkpoints are made, and otherwise an error that wraps
// ErrUnavailable and says why in plain words.
func (l *Log) Healthy() error {
	if err := l.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the making of checkpoints; nothing runs any more when it returns. A
// last checkpoint is made of what is durable.
func (l *Log) Close() error {
	if l.cancel == nil {
		return nil
	}
	l.cancel()
	l.task.Wait()
	l.cancel = nil
	err := l.Publish(context.Background())
	closed := fmt.Errorf("%w: the log is closed", ErrUnavailable)
	if !l.failure.CompareAndSwap(nil, &closed) {
		err = nil // it was said when it happened
	}
	return errors.Join(err, l.release())
}

func (l *Log) release() error {
	err := l.tiles.close()
	if l.checkpoints != nil {
		err = errors.Join(err, l.checkpoints.close())
	}
	return err
}

// publicKey gives the Ed25519 key of a signer.
func publicKey(s crypto.Signer) (ed25519.PublicKey, error) {
	if s == nil {
		return nil, errors.New("no signing key given")
	}
	k, ok := s.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the signing key is %T, want Ed25519", s.Public())
	}
	return k, nil
}
