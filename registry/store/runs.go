package store

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

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
	// rows above the runs, and their bytes; owned by whoever settles.
	recent, recentBytesNow int

	due    chan struct{} // buffered: a run was added
	stop   context.CancelFunc
	merges sync.WaitGroup

	mu     sync.Mutex
	merged sync.Cond // a merge ended, or failed
	stuck  bool      // the last one failed
}

// openLayers opens the runs that the database names.
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
	return nil
}

func (g *generation) beginMerging() {
	ctx, cancel := context.WithCancel(context.Background())
	g.layers.stop = cancel
	g.layers.merges.Go(func() { g.mergeRuns(ctx) })
	g.layers.wake()
}

func (l *layers) stopMerging() {
	l.stop()
	l.merges.Wait()
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

// changed is rows to be settled; an empty value says that the row is gone.
type changed struct {
	plain     iter.Seq2[string, []byte] // not of the directory, or of one in memory
	directory []string                  // keys, in no order
	value     func(k string) []byte     // of a key of directory
	bytes     int                       // of the directory
}

// spilled is a run that takes rows from the database.
type spilled struct {
	run  *runs.Run // nil: none
	from []string  // keys of the rows
}

// spill writes the rows of the directory, with those above the runs, as a run, if they are
// too many for the database.
func (g *generation) spill(c changed) (s spilled, err error) {
	l := g.layers
	if l.recent+len(c.directory) <= l.recentRows && l.recentBytesNow+c.bytes <= l.recentBytes {
		return s, nil
	}
	older := make(map[string][]byte)
	if l.recent > 0 {
		p := g.acquire()
		r := newRows(p.base, nil)
		err := r.scanDatabase(record.DirectoryPrefix(), record.DirectoryPrefix(), func(k, v []byte) error {
			older[string(k)] = v
			return nil
		})
		r.close()
		g.letGo(p.base)
		if err != nil {
			return s, err
		}
	}
	s.from = slices.Collect(maps.Keys(older))
	for _, k := range c.directory {
		delete(older, k)
	}
	l.await()
	keys := slices.AppendSeq(slices.Clone(c.directory), maps.Keys(older))
	slices.Sort(keys)
	s.run, err = l.tree.Write(uint64(len(keys)), func(yield func(k, v []byte) bool) {
		for _, k := range keys {
			v, ok := older[k]
			if !ok {
				v = c.value(k)
			}
			if !yield([]byte(k), v) {
				return
			}
		}
	})
	return s, err
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

// commit settles what w wrote, and with it that index is applied. Nothing else may be
// waiting to be settled. After an error nothing may be settled any more.
func (g *generation) commit(w *writer, index uint64) error {
	defer w.discard()
	var s spilled
	if g.layers != nil {
		var err error
		if s, err = g.spill(w.changed()); err != nil {
			return err
		}
	}
	return g.commitWith(w, index, s)
}

// commitWith is commit with a run, the newest, that counts from then on.
func (g *generation) commitWith(w *writer, index uint64, s spilled) error {
	defer w.discard()
	if err := w.finish(index); err != nil {
		return err
	}
	if err := g.write(w.changed(), s, 0, w); err != nil {
		return err
	}
	w.saved()
	return nil
}

// settle settles the oldest n deltas above, which c is.
func (g *generation) settle(c changed, n int) error {
	s, err := g.spill(c)
	if err != nil {
		return err
	}
	return g.write(c, s, n, nil)
}

// rebase makes the database as it stands the base of the present, with n deltas less above
// it. Without a writer it is the same tables as before. The caller keeps others from
// committing.
func (g *generation) rebase(n int, by *writer) {
	b := g.newBase()
	g.advance(func(now *present) *present {
		return &present{base: b, above: now.above[n:], cache: now.cache.after(by)}
	})
}

// write commits one transaction, synced, and makes it the base of the present, see rebase.
func (g *generation) write(c changed, s spilled, n int, by *writer) error {
	if g.layers != nil {
		g.layers.turn.Lock()
		defer g.layers.turn.Unlock()
	}
	if err := g.whole(); err != nil {
		return err
	}
	if err := g.commitRows(c, s); err != nil {
		return g.fail(err)
	}
	g.rebase(n, by)
	return nil
}

// setPlain writes a row that is not of the directory, or of one in memory.
func (g *generation) setPlain(txn *badger.Txn, k, v []byte) error {
	if record.OfHistory(k) {
		if err := g.histories.note(txn, k, v); err != nil {
			return err
		}
	}
	if len(v) == 0 {
		return txn.Delete(k)
	}
	return txn.Set(k, v)
}

func (g *generation) commitRows(c changed, s spilled) error {
	txn := g.db.NewTransaction(true)
	defer txn.Discard()
	for k, v := range c.plain {
		if err := g.setPlain(txn, []byte(k), v); err != nil {
			return err
		}
	}
	if err := g.histories.save(txn); err != nil {
		return err
	}
	l := g.layers
	if l == nil {
		return txn.Commit()
	}
	now := l.tree.Current()
	defer now.Release()
	if s.run != nil {
		for _, k := range s.from {
			if err := txn.Delete([]byte(k)); err != nil {
				return err
			}
		}
		next := now.With(s.run)
		if err := errors.Join(txn.Set(manifestKey, next.Manifest()), txn.Commit()); err != nil {
			return err
		}
		l.recent, l.recentBytesNow = 0, 0
		l.tree.Install(next)
		l.wake()
		return nil
	}
	for _, k := range c.directory { // an empty one hides that of a run
		now.Above.Add([]byte(k))
		if err := txn.Set([]byte(k), c.value(k)); err != nil {
			return err
		}
	}
	if len(c.directory) > 0 {
		l.recent += len(c.directory)
		l.recentBytesNow += c.bytes
	}
	return txn.Commit()
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
		return g.fail(err)
	}
	l.tree.Install(next)
	g.rebase(0, nil)
	return nil
}
