package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// flushEvery is how often the index's files are synced while it grows: after a crash as
// much is indexed again.
const flushEvery = 2 * time.Second

// flusher syncs the files of the index beside its writer. Badger writes its tables
// behind, and without a sync a loss of power can take rows out of the middle; none that
// were written before a sync of all files began. The writer alone calls begin and wait.
type flusher struct {
	dir  string // none: in memory
	last time.Time
	busy chan struct{} // closed when the flush under way has ended

	safe atomic.Uint64 // the rows of all entries before it outlive a loss of power

	mu  sync.Mutex
	err error // a sync failed: what it was to keep may be lost
}

// begin starts a flush of all rows before next, unless one is under way or was a moment
// ago. Its error is that of an earlier one, and stays.
func (f *flusher) begin(next uint64) error {
	if f.dir == "" {
		return nil
	}
	if f.busy != nil {
		select {
		case <-f.busy:
			f.busy = nil
		default:
			return nil
		}
	}
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil || time.Since(f.last) < flushEvery {
		return err
	}
	f.last, f.busy = time.Now(), make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		if err := syncFiles(f.dir); err != nil {
			f.mu.Lock()
			f.err = fmt.Errorf("sync: %w", err)
			f.mu.Unlock()
			return
		}
		f.safe.Store(next)
	}(f.busy)
	return nil
}

// wait returns when no flush is under way.
func (f *flusher) wait() {
	if f.busy != nil {
		<-f.busy
	}
}

// syncFiles syncs every file of a directory and the directory itself. A table that is
// gone meanwhile has gone into another, which Badger syncs before it removes the first.
func syncFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := syncFile(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncFile(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
