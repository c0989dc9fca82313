package tlog

import (
	"context"
	"fmt"

	merkle "golang.org/x/mod/sumdb/tlog"
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
