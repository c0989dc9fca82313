package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

// simDisk is a registry.Disk in memory under the real write-ahead log: a power loss drops
// what was not synced, in part or whole; it may be full, slow, or fail to sync. The tables
// are in memory, and lost with each crash, so that every restart makes them anew. It is
// safe for concurrent use.
type simDisk struct {
	mu    sync.Mutex
	dice  *rand.Rand
	files map[string]*simFile
	meta  types.PersistentState
	kept  map[string][]byte // raft's votes and terms
	snaps []*simSnapshot    // the newest first
	life  int               // counts power losses: who holds files of an earlier life changes nothing

	full      bool
	failSyncs int           // so many more
	syncTakes time.Duration // each
	// halted is called, once in a life, where a real process panics: raft cannot go on when
	// it cannot write its vote down.
	halted func()
}

func newSimDisk(dice *rand.Rand) *simDisk {
	return &simDisk{dice: dice, files: map[string]*simFile{}, kept: map[string][]byte{}}
}

// simFile is what a reader sees, what is safe, and what is written and not synced.
type simFile struct {
	now, safe []byte
	pending   []write
}

type write struct {
	at int64
	b  []byte
}

func put(to []byte, w write) []byte {
	if need := int(w.at) + len(w.b); need > len(to) {
		to = append(to, make([]byte, need-len(to))...)
	}
	copy(to[w.at:], w.b)
	return to
}

// losePower ends a life: of what was not synced, each write survives or not.
func (d *simDisk) losePower() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.full, d.failSyncs, d.syncTakes = false, 0, 0
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		for _, w := range f.pending {
			if d.dice.IntN(2) == 0 {
				f.safe = put(f.safe, w)
			}
		}
		f.now, f.pending = bytes.Clone(f.safe), nil
	}
}

// sync waits as a sync does, and gives its error.
func (d *simDisk) sync(life int) error {
	d.mu.Lock()
	takes := d.syncTakes
	d.mu.Unlock()
	time.Sleep(takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case life != d.life:
		return os.ErrClosed
	case d.failSyncs > 0:
		d.failSyncs--
		return syscall.EIO
	case d.full:
		return syscall.ENOSPC
	}
	return nil
}

// stable commits a change of the small files at once and whole, as bbolt does. When that
// fails, raft panics; here the node is stopped from outside, and nothing it does after
// counts.
func (d *simDisk) stable(life int, change func()) error {
	if err := d.sync(life); err != nil {
		d.mu.Lock()
		halted := d.halted
		if life == d.life {
			d.life++
		} else {
			halted = nil
		}
		d.mu.Unlock()
		if halted != nil {
			halted()
		}
		return nil // nobody may see it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if life == d.life {
		change()
	}
	return nil
}

func (d *simDisk) lives() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.life
}

// State implements registry.Disk.
func (d *simDisk) State(string) badgerdb.Config { return badgerdb.Config{MemTableMB: 2, CacheMB: 1} }

// OpenLog implements registry.Disk.
func (d *simDisk) OpenLog(dir string, log hclog.Logger) (registry.Log, error) {
	life := d.lives()
	w, err := wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(64<<10), wal.WithMetaStore(&simMeta{d, life}),
		wal.WithSegmentFiler(segment.NewFiler(dir, &simVFS{d, life})))
	return simLog{w, make(chan struct{}, 1)}, err
}

// simLog has writers wait for each other where virtual time sees it: the log's own mutex,
// held through a slow sync, would stop all clocks.
type simLog struct {
	*wal.WAL
	turn chan struct{}
}

func (l simLog) wait() func() {
	l.turn <- struct{}{}
	return func() { <-l.turn }
}

func (l simLog) StoreLogs(logs []*raft.Log) error {
	defer l.wait()()
	return l.WAL.StoreLogs(logs)
}

func (l simLog) DeleteRange(first, last uint64) error {
	defer l.wait()()
	return l.WAL.DeleteRange(first, last)
}

type simMeta struct {
	d    *simDisk
	life int
}

func (m *simMeta) Load(string) (types.PersistentState, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	s := m.d.meta
	s.Segments = slices.Clone(s.Segments)
	return s, nil
}

func (m *simMeta) CommitState(s types.PersistentState) error {
	if err := m.d.sync(m.life); err != nil {
		return err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if m.life == m.d.life {
		s.Segments = slices.Clone(s.Segments)
		m.d.meta = s
	}
	return nil
}

func (m *simMeta) GetStable(k []byte) ([]byte, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	return bytes.Clone(m.d.kept[string(k)]), nil
}

func (m *simMeta) SetStable(k, v []byte) error {
	return m.d.stable(m.life, func() { m.d.kept[string(k)] = bytes.Clone(v) })
}

func (m *simMeta) Close() error { return nil }

type simVFS struct {
	d    *simDisk
	life int
}

func (v *simVFS) ListDir(string) ([]string, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return slices.Sorted(maps.Keys(v.d.files)), nil
}

func (v *simVFS) Create(_, name string, size uint64) (types.WritableFile, error) {
	if err := v.d.sync(v.life); err != nil {
		return nil, err
	}
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if v.d.files[name] != nil {
		return nil, os.ErrExist
	}
	f := &simFile{now: make([]byte, size), safe: make([]byte, size)}
	v.d.files[name] = f
	return &simHandle{v.d, v.life, f}, nil
}

func (v *simVFS) Delete(_, name string) error {
	if err := v.d.sync(v.life); err != nil {
		return err
	}
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	delete(v.d.files, name)
	return nil
}

func (v *simVFS) open(name string) (*simHandle, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	f := v.d.files[name]
	if f == nil {
		return nil, fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	return &simHandle{v.d, v.life, f}, nil
}

func (v *simVFS) OpenReader(_, name string) (types.ReadableFile, error) { return v.open(name) }
func (v *simVFS) OpenWriter(_, name string) (types.WritableFile, error) { return v.open(name) }

type simHandle struct {
	d    *simDisk
	life int
	f    *simFile
}

func (h *simHandle) ReadAt(b []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if at >= int64(len(h.f.now)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.now[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *simHandle) WriteAt(b []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	switch {
	case h.life != h.d.life:
		return 0, os.ErrClosed
	case h.d.full:
		return 0, syscall.ENOSPC
	}
	w := write{at, bytes.Clone(b)}
	h.f.now, h.f.pending = put(h.f.now, w), append(h.f.pending, w)
	return len(b), nil
}

// Sync makes what was written safe. After one that failed, what it was to make safe is
// not, whatever later ones say: so do kernels.
func (h *simHandle) Sync() error {
	err := h.d.sync(h.life)
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err == nil && h.life == h.d.life {
		for _, w := range h.f.pending {
			h.f.safe = put(h.f.safe, w)
		}
	}
	if h.life == h.d.life {
		h.f.pending = nil
	}
	return err
}

func (h *simHandle) Close() error { return nil }

// OpenSnapshots implements registry.Disk.
func (d *simDisk) OpenSnapshots(string, hclog.Logger) (raft.SnapshotStore, error) {
	return &simSnapshots{d, d.lives()}, nil
}

type simSnapshots struct {
	d    *simDisk
	life int
}

type simSnapshot struct {
	meta raft.SnapshotMeta
	b    []byte
}

func (s *simSnapshots) List() (metas []*raft.SnapshotMeta, _ error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, one := range s.d.snaps {
		m := one.meta
		metas = append(metas, &m)
	}
	return metas, nil
}

func (s *simSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, one := range s.d.snaps {
		if one.meta.ID == id {
			m := one.meta
			return &m, io.NopCloser(bytes.NewReader(one.b)), nil
		}
	}
	return nil, nil, os.ErrNotExist
}

func (s *simSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &simSink{of: s, snap: &simSnapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixNano()), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}}, nil
}

type simSink struct {
	bytes.Buffer
	of   *simSnapshots
	snap *simSnapshot
}

func (s *simSink) ID() string    { return s.snap.meta.ID }
func (s *simSink) Cancel() error { return nil }

func (s *simSink) Close() error {
	if err := s.of.d.sync(s.of.life); err != nil {
		return err
	}
	s.of.d.mu.Lock()
	defer s.of.d.mu.Unlock()
	if s.of.life == s.of.d.life {
		s.snap.b = bytes.Clone(s.Bytes())
		s.snap.meta.Size = int64(len(s.snap.b))
		s.of.d.snaps = []*simSnapshot{s.snap}
	}
	return nil
}
