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

// CheckedStable is a raft.StableStore whose values carry a checksum over their key and
// themselves: a term or a vote that a disk changed would let a member vote twice.
type CheckedStable struct{ raft.StableStore }

var _ raft.StableStore = CheckedStable{}

// Get gives a value; nil: there is none. Its error wraps ErrSealed when it is not what was
// stored.
func (s CheckedStable) Get(k []byte) ([]byte, error) {
	v, err := s.StableStore.Get(k)
	if err != nil || len(v) == 0 {
		return nil, err
	}
	n := len(v) - sumSize
	if n < 0 || binary.BigEndian.Uint64(v[n:]) != stableSum(k, v[:n]) {
		return nil, fmt.Errorf("what raft wrote down under %s has another checksum, and %w", k, ErrSealed)
	}
	return v[:n:n], nil
}

// Set stores a value.
func (s CheckedStable) Set(k, v []byte) error {
	return s.StableStore.Set(k, binary.BigEndian.AppendUint64(append(make([]byte, 0, len(v)+sumSize), v...), stableSum(k, v)))
}

// GetUint64 is Get of a number; 0: there is none.
func (s CheckedStable) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	switch {
	case err != nil || len(v) == 0:
		return 0, err
	case len(v) != 8:
		return 0, fmt.Errorf("what raft wrote down under %s is no number, and %w", k, ErrSealed)
	}
	return binary.BigEndian.Uint64(v), nil
}

// SetUint64 is Set of a number.
func (s CheckedStable) SetUint64(k []byte, v uint64) error {
	return s.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

func stableSum(k, v []byte) uint64 {
	h := xxhash.New()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(k)))) // never fails
	_, _ = h.Write(k)
	_, _ = h.Write(v)
	return h.Sum64()
}

func sumOf(l *raft.Log, data []byte) uint64 {
	h := xxhash.New()
	_, _ = h.Write(place(l)) // never fails
	_, _ = h.Write(data)
	return h.Sum64()
}
