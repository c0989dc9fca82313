package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

const (
	takeAtOnce = 200
	takeFor    = 2 * time.Second // how long an application waits for something to arrive
	takers     = 2               // of each institution
)

// inboxes are the institutions' applications that take what arrives, note it, and say so.
type inboxes struct {
	network  *testnet.Network
	told     atomic.Int64 // notifications that are acknowledged
	results  atomic.Int64 // of declarations
	declined atomic.Int64
	busy     atomic.Int64  // have taken something that they have not counted
	progress chan struct{} // holds something when more has come
	stop     context.CancelFunc
	ended    func() error
}

// take starts the applications of every institution, which accept every declaration, and
// returns when they have taken what was there before. The caller ends them.
func take(ctx context.Context, n *testnet.Network) (*inboxes, error) {
	ctx, stop := context.WithCancel(ctx)
	b := &inboxes{network: n, progress: make(chan struct{}, 1), stop: stop}
	g, ctx := errgroup.WithContext(ctx)
	for _, e := range n.Endpoints().Nodes {
		for range takers {
			g.Go(func() error {
				if err := b.serve(ctx, e.Institution); err != nil && ctx.Err() == nil {
					return fmt.Errorf("inbox of %s: %w", e.Institution, err)
				}
				return nil
			})
		}
	}
	b.ended = sync.OnceValue(g.Wait)
	if err := b.empty(ctx); err != nil {
		return nil, errors.Join(err, b.end())
	}
	b.told.Store(0)
	b.results.Store(0)
	return b, nil
}

// end ends the applications, and gives what went wrong in them.
func (b *inboxes) end() error {
	b.stop()
	return b.ended()
}

func (b *inboxes) serve(ctx context.Context, at names.InstitutionID) error {
	c := b.network.Client(at)
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, takeFor)
		got, err := c.TakeInbox(one, api.InboxQuery{Max: takeAtOnce})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || later(err) {
			continue
		}
		if err != nil {
			return err
		}
		if len(got.Items) == 0 {
			continue
		}
		if err := b.handle(ctx, c, got.Items); err != nil {
			return err
		}
	}
	return nil
}

// handle treats what was taken, acknowledges it, and only then counts it.
func (b *inboxes) handle(ctx context.Context, c *api.Client, items []api.InboxItem) error {
	b.busy.Add(1) // before anything is acknowledged: see empty
	defer b.busy.Add(-1)
	told, results := 0, 0
	var receipts []api.InboxReceipt
	for _, i := range items {
		switch i.Kind {
		case "notification":
			told++
		case "result":
			results++
			if i.Status != "ACCEPTED" {
				b.declined.Add(1)
			}
		case "declaration":
			err := insist(ctx, func() error {
				_, err := c.DecideSubmission(ctx, i.Ticket, api.DecisionRequest{Decision: "ACCEPTED"})
				return err
			})
			if err != nil {
				return fmt.Errorf("decide on %s: %w", i.Ticket, err)
			}
		}
		receipts = append(receipts, api.InboxReceipt{ID: i.ID, Lease: i.Lease})
	}
	if err := insist(ctx, func() error { return c.AcknowledgeInbox(ctx, receipts...) }); err != nil {
		return err
	}
	b.told.Add(int64(told))
	b.results.Add(int64(results))
	select {
	case b.progress <- struct{}{}:
	default:
	}
	return nil
}

// empty waits until nothing waits in any inbox, and what did is counted.
func (b *inboxes) empty(ctx context.Context) error {
	for _, e := range b.network.Endpoints().Nodes {
		for {
			st, err := b.network.Client(e.Institution).InboxState(ctx)
			if err == nil && st.Waiting == 0 && b.busy.Load() == 0 {
				break
			}
			if err != nil && !later(err) {
				return err
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// stalled is how long nothing may come before it is given up.
const stalled = time.Minute

// until waits until so many notifications and results have come.
func (b *inboxes) until(ctx context.Context, told, results int64) error {
	for b.told.Load() < told || b.results.Load() < results {
		select {
		case <-b.progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(stalled):
			return fmt.Errorf("of %d notifications %d have come, of %d results %d, and nothing in %v",
				told, b.told.Load(), results, b.results.Load(), stalled)
		}
	}
	return nil
}

// later tells whether a node was asked too much at once, and may be asked again.
func later(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && (p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable)
}

// insist calls again, as an application does, for as long as it is told to come back.
func insist(ctx context.Context, call func() error) error {
	for {
		err := call()
		if !later(err) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
