// Package pace keeps work that nobody waits for out of the way of work that somebody
// waits for: after each few milliseconds it rests for a multiple of them (Pace), and what it
// writes is synced in pieces (Written).
package pace

import (
	"context"
	"sync/atomic"
	"time"
)

// Piece is how long work goes on before it rests. One that took longer, because others had
// the processor, counts for twice that at most, so that the work ends on a busy machine too.
const Piece = 4 * time.Millisecond

// Pace is one piece of work after the other, done by one goroutine. The zero value never
// rests.
type Pace struct {
	rest  int
	began time.Time // this piece; zero: at the next Step
	done  atomic.Uint64
}

// New rests for rest times as long as each piece took: the work has 1/(rest+1) of one
// processor at the most. 0 or less: it never rests.
func New(rest int) *Pace { return &Pace{rest: rest} }

// Step notes that n more were done, and rests if it is time to. The error is that of ctx,
// which ends a rest too. Call it about every millisecond, or more often.
func (p *Pace) Step(ctx context.Context, n int) error {
	p.done.Add(uint64(n))
	if err := ctx.Err(); err != nil || p.rest <= 0 {
		return err
	}
	now := time.Now()
	if p.began.IsZero() {
		p.began = now
	}
	took := now.Sub(p.began)
	if took < Piece {
		return nil
	}
	t := time.NewTimer(time.Duration(p.rest) * min(took, 2*Piece))
	defer t.Stop()
	select {
	case <-t.C:
		p.began = time.Now()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done gives how many were done so far. Anybody may ask.
func (p *Pace) Done() uint64 { return p.done.Load() }
