package registry

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// ErrLogFailed means that the consensus log could not be written, so that nobody knows what
// of it is on disk. The member is silent from that moment, and Run ends. Free or mend the
// disk, then start the node again: it continues from what is there.
var ErrLogFailed = errors.New("the consensus log could not be written; free or mend the disk, then start the node again")

// ErrLogDamaged means that an entry of the consensus log is not what was written: the disk
// damaged it, or somebody changed it. Nothing of it was used, and Run ends.
var ErrLogDamaged = errors.New("the consensus log is damaged")

// failStop is a consensus log that is not used again after something failed. raft would go
// on, or panic: raft-wal, after one append that failed, refuses every other until it is
// opened anew; and raft panics when it cannot write a term down, or read an entry.
//
// So the first failure silences the member before raft hears of it, and what raft then is
// told does not matter: nobody hears of a vote that is not on disk, and nothing is applied
// that could not be read.
type failStop struct {
	raft.LogStore // which may answer from memory
	disk          raft.LogStore
	stable        raft.StableStore
	silence       func() // cuts all consensus connections, for good
	fail          func(error)

	mu     sync.Mutex
	failed error
}

var (
	_ raft.MonotonicLogStore = (*failStop)(nil)
	_ raft.StableStore       = (*failStop)(nil)
)

// IsMonotonic passes on what the log says.
func (f *failStop) IsMonotonic() bool {
	m, ok := f.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// do calls fn unless something failed before. No lock is held meanwhile.
func (f *failStop) do(why error, fn func() error) error {
	if err := f.err(); err != nil {
		return err
	}
	err := survive(fn)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	f.silence()
	f.mu.Lock()
	if f.failed == nil {
		f.failed = fmt.Errorf("%w: %w", why, err)
	}
	err = f.failed
	f.mu.Unlock()
	f.fail(err)
	return err
}

// err gives what failed.
func (f *failStop) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// GetLog implements raft.LogStore. An entry that cannot be read is given as one that does
// nothing, see failStop.
func (f *failStop) GetLog(index uint64, l *raft.Log) error {
	err := f.do(ErrLogDamaged, func() error { return f.LogStore.GetLog(index, l) })
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	*l = raft.Log{Index: index, Type: raft.LogNoop}
	return nil
}

// reread reads an entry from the disk, whether or not it is remembered.
func (f *failStop) reread(index uint64) error {
	return f.do(ErrLogDamaged, func() error { return f.disk.GetLog(index, new(raft.Log)) })
}

// StoreLog implements raft.LogStore.
func (f *failStop) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (f *failStop) StoreLogs(l []*raft.Log) error {
	return f.do(ErrLogFailed, func() error { return f.LogStore.StoreLogs(l) })
}

// DeleteRange implements raft.LogStore.
func (f *failStop) DeleteRange(first, last uint64) error {
	return f.do(ErrLogFailed, func() error { return f.LogStore.DeleteRange(first, last) })
}

// Get implements raft.StableStore.
func (f *failStop) Get(k []byte) (v []byte, err error) {
	err = f.do(ErrLogDamaged, func() (err error) {
		v, err = f.stable.Get(k)
		return err
	})
	return v, err
}

// GetUint64 implements raft.StableStore.
func (f *failStop) GetUint64(k []byte) (v uint64, err error) {
	err = f.do(ErrLogDamaged, func() (err error) {
		v, err = f.stable.GetUint64(k)
		return err
	})
	return v, err
}

// Set implements raft.StableStore. It never fails, see failStop.
func (f *failStop) Set(k, v []byte) error {
	_ = f.do(ErrLogFailed, func() error { return f.stable.Set(k, v) })
	return nil
}

// SetUint64 implements raft.StableStore. It never fails, see failStop.
func (f *failStop) SetUint64(k []byte, v uint64) error {
	_ = f.do(ErrLogFailed, func() error { return f.stable.SetUint64(k, v) })
	return nil
}
