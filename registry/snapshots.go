package registry

import (
	"io"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/store"
)

// expectingSnapshots is a snapshot store whose snapshots, when they are opened, must end
// at the index that raft knows them by: raft hands the state machine nothing but bytes,
// which another member may have sent.
type expectingSnapshots struct{ raft.SnapshotStore }

// Open gives a snapshot; reading it fails with store.ErrBadSnapshot if it is of another index.
func (s expectingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, struct {
		io.Reader
		io.Closer
	}{store.Expect(indexAfter(meta.Index), r), r}, nil
}
