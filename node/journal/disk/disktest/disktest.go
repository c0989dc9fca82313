// Package disktest is a disk for tests: in memory, and as treacherous as a real
// one. It forgets what was not synced when the power goes, sector by sector and
// in no order; it fails on demand, with or without having done what it was
// asked; it fills up; and after a failed sync it behaves as Linux does: the
// written bytes can still be read, the next sync reports success, and yet they
// never reach the disk.
//
//	d := disktest.New()
//	j, _ := journal.Open(journal.Config{FS: d, ...})
//	d.FailAfter(7)            // the power goes after seven more operations
//	... use j until it fails ...
//	d.Crash(disktest.Random(seed))
//	j, _ = journal.Open(...)  // what was acknowledged must be there
package disktest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// SectorSize is what a loss of power leaves whole, in bytes.
const SectorSize = 512

var (
	// ErrPower is what every operation gives once the power has gone.
	ErrPower = errors.New("the power is gone")
	// ErrStale is what a file opened before a Crash gives after it.
	ErrStale = errors.New("this handle was open when the power went")
)

// Op is a kind of operation that can be made to fail.
type Op string

// The operations that change something, or make it durable.
const (
	Open    Op = "open"
	Write   Op = "write"
	Sync    Op = "sync"
	Rename  Op = "rename"
	Remove  Op = "remove"
	SyncDir Op = "syncdir"
)

// FS is the disk. Its zero value is not ready: call New. It is safe for
// concurrent use.
type FS struct {
	mu       sync.Mutex
	names    map[string]*node // as a running process sees them
	durable  map[string]*node // as they are after a loss of power
	locks    map[string]bool
	faults   map[Op]fault
	left     int // operations until the power goes; negative: it stays
	ops      int
	capacity int64 // negative: none
	life     int   // counts crashes: handles of an earlier life are stale
}

type fault struct {
	err    error
	effect bool // it fails, and yet was done
}

// node is a file's content: what can be read, and what is on disk. A sector is
// in dirty when a sync would write it.
type node struct {
	cache, disk []byte
	dirty       map[int]bool
}

var _ disk.FS = (*FS)(nil)

// New gives an empty disk without faults.
func New() *FS {
	return &FS{
		names: map[string]*node{}, durable: map[string]*node{}, locks: map[string]bool{},
		faults: map[Op]fault{}, left: -1, capacity: -1,
	}
}

// Fail makes every later operation of a kind fail, without effect, until it is
// called with nil. A Sync that failed so has lost what it should have written.
func (f *FS) Fail(op Op, err error) { f.fail(op, fault{err: err}) }

// FailDone makes every later operation of a kind do its work and yet fail.
func (f *FS) FailDone(op Op, err error) { f.fail(op, fault{err: err, effect: true}) }

func (f *FS) fail(op Op, ft fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delete(f.faults, op); ft.err != nil {
		f.faults[op] = ft
	}
}

// FailAfter lets n more operations happen and then takes the power away: every
// operation after them gives ErrPower, until Crash.
func (f *FS) FailAfter(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
}

// SetCapacity limits the sum of all file sizes; a write beyond it gives ENOSPC.
// Negative: no limit.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// Ops counts the operations since New: a test runs once to learn it, and then
// once for each FailAfter below it.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Survival says, for each sector that was written and not synced, whether it
// reached the disk before the power went.
type Survival func() bool

// Nothing lets no unsynced sector survive, Everything lets all; Random tosses a
// coin for each.
func Nothing() bool { return false }

// Everything lets every unsynced sector survive, as when only the process ends.
func Everything() bool { return true }

// Random lets each unsynced sector survive or not; the same seed, the same fate.
func Random(seed uint64) Survival {
	r := rand.New(rand.NewPCG(seed, 1))
	return func() bool { return r.Uint64()&1 == 0 }
}

// Crash is the loss of power and its return: what was not synced survives as
// said, names that were not synced are gone, locks are free, open handles dead,
// faults and FailAfter lifted.
func (f *FS) Crash(survives Survival) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life++
	f.left = -1
	clear(f.faults)
	clear(f.locks)
	f.names = map[string]*node{}
	for _, name := range sortedKeys(f.durable) {
		n := f.durable[name]
		for _, s := range sortedKeys(n.dirty) {
			if survives() {
				n.write(s)
			}
		}
		n.cache = slices.Clone(n.disk)
		clear(n.dirty)
		f.names[name] = n
	}
}

// Flip flips bits of one byte on disk, as a failing disk does.
func (f *FS) Flip(name string, offset int64, mask byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.names[name]
	n.cache[offset] ^= mask
	if offset < int64(len(n.disk)) {
		n.disk[offset] ^= mask
	}
}

// Bytes gives a copy of what a file holds, nil if there is none.
func (f *FS) Bytes(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.names[name]; n != nil {
		return slices.Clone(n.cache)
	}
	return nil
}

// begin counts an operation and gives its planned failure. Caller holds mu.
func (f *FS) begin(op Op) fault {
	f.ops++
	if f.left == 0 {
		return fault{err: ErrPower}
	}
	if f.left > 0 {
		f.left--
	}
	ft := f.faults[op]
	if ft.err != nil {
		ft.err = fmt.Errorf("%s: %w", op, ft.err)
	}
	return ft
}

// Open opens or makes a file.
func (f *FS) Open(name string, create bool) (disk.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.names[name]
	if n == nil && !create {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if n == nil {
		ft := f.begin(Open)
		if ft.err == nil || ft.effect {
			n = &node{dirty: map[int]bool{}}
			f.names[name] = n
		}
		if ft.err != nil {
			return nil, ft.err
		}
	}
	return &file{f, n, f.life}, nil
}

// Rename gives a file another name, durable at the next SyncDir.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ft := f.begin(Rename)
	if ft.err == nil || ft.effect {
		n := f.names[from]
		if n == nil {
			return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
		}
		f.names[to] = n
		delete(f.names, from)
	}
	return ft.err
}

// Remove takes a file's name away, durably at the next SyncDir.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ft := f.begin(Remove)
	if ft.err == nil || ft.effect {
		if f.names[name] == nil {
			return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
		}
		delete(f.names, name)
	}
	return ft.err
}

// Copy gives a disk of its own that holds what this one has durably: a backup.
func (f *FS) Copy() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := New()
	for name, n := range f.durable {
		m := &node{cache: slices.Clone(n.disk), disk: slices.Clone(n.disk), dirty: map[int]bool{}}
		c.names[name], c.durable[name] = m, m
	}
	return c
}

// List gives the names, in order.
func (f *FS) List() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sortedKeys(f.names), nil
}

// SyncDir makes the names durable.
func (f *FS) SyncDir() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ft := f.begin(SyncDir)
	if ft.err == nil || ft.effect {
		clear(f.durable)
		for name, n := range f.names {
			f.durable[name] = n
		}
	}
	return ft.err
}

// Lock takes a lock that Crash frees.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[name] {
		return nil, fmt.Errorf("%s: %w", name, disk.ErrLocked)
	}
	f.locks[name] = true
	return lock{f, name, f.life}, nil
}

type lock struct {
	fs   *FS
	name string
	life int
}

func (l lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.life == l.fs.life {
		delete(l.fs.locks, l.name)
	}
	return nil
}

func (f *FS) used() (sum int64) {
	for _, n := range f.names {
		sum += int64(len(n.cache))
	}
	return sum
}

type file struct {
	fs   *FS
	node *node
	life int
}

func (h *file) lock() error {
	h.fs.mu.Lock()
	if h.life != h.fs.life {
		h.fs.mu.Unlock()
		return ErrStale
	}
	return nil
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if err := h.lock(); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if off >= int64(len(h.node.cache)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	if err := h.lock(); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	ft := h.fs.begin(Write)
	if ft.err != nil && !ft.effect {
		return 0, ft.err
	}
	n := h.node
	if grow := off + int64(len(p)) - int64(len(n.cache)); grow > 0 {
		if c := h.fs.capacity; c >= 0 && h.fs.used()+grow > c {
			return 0, fmt.Errorf("write: %w", syscall.ENOSPC)
		}
		n.cache = append(n.cache, make([]byte, grow)...)
	}
	copy(n.cache[off:], p)
	for s := off / SectorSize; s*SectorSize < off+int64(len(p)); s++ {
		n.dirty[int(s)] = true
	}
	return len(p), ft.err
}

func (h *file) Sync() error {
	if err := h.lock(); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	ft := h.fs.begin(Sync)
	if errors.Is(ft.err, ErrPower) {
		return ft.err // what is dirty may yet have reached the disk: Crash decides
	}
	if ft.err == nil || ft.effect {
		for s := range h.node.dirty {
			h.node.write(s)
		}
	}
	clear(h.node.dirty) // also when it failed: the cache holds it, the disk never will
	return ft.err
}

func (h *file) Size() (int64, error) {
	if err := h.lock(); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return int64(len(h.node.cache)), nil
}

func (h *file) Close() error { return nil }

// write brings one sector from cache to disk.
func (n *node) write(sector int) {
	from, to := sector*SectorSize, min((sector+1)*SectorSize, len(n.cache))
	if grow := to - len(n.disk); grow > 0 {
		n.disk = append(n.disk, make([]byte, grow)...)
	}
	copy(n.disk[from:to], n.cache[from:to])
}

func sortedKeys[K int | string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
