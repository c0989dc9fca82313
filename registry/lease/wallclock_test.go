package lease

import (
	"testing"
	"testing/synctest"
	"time"
)

// A standing is worth nothing once the wall clock leapt, either way: the times in
// clearances are compared with it.
func TestStandingEndsWhenTheWallClockLeaps(t *testing.T) {
	for name, c := range map[string]struct {
		leap   time.Duration
		after  time.Duration
		stands bool
	}{
		"an hour back":               {-time.Hour, 0, false},
		"an hour ahead":              {time.Hour, 0, false},
		"back, a little too far":     {-1001 * time.Millisecond, 0, false},
		"back later, too far":        {-1500 * time.Millisecond, 1900 * time.Millisecond, false},
		"back, within the bound":     {-999 * time.Millisecond, 1900 * time.Millisecond, true},
		"ahead, within the bound":    {999 * time.Millisecond, 1900 * time.Millisecond, true},
		"no leap":                    {0, 1900 * time.Millisecond, true},
		"no leap, and the lease out": {0, 2 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leap := time.Duration(0)
				h := NewHolder(HolderConfig{Lease: 2 * time.Second, Skew: time.Second, Now: func() time.Time { return time.Now().Add(leap) }})
				h.install(Standing{Grant: []byte{1}, Until: time.Now().Add(2 * time.Second)}, h.wall())
				time.Sleep(c.after)
				leap = c.leap
				if _, err := h.Standing(); (err == nil) != c.stands {
					t.Errorf("stands: %t (%v), want %t", err == nil, err, c.stands)
				}
			})
		})
	}
}
