package notify

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// courier tells one recipient, for one purpose, what is to be told, in order.
type courier struct {
	*Publisher
	address   string
	recipient names.InstitutionID
	purpose   string

	changed chan struct{} // something was added, or is to be tried at once

	mu      sync.Mutex
	queue   []*delivery // in order; what is done is nil
	waiting int         // of them that are not nil
	ahead   int         // of them that are cleared and were not attempted yet
	began   time.Time   // the attempt in hand, or the last one
	dead    int
	retryAt time.Time // the recipient does not answer: not before
	silent  backoff
	since   time.Time // of the first failure in a row; zero: it answers
	why     string    // of the last failure, for people
}

// delivery is one publication on its way to one recipient.
type delivery struct {
	sequence uint64
	kept     *nodepb.KeptDelivery // courier.mu guards it
	permit   *permit              // nil: to be cleared anew; courier.mu, then the attempt's
	ahead    bool                 // counted in courier.ahead; courier.mu
	retryAt  time.Time            // after a refusal; courier.mu
	tries    uint32               // that the recipient may think otherwise of later; courier.mu
}

func newCourier(p *Publisher, address string) *courier {
	institution, purpose, _ := strings.Cut(address, "/")
	return &courier{Publisher: p, address: address, recipient: names.InstitutionID(institution), purpose: purpose,
		changed: make(chan struct{}, 1), silent: backoff{first: p.cfg.RetryFirst, most: p.cfg.RetryMost}}
}

func (c *courier) add(d *delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, d)
	c.waiting++
	if d.kept.Dead {
		c.dead++
	}
	if d.permit != nil && c.since.IsZero() {
		d.ahead = true
		c.ahead++
	} else {
		d.permit = nil // it will be too late for it
	}
}

// taken notes that a delivery is attempted, or waits for more than its turn: what cleared
// it is used now or too late. The caller holds mu.
func (c *courier) taken(d *delivery, now bool) {
	if d.ahead {
		d.ahead = false
		c.ahead--
	}
	if !now {
		d.permit = nil
	}
}

// full says for how long, at most, nothing more should be cleared for this recipient: it
// has more at hand than it is told before clearances end. One that takes its time holds
// up nobody else for longer than half of that.
func (c *courier) full() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead < (c.cfg.Batch+1)/2 {
		return 0
	}
	return c.began.Add(c.cfg.Bounds.PresentLife / 2).Sub(c.cfg.Now())
}

func (c *courier) nudge() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// run tells the recipient until ctx is done.
func (c *courier) run(ctx context.Context) {
	for ctx.Err() == nil {
		batch, wait := c.next()
		if len(batch) > 0 {
			c.attempt(ctx, batch)
			c.Publisher.nudge() // there may be room for more
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			timer = t.C
		}
		select {
		case <-ctx.Done():
		case <-c.changed:
		case <-timer:
		}
	}
}

// next gives the deliveries to be attempted now, or how long to wait for some; 0: until
// something changes. One that rests, or was given up, holds back those behind it that
// are about the same subject.
func (c *courier) next() (batch []*delivery, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	if now.Before(c.retryAt) {
		return nil, c.retryAt.Sub(now)
	}
	for len(c.queue) > 0 && c.queue[0] == nil {
		c.queue = c.queue[1:]
	}
	blocked := map[string]bool{}
	var soonest time.Time
	for _, d := range c.queue {
		if d == nil {
			continue
		}
		if len(batch) == c.cfg.Batch {
			break
		}
		held := d.kept.Dead || now.Before(d.retryAt)
		if now.Before(d.retryAt) && (soonest.IsZero() || d.retryAt.Before(soonest)) {
			soonest = d.retryAt
		}
		for _, k := range d.kept.Keys {
			held = held || blocked[k]
		}
		if held {
			for _, k := range d.kept.Keys {
				blocked[k] = true
			}
			c.taken(d, false)
			continue
		}
		c.taken(d, true)
		batch = append(batch, d)
	}
	if len(batch) > 0 {
		c.began = now
	}
	if len(batch) == 0 && !soonest.IsZero() {
		wait = soonest.Sub(now)
	}
	return batch, wait
}

// land ends an attempt: what was settled leaves the queue.
func (c *courier) land(settled map[*delivery]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := len(settled)
	for i, d := range c.queue {
		if left == 0 {
			break
		}
		if d != nil && settled[d] {
			c.queue[i] = nil
			c.waiting--
			left--
		}
	}
}

// unanswered notes that the recipient could not be told anything just now.
func (c *courier) unanswered(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	if c.since.IsZero() {
		c.since = now
	}
	c.retryAt, c.why = now.Add(c.silent.next()), err.Error()
	for _, d := range c.queue {
		if d != nil {
			c.taken(d, false)
		}
	}
	c.cfg.Log.Info("recipient cannot be told; will try again", "recipient", c.address, "waiting", c.waiting, "at", c.retryAt, "err", err)
}

func (c *courier) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent.reset()
	c.since, c.why = time.Time{}, ""
}

// node gives the node that is told: always the same one as long as it stands, since each
// node of an institution remembers for itself what it received.
func (c *courier) node() (id names.NodeID, err error) {
	err = c.cfg.Registry.View(func(v record.View) error {
		nodes, err := v.NodesOf(c.recipient)
		for _, n := range nodes {
			if !n.GetRemoved() && id.Node == "" {
				id = record.NodeID(n.GetRef())
			}
		}
		return err
	})
	if err == nil && id.Node == "" {
		err = errNoNode
	}
	return id, err
}
