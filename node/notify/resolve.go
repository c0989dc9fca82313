package notify

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Run finds out who is to be told of what was published, and tells them, until ctx is
// done. It returns when all that it started has ended.
func (p *Publisher) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { p.resolve(ctx) })
	running := map[*courier]bool{}
	start := func(c *courier) {
		if !running[c] {
			running[c] = true
			all.Go(func() { c.run(ctx) })
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-p.started:
			start(c)
		case <-tick.C: // should started ever have been full
			p.mu.Lock()
			for _, c := range p.couriers {
				start(c)
			}
			p.mu.Unlock()
		}
	}
}

// unresolved is a publication whose audience is not decided.
type unresolved struct {
	sequence uint64
	kept     *nodepb.KeptPublication
	*asking
	keys []string // numbers under which its order is kept, once it was decided on
}

// resolve has pending publications cleared, in order and in batches.
func (p *Publisher) resolve(ctx context.Context) {
	b := backoff{first: p.cfg.RetryFirst, most: p.cfg.RetryMost / 10}
	for ctx.Err() == nil {
		if wait := p.full(); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-p.wake:
			case <-t.C:
			}
			t.Stop()
			continue
		}
		batch, err := p.takePending()
		if err == nil && len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
			}
			continue
		}
		if err == nil {
			err = p.resolveBatch(ctx, batch)
		}
		if err == nil {
			b.reset()
			continue
		}
		if ctx.Err() == nil {
			p.cfg.Log.Warn("publications wait to be cleared; will try again", "publications", len(batch), "err", err)
			_ = b.rest(ctx)
		}
	}
}

// full says for how long, at most, nothing should be cleared: 0 when it should.
func (p *Publisher) full() (wait time.Duration) {
	for _, c := range p.all() {
		wait = max(wait, c.full())
	}
	return wait
}

// takePending reads the first pending publications; they stay pending until they are
// settled. Those whose life ended are dropped: Settled or not, nobody is told any more.
func (p *Publisher) takePending() (batch []*unresolved, err error) {
	p.mu.Lock()
	sequences := append([]uint64(nil), p.pending[:min(len(p.pending), p.cfg.Batch)]...)
	p.mu.Unlock()
	for _, n := range sequences {
		kept, err := p.publication(n)
		if errors.Is(err, errEnded) {
			p.settled(map[uint64]bool{n: true})
			continue
		}
		if err != nil {
			return nil, err
		}
		batch = append(batch, &unresolved{sequence: n, kept: kept, asking: &asking{raw: kept.Publication}})
	}
	return batch, nil
}

// settled takes publications off the list of those pending.
func (p *Publisher) settled(done map[uint64]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := p.pending[:0]
	for _, n := range p.pending {
		if !done[n] {
			rest = append(rest, n)
		}
	}
	p.pending = rest
}

// resolveBatch has publications cleared and keeps who is to be told. What could not be
// cleared stays pending, and with it what comes later about the same subjects: the
// deliveries of all are put into their queues in the order of publication.
func (p *Publisher) resolveBatch(ctx context.Context, batch []*unresolved) error {
	all := make([]*asking, len(batch))
	for i, u := range batch {
		all[i] = u.asking
	}
	trouble := p.clear(ctx, all)
	var entries []*nodepb.Entry
	var changes []outbox.Change
	var settled []*unresolved
	blocked := map[string]bool{}
	for _, u := range batch {
		publication, err := u.read()
		if err != nil {
			return err
		}
		held := !u.done
		for _, k := range u.keys {
			held = held || blocked[k]
		}
		if held {
			for _, k := range u.keys {
				blocked[k] = true
			}
			continue
		}
		cs, err := p.settle(u, publication)
		if err != nil {
			return err
		}
		changes, settled = append(changes, cs...), append(settled, u)
		if len(u.permits) == 0 || u.incomplete {
			e := publicationEntry(p.cfg.Now(), nodepb.Role_PUBLISHER, nodepb.Event_ADDRESSED, names.TicketOf(u.raw), publication, sum(u.raw))
			e.Outcome, e.Reason, e.Detail = u.outcome, u.reason, u.says()
			if u.decision != nil {
				e.Clearer, e.RegistryIndex, e.Evidence = nodeRef(u.clearer), u.index, [][]byte{u.decision}
			}
			entries = append(entries, e)
		}
	}
	if len(settled) == 0 {
		return trouble
	}
	if err := appendAll(ctx, p.cfg.Journal, entries); err != nil {
		return err
	}
	if err := p.cfg.Queue.Write(changes...); err != nil {
		return err
	}
	p.address(settled)
	return trouble
}

// read gives what was published, and notes the numbers under which its order is kept.
func (u *unresolved) read() (publication *registrypb.Publication, err error) {
	if len(u.permits) > 0 {
		publication = u.permits[0].Publication
	} else if publication, err = readPublication(u.raw); err != nil {
		return nil, err
	}
	u.keys = []string{keyOf(publication.Subject)}
	for _, s := range u.family {
		if k := keyOf(s); !contains(u.keys, k) {
			u.keys = append(u.keys, k)
		}
	}
	return publication, nil
}

func keyOf(s *registrypb.Subject) string {
	return string(subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber()).Key())
}

func (u *unresolved) says() string {
	switch {
	case u.incomplete && len(u.permits) > 0:
		return "for some who are to be told nobody could decide: they are not told"
	case u.outcome == registrypb.Outcome_PERMIT:
		return "nobody is to be told"
	}
	return "nobody is told"
}

// settle gives the rows of a publication that was decided on.
func (p *Publisher) settle(u *unresolved, publication *registrypb.Publication) ([]outbox.Change, error) {
	until := time.UnixMilli(u.kept.UntilUnixMs)
	audience := &nodepb.KeptAudience{Outcome: u.outcome, Reason: u.reason, Ticket: string(names.TicketOf(u.raw)), TimeUnixMs: publication.TimeUnixMs, Incomplete: u.incomplete}
	var changes []outbox.Change
	for _, k := range u.permits {
		audience.Addresses = append(audience.Addresses, k.Address())
		row, err := changeOf(deliveryKey(k.Address(), u.sequence), p.queued(u.keys), time.Time{})
		if err != nil {
			return nil, err
		}
		changes = append(changes, row)
	}
	row, err := changeOf(audienceKey(u.sequence), audience, until)
	return append(changes, row), err
}

func (p *Publisher) queued(keys []string) *nodepb.KeptDelivery {
	return &nodepb.KeptDelivery{Keys: keys, QueuedUnixMs: p.cfg.Now().UnixMilli()}
}

// address hands publications to the couriers of those who are to be told, and takes them
// off the list. Their clearances may still be good for the first attempt.
func (p *Publisher) address(settled []*unresolved) {
	done := map[uint64]bool{}
	for _, u := range settled {
		for _, k := range u.permits {
			k.kept = u.kept
			p.courier(k.Address()).add(&delivery{sequence: u.sequence, kept: p.queued(u.keys), permit: k})
		}
		done[u.sequence] = true
	}
	p.settled(done)
	for _, c := range p.all() {
		c.nudge()
	}
}

// all gives every courier.
func (p *Publisher) all() (list []*courier) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.couriers {
		list = append(list, c)
	}
	return list
}
