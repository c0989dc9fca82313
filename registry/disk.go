package registry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

// Disk is what a replica keeps its files on. That of a Config is for tests of disks that
// fail; nodes use the one there is.
type Disk interface {
	// OpenLog opens the consensus log in dir, and with it raft's votes and terms.
	OpenLog(dir string, log hclog.Logger) (Log, error)
	// OpenSnapshots opens the snapshots in dir.
	OpenSnapshots(dir string, log hclog.Logger) (raft.SnapshotStore, error)
	// State says where the tables are, which belong under dir. Without a Dir they are in
	// memory: lost with the process, and made anew from snapshot and log.
	State(dir string) badgerdb.Config
}

// Log is a consensus log. Closing it releases its files.
type Log interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// files is the Disk of the operating system.
type files struct{}

// walLog closes the log's meta database too, which raft-wal does not.
type walLog struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

func (l walLog) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }

// OpenLog implements Disk.
func (files) OpenLog(dir string, log hclog.Logger) (Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	meta := new(metadb.BoltMetaDB)
	var w *wal.WAL
	err := survive(func() (err error) {
		w, err = wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(segmentSize), wal.WithMetaStore(meta))
		return err
	})
	if errors.Is(err, errPanicked) { // what it holds is lost to this process: no second try at this file
		return nil, fmt.Errorf("open raft log %s: %w", dir, err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", dir, err), closeMeta(meta))
	}
	return walLog{w, meta}, nil
}

var errPanicked = errors.New("the program that reads it does not bear what the file holds")

// survive calls fn and makes an error of a panic: bbolt, which keeps the log's bookkeeping,
// reads a mapped file without asking whether it ends before what it refers to.
func survive(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	return fn()
}

// closeMeta closes what a failed opening left open, if it came so far.
func closeMeta(m *metadb.BoltMetaDB) error {
	if _, err := m.GetStable([]byte("x")); errors.Is(err, metadb.ErrUnintialized) {
		return nil
	}
	return m.Close()
}

// OpenSnapshots implements Disk.
func (files) OpenSnapshots(dir string, log hclog.Logger) (raft.SnapshotStore, error) {
	s, err := raft.NewFileSnapshotStoreWithLogger(dir, retained, log)
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	return inPieces{s, dir}, nil
}

// State implements Disk.
func (files) State(dir string) badgerdb.Config {
	return badgerdb.Config{Dir: filepath.Join(dir, "state")}
}
