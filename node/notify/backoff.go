package notify

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff says how long to rest between attempts: twice as long each time, up to most,
// and never quite as long as anybody else, so that a recipient which comes back is not
// met by all at once.
type backoff struct {
	first, most time.Duration
	times       int
}

func (b *backoff) reset() { b.times = 0 }

func (b *backoff) next() time.Duration {
	d := b.most
	if b.times < 30 {
		d = min(b.first<<b.times, b.most)
	}
	b.times++
	return d/2 + rand.N(d/2+1)
}

// rest waits, and fails when ctx ends first.
func (b *backoff) rest(ctx context.Context) error { return pause(ctx, b.next()) }
