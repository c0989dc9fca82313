package exchange

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	ackWorkers = 4
	ackTimeout = 2 * time.Second
	// ackLinger is how long an acknowledgement waits for others that can go with it.
	ackLinger = 50 * time.Millisecond
	// maxAcks is how many one message carries.
	maxAcks = 256
	// reclaimEvery is how often the outbox takes ended rows off its disk.
	reclaimEvery = 30 * time.Second
)

// acknowledgement tells a supplier that its answer is held here.
type acknowledgement struct {
	to  names.NodeID
	msg *nodepb.Acknowledgement
}

// acknowledge leaves an acknowledgement to Run. When too many wait it is dropped:
// the supplier then forgets the answer when its life ends.
func (x *consultation) acknowledge(r *reply) {
	a := acknowledgement{r.by, &nodepb.Acknowledgement{Ticket: string(x.ticket), ClearanceId: r.permit.clearance.GetId()}}
	select {
	case x.acks <- a:
	default:
	}
}

// Run sends acknowledgements, journals clearances that expired unused and lets
// kept rows end, until ctx is done. It returns when all it started has ended.
func (c *Consultant) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	together := make(chan acknowledgement)
	all.Go(func() { c.gatherAcks(ctx, together) })
	for range ackWorkers {
		all.Go(func() { c.sendAcks(ctx, together) })
	}
	tick := time.NewTicker(c.cfg.SweepEvery)
	defer tick.Stop()
	var reclaimed time.Time
	for {
		if err := c.sweepUnused(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("clearances that expired unused could not be journaled; will try again", "err", err)
		}
		if time.Since(reclaimed) > reclaimEvery {
			reclaimed = time.Now()
			if _, err := c.cfg.Outbox.Sweep(); err != nil {
				c.cfg.Log.Error("outbox could not be swept; will try again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// gatherAcks joins those for the same supplier that come within a moment: nobody
// waits for them, and a call for each would be a third of all calls.
func (c *Consultant) gatherAcks(ctx context.Context, out chan<- acknowledgement) {
	for {
		var first acknowledgement
		select {
		case <-ctx.Done():
			return
		case first = <-c.acks:
		}
		waiting := []acknowledgement{first}
		for enough := time.NewTimer(ackLinger); enough != nil; {
			select {
			case <-ctx.Done():
				return
			case a := <-c.acks:
				waiting = joinAck(waiting, a)
			case <-enough.C:
				enough = nil
			}
		}
		for _, a := range waiting {
			select {
			case <-ctx.Done():
				return
			case out <- a:
			}
		}
	}
}

func joinAck(waiting []acknowledgement, a acknowledgement) []acknowledgement {
	for _, w := range waiting {
		if w.to == a.to && len(w.msg.More) < maxAcks-1 {
			w.msg.More = append(w.msg.More, a.msg)
			return waiting
		}
	}
	return append(waiting, a)
}

func (c *Consultant) sendAcks(ctx context.Context, together <-chan acknowledgement) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-together:
			limited, cancel := context.WithTimeout(ctx, ackTimeout)
			if _, err := c.cfg.Peers.Acknowledge(limited, a.to, a.msg); err != nil {
				c.cfg.Log.Debug("acknowledgement not delivered", "peer", a.to.String(), "ticket", a.msg.GetTicket(), "err", err)
			}
			cancel()
		}
	}
}

// sweepUnused journals EXPIRED_UNUSED for each kept clearance that can no longer be
// presented and that no running consultation holds, and then forgets it. A crash
// in between journals it twice, never not at all.
func (c *Consultant) sweepUnused(ctx context.Context) error {
	return c.cfg.Outbox.Each(clearances, func(id string, value []byte) error {
		key := outbox.Key{Table: clearances, ID: id}
		e, presentBy, err := c.unusedEntry(value)
		if err != nil { // it would be met again for ever
			c.cfg.Log.Error("a kept clearance cannot be read and is dropped: its exchange may lack an end in the journal", "err", err)
			return c.cfg.Outbox.Write(outbox.Change{Key: key, Delete: true})
		}
		c.mu.Lock()
		held := c.inFlight[id]
		c.mu.Unlock()
		if held || !c.over(presentBy) {
			return nil
		}
		if err := appendOne(ctx, c.cfg.Journal, e); err != nil {
			return err
		}
		return c.cfg.Outbox.Write(outbox.Change{Key: key, Delete: true, Lazy: true}) // undone by a crash, it is journaled again
	})
}

// over reports whether nothing can come any more of a clearance that had to be
// presented by then. One that claims a longer life than the mesh gives any is not
// waited for.
func (c *Consultant) over(presentBy time.Time) bool {
	now, b := c.cfg.Now(), c.cfg.Bounds
	return now.After(presentBy.Add(b.Skew)) || presentBy.After(now.Add(b.PresentLife+2*b.Skew))
}

func (c *Consultant) unusedEntry(value []byte) (*nodepb.Entry, time.Time, error) {
	kept, request, clearance := new(nodepb.KeptClearance), new(registrypb.Request), new(registrypb.Clearance)
	if err := proto.Unmarshal(value, kept); err != nil {
		return nil, time.Time{}, err
	}
	if err := openInto(envelope.Request, kept.GetRequest(), request); err != nil {
		return nil, time.Time{}, err
	}
	if err := openInto(envelope.Clearance, kept.GetClearance(), clearance); err != nil {
		return nil, time.Time{}, err
	}
	e := requestEntry(c.cfg.Now(), nodepb.Role_CONSULTANT, nodepb.Event_EXPIRED_UNUSED,
		clearance.GetTicket(), request, sum(kept.GetRequest()))
	addClearance(e, clearance, sum(kept.GetClearance()))
	addDeliberation(e, c.cfg.Registry)
	e.Detail = "no reply to this clearance was received"
	return e, time.UnixMilli(clearance.GetPresentByUnixMs()), nil
}

// openInto reads an envelope's payload into m. It verifies no signature.
func openInto(t envelope.Type, raw []byte, m proto.Message) error {
	opened, err := envelope.Open(t, raw)
	if err != nil {
		return err
	}
	return proto.Unmarshal(opened.Payload, m)
}
