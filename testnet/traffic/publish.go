package traffic

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

// sent is what was published, how many are to be told, and the tickets of some.
type sent struct {
	published int
	told      int64
	tickets   []Ticket
}

func publish(ctx context.Context, n *testnet.Network, changes []Change, atOnce int, goOn func() bool) (sent, error) {
	var next, told, published atomic.Int64
	tickets, run := newSample(Notifications), rand.Text()
	g, ctx := errgroup.WithContext(ctx)
	for range atOnce {
		g.Go(func() error {
			for goOn() && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(changes) {
					return nil
				}
				c := changes[i]
				c.Request.ClientTicket = names.ClientTicket(fmt.Sprintf("%.8s-%d", run, i))
				err := insist(ctx, func() error {
					done, err := n.Client(c.From).Publish(ctx, c.Request)
					if err == nil && done.Status != "ACCEPTED" {
						return fmt.Errorf("%s publishes a change of %s, ticket %s: %s %s", c.From, c.Request.Dataset, done.Ticket, done.Status, done.Reason)
					}
					if err == nil {
						tickets.add(c.From, done.Ticket)
					}
					return err
				})
				if err != nil {
					return err
				}
				told.Add(int64(c.Told))
				published.Add(1)
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	return sent{int(published.Load()), told.Load(), tickets.all}, err
}
