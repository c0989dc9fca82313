package notify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Lag is how far one recipient is behind.
type Lag struct {
	Recipient names.InstitutionID
	Purpose   names.Purpose
	Waiting   int       // deliveries, dead letters among them
	Dead      int       // that were given up until they are driven again
	Oldest    time.Time // when the first of them was queued; zero: none waits
	// Since is when the recipient stopped answering, and Why; zero: it answers.
	Since time.Time
	Why   string
}

// Lags gives every recipient that was ever told anything since this node started, or for
// whom something waits, in order of address.
func (p *Publisher) Lags() (lags []Lag) {
	for _, c := range p.all() {
		lags = append(lags, c.lag())
	}
	slices.SortFunc(lags, func(a, b Lag) int {
		return cmp.Or(cmp.Compare(a.Recipient, b.Recipient), cmp.Compare(a.Purpose, b.Purpose))
	})
	return lags
}

func (c *courier) lag() Lag {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := Lag{Recipient: c.recipient, Purpose: names.Purpose(c.purpose), Waiting: c.waiting, Dead: c.dead, Since: c.since, Why: c.why}
	for _, d := range c.queue {
		if d != nil {
			l.Oldest = time.UnixMilli(d.kept.QueuedUnixMs)
			break
		}
	}
	return l
}

// Pending gives how many publications wait for a clearing peer.
func (p *Publisher) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending)
}

// Waiting is a delivery that its recipient does not have.
type Waiting struct {
	Ticket    names.Ticket
	Recipient names.InstitutionID
	Purpose   names.Purpose
	Dataset   names.DatasetID
	Queued    time.Time
	Refused   int               // how often the recipient did
	Reason    registrypb.Reason // the last time
	Dead      bool
	Replayed  bool
	// HeldBack: an earlier one about the same subject has to go first.
	HeldBack bool
}

// Select narrows a list of deliveries. The zero value takes all.
type Select struct {
	Ticket    names.Ticket
	Recipient names.InstitutionID
	Dead      bool // only dead letters
	Limit     int  // 0: all
}

// Deliveries lists what waits, in order of address and of publication.
func (p *Publisher) Deliveries(s Select) (list []Waiting, err error) {
	err = p.each(s, func(c *courier, d *delivery, w Waiting) error {
		list = append(list, w)
		if s.Limit > 0 && len(list) == s.Limit {
			return errEnough
		}
		return nil
	})
	return list, err
}

var errEnough = fmt.Errorf("enough")

// each gives fn what waits and is selected.
func (p *Publisher) each(s Select, fn func(*courier, *delivery, Waiting) error) error {
	couriers := p.all()
	slices.SortFunc(couriers, func(a, b *courier) int { return cmp.Compare(a.address, b.address) })
	for _, c := range couriers {
		if s.Recipient != "" && c.recipient != s.Recipient {
			continue
		}
		c.mu.Lock()
		queue := slices.DeleteFunc(slices.Clone(c.queue), func(d *delivery) bool { return d == nil })
		c.mu.Unlock()
		blocked := map[string]bool{}
		for _, d := range queue {
			c.mu.Lock()
			w := Waiting{Recipient: c.recipient, Purpose: names.Purpose(c.purpose), Queued: time.UnixMilli(d.kept.QueuedUnixMs),
				Refused: int(d.kept.Refused), Reason: d.kept.Reason, Dead: d.kept.Dead, Replayed: d.kept.Replayed}
			c.mu.Unlock()
			for _, k := range d.kept.Keys {
				w.HeldBack = w.HeldBack || blocked[k]
			}
			for _, k := range d.kept.Keys {
				blocked[k] = blocked[k] || w.Dead || w.HeldBack
			}
			if s.Dead && !w.Dead {
				continue
			}
			w.Ticket = p.ticketOf(d.sequence)
			if s.Ticket != "" && s.Ticket != w.Ticket {
				continue
			}
			if k, err := p.publication(d.sequence); err == nil {
				if m, err := readPublication(k.Publication); err == nil {
					w.Dataset = names.DatasetID(m.Dataset)
				}
			}
			if err := fn(c, d, w); err == errEnough {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// Redrive has deliveries that were given up tried again, and what rests tried at once. It
// gives how many dead letters there were among them. It is journaled.
func (p *Publisher) Redrive(ctx context.Context, by exchange.Caller, s Select) (n int, err error) {
	err = p.each(s, func(c *courier, d *delivery, w Waiting) error {
		c.mu.Lock()
		c.retryAt, d.retryAt = time.Time{}, time.Time{}
		c.silent.reset()
		dead := d.kept.Dead
		c.mu.Unlock()
		defer c.nudge()
		if !dead {
			return nil
		}
		n++
		return c.revive(ctx, by, d, w)
	})
	return n, err
}

func (c *courier) revive(ctx context.Context, by exchange.Caller, d *delivery, w Waiting) error {
	if err := c.journalBy(ctx, by, d, w, "driven again"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !d.kept.Dead {
		return nil
	}
	d.kept.Dead, d.kept.Refused = false, 0
	row, err := changeOf(deliveryKey(c.address, d.sequence), d.kept, time.Time{})
	if err == nil {
		err = c.cfg.Queue.Write(row)
	}
	if err != nil {
		d.kept.Dead = true
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c.dead--
	return nil
}

// Drop forgets dead letters that nobody will take, so that what comes after them about
// the same subject can go. It is journaled. It gives how many there were.
func (p *Publisher) Drop(ctx context.Context, by exchange.Caller, s Select) (n int, err error) {
	s.Dead = true
	err = p.each(s, func(c *courier, d *delivery, w Waiting) error {
		if err := c.journalBy(ctx, by, d, w, "dropped: the recipient is not told"); err != nil {
			return err
		}
		if err := p.cfg.Queue.Write(outbox.Change{Key: deliveryKey(c.address, d.sequence), Delete: true}); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		n++
		c.mu.Lock()
		c.dead--
		c.mu.Unlock()
		c.land(map[*delivery]bool{d: true})
		c.nudge()
		return nil
	})
	return n, err
}

func (c *courier) journalBy(ctx context.Context, by exchange.Caller, d *delivery, w Waiting, says string) error {
	e := &nodepb.Entry{TimeUnixMs: c.cfg.Now().UnixMilli(), Ticket: string(w.Ticket), Mode: string(names.Notification), Dataset: string(w.Dataset)}
	if k, err := c.publication(d.sequence); err == nil {
		m, err := readPublication(k.Publication)
		if err != nil {
			return err
		}
		e = publicationEntry(c.cfg.Now(), 0, 0, w.Ticket, m, sum(k.Publication))
	}
	e.Role, e.Event, e.Detail = nodepb.Role_PUBLISHER, nodepb.Event_NOTICE_REDRIVEN, says
	e.Requester, e.Supplier, e.Purpose, e.Reason = &registrypb.NodeRef{Institution: string(c.recipient)}, nodeRef(c.cfg.Self), c.purpose, w.Reason
	e.User, e.Application, e.Channel = string(by.User), by.Application, by.Channel
	return appendAll(ctx, c.cfg.Journal, []*nodepb.Entry{e})
}

// Replay queues once more what was published since a time and told to an institution, as
// far as it is kept. Each goes, cleared anew, as if for the first time; the recipient
// stores again what it has asked for, and only that. It gives how many there are.
func (p *Publisher) Replay(ctx context.Context, by exchange.Caller, to names.InstitutionID, since time.Time) (n int, err error) {
	e := &nodepb.Entry{TimeUnixMs: p.cfg.Now().UnixMilli(), Role: nodepb.Role_PUBLISHER, Event: nodepb.Event_REPLAY_ASKED, Mode: string(names.Notification),
		Requester: &registrypb.NodeRef{Institution: string(to)}, Supplier: nodeRef(p.cfg.Self), User: string(by.User), Application: by.Application,
		Channel: by.Channel, Detail: "what was told since " + since.UTC().Format(time.RFC3339) + " is told again"}
	if err := appendAll(ctx, p.cfg.Journal, []*nodepb.Entry{e}); err != nil {
		return 0, err
	}
	ids, err := p.cfg.Queue.IDs(tabAudiences, "")
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, id := range ids {
		sequence, err := sequenceOf(id)
		if err != nil {
			return n, err
		}
		a := new(nodepb.KeptAudience)
		if ok, err := p.load(audienceKey(sequence), a); err != nil || !ok || a.TimeUnixMs < since.UnixMilli() {
			if err != nil {
				return n, fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			continue
		}
		for _, address := range a.Addresses {
			c := p.courier(address)
			if c.recipient != to {
				continue
			}
			queued, err := p.requeue(c, sequence)
			if err != nil {
				return n, err
			}
			if queued {
				n++
			}
			c.nudge()
		}
	}
	return n, nil
}

// requeue puts a publication behind everything that waits for a recipient, unless it
// waits itself. Its order among others that are replayed is kept.
func (p *Publisher) requeue(c *courier, sequence uint64) (bool, error) {
	c.mu.Lock()
	for _, d := range c.queue {
		if d != nil && d.sequence == sequence {
			c.mu.Unlock()
			return false, nil
		}
	}
	c.mu.Unlock()
	k, err := p.publication(sequence)
	if err == errEnded {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	m, err := readPublication(k.Publication)
	if err != nil {
		return false, err
	}
	kept := p.queued([]string{keyOf(m.Subject)})
	kept.Replayed = true
	row, err := changeOf(deliveryKey(c.address, sequence), kept, time.Time{})
	if err != nil {
		return false, err
	}
	if err := p.cfg.Queue.Write(row); err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c.add(&delivery{sequence: sequence, kept: kept})
	return true, nil
}

// ServeReplay lets a recipient ask for itself.
func (p *Publisher) ServeReplay(ctx context.Context, from names.NodeID, req *nodepb.ReplayRequest) (*nodepb.ReplayResponse, error) {
	n, err := p.Replay(ctx, exchange.Caller{Channel: "mesh"}, from.Institution, time.UnixMilli(req.GetSinceUnixMs()))
	return &nodepb.ReplayResponse{Queued: uint64(n)}, err
}
