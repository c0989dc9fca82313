package registry

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/pace"
)

// counted counts how often a file is synced; the fail-th time it fails.
type counted struct{ syncs, fail int }

var errDisk = errors.New("the disk failed")

func beginSnapshot(t *testing.T, dir string) (raft.SnapshotStore, *pieces, *counted) {
	t.Helper()
	s, err := files{}.OpenSnapshots(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	sink, err := s.Create(1, 7, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := sink.(*pieces)
	c, sync := new(counted), p.sync
	p.sync = func() error {
		if c.syncs++; c.syncs == c.fail {
			return errDisk
		}
		return sync()
	}
	return s, p, c
}

// TestSnapshotInPieces: never is more of a snapshot unsynced than a piece and a write.
func TestSnapshotInPieces(t *testing.T) {
	s, p, c := beginSnapshot(t, t.TempDir())
	const write = 64 << 10
	want := bytes.Repeat([]byte("a page of history"), 3*pace.SyncEvery/17+100)
	for b := want; len(b) > 0; {
		n := min(write, len(b))
		if _, err := p.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		if b = b[n:]; (len(want)-len(b))/pace.SyncEvery != c.syncs {
			t.Fatalf("synced %d times after %d bytes", c.syncs, len(want)-len(b))
		}
	}
	for range 2 { // once by the state machine, once by raft
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	metas, err := s.List()
	if err != nil || len(metas) != 1 || metas[0].Size != int64(len(want)) {
		t.Fatal(metas, err)
	}
	_, r, err := s.Open(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back of %d: %v", len(got), len(want), err)
	}
}

// TestSnapshotPieceNotSynced: one that the disk did not take is none, and leaves nothing.
func TestSnapshotPieceNotSynced(t *testing.T) {
	dir := t.TempDir()
	s, p, c := beginSnapshot(t, dir)
	c.fail = 2
	full := make([]byte, pace.SyncEvery)
	if _, err := p.Write(full); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(full); !errors.Is(err, errDisk) {
		t.Fatal("the failure is kept silent:", err)
	}
	if err := p.Cancel(); err != nil {
		t.Fatal(err)
	}
	if metas, err := s.List(); err != nil || len(metas) != 0 {
		t.Fatal(metas, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "snapshots")); err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
}
