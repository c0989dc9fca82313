package registry

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Raft counts entries, and an entry may be a few hundred bytes or a quarter of a
// megabyte. What matters is how much log lies on disk, so it is this side that says when
// to take a snapshot, and how many entries of the log to keep for followers that lag.
const (
	// snapshotLeast and snapshotMost bound the bytes of log between two snapshots; in
	// between it is half of what a snapshot takes, so that writing snapshots costs no more
	// than a few times what is written anyway.
	snapshotLeast = 64 << 20
	snapshotMost  = 256 << 20
	// trailingBytes of log stay behind a snapshot.
	trailingBytes = 48 << 20
)

// logSize remembers how large the last entries were. The zero value is ready.
type logSize struct {
	mu    sync.Mutex
	sizes []int32                         // of the last entries, oldest first
	since struct{ entries, bytes uint64 } // applied since the last snapshot
}

// note adds an entry; keep is how many are remembered.
func (l *logSize) note(bytes, keep int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sizes) >= 2*keep {
		l.sizes = append(l.sizes[:0], l.sizes[len(l.sizes)-keep:]...)
	}
	l.sizes = append(l.sizes, int32(bytes))
	l.since.entries++
	l.since.bytes += uint64(bytes)
}

// trailing gives how many of the last entries hold no more than so many bytes.
func (l *logSize) trailing(bytes int) (n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.sizes) - 1; i >= 0 && bytes >= int(l.sizes[i]); i-- {
		bytes -= int(l.sizes[i])
		n++
	}
	return n
}

func (l *logSize) sinceSnapshot() (entries, bytes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since.entries, l.since.bytes
}

func (l *logSize) snapshotTaken(entries, bytes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since.entries -= min(l.since.entries, entries)
	l.since.bytes -= min(l.since.bytes, bytes)
}

// compact takes snapshots and lets go of log, until ctx ends.
func (m *member) compact(ctx context.Context) error {
	look := time.NewTicker(m.reg.cfg.Tuning.SnapshotCheck)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			entries, bytes := m.machine.size.sinceSnapshot()
			if entries < m.reg.cfg.Tuning.SnapshotEvery && bytes < m.snapshotDue() {
				continue
			}
			if err := m.snapshotAndNote(); err != nil {
				m.log.Warn("registry: no snapshot now", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Compact has this member write a snapshot of its own now and let go of the log before it,
// as it does by itself when enough has come: what is left to read at its next start, or to
// send to one that lags, is little then. It serves meanwhile, and returns when it is done,
// with the index that the snapshot stands at. The error is ErrNotMember at a node that
// keeps no log.
func (r *Registry) Compact(ctx context.Context) (index uint64, err error) {
	_, leave, err := r.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	m := r.member
	if m == nil {
		return 0, ErrNotMember
	}
	if err := m.snapshotAndNote(); err != nil {
		return 0, err
	}
	metas, err := m.snaps.List()
	if err != nil || len(metas) == 0 {
		return 0, err // nothing was ever decided
	}
	return metas[0].Index, nil
}

// snapshotAndNote takes one now, and counts from there what came since.
func (m *member) snapshotAndNote() error {
	entries, bytes := m.machine.size.sinceSnapshot()
	if err := m.snapshot(); err != nil {
		return err
	}
	m.machine.size.snapshotTaken(entries, bytes)
	return nil
}

func (m *member) snapshotDue() uint64 {
	var last int64
	if metas, err := m.snaps.List(); err == nil && len(metas) > 0 {
		last = metas[0].Size
	}
	return uint64(min(max(last/2, snapshotLeast), snapshotMost))
}

// snapshot takes one now.
func (m *member) snapshot() error {
	r, t := m.raft(), m.reg.cfg.Tuning
	err := r.ReloadConfig(raft.ReloadableConfig{
		TrailingLogs: min(t.TrailingLogs, m.machine.size.trailing(trailingBytes)), SnapshotInterval: m.conf.SnapshotInterval,
		SnapshotThreshold: m.conf.SnapshotThreshold, HeartbeatTimeout: m.conf.HeartbeatTimeout, ElectionTimeout: m.conf.ElectionTimeout,
	})
	if err != nil {
		return err
	}
	err = r.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// neverByCount leaves the moment of a snapshot to compact.
const neverByCount = math.MaxUint64
