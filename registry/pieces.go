package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/pace"
)

// inPieces is raft's store of snapshots in files, which syncs what is written in pieces: raft
// syncs a snapshot once, at its end.
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
	return &pieces{SnapshotSink: sink, sync: f.Sync, end: sync.OnceValue(f.Close)}, nil
}

// pieces is a snapshot being written.
type pieces struct {
	raft.SnapshotSink
	written   pace.Written
	sync, end func() error // of its file, opened once more; end may be called again
}

// Write appends; its error may be that of a piece written before.
func (p *pieces) Write(b []byte) (int, error) {
	n, err := p.SnapshotSink.Write(b)
	if err != nil || !p.written.Due(n) {
		return n, err
	}
	return n, p.sync()
}

// Close ends the snapshot: its last piece is synced, and then it counts. Raft closes again
// what its state machine closed.
func (p *pieces) Close() error { return errors.Join(p.end(), p.SnapshotSink.Close()) }

// Cancel removes what was written, unless it was closed.
func (p *pieces) Cancel() error { return errors.Join(p.end(), p.SnapshotSink.Cancel()) }
