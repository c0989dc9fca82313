// Package store keeps the tables of the registry on disk, in Badger.
//
// It is the same for registry members, whose consensus log feeds it, and for
// nodes that only follow: ApplyBatch takes commands in order of index, has package
// record judge each, and commits what they change together with the index itself
// in one synced transaction, before it returns, or somewhat later (Behind). Whatever a
// crash interrupts, a reopened store stands at exactly one index, and continues from there.
//
// A snapshot is the history of accepted commands, and restoring one judges every
// command again. So not even a member that hands out a snapshot can slip in a row
// that its author did not sign. See DESIGN.md.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

var (
	// ErrClosed means the store was closed.
	ErrClosed = errors.New("registry store is closed")
	// ErrFailed means that writing failed before: what is on disk is known again
	// only after the store is reopened. Mend the disk, then restart the node.
	ErrFailed = errors.New("registry store failed to write and must be reopened")
)

// Entry is one command in the order that all replicas share.
type Entry struct {
	// Index is above that of the entry before; gaps are allowed.
	Index uint64
	// Envelope is the signed command. Empty: none, the index only moves on. MarkHere: the
	// same, and the hash of the state is written down.
	Envelope []byte
}

// MarkHere is an Entry's Envelope, of which no command has the form. All replicas must mark
// the same indexes; members do at the empty commands that leaders propose.
var MarkHere = []byte{0}

// Change tells what became of one entry that held a command.
type Change struct {
	Index    uint64
	Result   record.Result
	Envelope []byte
}

// Store is safe for concurrent use.
type Store struct {
	cfg   badgerdb.Config
	rules *record.Rules
	limits

	apply  sync.Mutex // one writer; guards failed and hooks
	failed error
	hooks  []func(index uint64, changes []Change)
	// failing is told when settling behind fails; nil: nothing is settled behind.
	failing func(error)

	mu      sync.Mutex // guards current and moved
	current *generation
	moved   chan struct{} // closed and replaced when applied moves, or the store closes
	applied atomic.Uint64
}

// generation is one database; a restore begins another.
type generation struct {
	db    *badger.DB
	names *record.Interned
	hash  *hasher // owned by whoever applies, as hot is
	hot   hot
	dir   string
	users sync.WaitGroup // open reads; Add only under Store.mu while current

	layers    *layers // nil in memory
	histories *histories

	mu    sync.Mutex
	moved sync.Cond // there is another present, or nothing is decided any more
	now   *present

	// Of what settles behind (behind.go); broken and stopping are guarded by mu.
	behind, stopping bool
	hurried          int // how many wait until something is settled; guarded by mu
	broken           error
	settling         sync.WaitGroup
}

// Open opens the store in cfg.Dir, founding it under rules when it is new. Its
// error wraps record.ErrOtherRules when the directory belongs to another genesis.
// The caller closes it.
func Open(cfg badgerdb.Config, rules *record.Rules) (*Store, error) {
	return openWith(cfg, rules, usual)
}

func openWith(cfg badgerdb.Config, rules *record.Rules, limits limits) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MemTableMB == 0 {
		cfg.MemTableMB = memTableMB
		if cfg.Dir == "" { // in memory, large values weigh on the transaction too
			cfg.MemTableMB *= 2
		}
	}
	if cfg.Dir != "" {
		cfg.ValueLogKB = valueLog >> 10
	}
	dir, err := currentDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("registry store: %w", err)
	}
	s := &Store{cfg: cfg, rules: rules, limits: limits, moved: make(chan struct{})}
	g, err := s.open(dir, false)
	if err != nil {
		return nil, fmt.Errorf("registry store: %w", err)
	}
	if err := s.found(g); err != nil {
		return nil, errors.Join(fmt.Errorf("registry store %s: %w", cfg.Dir, err), g.close())
	}
	s.current = g
	return s, nil
}

func (s *Store) open(dir string, noSync bool) (*generation, error) {
	cfg := s.cfg
	cfg.Dir, cfg.NoSync = dir, cfg.NoSync || noSync
	db, err := badgerdb.Open(cfg)
	if err != nil {
		return nil, err
	}
	g := &generation{db: db, dir: dir, names: new(record.Interned)}
	g.moved.L = &g.mu
	if g.histories, err = historiesIn(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if dir != "" {
		if err := g.openLayers(cfg.Key, s.limits, cfg.Log); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	g.now = &present{base: g.newBase(), cache: newCache()}
	g.hash, err = loadHash(g)
	if g.layers != nil {
		g.beginMerging() // which lets go of the base that the hash was read from
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// close waits for what goes on beside and closes the database. Nobody reads any more.
func (g *generation) close() error {
	g.stop()
	var err error
	if g.layers != nil {
		g.layers.stopMerging()
	}
	g.letGo(g.now.base)
	if g.layers != nil {
		err = g.layers.tree.Close()
	}
	return errors.Join(err, g.db.Close())
}

// found writes the first rows, or checks that they are those of the rules.
func (s *Store) found(g *generation) error {
	w := newWriter(g)
	defer w.discard()
	if err := record.Bootstrap(w, s.rules); err != nil {
		return err
	}
	index, err := record.NewView(w).AppliedIndex()
	if err != nil {
		return err
	}
	s.applied.Store(index)
	return g.commit(w, index)
}

// Close waits for the reads that are under way and closes the database.
func (s *Store) Close() error {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.Lock()
	g := s.current
	s.current = nil
	if g != nil {
		close(s.moved)
	}
	s.mu.Unlock()
	if g == nil {
		return nil
	}
	g.users.Wait()
	return g.close()
}

// use gives the current generation; the caller says users.Done when through.
func (s *Store) use() (*generation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil, ErrClosed
	}
	s.current.users.Add(1)
	return s.current, nil
}

// View calls fn with a view of the tables as they stand at one index. The view is
// good until fn returns, and for one goroutine. The error is that of fn, or ErrClosed.
func (s *Store) View(fn func(record.View) error) error {
	g, err := s.use()
	if err != nil {
		return err
	}
	defer g.users.Done()
	r := g.view()
	defer r.end()
	return fn(record.NewCachedView(r, g.names, r.cache.decoded).At(r.at))
}

// AppliedIndex gives the index up to which everything is decided: durably, unless the
// store settles Behind.
func (s *Store) AppliedIndex() uint64 { return s.applied.Load() }

// WaitApplied returns when everything up to index is decided, or with the error
// of ctx, or ErrClosed.
func (s *Store) WaitApplied(ctx context.Context, index uint64) error {
	for {
		s.mu.Lock()
		moved, closed := s.moved, s.current == nil
		s.mu.Unlock()
		switch {
		case s.applied.Load() >= index:
			return nil
		case closed:
			return ErrClosed
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// OnApply has fn called after each commit, in order, by the goroutine that
// applies: fn must be quick, and must not call ApplyBatch, Restore, OnApply or
// Close. Views see the commit already. Changes hold the commands, refused ones
// too; nil changes mean that a snapshot was restored and anything may differ.
func (s *Store) OnApply(fn func(index uint64, changes []Change)) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.hooks = append(s.hooks, fn)
}

// announce tells everyone that applied is index now. The caller holds apply.
func (s *Store) announce(index uint64, changes []Change) {
	s.applied.Store(index)
	s.mu.Lock()
	if s.current != nil {
		close(s.moved)
		s.moved = make(chan struct{})
	}
	s.mu.Unlock()
	for _, fn := range s.hooks {
		fn(index, changes)
	}
}
