package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// openNotice insists that the publisher signed this content for this clearance.
func (r *Recipient) openNotice(v record.View, desk *clearing.Desk, from names.NodeID, a *arrival) error {
	opened, err := envelope.Open(envelope.Notice, a.raw.GetNotice())
	if err != nil {
		return errors.New("malformed")
	}
	n := new(nodepb.Notice)
	if err := proto.Unmarshal(opened.Payload, n); err != nil || len(n.ProtoReflect().GetUnknown()) > 0 {
		return errors.New("malformed")
	}
	for _, is := range [...]struct {
		what  string
		wrong bool
	}{
		{"mesh", n.Mesh != string(r.cfg.Mesh)},
		{"ticket", n.Ticket != string(a.told.Ticket)},
		{"publisher", record.NodeID(n.Publisher) != from},
		{"recipient", n.Recipient != string(r.cfg.Self.Institution)},
		{"publication", !bytes.Equal(n.PublicationHash, a.told.PublicationHash)},
		{"clearance", !bytes.Equal(n.ClearanceHash, a.told.Hash)},
		{"content", len(a.raw.Blinding) != exchange.BlindingSize ||
			!bytes.Equal(n.Commitment, exchange.Commitment(a.raw.Blinding, a.raw.Content))},
	} {
		if is.wrong {
			return fmt.Errorf("it is for another %s", is.what)
		}
	}
	ok, err := desk.Signed(opened, from.Institution)
	if err == nil && !ok {
		err = errors.New("no key in force of the publisher signed it")
	}
	a.notice = n
	return err
}

// receivedKey names a publication as it was told for one purpose.
func receivedKey(from names.InstitutionID, publicationHash []byte, purpose string) outbox.Key {
	return outbox.Key{Table: tabReceived, ID: string(from) + "\x00" + string(publicationHash) + purpose}
}

// seen looks whether it came before.
func (r *Recipient) seen(a *arrival, from names.NodeID) error {
	a.mark = receivedKey(from.Institution, a.told.PublicationHash, a.told.Clearance.Purpose)
	raw, err := r.cfg.Queue.Get(a.mark)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	k := new(nodepb.KeptReceived)
	if err := proto.Unmarshal(raw, k); err != nil {
		return err
	}
	a.had = !k.Wanted
	return nil
}

// journalArrivals journals what came, before it is stored or refused. What was held back
// is no event: it was not read.
func (r *Recipient) journalArrivals(ctx context.Context, from names.NodeID, all []*arrival) error {
	var entries []*nodepb.Entry
	for _, a := range all {
		if a.outcome.GetHeldBack() {
			continue
		}
		entries = append(entries, r.entry(from, a))
	}
	return appendAll(ctx, r.cfg.Journal, entries)
}

func (r *Recipient) entry(from names.NodeID, a *arrival) *nodepb.Entry {
	event := nodepb.Event_NOTICE_RECEIVED
	switch {
	case a.outcome != nil:
		event = nodepb.Event_NOTICE_REFUSED
	case a.had:
		event = nodepb.Event_NOTICE_AGAIN
	}
	now := r.cfg.Now()
	if a.told == nil { // of what was not believed, only who sent it
		e := &nodepb.Entry{TimeUnixMs: now.UnixMilli(), Role: nodepb.Role_RECIPIENT, Event: event, Mode: string(names.Notification),
			Requester: nodeRef(r.cfg.Self), Supplier: nodeRef(from), Outcome: registrypb.Outcome_DENY, Status: nodepb.Status_NO_RESULT,
			Reason: a.outcome.GetReason(), Detail: a.detail}
		r.genuine(e, from, a)
		return e
	}
	e := publicationEntry(now, nodepb.Role_RECIPIENT, event, a.told.Ticket, a.told.Publication, a.told.PublicationHash)
	addClearance(e, a.told.Clearance, a.told.Hash)
	e.Requester, e.Supplier, e.Deliberation = nodeRef(r.cfg.Self), nodeRef(from), string(a.told.Deliberation)
	if a.outcome != nil {
		e.Reason, e.Detail, e.Status = a.outcome.Reason, a.detail, nodepb.Status_NO_RESULT
		e.Evidence = [][]byte{a.raw.Publication, a.raw.Clearance}
		return e
	}
	e.Status, e.AnswerCommitment = nodepb.Status_DATA_FOUND, a.notice.Commitment
	e.Evidence = [][]byte{a.raw.Publication, a.raw.Clearance, a.raw.Notice}
	return e
}

// genuine keeps what was refused as evidence, if publisher and a member signed it.
func (r *Recipient) genuine(e *nodepb.Entry, from names.NodeID, a *arrival) {
	_ = r.cfg.Registry.View(func(v record.View) error {
		if !clearing.GenuineNotification(v, r.cfg.Mesh, from, a.raw.GetPublication(), a.raw.GetClearance()) {
			return nil
		}
		p, _, err := clearing.OpenPublication(r.cfg.Mesh, a.raw.Publication)
		if err != nil {
			return nil
		}
		e.Ticket, e.Subject, e.Dataset = string(names.TicketOf(a.raw.Publication)), p.Subject, p.Dataset
		e.RequestHash, e.ClearanceHash = sum(a.raw.Publication), sum(a.raw.Clearance)
		e.Evidence = [][]byte{a.raw.Publication, a.raw.Clearance}
		return nil
	})
}

// judgeAgain looks once more at what is about to be stored. What does not stand any more
// is refused, and that is journaled after it was journaled as received: which is what
// happened.
func (r *Recipient) judgeAgain(ctx context.Context, from names.NodeID, all []*arrival, why error) error {
	if _, err := r.cfg.Registry.Standing(); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrRegistryStale, why)
	}
	var fell []*arrival
	err := r.cfg.Registry.View(func(v record.View) error {
		desk := r.checker.Desk(v, r.cfg.Now(), r.cfg.Bounds, r.cfg.Mesh)
		member, err := v.IsMember(r.cfg.Self)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.outcome != nil {
				continue
			}
			a.filed = nil
			if no := desk.Stands(a.told); no != nil {
				a.refuse(no.Reason, true, "%s", no.Detail)
			} else if err := r.ownFiles(v, member, a); err != nil {
				return err
			}
			if a.outcome != nil {
				fell = append(fell, a)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	if len(fell) == 0 {
		return nil
	}
	// Those behind one that fell must not overtake it: the whole call is tried again.
	for _, a := range all {
		if a.outcome == nil {
			a.outcome = &nodepb.DeliveryOutcome{Retry: true, HeldBack: true}
		}
	}
	return r.journalArrivals(ctx, from, fell)
}

// store puts what is new into the inbox, with the marks, in one durable step.
func (r *Recipient) store(all []*arrival) error {
	var items []*inbox.Item
	var marks []outbox.Change
	now := r.cfg.Now()
	for _, a := range all {
		if a.outcome != nil || a.had {
			continue
		}
		t := a.told
		item := &inbox.Item{
			Kind: inbox.Notification, Ticket: t.Ticket, From: t.Publisher.Institution, Dataset: names.DatasetID(t.Clearance.Dataset),
			Purpose: names.Purpose(t.Clearance.Purpose), Fields: named[names.FieldName](t.Clearance.Fields), Authorization: names.AuthorizationID(t.Clearance.Authorization),
			Subject: t.Subject, Current: t.Current, KnownAs: t.KnownAs, FiledUnder: a.filed, Period: record.Period(t.Publication.Period),
			Change: t.Publication.Change, RefersTo: names.Ticket(t.Publication.RefersTo), CausedBy: names.Ticket(t.Publication.CausedBy),
			Content: a.raw.Content, Received: now, Replayed: a.notice.Replayed, ClientTicket: names.ClientTicket(t.Publication.ClientTicket),
		}
		items = append(items, item)
		if t.Publication.Mode == string(names.Submission) {
			item.Kind = inbox.Declaration
			if r.cfg.Declared == nil {
				continue
			}
			more, err := r.cfg.Declared(t, item, a.raw.Publication)
			if err != nil {
				return err
			}
			marks = append(marks, more...)
		}
		until := time.UnixMilli(t.Publication.TimeUnixMs).Add(PublicationLife + time.Hour)
		mark, err := changeOf(a.mark, &nodepb.KeptReceived{Commitment: a.notice.Commitment, TimeUnixMs: now.UnixMilli()}, until)
		if err != nil {
			return err
		}
		marks = append(marks, mark)
	}
	if len(items) == 0 {
		return nil
	}
	if err := r.cfg.Inbox.Put(items, marks...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// receipts signs for what is stored: all with one signature.
func (r *Recipient) receipts(all []*arrival) (*nodepb.DeliverResponse, error) {
	var payloads [][]byte
	for _, a := range all {
		if a.outcome != nil {
			continue
		}
		payload, err := proto.Marshal(&nodepb.NoticeReceipt{
			Mesh: string(r.cfg.Mesh), Ticket: string(a.told.Ticket), Recipient: nodeRef(r.cfg.Self), Publisher: string(a.told.Publisher.Institution),
			PublicationHash: a.told.PublicationHash, ClearanceHash: a.told.Hash, Commitment: a.notice.Commitment, Had: a.had, TimeUnixMs: r.cfg.Now().UnixMilli(),
		})
		if err != nil {
			return nil, err
		}
		payloads = append(payloads, payload)
	}
	signed, err := envelope.SignAll(envelope.NoticeReceipt, payloads, r.cfg.Signer)
	if err != nil {
		return nil, err
	}
	resp := new(nodepb.DeliverResponse)
	for _, a := range all {
		if a.outcome == nil {
			a.outcome, signed = &nodepb.DeliveryOutcome{Receipt: signed[0]}, signed[1:]
		}
		resp.Outcomes = append(resp.Outcomes, a.outcome)
	}
	return resp, nil
}

// checkRecord insists that a declaration is one record that matches its dataset's schema:
// the declarant's node has checked it, and this is the authentic source.
func (r *Recipient) checkRecord(v record.View, a *arrival) error {
	dataset, err := v.Dataset(names.DatasetID(a.told.Clearance.Dataset))
	if err != nil {
		return err
	}
	if n, err := exchange.CheckContent(a.raw.Content, named[names.FieldName](a.told.Clearance.Fields)); err != nil || n != 1 {
		a.refuse(registrypb.Reason_SUPPLIER_ERROR, false, "not one record with the permitted fields")
		return nil
	}
	one := a.raw.Content[1 : len(a.raw.Content)-1] // of an array of one
	if err := r.validator.Check(names.DatasetID(dataset.GetId()), dataset.GetSchema(), one); err != nil {
		a.refuse(registrypb.Reason_SUPPLIER_ERROR, false, "declaration: %v", err)
	}
	return nil
}
