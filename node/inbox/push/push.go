// Package push hands what waits in the inbox to a system of the institution's own, which
// need not fetch it then.
//
// A Pusher is a consumer of the inbox like any other: it takes items, hands each to its
// Target, and acknowledges, which is journaled, once the target has accepted it. Whatever
// ends in between has the same item handed over again under the same key; the target makes
// one effect of it. About one subject one item is under way at a time, in the order in
// which they came.
//
// What fails is tried again, ever later, and while the target fails one attempt is made at
// a time. An item that the target refuses for what it is (ErrRefused) is set aside, holds
// back what came later about its subject and nothing else, and is tried again when its
// Hold ends or somebody calls Resume. A target that refuses everything (ErrMisconfigured)
// is left alone for PauseFor. Nothing is dropped: an item ends by being accepted, or with
// its life in the inbox, which is journaled.
package push

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

var (
	// ErrRefused means that the target will not accept this item, however often it is sent.
	ErrRefused = errors.New("refused this item")
	// ErrMisconfigured means that the target would refuse any: it is another one than was
	// meant, or does not know this node.
	ErrMisconfigured = errors.New("accepts nothing from this node")
)

// Later is in an error's chain when the target said when it wants to be asked again.
type Later struct{ After time.Duration }

func (l *Later) Error() string { return "wants to be asked later" }

// Target is a system that items are handed to; adapters/push has those that speak HTTP.
type Target interface {
	// Push hands over one item. Nil: the target holds it durably. Errors wrap ErrRefused,
	// ErrMisconfigured, or neither: then it is worth another try. They repeat nothing of
	// the item or of the answer.
	Push(ctx context.Context, m Message) error
}

// Inbox is where items wait; *inbox.Inbox is one.
type Inbox interface {
	Take(ctx context.Context, consumer string, w inbox.Want) ([]inbox.Taken, error)
	Acknowledge(ctx context.Context, by inbox.Taker, receipts []inbox.Receipt) error
	Release(consumer string, receipts ...inbox.Receipt) error
	Hold(consumer string, r inbox.Receipt, visibility time.Duration) error
}

// Times.
const (
	DefaultTimeout = 10 * time.Second // of one attempt
	DefaultAtOnce  = 4
	PauseFor       = 10 * time.Minute // after ErrMisconfigured
	MaxLater       = time.Hour        // that a target can ask for
	firstBackoff   = 500 * time.Millisecond
	maxBackoff     = time.Minute
	spare          = time.Minute // for which an item stays taken after its attempt timed out
)

// channel is how the journal says that an item was pushed.
const channel = "push"

// Config is all that a Pusher needs. What has a default may be zero.
type Config struct {
	Consumer string // of the inbox
	Self     names.NodeID
	Inbox    Inbox
	Target   Target
	Timeout  time.Duration
	AtOnce   int
	Now      func() time.Time
	Log      *slog.Logger
}

// Pusher is safe for concurrent use.
type Pusher struct {
	cfg Config

	mu        sync.Mutex
	changed   chan struct{} // closed, and replaced, when something below did
	failures  int           // in a row
	since     time.Time     // of the first of them
	why       string        // of the last
	paused    bool
	next      time.Time // before which nothing is sent
	probing   bool      // somebody tries whether the target works again
	delivered uint64
	trouble   map[uint64]*trouble
}

// trouble is an item that was not accepted.
type trouble struct {
	Trouble
	receipt inbox.Receipt
}

// New makes a pusher.
func New(cfg Config) *Pusher {
	cfg.Timeout, cfg.AtOnce = cmp.Or(cfg.Timeout, DefaultTimeout), cmp.Or(cfg.AtOnce, DefaultAtOnce)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Pusher{cfg: cfg, changed: make(chan struct{}), trouble: map[uint64]*trouble{}}
}

// Run pushes until ctx is done; attempts under way are then broken off.
func (p *Pusher) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range p.cfg.AtOnce {
		workers.Go(func() {
			for ctx.Err() == nil {
				p.one(ctx)
			}
		})
	}
	workers.Wait()
	return nil
}

// one hands over one item.
func (p *Pusher) one(ctx context.Context) {
	probe, ok := p.enter(ctx)
	if !ok {
		return
	}
	if probe {
		defer p.leave()
	}
	taken, err := p.cfg.Inbox.Take(ctx, p.cfg.Consumer, inbox.Want{Max: 1, Visibility: p.cfg.Timeout + spare})
	if err != nil {
		p.fail(nil, err)
		return
	}
	if len(taken) == 0 {
		return
	}
	t := taken[0]
	if !probe && p.failing() { // since it began to wait for an item
		_ = p.cfg.Inbox.Release(p.cfg.Consumer, receiptOf(t))
		return
	}
	if err := p.push(ctx, t); err != nil {
		if ctx.Err() == nil {
			p.fail(&t, err)
		}
		return
	}
	p.succeed(t)
}

func receiptOf(t inbox.Taken) inbox.Receipt { return inbox.Receipt{ID: t.ID, Lease: t.Lease} }

// push hands one item over and acknowledges it.
func (p *Pusher) push(ctx context.Context, t inbox.Taken) error {
	m, err := messageOf(p.cfg.Self, t.Item)
	if err != nil {
		return err
	}
	attempt, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	if err := p.cfg.Target.Push(attempt, m); err != nil {
		return err
	}
	return p.cfg.Inbox.Acknowledge(ctx, inbox.Taker{Consumer: p.cfg.Consumer, Channel: channel}, []inbox.Receipt{receiptOf(t)})
}

// enter waits until something may be sent. While the target fails, that is one worker's
// to try (probe); false: ctx is done.
func (p *Pusher) enter(ctx context.Context) (probe, ok bool) {
	for ctx.Err() == nil {
		p.mu.Lock()
		wait, changed := p.next.Sub(p.cfg.Now()), p.changed
		if wait <= 0 && (p.failures == 0 || !p.probing) {
			probe = p.failures > 0
			p.probing = p.probing || probe
			p.mu.Unlock()
			return probe, true
		}
		p.mu.Unlock()
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-due:
		}
	}
	return false, false
}

func (p *Pusher) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = false
	p.wake()
}

// wake tells those who wait in enter. Its caller holds mu.
func (p *Pusher) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Pusher) failing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures > 0
}

func (p *Pusher) succeed(t inbox.Taken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.trouble, t.ID)
	p.delivered++
	p.works()
}

// works notes that the target does. Its caller holds mu.
func (p *Pusher) works() {
	if p.failures > 0 {
		p.cfg.Log.Info("a system accepts what arrives again", "push", p.cfg.Consumer, "since", p.since)
	}
	p.failures, p.paused, p.why, p.since, p.next = 0, false, "", time.Time{}, time.Time{}
	p.wake()
}

// fail notes that something could not be handed over, and when to try again.
func (p *Pusher) fail(t *inbox.Taken, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	var tr *trouble
	attempts := 1
	if t != nil {
		if tr = p.trouble[t.ID]; tr == nil {
			tr = &trouble{Trouble: Trouble{ID: t.ID, Ticket: t.Ticket, Since: now}}
			p.trouble[t.ID] = tr
		}
		tr.Attempts++
		tr.Why, tr.receipt = err.Error(), receiptOf(*t)
		attempts = tr.Attempts
	}
	hold := backoff(attempts)
	if errors.Is(err, ErrRefused) && tr != nil {
		hold = inbox.MaxVisibility
		tr.Refused = true
		p.cfg.Log.Warn("a system refuses an item; it is set aside", "push", p.cfg.Consumer, "ticket", t.Ticket, "item", t.ID, "err", err)
		p.works()
	} else {
		p.failures++
		wait := backoff(p.failures)
		var later *Later
		switch {
		case errors.Is(err, ErrMisconfigured):
			wait, hold, p.paused = PauseFor, PauseFor, true
		case errors.As(err, &later):
			wait = max(wait, min(later.After, MaxLater))
			hold = max(hold, min(later.After, MaxLater))
		}
		if p.failures == 1 {
			p.since = now
			p.cfg.Log.Warn("what arrived cannot be handed over; will try again", "push", p.cfg.Consumer, "err", err)
		}
		p.why = err.Error()
		if next := now.Add(wait); next.After(p.next) {
			p.next = next
		}
	}
	if tr != nil {
		tr.Next = now.Add(hold)
		_ = p.cfg.Inbox.Hold(p.cfg.Consumer, tr.receipt, hold) // nobody's any more: it is given again all the same
	}
	p.wake()
}

// backoff is how long to wait after so many failures in a row.
func backoff(failures int) time.Duration {
	d := min(maxBackoff, firstBackoff<<min(failures-1, 10))
	return d/2 + rand.N(d/2)
}
