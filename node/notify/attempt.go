package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var (
	errNoNode = errors.New("the registry lists no node of it")
	errStale  = errors.New("this node's view of the registry is not confirmed")
)

// readPublication reads an own publication.
func readPublication(raw []byte) (*registrypb.Publication, error) {
	opened, err := envelope.Open(envelope.Publication, raw)
	if err != nil {
		return nil, err
	}
	m := new(registrypb.Publication)
	return m, proto.Unmarshal(opened.Payload, m)
}

// flight is one delivery in an attempt.
type flight struct {
	*delivery
	publication *nodepb.KeptPublication
	message     *nodepb.Delivery
	used        *permit // that it was sent under
	commitment  []byte
	settled     bool
}

// maxBatchBytes bounds the content of one call; a larger one goes alone.
const maxBatchBytes = 1 << 20

// attempt tells the recipient a batch, as far as it goes. What is settled, told or not
// to be told any more, leaves the queue; the rest stays for the next attempt.
func (c *courier) attempt(ctx context.Context, batch []*delivery) {
	settled := map[*delivery]bool{}
	defer func() { c.land(settled) }()
	flights, err := c.prepare(ctx, batch)
	if err == nil {
		err = c.clearAnew(ctx, flights)
	}
	if err == nil {
		err = c.tell(ctx, flights)
	}
	for _, f := range flights {
		if f.settled {
			settled[f.delivery] = true
		}
	}
	switch {
	case err == nil:
		c.answered()
	case ctx.Err() == nil:
		c.unanswered(err)
	}
}

// prepare reads what is to be told. What is no longer kept is given up for good.
func (c *courier) prepare(ctx context.Context, batch []*delivery) (flights []*flight, err error) {
	size := 0
	now := c.cfg.Now()
	for _, d := range batch {
		f := &flight{delivery: d}
		if k := d.permit; k != nil && k.kept != nil && now.UnixMilli() < k.kept.UntilUnixMs {
			f.publication, err = k.kept, nil
		} else {
			f.publication, err = c.publication(d.sequence)
		}
		if errors.Is(err, errEnded) {
			if err := c.lapse(ctx, f, registrypb.Reason_DELIVERY_EXPIRED, "it waited longer than it is kept"); err != nil {
				return flights, err
			}
			flights = append(flights, f)
			continue
		}
		if err != nil {
			return flights, err
		}
		if size += len(f.publication.Record); size > maxBatchBytes && len(flights) > 0 {
			break
		}
		flights = append(flights, f)
	}
	return flights, nil
}

// clearAnew has everything cleared whose clearance does not stand any more: first it asks
// whether the recipient is there at all, so that nothing is cleared in vain.
func (c *courier) clearAnew(ctx context.Context, flights []*flight) error {
	now := c.cfg.Now()
	var need []*flight
	for _, f := range flights {
		if !f.settled && !f.permit.fresh(now) {
			f.permit = nil
			need = append(need, f)
		}
	}
	if len(need) == 0 {
		return nil
	}
	to, err := c.node()
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, c.cfg.ClearTimeout)
	_, err = c.cfg.Peers.RecipientReady(ready, to, &nodepb.ReadyRequest{Waiting: uint64(len(flights))})
	cancel()
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	all := make([]*asking, len(need))
	for i, f := range need {
		all[i] = &asking{raw: f.publication.Publication, only: []string{c.address}}
	}
	trouble := c.clear(ctx, all)
	for i, f := range need {
		a := all[i]
		switch {
		case !a.done:
			err = trouble
		case len(a.permits) == 1:
			f.permit = a.permits[0]
		case a.reason == registrypb.Reason_NO_ELIGIBLE_CLEARER, a.reason == registrypb.Reason_STALE_REQUEST, a.reason == registrypb.Reason_REQUESTER_NOT_ADMITTED:
			err = fmt.Errorf("not cleared: %s", a.reason)
		default:
			why := "it is no longer subscribed, authorized and integrated"
			if a.outcome != registrypb.Outcome_PERMIT {
				why = "the publisher may no longer tell it"
			}
			reason := a.reason
			if reason == registrypb.Reason_REASON_UNSPECIFIED {
				reason = registrypb.Reason_REVOKED
			}
			f.withheld(a)
			if err := c.lapse(ctx, f, reason, why); err != nil {
				return err
			}
		}
	}
	return err
}

// withheld remembers the decision that a delivery lapses by.
func (f *flight) withheld(a *asking) {
	if a.decision != nil {
		f.message = &nodepb.Delivery{Clearance: a.decision} // for lapse: as evidence
	}
}

// lapse journals that a recipient is not told, and forgets the delivery.
func (c *courier) lapse(ctx context.Context, f *flight, reason registrypb.Reason, why string) error {
	e := &nodepb.Entry{TimeUnixMs: c.cfg.Now().UnixMilli(), Role: nodepb.Role_PUBLISHER, Event: nodepb.Event_NOTICE_LAPSED, Supplier: nodeRef(c.cfg.Self), Mode: string(names.Notification)}
	if f.publication.GetPublication() != nil {
		p, err := readPublication(f.publication.Publication)
		if err != nil {
			return err
		}
		e = publicationEntry(c.cfg.Now(), nodepb.Role_PUBLISHER, nodepb.Event_NOTICE_LAPSED, names.TicketOf(f.publication.Publication), p, sum(f.publication.Publication))
		if f.message != nil {
			e.Evidence = [][]byte{f.message.Clearance}
		}
	} else if t := c.ticketOf(f.sequence); t != "" {
		e.Ticket = string(t)
	}
	e.Requester, e.Purpose = &registrypb.NodeRef{Institution: string(c.recipient)}, c.purpose
	e.Outcome, e.Reason, e.Detail = registrypb.Outcome_DENY, reason, why
	if err := appendAll(ctx, c.cfg.Journal, []*nodepb.Entry{e}); err != nil {
		return err
	}
	if err := c.cfg.Queue.Write(outbox.Change{Key: deliveryKey(c.address, f.sequence), Delete: true}); err != nil {
		return err
	}
	f.settled = true
	return nil
}

// ticketOf gives the ticket of a publication that may have ended.
func (p *Publisher) ticketOf(n uint64) names.Ticket {
	a := new(nodepb.KeptAudience)
	if ok, err := p.load(audienceKey(n), a); err != nil || !ok {
		return ""
	}
	return names.Ticket(a.Ticket)
}

// tell sends everything that is cleared, once that it is sent is journaled, and takes in
// what became of it.
func (c *courier) tell(ctx context.Context, flights []*flight) error {
	var going []*flight
	blocked := map[string]bool{} // what is not cleared holds back what comes after it
	for _, f := range flights {
		held := !f.settled && f.permit == nil
		for _, k := range f.kept.Keys {
			held = held || blocked[k]
		}
		if held {
			for _, k := range f.kept.Keys {
				blocked[k] = true
			}
		} else if !f.settled {
			going = append(going, f)
		}
	}
	if len(going) == 0 {
		return nil
	}
	to, err := c.node()
	if err != nil {
		return err
	}
	index, err := c.stand(going)
	if err != nil {
		return err
	}
	if err := c.write(going); err != nil {
		return err
	}
	if err := c.journalSent(ctx, going, to); err != nil {
		return err
	}
	// The journal may have taken its time: what was true before must still be.
	if now, err := c.cfg.Registry.Standing(); err != nil || now.Index != index {
		if _, err := c.stand(going); err != nil {
			return err
		}
	}
	req := new(nodepb.DeliverRequest)
	for _, f := range going {
		f.permit = nil // another attempt needs another
		req.Deliveries = append(req.Deliveries, f.message)
	}
	limited, cancel := context.WithTimeout(ctx, c.cfg.DeliverTimeout)
	defer cancel()
	resp, err := c.cfg.Peers.DeliverNotices(limited, to, req)
	if err == nil && len(resp.GetOutcomes()) != len(going) {
		err = fmt.Errorf("%d outcomes for %d deliveries", len(resp.GetOutcomes()), len(going))
	}
	if err != nil {
		return err
	}
	return c.conclude(ctx, going, to, resp.Outcomes)
}

// stand looks, in this node's own view, whether everything that is about to be told
// still may be. One that may not holds up the whole batch: it is cleared anew next time,
// which says why.
func (c *courier) stand(going []*flight) (index uint64, err error) {
	standing, err := c.cfg.Registry.Standing()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errStale, err)
	}
	err = c.cfg.Registry.View(func(v record.View) error {
		desk := c.checker.Desk(v, c.cfg.Now(), c.cfg.Bounds, c.cfg.Mesh).Own(c.cfg.Self)
		for _, f := range going {
			if no := desk.Stands(f.permit.Told); no != nil {
				f.permit = nil
				err = no
			}
		}
		return err
	})
	return standing.Index, err
}

// write makes the messages: permitted fields only, and one signature for all notices.
func (c *courier) write(going []*flight) error {
	var payloads [][]byte
	now := c.cfg.Now()
	for _, f := range going {
		content, err := exchange.Permitted(named[names.FieldName](f.permit.Clearance.Fields), f.publication.Record)
		if err != nil {
			return err
		}
		blinding := make([]byte, exchange.BlindingSize)
		rand.Read(blinding)
		f.commitment = exchange.Commitment(blinding, content)
		f.used = f.permit
		f.message = &nodepb.Delivery{Publication: f.publication.Publication, Clearance: f.permit.envelope, Content: content, Blinding: blinding}
		payload, err := proto.Marshal(&nodepb.Notice{
			Mesh: string(c.cfg.Mesh), Ticket: string(f.permit.Ticket), Publisher: nodeRef(c.cfg.Self), Recipient: string(c.recipient),
			PublicationHash: f.permit.PublicationHash, ClearanceHash: f.permit.Hash, Commitment: f.commitment, TimeUnixMs: now.UnixMilli(), Replayed: f.kept.Replayed,
		})
		if err != nil {
			return err
		}
		payloads = append(payloads, payload)
	}
	notices, err := envelope.SignAll(envelope.Notice, payloads, c.cfg.Signer)
	if err != nil {
		return err
	}
	for i, f := range going {
		f.message.Notice = notices[i]
	}
	return nil
}

// entry begins an entry about one delivery under its clearance.
func (c *courier) entry(f *flight, event nodepb.Event, to names.NodeID) *nodepb.Entry {
	k := f.used
	e := publicationEntry(c.cfg.Now(), nodepb.Role_PUBLISHER, event, k.Ticket, k.Publication, k.PublicationHash)
	addClearance(e, k.Clearance, k.Hash)
	e.Requester, e.Deliberation, e.AnswerCommitment = nodeRef(to), string(k.Deliberation), f.commitment
	e.Status = nodepb.Status_DATA_FOUND
	return e
}

func (c *courier) journalSent(ctx context.Context, going []*flight, to names.NodeID) error {
	entries := make([]*nodepb.Entry, len(going))
	for i, f := range going {
		e := c.entry(f, nodepb.Event_NOTICE_SENT, to)
		e.Evidence = [][]byte{f.message.Clearance, f.message.Notice}
		entries[i] = e
	}
	return appendAll(ctx, c.cfg.Journal, entries)
}
