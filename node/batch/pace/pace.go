// Package pace keeps lots out of the way of interactive traffic. The Gate lets a lot work a
// little at a time, and rest between, and only when nothing interactive is under way at this
// node, but never not at all; a Window says at which hours lots may run; a Quota how fast one institution's
// may.
package pace

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Gate is where lots wait for interactive traffic. The zero value is open, and safe for
// concurrent use.
type Gate struct {
	inside atomic.Int64
	quiet  atomic.Pointer[chan struct{}] // closed when nothing interactive is under way any more

	// Patience is how long one step of a lot waits at most. 0: 5 ms. It bounds from below
	// what a lot gets of a node that is never quiet.
	Patience time.Duration
	// Rest is how long one step of a lot rests where nothing interactive is under way. 0: 50 µs.
	// A program whose processors are all at work looks at its network every 10 ms; while one of
	// them rests, at once. So what arrives waits for a step and not for that.
	Rest    time.Duration
	waited  atomic.Int64 // ns
	entered atomic.Int64 // Unix ns; when something interactive began last
}

// How a lot yields where processors are scarce: when it is woken late from its rest, so is
// every consultation at every step of its way, here and at other nodes of this machine. It
// then rests several times as long as it was late, if there were consultations lately.
const (
	lately   = time.Second
	punctual = 150 * time.Microsecond // as late as on an idle machine
	yields   = 4
	longest  = 10 * time.Millisecond
)

// Enter says that something interactive begins; the result, that it ended.
func (g *Gate) Enter() (leave func()) {
	g.entered.Store(time.Now().UnixNano())
	if g.inside.Add(1) == 1 {
		c := make(chan struct{})
		g.quiet.Store(&c)
	}
	return func() {
		if g.inside.Add(-1) == 0 {
			if c := g.quiet.Swap(nil); c != nil {
				close(*c)
			}
		}
	}
}

// Pass rests, and then waits until nothing interactive is under way, at most for the gate's
// patience. It is called every few subjects, after a millisecond or two of work. The error is
// the context's.
func (g *Gate) Pass(ctx context.Context) error {
	g.rest()
	if g.inside.Load() == 0 {
		return ctx.Err()
	}
	c := g.quiet.Load()
	if c == nil {
		return ctx.Err()
	}
	begun := time.Now()
	t := time.NewTimer(cmp.Or(g.Patience, 5*time.Millisecond))
	defer t.Stop()
	select {
	case <-*c:
	case <-t.C:
	case <-ctx.Done():
	}
	g.waited.Add(int64(time.Since(begun)))
	return ctx.Err()
}

func (g *Gate) rest() {
	rest, begun := cmp.Or(g.Rest, 50*time.Microsecond), time.Now()
	time.Sleep(rest)
	late := time.Since(begun) - rest
	if late < punctual || time.Since(time.Unix(0, g.entered.Load())) > lately {
		return
	}
	more := min(yields*late, longest)
	time.Sleep(more)
	g.waited.Add(int64(more))
}

// Waited gives how long lots have waited here altogether.
func (g *Gate) Waited() time.Duration { return time.Duration(g.waited.Load()) }

// Window is a part of the day, by the wall clock of a zone: From to Until, over midnight when
// Until is the smaller. The zero Window is the whole day.
type Window struct {
	From, Until time.Duration // since midnight
	Zone        *time.Location
}

// ParseWindow reads "20:00-06:00", or nothing.
func ParseWindow(s string, zone *time.Location) (Window, error) {
	w := Window{Zone: zone}
	if s == "" {
		return w, nil
	}
	var a, b, c, d int
	if n, err := fmt.Sscanf(s, "%02d:%02d-%02d:%02d", &a, &b, &c, &d); n != 4 || err != nil || len(s) != len("00:00-00:00") ||
		a > 23 || c > 24 || b > 59 || d > 59 || c == 24 && d > 0 || min(a, b, c, d) < 0 {
		return w, fmt.Errorf("want a part of the day, as 20:00-06:00")
	}
	w.From = time.Duration(a)*time.Hour + time.Duration(b)*time.Minute
	w.Until = time.Duration(c)*time.Hour + time.Duration(d)*time.Minute
	return w, nil
}

// Opens gives how long it is until the window opens; 0: it is open.
func (w Window) Opens(now time.Time) time.Duration {
	if w.From == w.Until {
		return 0
	}
	if w.Zone != nil {
		now = now.In(w.Zone)
	}
	day := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute + time.Duration(now.Second())*time.Second +
		time.Duration(now.Nanosecond())
	inside := day >= w.From && day < w.Until
	if w.From > w.Until {
		inside = day >= w.From || day < w.Until
	}
	if inside {
		return 0
	}
	return (w.From - day + 24*time.Hour) % (24 * time.Hour)
}

// Quota bounds how many subjects of each institution's lots are worked on per second. It is
// safe for concurrent use.
type Quota struct {
	rate  rate.Limit
	burst int

	mu   sync.Mutex
	rows map[names.InstitutionID]*rate.Limiter
}

// NewQuota makes a quota; perSecond 0: no bound. One chunk of up to burst is always taken
// at once.
func NewQuota(perSecond float64, burst int) *Quota {
	return &Quota{rate: rate.Limit(perSecond), burst: burst, rows: map[names.InstitutionID]*rate.Limiter{}}
}

// Take takes n subjects out of an institution's quota, or says how long to wait.
func (q *Quota) Take(i names.InstitutionID, n int, now time.Time) (wait time.Duration) {
	if q.rate <= 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.rows[i]
	if l == nil {
		l = rate.NewLimiter(q.rate, q.burst)
		q.rows[i] = l
	}
	r := l.ReserveN(now, min(n, q.burst))
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
