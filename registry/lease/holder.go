package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// inFlight bounds the renewals of one holder that wait at the same time, so that
// one slow answer does not end the standing.
const inFlight = 4

// HolderConfig says who holds, how long, and what it needs for that.
type HolderConfig struct {
	Mesh names.MeshID
	Self names.NodeID
	// Lease is how long a standing lasts from the moment it was asked for. The
	// holder renews at a quarter of it.
	Lease time.Duration
	// Skew is how far this node's wall clock and the leader's may differ.
	Skew time.Duration
	// Ask brings a nonce to the leader, by whatever way, and its grant back.
	Ask   func(ctx context.Context, nonce []byte) ([]byte, error)
	Trust Trust
	// Applied gives the index up to which this node's view holds everything, as far
	// as it was told, and WaitApplied returns when it holds index.
	Applied     func() uint64
	WaitApplied func(ctx context.Context, index uint64) error
	// Compare gives an error that wraps ErrDiverged when this node's view, which holds
	// the grant's commit index, does not hold the history that the grant vouches for.
	Compare func(g *registrypb.Grant) error
	// Failed, if set, is told of every renewal that failed with ErrDiverged or
	// ErrBehind. It must not block.
	Failed func(error)
	// Now is this node's wall clock.
	Now func() time.Time
	Log *slog.Logger
}

// Holder keeps the standing of one node.
type Holder struct {
	cfg HolderConfig

	mu      sync.Mutex
	now     Standing
	asked   time.Time     // wall clock when now was asked for
	renewed chan struct{} // closed and replaced when now changes
	failed  error         // of the last renewal
}

// NewHolder makes a Holder; it renews while Run runs.
func NewHolder(cfg HolderConfig) *Holder {
	return &Holder{cfg: cfg, renewed: make(chan struct{})}
}

// Standing gives the present standing, or an error that wraps ErrStale.
func (h *Holder) Standing() (Standing, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.standing()
}

func (h *Holder) standing() (Standing, error) {
	if h.now.Grant == nil {
		return Standing{}, fmt.Errorf("%w: no grant yet", ErrStale)
	}
	if late := time.Since(h.now.Until); late >= 0 {
		return Standing{}, fmt.Errorf("%w: the last grant ended %s ago", ErrStale, late.Round(time.Millisecond))
	}
	wall, monotonic := h.wall().Sub(h.asked), time.Since(h.now.Until)+h.cfg.Lease
	if wall > h.cfg.Lease+h.cfg.Skew {
		return Standing{}, fmt.Errorf("%w: the wall clock leapt ahead since the last grant", ErrStale)
	}
	if wall < monotonic-h.cfg.Skew {
		return Standing{}, fmt.Errorf("%w: the wall clock was set back since the last grant", ErrStale)
	}
	return h.now, nil
}

// wall gives the wall clock alone: times that carry a monotonic reading are subtracted
// by that, and then no leap of the wall clock shows.
func (h *Holder) wall() time.Time { return h.cfg.Now().Round(0) }

// Wait gives the standing as soon as there is one, or ctx's error.
func (h *Holder) Wait(ctx context.Context) (Standing, error) {
	for {
		h.mu.Lock()
		s, err := h.standing()
		renewed := h.renewed
		h.mu.Unlock()
		if err == nil {
			return s, nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return Standing{}, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// Run renews until ctx ends and every renewal has returned.
func (h *Holder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, inFlight)
	for {
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				if err := h.Renew(ctx, h.cfg.Ask); ctx.Err() == nil {
					h.report(err)
					if h.cfg.Failed != nil && (errors.Is(err, ErrDiverged) || errors.Is(err, ErrBehind)) {
						h.cfg.Failed(err)
					}
				}
			})
		default: // all are waiting for an answer; asking more helps nobody
		}
		// Jitter keeps thousands of holders from asking in step.
		pause := time.Duration(float64(h.cfg.Lease/4) * (0.75 + mathrand.Float64()/2))
		if _, err := h.Standing(); err != nil {
			pause /= 4
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// report logs when renewing begins to fail, or fails for another kind of reason,
// and when it succeeds again, and nothing else: a leaderless mesh would fill the log.
func (h *Holder) report(err error) {
	h.mu.Lock()
	last, coming := h.failed, h.now.Grant == nil
	h.failed = err
	h.mu.Unlock()
	grave := func(err error) bool { return errors.Is(err, ErrClockSkew) || errors.Is(err, ErrDiverged) }
	switch {
	case (err == nil) == (last == nil) && grave(err) == grave(last):
	case grave(err):
		h.cfg.Log.Error("registry standing not renewed", "error", err)
	case coming:
	case err != nil:
		h.cfg.Log.Info("registry standing not renewed", "error", err)
	default:
		h.cfg.Log.Info("registry standing renewed")
	}
}

// Renew asks once, by a way of its own, and takes the grant over when its index is
// applied and its history is this node's. Who knows several ways to the leader can so
// tell a way that lies from a view that is wrong.
func (h *Holder) Renew(ctx context.Context, ask func(ctx context.Context, nonce []byte) ([]byte, error)) error {
	nonce := make([]byte, NonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	before := h.cfg.Applied() // before the leader can read its commit index
	wall0 := h.wall()
	t0 := time.Now()
	until := t0.Add(h.cfg.Lease)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()

	raw, err := ask(ctx, nonce)
	if err != nil {
		return fmt.Errorf("ask for a grant: %w", err)
	}
	g, err := Open(h.cfg.Mesh, raw, h.cfg.Trust)
	if err != nil {
		return err
	}
	if err := meant(g, h.cfg.Self, nonce); err != nil {
		return err
	}
	if err := h.compareClocks(g, wall0, h.wall()); err != nil {
		return err
	}
	if g.CommitIndex < before {
		return fmt.Errorf("%w: it had applied index %d when leader %s had committed %d", ErrDiverged, before, nodeOf(g.Leader), g.CommitIndex)
	}
	if err := h.cfg.WaitApplied(ctx, g.CommitIndex); err != nil {
		return fmt.Errorf("%w: index %d: %w", ErrBehind, g.CommitIndex, err)
	}
	if err := h.cfg.Compare(g); err != nil {
		return err
	}
	h.install(Standing{Grant: raw, Index: g.CommitIndex, Until: until}, wall0)
	return nil
}

// compareClocks refuses a grant whose time cannot lie between asking and answer,
// even if the clocks differed by the bound.
func (h *Holder) compareClocks(g *registrypb.Grant, asked, answered time.Time) error {
	leader := time.UnixMilli(g.LeaderTimeUnixMs)
	// Grants carry whole milliseconds.
	if leader.Before(asked.Add(-h.cfg.Skew-time.Millisecond)) || leader.After(answered.Add(h.cfg.Skew)) {
		return fmt.Errorf("%w: leader %s says %s, here it was %s; the bound is %s", ErrClockSkew, nodeOf(g.Leader),
			leader.UTC().Format(time.RFC3339Nano), answered.UTC().Format(time.RFC3339Nano), h.cfg.Skew)
	}
	return nil
}

func (h *Holder) install(s Standing, asked time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.Until.After(h.now.Until) {
		return
	}
	h.now, h.asked = s, asked
	close(h.renewed)
	h.renewed = make(chan struct{})
}

// Confirmed gives the moment at which the last grant was asked for that covers this
// node's view: all that was decided before it is in the view. False: there was none.
func (h *Holder) Confirmed() (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now.Until.Add(-h.cfg.Lease), h.now.Grant != nil
}
