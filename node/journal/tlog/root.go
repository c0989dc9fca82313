package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// RootAt gives the root of the tree over the first size entries, which the last
// checkpoint must cover; else the error wraps ErrNotInTree.
func (l *Log) RootAt(_ context.Context, size uint64) ([32]byte, error) {
	r, err := l.reader(int64(size))
	if err != nil {
		return [32]byte{}, err
	}
	h, err := merkle.TreeHash(int64(size), r)
	if err != nil {
		return [32]byte{}, fmt.Errorf("root over %d entries: %w; rebuild the tree with crossroads journal rebuild", size, err)
	}
	return h, nil
}

// LastCheckpoint gives the newest checkpoint that a journal's log directory holds, without
// opening the Log; nil: there is none.
func LastCheckpoint(fs disk.FS) (last []byte, err error) {
	f, err := fs.Open(checkpointsName, false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, _, err = scanKept(f, func(msg []byte) error {
		last = bytes.Clone(msg)
		return nil
	})
	return last, err
}
