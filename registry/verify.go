package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/pace"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// keepVerifying reads all rows once, a moment after the start, and then each day, and
// compares them with the hash that was kept as they were written: a disk, or a hand, may
// have changed what no command did, and the hash alone would not tell. So it reads what is
// needed only when another member loses its own: the last snapshot, and the log before it.
// It rests meanwhile, but for the first time if nobody relies on this replica yet: hurry.
func (r *Registry) keepVerifying(ctx context.Context, hurry bool) error {
	tick := time.NewTicker(r.cfg.Tuning.VerifyEvery)
	defer tick.Stop()
	after, p := r.cfg.Tuning.VerifyAfter, pace.New(r.cfg.Tuning.VerifyRest)
	if hurry {
		after, p = 0, new(pace.Pace)
	}
	begin := time.After(after)
	for {
		select {
		case <-begin:
		case <-ctx.Done():
			return nil
		}
		r.verifying.Store(p)
		well, err := r.verify(ctx, p)
		r.verifying.Store(nil)
		if err != nil || !well {
			return err
		}
		begin, p = tick.C, pace.New(r.cfg.Tuning.VerifyRest)
	}
}

// verify reads everything once, and reports whether all is well.
func (r *Registry) verify(ctx context.Context, p *pace.Pace) (well bool, err error) {
	began := time.Now()
	differ, index, err := r.store.Verify(ctx, p)
	switch {
	case ctx.Err() != nil || errors.Is(err, store.ErrClosed):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the tables: %w", err)
	case len(differ) > 0:
		now := r.Agreement()
		now.Mark.Index = index
		return false, r.diverged(now, fmt.Errorf("%w: rows in the buckets %v are not what commands wrote", ErrDiverged, differ))
	}
	if r.member != nil {
		r.member.verifySnapshot(ctx, p)
		if err := r.member.verifyLog(ctx, p); err != nil {
			return false, fmt.Errorf("registry: read the log: %w", err)
		}
	}
	r.cfg.Log.Debug("registry: all files hold what was written", "index", index, "took", time.Since(began))
	return true, nil
}

// Verifying reports whether this replica reads through what it keeps, or is about to after
// its start, and how many rows and entries of the log it has read so far this time.
func (r *Registry) Verifying() (read uint64, now bool) {
	p := r.verifying.Load()
	if p == nil {
		return 0, false
	}
	return p.Done(), true
}
