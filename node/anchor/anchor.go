// Package anchor is a journal's own side of witnessing: it shows each new checkpoint
// to all registry members at once, gathers their cosignatures, and keeps the last
// checkpoint that a majority of them cosigned. That one is anchored: this node can
// neither take back nor change what it covers without being caught.
//
// Checkpoints are shown one at a time, the newest there is. The next one follows when
// a majority has cosigned and the others had a moment to; a member that is slow or
// down is left behind and holds nobody up. What each member has cosigned is learnt
// from its answers, so that it is sent the right consistency proof.
//
// Once a second the last anchored checkpoint is handed to a member, for the registry.
// The node's own member, if it is one, counts like any other.
package anchor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Log is the journal's tree; node/journal/tlog.Log is one.
type Log interface {
	// Checkpoint gives the newest checkpoint as a signed note.
	Checkpoint() []byte
	// Changed gives a channel that is closed when a newer one is there than at the call.
	Changed() <-chan struct{}
	ConsistencyProof(older, newer int64) ([]tlog.Hash, error)
}

// Registry is this node's view; registry.Registry is one.
type Registry interface {
	View(fn func(record.View) error) error
}

// Peers reaches other nodes, and gives up when ctx ends.
type Peers interface {
	Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error
}

// Member is the witness in this very node; witness.Witness is one.
type Member interface {
	HandleAddCheckpoint(ctx context.Context, from names.NodeID, req *registrypb.AddCheckpointRequest) (*registrypb.AddCheckpointResponse, error)
	HandleAnchor(ctx context.Context, from names.NodeID, req *registrypb.AnchorRequest) (*registrypb.AnchorResponse, error)
}

// Config says whose journal is anchored. Everything is required unless it says
// otherwise.
type Config struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Log      Log
	Registry Registry
	Peers    Peers
	Local    Member // nil on a node that is no member
	// Declaration gives the signed declaration of the journal's present epoch, or nil when
	// the registry holds a checkpoint of it. It is asked for in a later epoch than the
	// first, until it gives nil. Nil: the journal is in its first.
	Declaration func(ctx context.Context) ([]byte, error)
	// Dir keeps the last anchored checkpoint. Made if absent.
	Dir string
	// AskFor bounds one question to one member. 0: 3s.
	AskFor time.Duration
	// Grace is how long the others are waited for once a majority has cosigned. 0: 100ms.
	Grace time.Duration
	// HandOver is how often the registry is given what was anchored. 0: 1s.
	HandOver time.Duration
	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger     // nil: silent
}

// Anchored is a checkpoint that a majority of members cosigned.
type Anchored struct {
	Note []byte // with the cosignatures, each verified
	Size int64  // entries covered: those with a sequence below it
	Root [sha256.Size]byte
	// Epoch of the journal: 1 until a restore is declared.
	Epoch int64
	Time  time.Time // when this node had the majority's cosignatures
}

// Stats is how anchoring stands.
type Stats struct {
	Size     int64         // of the newest checkpoint
	Anchored int64         // of the newest anchored one
	Waiting  time.Duration // since the anchored one fell behind; 0: it is the newest
	Lag      time.Duration // from a checkpoint's appearing to its majority, the last time
}

// Anchorer anchors one journal. It is safe for concurrent use; Run is called once.
type Anchorer struct {
	cfg    Config
	origin string

	mu      sync.Mutex // guards what follows
	last    *Anchored
	moved   chan struct{}                // closed and replaced when last changes
	members map[names.NodeID]*memberView // what is known of each
	settled bool                         // the registry knows the present epoch
	seen    int64                        // size of the newest checkpoint shown
	behind  time.Time                    // since when seen is above last; zero: it is not
	lag     time.Duration

	asking sync.WaitGroup // questions under way; Run joins them

	// Owned by handOver: which member is next, the size that the registry was given, when.
	turn     int
	handed   int64
	handedAt time.Time
}

// memberView is what this node knows of one member.
type memberView struct {
	size int64 // that it cosigned last, as far as it told
	busy bool  // a question is under way
}

// Open reads what was anchored before. It starts nothing.
func Open(cfg Config) (*Anchorer, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.AskFor, 3*time.Second)
	def(&cfg.Grace, 100*time.Millisecond)
	def(&cfg.HandOver, time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Anchorer{
		cfg: cfg, origin: checkpoint.Origin(cfg.Mesh, cfg.Self),
		moved: make(chan struct{}), members: make(map[names.NodeID]*memberView),
	}
	var err error
	if a.last, err = load(cfg.Dir, a.origin); err != nil {
		return nil, fmt.Errorf("anchored checkpoint: %w", err)
	}
	if now, err := checkpoint.Parse(cfg.Log.Checkpoint()); err == nil && a.last != nil && now.Epoch > a.last.Epoch {
		a.last = nil // it covers entries that were lost
	}
	a.settled = cfg.Declaration == nil
	return a, nil
}

// Anchored gives the last anchored checkpoint; false: there is none yet.
func (a *Anchorer) Anchored() (Anchored, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		return Anchored{}, false
	}
	return *a.last, true
}

// Wait gives the first anchored checkpoint seen that covers the first size entries. The
// error is that of ctx.
func (a *Anchorer) Wait(ctx context.Context, size int64) (Anchored, error) {
	for {
		a.mu.Lock()
		last, moved := a.last, a.moved
		a.mu.Unlock()
		if last != nil && last.Size >= size {
			return *last, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return Anchored{}, ctx.Err()
		}
	}
}

// Stats tells how anchoring stands.
func (a *Anchorer) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Stats{Size: a.seen, Lag: a.lag}
	if a.last != nil {
		s.Anchored = a.last.Size
	}
	if !a.behind.IsZero() {
		s.Waiting = a.cfg.Now().Sub(a.behind)
	}
	return s
}

// Run anchors until ctx ends.
func (a *Anchorer) Run(ctx context.Context) error {
	defer a.asking.Wait()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx) })
	g.Go(func() error { return a.handOver(ctx) })
	return g.Wait()
}

// retryMost bounds the pause after a round without a majority.
const retryMost = time.Second

// follow takes the newest checkpoint again and again.
func (a *Anchorer) follow(ctx context.Context) error {
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		changed := a.cfg.Log.Changed()
		note, err := checkpoint.Parse(a.cfg.Log.Checkpoint())
		if err == nil && a.show(note) {
			if err = a.round(ctx, note); err == nil {
				pause = 50 * time.Millisecond
				continue
			}
			if ctx.Err() == nil {
				a.cfg.Logger.Debug("checkpoint not anchored yet", "size", note.Size, "err", err)
			}
			changed = nil // the newest is taken after the pause anyway
		}
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(pause)
			pause = min(2*pause, retryMost)
		}
		select {
		case <-changed:
		case <-retry:
		case <-ctx.Done():
		}
	}
	return nil
}

// show notes that a checkpoint is there, and reports whether it must be anchored.
func (a *Anchorer) show(n *checkpoint.Note) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = n.Size
	done := n.Size == 0 || a.last != nil && a.last.Epoch >= n.Epoch && a.last.Size >= n.Size
	switch {
	case done:
		a.behind = time.Time{}
	case a.behind.IsZero():
		a.behind = a.cfg.Now()
	}
	return !done
}

var errNoMajority = errors.New("no majority of members cosigned")

// anchored makes n the last anchored checkpoint, durably.
func (a *Anchorer) anchored(n *checkpoint.Note, lag time.Duration) error {
	last := &Anchored{Note: n.Bytes(), Size: n.Size, Root: n.Root, Epoch: n.Epoch, Time: a.cfg.Now().UTC()}
	if err := save(a.cfg.Dir, last); err != nil {
		return fmt.Errorf("keep anchored checkpoint: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last, a.lag = last, lag
	if a.behind = (time.Time{}); a.seen > n.Size {
		a.behind = last.Time
	}
	close(a.moved)
	a.moved = make(chan struct{})
	return nil
}
