package sealed

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"
)

// CheckedStore is a raft.LogStore whose entries carry a checksum over their place and
// their data, for a log that is not sealed: raft-wal has sums of its own, and looks at
// them only where the log ends.
type CheckedStore struct{ raft.LogStore }

var (
	_ raft.LogStore          = CheckedStore{}
	_ raft.MonotonicLogStore = CheckedStore{}
)

const sumSize = 8

// IsMonotonic passes on what the store below says.
func (s CheckedStore) IsMonotonic() bool {
	m, ok := s.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// GetLog gives an entry. Its error wraps ErrSealed when it is not what was stored.
func (s CheckedStore) GetLog(index uint64, l *raft.Log) error {
	if err := s.LogStore.GetLog(index, l); err != nil {
		return err
	}
	n := len(l.Data) - sumSize
	if n < 0 || l.Index != index || binary.BigEndian.Uint64(l.Data[n:]) != sumOf(l, l.Data[:n]) {
		return fmt.Errorf("raft log entry %d has another checksum, and %w", index, ErrSealed)
	}
	l.Data = l.Data[:n:n]
	return nil
}

// StoreLog stores one entry.
func (s CheckedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores copies; raft goes on using its own.
func (s CheckedStore) StoreLogs(logs []*raft.Log) error {
	checked := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Data = binary.BigEndian.AppendUint64(append(make([]byte, 0, len(l.Data)+sumSize), l.Data...), sumOf(l, l.Data))
		checked[i] = &c
	}
	return s.LogStore.StoreLogs(checked)
}

func sumOf(l *raft.Log, data []byte) uint64 {
	h := xxhash.New()
	_, _ = h.Write(place(l)) // never fails
	_, _ = h.Write(data)
	return h.Sum64()
}
