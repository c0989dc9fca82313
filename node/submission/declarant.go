package submission

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Received gives the row of a declaration that its source has received, for
// notify.PublisherConfig.
func (d *Declarant) Received(t *clearing.Told, from names.NodeID, receipt []byte) []outbox.Change {
	p := t.Publication
	now := d.cfg.Now()
	c, err := row(key(tabDeclarations, t.Ticket), &nodepb.KeptDeclaration{
		Application: p.Application, ClientTicket: p.ClientTicket, Source: string(from.Institution), SourceNode: string(from.Node), Receipt: receipt, TimeUnixMs: now.UnixMilli(),
	}, now)
	if err != nil {
		d.cfg.Log.Error("a receipt cannot be kept", "ticket", t.Ticket, "err", err)
		return nil
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return []outbox.Change{c}
}

// Status tells what is known of a declaration by its ticket. The error wraps ErrNotFound
// while nobody has received it.
func (d *Declarant) Status(ticket names.Ticket) (*Status, error) {
	kept := new(nodepb.KeptDeclaration)
	ok, err := load(d.cfg.Queue, key(tabDeclarations, ticket), kept)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrNotFound
	}
	s := &Status{Ticket: ticket, Source: names.InstitutionID(kept.Source), State: nodepb.DeclarationState_RECEIVED, Receipt: kept.Receipt}
	if len(kept.Status) > 0 {
		st, _, err := openStatus(kept.Status)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		receipt := s.Receipt
		s = statusOf(kept.Status, st)
		s.Receipt = receipt
	}
	return s, nil
}

// Run follows what was declared until ctx is done.
func (d *Declarant) Run(ctx context.Context) error {
	every := d.cfg.PollEvery
	if every == 0 {
		every = 2 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := d.Poll(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.Info("what became of declarations is not known yet; will ask again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-tick.C:
		}
	}
}

// Poll asks every source once about what it has not finally decided.
func (d *Declarant) Poll(ctx context.Context) error {
	ids, err := d.cfg.Queue.IDs(tabDeclarations, "")
	if err != nil {
		return err
	}
	by := map[names.NodeID][]string{}
	for _, id := range ids {
		kept := new(nodepb.KeptDeclaration)
		if ok, err := load(d.cfg.Queue, key(tabDeclarations, names.Ticket(id)), kept); err != nil || !ok || kept.Closed {
			continue
		}
		to := names.NodeID{Institution: names.InstitutionID(kept.Source), Node: names.NodeName(kept.SourceNode)}
		by[to] = append(by[to], id)
	}
	var errs []error
	for to, tickets := range by {
		for len(tickets) > 0 {
			part := tickets[:min(len(tickets), maxTickets)]
			tickets = tickets[len(part):]
			errs = append(errs, d.ask(ctx, to, part))
		}
	}
	return errors.Join(errs...)
}

func (d *Declarant) ask(ctx context.Context, to names.NodeID, tickets []string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := d.cfg.Ask(ctx, to, &nodepb.SubmissionStatusRequest{Tickets: tickets})
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	asked := map[string]bool{}
	for _, t := range tickets {
		asked[t] = true
	}
	for _, raw := range resp.GetStatuses() {
		if err := d.take(ctx, to, asked, raw); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	return nil
}

// take believes a status that the source signed about what was asked, and lets the
// application know: journaled first, then row and result in one durable step.
func (d *Declarant) take(ctx context.Context, from names.NodeID, asked map[string]bool, raw []byte) error {
	s, opened, err := openStatus(raw)
	if err != nil {
		return err
	}
	if !asked[s.Ticket] || s.Mesh != string(d.cfg.Mesh) || record.NodeID(s.Source) != from || s.Declarant != string(d.cfg.Self.Institution) {
		return errors.New("a status of something else")
	}
	signed := false
	err = d.cfg.Registry.View(func(v record.View) error {
		keys, err := v.KeysOf(from.Institution)
		for _, k := range keys {
			signed = signed || !k.GetRetired() && opened.VerifiedBy(k.GetPublicKey())
		}
		return err
	})
	if err != nil {
		return err
	}
	if !signed {
		return errors.New("a status that its source did not sign")
	}
	ticket := names.Ticket(s.Ticket)
	kept := new(nodepb.KeptDeclaration)
	if ok, err := load(d.cfg.Queue, key(tabDeclarations, ticket), kept); err != nil || !ok {
		return err
	}
	if len(kept.Status) > 0 {
		was, _, err := openStatus(kept.Status)
		if err != nil || !follows(was.State, s.State) {
			return err
		}
	}
	p := d.publication(kept)
	now := d.cfg.Now()
	if s.State != nodepb.DeclarationState_RECEIVED {
		e := entry(now, nodepb.Role_PUBLISHER, nodepb.Event_SUBMISSION_TOLD, ticket, p, s.Source, nodeRef(d.cfg.Self), s, raw)
		if _, err := d.cfg.Journal.Append(context.WithoutCancel(ctx), e); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	kept.Status = raw
	kept.Closed = s.State != nodepb.DeclarationState_RECEIVED
	c, err := row(key(tabDeclarations, ticket), kept, time.UnixMilli(kept.TimeUnixMs))
	if err != nil {
		return err
	}
	if s.State == nodepb.DeclarationState_RECEIVED {
		return d.cfg.Queue.Write(c)
	}
	item := &inbox.Item{Kind: inbox.Result, Ticket: ticket, From: from.Institution, Dataset: names.DatasetID(p.GetDataset()), Purpose: names.Purpose(p.GetPurpose()),
		Received: now, Status: s.State.String(), ClientTicket: names.ClientTicket(kept.ClientTicket)}
	if about := p.GetSubject(); about != nil {
		item.Subject = subject.Raw(subject.Scheme(about.Scheme), about.Number)
		item.Current = item.Subject
	}
	changes := []outbox.Change{c}
	if p.GetRefersTo() != "" && s.State != nodepb.DeclarationState_DECLINED { // it was accepted: something became of its original
		again, err := d.reopen(names.Ticket(p.RefersTo))
		if err != nil {
			return err
		}
		changes = append(changes, again...)
	}
	return d.cfg.Inbox.Put([]*inbox.Item{item}, changes...)
}

// follows reports whether a declaration can have come from one state to the other; some
// in between may have been missed. Times do not tell: a source's clock may be set back.
func follows(was, is nodepb.DeclarationState) bool {
	switch was {
	case nodepb.DeclarationState_RECEIVED:
		return is > nodepb.DeclarationState_RECEIVED
	case nodepb.DeclarationState_ACCEPTED:
		return is == nodepb.DeclarationState_AMENDED || is == nodepb.DeclarationState_ANNULLED
	}
	return false
}

// reopen has a declaration asked about once more.
func (d *Declarant) reopen(ticket names.Ticket) ([]outbox.Change, error) {
	kept := new(nodepb.KeptDeclaration)
	if ok, err := load(d.cfg.Queue, key(tabDeclarations, ticket), kept); err != nil || !ok {
		return nil, err
	}
	kept.Closed = false
	c, err := row(key(tabDeclarations, ticket), kept, time.UnixMilli(kept.TimeUnixMs))
	return []outbox.Change{c}, err
}

// publication gives what was declared, while the node keeps it.
func (d *Declarant) publication(kept *nodepb.KeptDeclaration) *registrypb.Publication {
	p, err := d.cfg.Publisher.Published(kept.Application, names.ClientTicket(kept.ClientTicket))
	if err != nil {
		return nil
	}
	return p
}
