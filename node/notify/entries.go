package notify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// publicationEntry begins a journal entry with what the publication says.
func publicationEntry(now time.Time, role nodepb.Role, event nodepb.Event, ticket names.Ticket, p *registrypb.Publication, hash []byte) *nodepb.Entry {
	mode := names.Notification
	if p.GetMode() != "" {
		mode = names.Mode(p.GetMode())
	}
	return &nodepb.Entry{
		Purpose: p.GetPurpose(), TimeUnixMs: now.UnixMilli(), Role: role, Event: event, Ticket: string(ticket), ClientTicket: p.GetClientTicket(),
		Supplier: p.GetPublisher(), User: p.GetUser(), Application: p.GetApplication(), Channel: p.GetChannel(), AuthLevel: p.GetAuthLevel(),
		Mode: string(mode), Dataset: p.GetDataset(), Fields: p.GetFields(), Subject: p.GetSubject(), Period: p.GetPeriod(),
		RequestHash: hash,
	}
}

// addClearance adds what a clearance says. The fields are then the permitted ones.
func addClearance(e *nodepb.Entry, c *registrypb.NotificationClearance, hash []byte) {
	e.Outcome = registrypb.Outcome_PERMIT
	e.Requester = &registrypb.NodeRef{Institution: c.GetRecipient()}
	e.Clearer, e.Fields, e.Purpose, e.Authorization = c.GetClearer(), c.GetFields(), c.GetPurpose(), c.GetAuthorization()
	e.ClearanceId, e.ClearanceHash, e.RegistryIndex, e.PresentByUnixMs = c.GetId(), hash, c.GetRegistryIndex(), c.GetPresentByUnixMs()
	// Who bears another number of the same subject finds the entry too.
	for _, s := range append([]*registrypb.Subject{c.GetCurrent()}, c.GetKnownAs()...) {
		if s != nil && s.Number != c.GetSubject().GetNumber() && !has(e.AlsoSubjects, s) {
			e.AlsoSubjects = append(e.AlsoSubjects, s)
		}
	}
}

func has(list []*registrypb.Subject, s *registrypb.Subject) bool {
	for _, o := range list {
		if o.GetNumber() == s.GetNumber() {
			return true
		}
	}
	return false
}

// appendAll makes all entries durable.
func appendAll(ctx context.Context, j Journal, entries []*nodepb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	for _, e := range entries {
		exchange.Tidy(e)
	}
	// What happened is journaled even if nobody waits any more.
	if err := j.AppendAll(context.WithoutCancel(ctx), entries); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// Rulings writes a clearing peer's decisions on publications into a journal.
type Rulings struct{ Journal Journal }

var _ clearing.NotificationJournal = Rulings{}

// RecordNotifications journals one entry for each recipient, so that none learns of
// another from a trace, and one where nobody is told.
func (r Rulings) RecordNotifications(ctx context.Context, all []clearing.Notified) error {
	var entries []*nodepb.Entry
	for i := range all {
		d := &all[i]
		begin := func() *nodepb.Entry {
			e := publicationEntry(d.Time, nodepb.Role_CLEARING_PEER, nodepb.Event_CLEARED, d.Ticket, d.Publication, d.PublicationHash)
			e.Clearer, e.RegistryIndex = nodeRef(d.Clearer), d.RegistryIndex
			return e
		}
		for k, c := range d.Clearances {
			e := begin()
			addClearance(e, c.Clearance, c.Hash)
			e.Deliberation = d.Recipients[k].Authorization.GetDeliberation()
			e.Evidence = [][]byte{d.Envelope, c.Envelope}
			entries = append(entries, e)
		}
		if len(d.Clearances) == 0 {
			e := begin()
			e.Outcome, e.Reason, e.Evidence = d.Outcome, d.Reason, [][]byte{d.Envelope, d.Signed}
			switch {
			case d.Recused:
				e.Detail = "stepped aside, being a party itself"
			case d.Outcome == registrypb.Outcome_PERMIT:
				e.Detail = "nobody (else) is to be told"
			}
			entries = append(entries, e)
		}
	}
	return appendAll(ctx, r.Journal, entries)
}
