package journal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

// TestExpired: a month is kept for so many whole months after its own, to the hour.
func TestExpired(t *testing.T) {
	j := open(t, small(disktest.New()))
	months(t, j, 1) // 2026-09, -10, -11
	for _, c := range []struct {
		months int
		now    string
		want   []string
	}{
		{120, "2036-09-30T23:59:59Z", nil},
		{120, "2036-10-01T00:00:00Z", []string{"2026-09"}},
		{120, "2036-12-01T00:00:00Z", []string{"2026-09", "2026-10", "2026-11"}},
		{6, "2027-03-31T23:00:00-02:00", []string{"2026-09"}},
		{6, "2027-05-01T00:30:00+01:00", []string{"2026-09"}},
		{6, "2027-05-01T00:00:00Z", []string{"2026-09", "2026-10"}},
		{120, "1999-01-01T00:00:00Z", nil},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := j.Expired(c.months, now); !slices.Equal(got, c.want) {
			t.Errorf("%d months at %s: %v, want %v", c.months, c.now, got, c.want)
		}
	}
}

// TestSweep: a sweep erases what has expired, each month once, and no more.
func TestSweep(t *testing.T) {
	j := open(t, signed(disktest.New()))
	months(t, j, 1)
	for _, c := range []struct {
		now  string
		want int
	}{{"2027-03-31", 0}, {"2027-04-01", 1}, {"2027-04-30", 1}, {"2027-05-01", 2}, {"2027-05-01", 2}} {
		now, _ := time.Parse(time.DateOnly, c.now)
		if err := j.Sweep(context.Background(), 6, now); err != nil {
			t.Fatal(err)
		}
		if got := j.Erasures(time.Time{}, time.Time{}); len(got) != c.want {
			t.Errorf("%s: %d months erased, want %d", c.now, len(got), c.want)
		}
	}
}

// TestDaily: it sweeps once a day, within the hour after a failure, and not at all while
// the time is not certain, however late the clock says it is.
func TestDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var mu sync.Mutex // guards what follows
		var uncertain, failing error = errors.New("clock skew"), nil
		swept := 0
		ended := make(chan error, 1)
		go func() {
			ended <- daily(ctx, slog.New(slog.DiscardHandler),
				func() (time.Time, error) {
					mu.Lock()
					defer mu.Unlock()
					return time.Now().AddDate(50, 0, 0), uncertain
				},
				func(time.Time) error {
					mu.Lock()
					defer mu.Unlock()
					swept++
					return failing
				})
		}()
		after := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if swept != want {
				t.Errorf("%d sweeps, want %d", swept, want)
			}
		}
		set := func(what *error, err error) {
			mu.Lock()
			defer mu.Unlock()
			*what = err
		}
		after(90*time.Minute, 0)
		set(&uncertain, nil)
		after(2*time.Minute, 1)
		after(20*time.Hour, 1)
		set(&failing, errors.New("disk"))
		after(4*time.Hour+30*time.Minute, 2)
		after(time.Hour, 3)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
