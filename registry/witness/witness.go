// Package witness is what a registry member does for the journals of the mesh: it
// cosigns their checkpoints, remembers the last one of each, finds journals that show
// two histories, and gathers anchored checkpoints for the registry.
//
// # Cosigning
//
// A node shows each new checkpoint to every member, in the form of C2SP tlog-witness
// (add-checkpoint), carried in a mesh call. The member checks that the journal is the
// caller's, that a key in force of its institution signed the checkpoint, and that
// it continues the last one this member cosigned. Check and memory are one step under
// a lock of that journal, and the memory is synced to disk before the cosignature
// leaves: so whatever happens, a member never cosigns two checkpoints that
// contradict each other. A member that remembers nothing of a journal begins with
// what the registry has anchored of it, not with whatever it is shown.
//
// A disk that was restored from a backup has lost entries, and its journal declares a
// new epoch in its checkpoints. The first of them that a member is shown comes with a
// declaration, signed by the journal's institution, that names what is anchored last of it.
// If nothing anchored was lost the checkpoint must be proven to continue that, and else
// what the declaration says the restored log held. Members accept record.MaxDeclared of a
// journal within record.DeclaredPeriod, counting what the registry holds and what they
// accepted themselves; the declaration is remembered in one write with the checkpoint,
// before the cosignature leaves, and stands in the registry for good once it is
// anchored. From then on they cosign nothing of an earlier epoch. What is
// declared beyond that is refused and kept: GET /v1/evidence shows both.
//
// # Finding two histories
//
// A journal that shows one history to some members and another to others is caught
// twice over. Anchoring takes a majority, and two majorities share a member. And the
// members ask each other, a page of journals every few seconds, for the latest note
// each has cosigned, and hold it against their own and against the anchored one. Two
// of one size compare at a glance; for two sizes the journal's node is asked for the
// consistency proof, which it alone can make. What contradicts is kept as
// checkpoint.Evidence, logged, and shown by GET /v1/evidence: text that anybody with
// the public keys can judge, and that also names a member which cosigned both sides.
//
// # Anchors
//
// Nodes hand checkpoints with a majority's cosignatures to any member. Members pass
// them on to the one that leads the registry, which writes them with one command a
// second at most, for the whole mesh, those that wait longest first.
package witness

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The methods under which a member answers, and the one under which a journal's node
// does.
const (
	MethodAddCheckpoint = "witness.add-checkpoint"
	MethodLatest        = "witness.latest"
	MethodAnchor        = "witness.anchor"
	MethodAnchors       = "witness.anchors"
	MethodConsistency   = "journal.consistency"
)

// pageSize is how many notes one answer holds.
const pageSize = 64

// Registry is the member's replica; registry.Registry is one.
type Registry interface {
	View(fn func(record.View) error) error
	Leader() (names.NodeID, bool)
	Submit(ctx context.Context, envelope []byte) (*registrypb.SubmitResponse, error)
}

// Peers reaches other nodes, and gives up when ctx ends.
type Peers interface {
	Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error
}

// Config says which member this is. Everything is required unless it says otherwise.
type Config struct {
	Mesh names.MeshID
	Self names.NodeID
	// Signer is the institution's Ed25519 key.
	Signer crypto.Signer
	// Dir holds what was cosigned; empty: in memory, for tests. It must not be restored
	// from a backup: a member that forgot may cosign a contradiction.
	Dir string
	// StorageKey encrypts Dir: 32 bytes, or none.
	StorageKey []byte
	Registry   Registry
	Peers      Peers
	// CompareEvery is how often another member is asked for a page of notes. 0: 5s.
	CompareEvery time.Duration
	// AnchorEvery is how often anchors are written, or passed on. 0: 1s.
	AnchorEvery time.Duration
	Now         func() time.Time // nil: time.Now
	Log         *slog.Logger     // nil: silent
}

// Witness is a member's memory of journals. It is safe for concurrent use.
type Witness struct {
	cfg     Config
	db      *badger.DB
	locks   sync.Map // origin to *sync.Mutex; only journals of nodes that stand get here
	pending pending
	compare comparing // owned by Run

	closing sync.RWMutex // held by whoever uses db; Close takes it
	closed  bool         // under closing
}

var errClosed = errors.New("the witness is closed")

// Open opens the memory in cfg.Dir. The caller closes it.
func Open(cfg Config) (*Witness, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CompareEvery == 0 {
		cfg.CompareEvery = 5 * time.Second
	}
	if cfg.AnchorEvery == 0 {
		cfg.AnchorEvery = time.Second
	}
	db, err := badgerdb.Open(badgerdb.Config{Dir: cfg.Dir, Key: cfg.StorageKey, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	return &Witness{cfg: cfg, db: db}, nil
}

// Close waits for calls under way and closes the memory.
func (w *Witness) Close() error {
	w.closing.Lock()
	defer w.closing.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.db.Close()
}

// enter keeps the memory open until leave is called.
func (w *Witness) enter() (leave func(), err error) {
	w.closing.RLock()
	if w.closed {
		w.closing.RUnlock()
		return nil, errClosed
	}
	return w.closing.RUnlock, nil
}

// Run compares notes with the other members and writes anchors, until ctx ends.
func (w *Witness) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return every(ctx, w.cfg.CompareEvery, w.Compare) })
	g.Go(func() error { return every(ctx, w.cfg.AnchorEvery, w.Flush) })
	return g.Wait()
}

func every(ctx context.Context, d time.Duration, do func(context.Context)) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// lock gives the lock of a journal, held.
func (w *Witness) lock(origin string) *sync.Mutex {
	l, _ := w.locks.LoadOrStore(origin, new(sync.Mutex))
	mu := l.(*sync.Mutex)
	mu.Lock()
	return mu
}

func (w *Witness) view(fn func(record.View) error) error {
	return w.cfg.Registry.View(func(v record.View) error { return fn(v.Remembering()) })
}

// anchored gives the anchored note of a journal in this member's view, or nil.
func (w *Witness) anchored(n names.NodeID) (note *checkpoint.Note, err error) {
	err = w.view(func(v record.View) error {
		a, err := v.Anchor(n)
		if a != nil {
			note = a.Checkpoint
		}
		return err
	})
	return note, err
}

// check verifies that n is a checkpoint of a journal of this mesh, signed by it.
func (w *Witness) check(n *checkpoint.Note) error {
	return w.view(func(v record.View) error { return v.CheckCheckpoint(w.cfg.Mesh, n) })
}
