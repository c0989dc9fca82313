package registry

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/pace"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The methods under which members answer, for Peers and for whoever wires the
// Handle functions. Watch is a stream.
const (
	MethodSubmit = "registry.submit"
	MethodHead   = "registry.head"
	MethodGrant  = "registry.grant"
	MethodStatus = "registry.status"
	MethodWatch  = "registry.watch"
	MethodState  = "registry.state"
	// MethodRemovals is asked of every member directly, see withheld.go.
	MethodRemovals = "registry.removals"
	// MethodStateRows is for members among themselves.
	MethodStateRows = "registry.state-rows"
)

var (
	// ErrStale means that this node cannot be sure of what the registry says now: it
	// must neither clear nor release anything.
	ErrStale = lease.ErrStale
	// ErrNotLeader means that the member asked does not lead, or ceased to while it
	// answered. What was submitted may or may not have been decided: ask again, with
	// the same bytes.
	ErrNotLeader = errors.New("not the registry leader")
	// ErrNoLeader means that no leader is known at the moment. Ask again.
	ErrNoLeader = errors.New("the registry has no leader")
	// ErrNotMember means that a node was asked that does not vote.
	ErrNotMember = errors.New("not a registry member")
	// ErrNotAdmitted means that the asking node is of no admitted institution, or its
	// institution is suspended, or it was removed.
	ErrNotAdmitted = errors.New("not admitted to the registry")
	// ErrBusy means that an institution sends more bytes of commands than a member takes
	// from one; see Tuning.SubmitRate. Ask again a little later, with the same bytes.
	ErrBusy = errors.New("too many bytes of commands from one institution")
	// ErrDiverged means that a grant vouches for another public history than this replica
	// holds, see ErrGap.
	ErrDiverged = lease.ErrDiverged
	// ErrBehind means that a grant vouches for more than came here within a lease.
	ErrBehind = lease.ErrBehind
	// ErrMalformed means a request that no member can answer.
	ErrMalformed = errors.New("malformed registry request")
	// ErrClosed means that the registry is closed, or not running yet.
	ErrClosed = errors.New("registry is not running")
)

// Peers reaches other nodes. An implementation is safe for concurrent use, and
// gives up when ctx ends.
type Peers interface {
	// Call asks one question of the node to; see the Method constants.
	Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error
	// Watch opens the stream of MethodWatch at the member to. It ends with ctx.
	Watch(ctx context.Context, to names.NodeID, req *registrypb.WatchRequest) (WatchStream, error)
}

// WatchStream is the receiving end of a watch.
type WatchStream interface {
	Receive() (*registrypb.WatchEvent, error)
	Close()
}

// Config says which part a node plays in the registry of which mesh. Mesh, bounds
// and first members come from the genesis file.
type Config struct {
	Self    names.NodeID
	Genesis *genesis.File
	// Schemes are the identifier schemes of the mesh; nil: subject.Belgian().
	Schemes subject.Schemes
	// Dir holds everything; made if absent. A member and a watcher keep their state
	// in different places of it, since a watcher's is not whole.
	Dir string
	// Disk is what Dir lies on; nil: the operating system's.
	Disk Disk
	// StorageKey encrypts all that is kept in Dir: 32 bytes, or none.
	StorageKey []byte
	// Signer is the institution's; it signs grants on a member.
	Signer crypto.Signer
	// Raft makes this node a member: a stream layer whose addresses are NodeIDs, on
	// Addr and Dial as on the RemoteAddr of what it accepts, where it is the
	// authenticated peer. It is closed by the registry. Nil makes a watcher.
	Raft raft.StreamLayer
	// Join: the mesh has begun, and this member's disk is new. It never founds the log,
	// although the genesis file names it.
	Join  bool
	Peers Peers
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
	Log *slog.Logger

	Tuning Tuning

	again bool // damaged files were set aside by this very Open
}

// Tuning holds what seldom needs to differ. Zero fields take the defaults.
type Tuning struct {
	// Heartbeat and Election are raft's timeouts: a follower that hears nothing for
	// Heartbeat to twice that calls an election. Default 450ms each.
	Heartbeat, Election time.Duration
	// LeaderLease is how long a leader goes on without a majority. Default 300ms.
	LeaderLease time.Duration
	// RPC bounds one raft message, connecting included. Default 5s.
	RPC time.Duration
	// SnapshotEvery is how many log entries lie between snapshots at most, however small
	// they are (see compact.go), and SnapshotCheck how often that is looked at. Default
	// 16384 and 10 s.
	SnapshotEvery uint64
	SnapshotCheck time.Duration
	// TrailingLogs is how many entries a snapshot leaves for followers that lag a
	// little, unless that is more than some 50 MB. Default 8192.
	TrailingLogs uint64
	// WatchPause is the shortest time between two looks of a watch for news, so that
	// a bulk load does not wake every follower for every entry. Default 10ms.
	WatchPause time.Duration
	// WatchKeepalive is how often an idle watch says that it lives, and a third of
	// the silence after which a follower turns to another member. Default 2s.
	WatchKeepalive time.Duration
	// CompareEvery is how often a replica looks whether there is a mark of its state that
	// it has not compared with every member's yet. Default 5s.
	CompareEvery time.Duration
	// VerifyEvery is how often all rows are read and held against the hash that was kept
	// while they were written; also once after the start, VerifyAfter later. Default 24h
	// and 10 s; VerifyAfter < 0: at once.
	VerifyEvery, VerifyAfter time.Duration
	// VerifyRest is how many times as long as it reads that reading rests. Default 4: it has
	// a fifth of one processor at the most; < 0: it does not rest.
	VerifyRest int
	// FeatureLevel is the highest level of the rules that this replica admits to know; 0:
	// what this program knows. Tests lower it to play an older one.
	FeatureLevel uint32
	// SubmitRate is how many bytes of commands one institution may send a member each
	// second, and SubmitBurst how many at once. Default 32 MB and 64 MB.
	SubmitRate, SubmitBurst int
}

func (t Tuning) withDefaults() Tuning {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Heartbeat, 450*time.Millisecond)
	def(&t.Election, max(450*time.Millisecond, t.Heartbeat))
	def(&t.LeaderLease, min(300*time.Millisecond, t.Heartbeat))
	def(&t.RPC, 5*time.Second)
	def(&t.SnapshotCheck, 10*time.Second)
	def(&t.WatchPause, 10*time.Millisecond)
	def(&t.WatchKeepalive, 2*time.Second)
	def(&t.CompareEvery, 5*time.Second)
	def(&t.VerifyEvery, 24*time.Hour)
	def(&t.VerifyAfter, 10*time.Second)
	if t.VerifyRest == 0 {
		t.VerifyRest = 4
	}
	if t.SubmitRate == 0 {
		t.SubmitRate = 32 << 20
	}
	if t.SubmitBurst == 0 {
		t.SubmitBurst = max(64<<20, 2*t.SubmitRate)
	}
	t.SubmitBurst = max(t.SubmitBurst, record.MaxCommand) // or some command could never be sent
	if t.SnapshotEvery == 0 {
		t.SnapshotEvery = 16384
	}
	if t.TrailingLogs == 0 {
		t.TrailingLogs = 8192
	}
	return t
}

// Registry is one node's replica, whole on a member, its public part on a watcher.
// Everything but Run and Close may be called concurrently, from Open on; what
// needs others works while Run runs.
type Registry struct {
	cfg      Config
	rules    *record.Rules
	store    *store.Store
	holder   *lease.Holder
	member   *member // nil on a watcher
	route    route
	asking   atomic.Int32 // grants this watcher waits for
	changes  feed
	removals removals
	withheld withheld
	fatal    chan error    // buffered: the first failure of the store
	doubts   chan struct{} // buffered: a grant vouches for another history than this
	behind   chan struct{} // buffered: a grant vouches for more than came
	limits   byteLimits
	dir      string // of this part
	compared comparison
	// verifying is what is being read through, or is to be once Run runs; nil: nothing.
	verifying atomic.Pointer[pace.Pace]

	begun chan struct{} // closed by Run, or Close

	mu      sync.Mutex
	running context.Context // nil before Run; ends with it
	closed  bool
	calls   sync.WaitGroup // handlers and submissions under way
}

// Open opens the replica in cfg.Dir, or founds it from the genesis file. Nothing
// talks to anybody before Run. The caller calls Run, or else Close.
func Open(cfg Config) (*Registry, error) {
	if cfg.Schemes == nil {
		cfg.Schemes = subject.Belgian()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Disk == nil {
		cfg.Disk = files{}
	}
	if err := cfg.Self.Validate(); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	cfg.Tuning = cfg.Tuning.withDefaults()

	r := &Registry{cfg: cfg, rules: RulesOf(cfg.Genesis, cfg.Schemes), fatal: make(chan error, 1), doubts: make(chan struct{}, 1), behind: make(chan struct{}, 1), begun: make(chan struct{})}
	r.route.reg = r
	r.withheld = newWithheld()
	r.verifying.Store(new(pace.Pace))
	r.rules.Knows, r.rules.Verified = cfg.Tuning.FeatureLevel, new(envelope.Memory)
	part := "watcher"
	if cfg.Raft != nil {
		part = "member"
	}
	dir := filepath.Join(cfg.Dir, part)
	r.dir = dir
	r.route.from = len(turnsOf(dir))
	if err := prepareDir(dir); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	var err error
	if r.compared.suspect, err = afterDivergence(dir, cfg.Disk.State(dir).Dir); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if rejoin, err := afterDamage(dir, cfg.Log); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	} else if rejoin {
		r.cfg.Join = true
	}
	if err := r.openTables(); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r.store.OnApply(r.applied)
	if cfg.Raft != nil { // the log holds what the tables are behind with
		r.store.Behind(r.failed)
	}
	if cfg.Raft != nil {
		r.member, err = openMember(r, dir)
		if errors.Is(err, ErrLogDamaged) { // the key is the right one: the tables opened with it
			if err = errors.Join(r.store.Close(), os.WriteFile(filepath.Join(dir, damagedFile), []byte(err.Error()+"\n"), 0o600)); err == nil && !cfg.again {
				cfg.again = true
				return Open(cfg)
			}
			return nil, fmt.Errorf("registry: %w", err)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("registry: %w", err), r.store.Close())
		}
	}
	r.holder = lease.NewHolder(lease.HolderConfig{
		Mesh: cfg.Genesis.Mesh, Self: cfg.Self, Lease: cfg.Genesis.Bounds.Lease, Skew: cfg.Genesis.Bounds.Skew,
		Ask: r.askGrant, Trust: r.trust, WaitApplied: r.store.WaitApplied, Now: cfg.Now, Log: cfg.Log,
		Applied: r.store.AppliedIndex, Compare: r.compare, Failed: r.grantFailed,
	})
	return r, nil
}

// Run takes part until ctx ends or the replica fails, and then closes it. It
// returns nil after ctx ended. It may be called once.
func (r *Registry) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	if r.closed || r.running != nil {
		r.mu.Unlock()
		return fmt.Errorf("registry: %w: Run was called before", ErrClosed)
	}
	r.running = ctx
	close(r.begun)
	r.mu.Unlock()
	defer func() {
		cancel()
		r.noteDamage(err)
		err = errors.Join(err, r.Close())
	}()

	hurry := r.Sound() != nil // nobody relies on tables that were made anew, until they are confirmed
	g, ctx := errgroup.WithContext(ctx)
	if r.member != nil {
		if err := r.member.start(ctx); err != nil {
			return fmt.Errorf("registry: %w", err)
		}
		g.Go(func() error { return r.member.granter.Run(ctx) })
		g.Go(func() error { return r.member.keepMembers(ctx) })
		g.Go(func() error { return r.member.newcomer.run(ctx) })
		g.Go(func() error { return r.member.finishCatchUp(ctx) })
		g.Go(func() error { return r.member.compact(ctx) })
	} else {
		g.Go(func() error { return r.follow(ctx) })
		g.Go(func() error { return r.settleDoubts(ctx) })
	}
	g.Go(func() error { return r.holder.Run(ctx) })
	g.Go(func() error { return r.keepListening(ctx) })
	g.Go(func() error { return r.keepComparing(ctx) })
	g.Go(func() error { return r.keepVerifying(ctx, hurry) })
	g.Go(func() error {
		select {
		case err := <-r.fatal:
			return fmt.Errorf("registry: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// Close closes a replica that does not run; Run does it by itself at its end.
func (r *Registry) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	if r.running == nil {
		close(r.begun)
	}
	r.mu.Unlock()
	r.calls.Wait()
	var err error
	if r.member != nil {
		err = r.member.close()
	}
	return errors.Join(err, r.store.Close())
}

// enter admits a call that needs a running registry. The context ends with the
// caller's and with Run; leave must be called.
func (r *Registry) enter(ctx context.Context) (_ context.Context, leave func(), _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil || r.closed || r.running.Err() != nil {
		return nil, nil, ErrClosed
	}
	r.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.running, cancel)
	return ctx, func() {
		stop()
		cancel()
		r.calls.Done()
	}, nil
}

// failed ends Run with the first failure.
func (r *Registry) failed(err error) {
	select {
	case r.fatal <- err:
	default:
	}
}

// applied is told of every commit of the store.
func (r *Registry) applied(_ uint64, changes []store.Change) {
	for _, c := range changes {
		if c.Result.RemovesRight && c.Result.Accepted && !c.Result.Repeated {
			r.removals.note(c.Index, r.revocationBound())
		}
	}
	r.changes.notify()
}

// View calls fn with a consistent view of this replica, as it stands; whether one
// may rely on it is what Standing says.
func (r *Registry) View(fn func(record.View) error) error { return r.store.View(fn) }

// Standing gives this node's right to rely on its view, or ErrStale. There is none while
// its state is another than most members signed, or a member showed it a removal of a right
// that it lacks.
func (r *Registry) Standing() (lease.Standing, error) {
	if err := r.reliable(); err != nil {
		return lease.Standing{}, fmt.Errorf("%w: %w", ErrStale, err)
	}
	return r.holder.Standing()
}

// reliable says why no grant makes this replica one to rely on, or nothing.
func (r *Registry) reliable() error {
	if err := r.Sound(); err != nil {
		return err
	}
	return r.nothingWithheld()
}

// WaitStanding gives the standing as soon as there is one.
func (r *Registry) WaitStanding(ctx context.Context) (lease.Standing, error) {
	for {
		s, err := r.holder.Wait(ctx)
		if err != nil {
			return s, err
		}
		if err = r.reliable(); err == nil {
			return s, nil
		}
		select {
		case <-time.After(soundLook):
		case <-ctx.Done():
			return lease.Standing{}, fmt.Errorf("%w: %w", ErrStale, err)
		}
	}
}

// WaitApplied returns when this replica holds index.
func (r *Registry) WaitApplied(ctx context.Context, index uint64) error {
	return r.store.WaitApplied(ctx, index)
}

// AppliedIndex gives the index up to which this replica holds everything.
func (r *Registry) AppliedIndex() uint64 { return r.store.AppliedIndex() }

// IsMember reports whether this node was opened as a member. Whether it votes is
// what the members record says.
func (r *Registry) IsMember() bool { return r.member != nil }

// Leader names the leader that this member knows of. A watcher knows of none.
func (r *Registry) Leader() (names.NodeID, bool) {
	if r.member == nil {
		return names.NodeID{}, false
	}
	return r.member.leader()
}
