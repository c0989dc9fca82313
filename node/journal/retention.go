package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Sweep erases every month that a retention of so many whole months does not cover any
// more at now. It goes on after a failure and joins them.
func (j *Journal) Sweep(ctx context.Context, months int, now time.Time) error {
	var errs []error
	for _, month := range j.Expired(months, now) {
		_, err := j.Erase(ctx, Erase{
			Period: month, Time: now, Who: "retention", Reason: fmt.Sprintf("journal.retention of %d months", months),
		})
		if err != nil && !errors.Is(err, ErrNothing) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// KeepRetention sweeps once a day, the first time at once, until ctx ends. now gives an
// error while the time is not certain; nothing is erased then. What fails is logged
// and tried again: an entry that outlives its retention by an hour is no reason to
// stop a node.
func (j *Journal) KeepRetention(ctx context.Context, months int, now func() (time.Time, error)) error {
	return daily(ctx, j.log, now, func(t time.Time) error { return j.Sweep(ctx, months, t) })
}

func daily(ctx context.Context, log *slog.Logger, now func() (time.Time, error), sweep func(time.Time) error) error {
	for {
		wait := 24 * time.Hour
		if t, err := now(); err != nil {
			wait = time.Minute
		} else if err := sweep(t); err != nil && ctx.Err() == nil {
			log.Error("journal: what is past its retention could not be erased; it is tried again within the hour", "err", err)
			wait = time.Hour
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}
