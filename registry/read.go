package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// Consistency is how sure a reader wants to be that a view is the newest.
type Consistency int

const (
	// Stale is what this node holds. With a bound: only if it is known to have been the
	// newest within the bound.
	Stale Consistency = iota
	// Leased is what this node may act on: at most a lease old, whatever happens elsewhere.
	Leased
	// Linearizable holds everything that was decided before the reader asked. It costs a
	// way to the leader and back, and fails while there is no leader.
	Linearizable
)

// String gives the word that the API and the command line use.
func (c Consistency) String() string {
	switch c {
	case Stale:
		return "stale"
	case Leased:
		return "lease"
	case Linearizable:
		return "linearizable"
	}
	return "unknown"
}

// ParseConsistency reads such a word.
func ParseConsistency(s string) (Consistency, error) {
	for _, c := range []Consistency{Stale, Leased, Linearizable} {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%w: consistency: want stale, lease or linearizable", ErrMalformed)
}

// Reading is what a reader asks for.
type Reading struct {
	Consistency Consistency
	// MaxStale bounds a stale reading; 0: no bound. It counts by this node's monotonic
	// clock, from the moment at which the last grant that covers the view was asked for.
	MaxStale time.Duration
}

// readRetry is the pause after a grant that was not to be had.
const readRetry = 25 * time.Millisecond

// Read calls fn with a view that is as new as wanted, and says how long ago at most the
// view was the newest there is; negative: not known, since no grant ever came. The error
// wraps ErrStale when no such view is to be had, or is ctx's, or fn's.
func (r *Registry) Read(ctx context.Context, want Reading, fn func(v record.View, age time.Duration) error) error {
	switch want.Consistency {
	case Stale:
		if age := r.age(); want.MaxStale > 0 && (age < 0 || age > want.MaxStale) {
			return fmt.Errorf("%w: a view of at most %s is wanted, and this one was last confirmed %s", ErrStale, want.MaxStale, ago(age))
		}
	case Leased:
		if _, err := r.Standing(); err != nil {
			return err
		}
	case Linearizable:
		if err := r.catchUp(ctx); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: consistency %d", ErrMalformed, want.Consistency)
	}
	age := r.age() // before the view is taken: that is no older
	return r.View(func(v record.View) error { return fn(v, age) })
}

// age tells how long ago this view was known to hold everything; negative: never.
func (r *Registry) age() time.Duration {
	if at, ok := r.holder.Confirmed(); ok {
		return time.Since(at)
	}
	return -1
}

func ago(age time.Duration) string {
	if age < 0 {
		return "never"
	}
	return age.Round(time.Millisecond).String() + " ago"
}

// catchUp returns when this view holds everything that was decided before the call: the
// leader gives its commit index after the nonce was drawn, and proves that it still leads.
func (r *Registry) catchUp(ctx context.Context) error {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	for {
		err := r.holder.Renew(ctx, r.askGrant)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w (last: %w)", ErrStale, ctx.Err(), err)
		case errors.Is(err, ErrDiverged):
			return err
		}
		select {
		case <-time.After(readRetry):
		case <-ctx.Done():
		}
	}
}
