package mesh

import (
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// Quota is what one peer may use of an endpoint, over all its connections. Zero fields
// have the default.
type Quota struct {
	// Streams is how many calls of a peer may be in progress at a time, streams of
	// messages included, and how many streams in each stream layer. Default 256.
	Streams int
	// PerSecond is how many calls a peer may start per second in the long run. Default 10,000.
	PerSecond float64
	// Burst is how many calls it may start at once. Default 2,000.
	Burst int
	// Bytes is how much request a peer may have in memory at a time. Default 64 MiB, and
	// never less than the endpoint's MaxMessage.
	Bytes int64
	// Connections is how many connections a peer may hold. Default 32.
	Connections int
}

func (q Quota) withDefaults(maxMessage int) Quota {
	if q.Streams <= 0 {
		q.Streams = 256
	}
	if q.PerSecond <= 0 {
		q.PerSecond = 10_000
	}
	if q.Burst <= 0 {
		q.Burst = 2_000
	}
	if q.Bytes <= 0 {
		q.Bytes = 64 << 20
	}
	q.Bytes = max(q.Bytes, int64(maxMessage))
	if q.Connections <= 0 {
		q.Connections = 32
	}
	return q
}

// busyHint is the retry hint where no better one can be computed.
const busyHint = 50 * time.Millisecond

// account is what one peer uses at present.
type account struct {
	limiter *rate.Limiter
	calls   *semaphore.Weighted
	streams *semaphore.Weighted // of stream layers
	bytes   *semaphore.Weighted
	conns   int // owned by accounts.mu
}

// begin takes one call from the quota. The returned func gives it back.
func (a *account) begin() (func(), *Error) {
	if !a.calls.TryAcquire(1) {
		return nil, exhausted(busyHint, "too many calls in progress")
	}
	r := a.limiter.Reserve()
	if wait := r.Delay(); wait > 0 {
		r.Cancel()
		a.calls.Release(1)
		return nil, exhausted(wait, "too many calls per second")
	}
	return func() { a.calls.Release(1) }, nil
}

func exhausted(after time.Duration, why string) *Error {
	return &Error{Code: ResourceExhausted, Message: why + "; come back later", RetryAfter: after}
}

// accounts holds the accounts of all peers. Only authenticated and admitted peers have
// one, so there are at most as many as the network has nodes.
type accounts struct {
	quota Quota
	mu    sync.Mutex
	peers map[spiffeid.ID]*account
}

func newAccounts(q Quota) *accounts {
	return &accounts{quota: q, peers: make(map[spiffeid.ID]*account)}
}

// connect counts one more connection of a peer.
func (as *accounts) connect(id spiffeid.ID) (*account, error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.peers[id]
	if a == nil {
		q := as.quota
		a = &account{
			limiter: rate.NewLimiter(rate.Limit(q.PerSecond), q.Burst),
			calls:   semaphore.NewWeighted(int64(q.Streams)),
			streams: semaphore.NewWeighted(int64(q.Streams)),
			bytes:   semaphore.NewWeighted(q.Bytes),
		}
		as.peers[id] = a
	}
	if a.conns >= as.quota.Connections {
		return nil, fmt.Errorf("%d connections already", a.conns)
	}
	a.conns++
	return a, nil
}

func (as *accounts) disconnect(a *account) {
	as.mu.Lock()
	defer as.mu.Unlock()
	a.conns--
}

// sweep forgets peers that are gone. Those whose rate is not yet full again stay:
// reconnecting must not refill it.
func (as *accounts) sweep() {
	as.mu.Lock()
	defer as.mu.Unlock()
	for id, a := range as.peers {
		if a.conns == 0 && a.limiter.Tokens() >= float64(as.quota.Burst) {
			delete(as.peers, id)
		}
	}
}
