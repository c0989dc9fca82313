package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/runs"
)

// The rows of the person directory lie in runs (package runs). Those that were written
// last lie in the database, above the runs, until there are too many for one
// transaction; then they become a run, with whatever the transaction at hand writes. The
// database also says which runs count, in manifestKey, so a run counts from the very
// commit on that moves the applied index over what it holds.
//
// limits say how large things may grow; tests make them small.
type limits struct {
	// recentRows and recentBytes bound the rows above the runs.
	recentRows, recentBytes int
	// pendingRows and pendingBytes bound what one transaction holds in memory, and with
	// that how long the others wait.
	pendingRows, pendingBytes int
	// manyRuns make the applier wait until some are merged.
	manyRuns int
}

var usual = limits{recentRows: 2_048, recentBytes: 512 << 10, pendingRows: 256 << 10, pendingBytes: 48 << 20, manyRuns: 24}

// layers is a generation's runs and what goes on with them.
type layers struct {
	limits
	tree *runs.Tree
	log  *slog.Logger
	// turn is held by whoever commits another manifest, or rows above the runs.
	turn sync.Mutex
	// rows above the runs, and their bytes; owned by the applier.
	recent, recentBytesNow int

	due    chan struct{} // buffered: a run was added
	stop   context.CancelFunc
	merges sync.WaitGroup
	failed atomic.Pointer[error] // of a commit of the merger

	mu     sync.Mutex
	merged sync.Cond // a merge ended, or failed
	stuck  bool      // the last one failed
}

// openLayers opens the runs that the database names, and begins to merge.
func (g *generation) openLayers(key []byte, limits limits, log *slog.Logger) error {
	l := &layers{limits: limits, log: log, due: make(chan struct{}, 1)}
	l.merged.L = &l.mu
	txn := g.db.NewTransaction(false)
	defer txn.Discard()
	manifest, err := rows{txn: txn}.fromDatabase(manifestKey)
	if err != nil {
		return err
	}
	if l.tree, err = runs.Open(filepath.Join(g.dir, "runs"), key, manifest); err != nil {
		return err
	}
	above := l.tree.Current()
	err = rows{txn: txn}.scanDatabase(record.DirectoryPrefix(), record.DirectoryPrefix(), func(k, v []byte) error {
		above.Above.Add(k)
		l.recent++
		l.recentBytesNow += len(k) + len(v) + 16
		return nil
	})
	above.Release()
	if err != nil {
		return errors.Join(err, l.tree.Close())
	}
	g.layers = l
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.merges.Go(func() { g.mergeRuns(ctx) })
	l.wake()
	return nil
}

func (l *layers) close() error {
	l.stop()
	l.merges.Wait()
	return l.tree.Close()
}

func (l *layers) wake() {
	select {
	case l.due <- struct{}{}:
	default:
	}
}

// currentRuns gives the version of the runs in use, acquired, or nil.
func (g *generation) currentRuns() *runs.Version {
	if g.layers == nil {
		return nil
	}
	return g.layers.tree.Current()
}

// runsOf gives the version that txn sees, acquired; nil: it is gone, begin anew.
func (g *generation) runsOf(txn *badger.Txn) (*runs.Version, error) {
	manifest, err := rows{txn: txn}.fromDatabase(manifestKey)
	if err != nil {
		return nil, err
	}
	id, err := runs.VersionOf(manifest)
	if err != nil {
		return nil, err
	}
	v, _ := g.layers.tree.Acquire(id)
	return v, nil
}

// spill writes the rows that wait, with those above the runs, as a run, if they are too
// many for the transaction; else it gives nil.
func (g *generation) spill(w *writer) (*runs.Run, error) {
	l := g.layers
	if l.recent+len(w.pending) <= l.recentRows && l.recentBytesNow+w.pendingBytes <= l.recentBytes {
		return nil, nil
	}
	older := make(map[string][]byte)
	if l.recent > 0 {
		err := w.scanDatabase(record.DirectoryPrefix(), record.DirectoryPrefix(), func(k, v []byte) error {
			if c := w.touched[string(k)]; c == nil || !c.waits {
				older[string(k)] = v
			}
			return w.txn.Delete(k)
		})
		if err != nil {
			return nil, err
		}
	}
	l.await()
	keys := slices.AppendSeq(w.pending, maps.Keys(older))
	slices.Sort(keys)
	return l.tree.Write(uint64(len(keys)), func(yield func(k, v []byte) bool) {
		for _, k := range keys {
			v, ok := older[k]
			if !ok {
				v = w.touched[k].now
			}
			if !yield([]byte(k), v) {
				return
			}
		}
	})
}

// await returns when there are not too many runs, or merging does not help.
func (l *layers) await() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stuck {
		v := l.tree.Current()
		n, _, _ := v.Runs()
		v.Release()
		if n < l.manyRuns {
			return
		}
		l.wake()
		l.merged.Wait()
	}
}

// commit commits w, and with it that index is applied. After an error there is no
// cache any more, and nothing may be committed.
func (g *generation) commit(w *writer, index uint64) error {
	defer w.discard()
	if g.layers == nil {
		before := g.replaceCache(nil)
		if err := w.commit(index); err != nil {
			return err
		}
		g.replaceCache(before.after(w, 0))
		return nil
	}
	run, err := g.spill(w)
	if err != nil {
		return err
	}
	return g.commitWith(w, run, index)
}

// commitWith is commit with a run, the newest, that counts from then on; nil: none.
func (g *generation) commitWith(w *writer, run *runs.Run, index uint64) error {
	defer w.discard()
	l := g.layers
	l.turn.Lock()
	defer l.turn.Unlock()
	if failed := l.failed.Load(); failed != nil {
		return *failed
	}
	before := g.replaceCache(nil)
	now := l.tree.Current()
	defer now.Release()
	if run != nil {
		next := now.With(run)
		if err := errors.Join(w.txn.Set(manifestKey, next.Manifest()), w.commit(index)); err != nil {
			return err
		}
		l.recent, l.recentBytesNow = 0, 0
		l.tree.Install(next)
		g.replaceCache(before.after(w, next.ID()))
		l.wake()
		return nil
	}
	if len(w.pending) > 0 {
		l.recent += len(w.pending)
		l.recentBytesNow += w.pendingBytes
	}
	for _, k := range w.pending {
		now.Above.Add([]byte(k))
		if err := w.txn.Set([]byte(k), w.touched[k].now); err != nil {
			return err
		}
	}
	if err := w.commit(index); err != nil {
		return err
	}
	g.replaceCache(before.after(w, now.ID()))
	return nil
}

// mergeRuns merges until ctx ends. One that fails, as for want of space, changes nothing
// and is tried again when the next run comes.
func (g *generation) mergeRuns(ctx context.Context) {
	l := g.layers
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.due:
		}
		for {
			m := l.tree.Due()
			if m == nil {
				break
			}
			err := g.mergeOne(ctx, m)
			l.mu.Lock()
			l.stuck = err != nil
			l.merged.Broadcast()
			l.mu.Unlock()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				l.log.Warn("registry: runs of the directory were not merged; reading grows slower until they are", "error", err)
				break
			}
		}
	}
}

func (g *generation) mergeOne(ctx context.Context, m *runs.Merge) error {
	defer m.Release()
	run, err := m.Do(ctx)
	if err != nil {
		return err
	}
	l := g.layers
	l.turn.Lock()
	defer l.turn.Unlock()
	now := l.tree.Current()
	defer now.Release()
	next, err := now.Replace(m, run)
	if err != nil {
		return errors.Join(err, run.Drop())
	}
	txn := g.db.NewTransaction(true)
	defer txn.Discard()
	if err := errors.Join(txn.Set(manifestKey, next.Manifest()), txn.Commit()); err != nil {
		// Either manifest may be the one that a reopening finds.
		err = fmt.Errorf("%w: %w", ErrFailed, err)
		l.failed.Store(&err)
		return err
	}
	l.tree.Install(next)
	g.replaceCache(newCache(next.ID()))
	return nil
}
