package registry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// syncEvery is how much of a snapshot is written before it is synced. Raft's store syncs a
// file once, at its end: whoever syncs anything else on that disk, as each exchange does,
// waits then until all of it is there, a third of a second for a country's 820 MB. In pieces
// nobody waits for more than one of them.
const syncEvery = 4 << 20

// inPieces is raft's store of snapshots in files, which syncs what is written in pieces.
type inPieces struct {
	*raft.FileSnapshotStore
	dir string // that it was opened in
}

// Create begins a snapshot.
func (s inPieces) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(v, index, term, c, ci, t)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "snapshots", sink.ID()+".tmp", "state.bin"), os.O_WRONLY, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sync a snapshot in pieces: %w", err), sink.Cancel())
	}
	return &pieces{SnapshotSink: sink, file: f}, nil
}

// syncer is the file of a snapshot.
type syncer interface {
	Sync() error
	io.Closer
}

// pieces is a snapshot being written.
type pieces struct {
	raft.SnapshotSink
	file     syncer // nil: ended
	unsynced int
}

// Write appends; its error may be that of a piece written before.
func (p *pieces) Write(b []byte) (int, error) {
	n, err := p.SnapshotSink.Write(b)
	if p.unsynced += n; err != nil || p.unsynced < syncEvery || p.file == nil {
		return n, err
	}
	p.unsynced = 0
	return n, p.file.Sync()
}

// Close ends the snapshot: its last piece is synced, and then it counts. Raft closes again
// what its state machine closed.
func (p *pieces) Close() error { return errors.Join(p.end(), p.SnapshotSink.Close()) }

// Cancel removes what was written, unless it was closed.
func (p *pieces) Cancel() error { return errors.Join(p.end(), p.SnapshotSink.Cancel()) }

func (p *pieces) end() error {
	f := p.file
	if f == nil {
		return nil
	}
	p.file = nil
	return f.Close()
}
