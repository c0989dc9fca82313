package notify

import (
	"fmt"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// State says how far a publication has come with one recipient.
type State string

// The states.
const (
	Delivered State = "DELIVERED" // it holds it, or may not be told any more: the journal says which
	InTransit State = "WAITING"
	Dead      State = "DEAD" // given up until it is driven again
)

// Status is how far a publication has come.
type Status struct {
	Ticket names.Ticket
	// Decided: who is to be told is known.
	Decided bool
	// Reason, if there is one, says why nobody is told.
	Reason     registrypb.Reason
	Incomplete bool // for some who are to be told nobody could decide
	Recipients []RecipientState
}

// RecipientState is a recipient of a publication.
type RecipientState struct {
	Recipient names.InstitutionID
	Purpose   names.Purpose
	State     State
	Reason    registrypb.Reason // that it gave when it last refused, if it waits or was given up
}

// Status tells how far the publication has come that an application accepted under its
// own number, as long as it is kept. The error wraps ErrNotFound or ErrUnavailable.
func (p *Publisher) Status(application string, t names.ClientTicket) (*Status, error) {
	kept := new(nodepb.KeptClientTicket)
	ok, err := p.load(outbox.Key{Table: tabTickets, ID: application + "\x00" + string(t)}, kept)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !ok:
		return nil, ErrNotFound
	}
	s := &Status{Ticket: names.Ticket(kept.Ticket)}
	a := new(nodepb.KeptAudience)
	if s.Decided, err = p.load(audienceKey(kept.Sequence), a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.Reason, s.Incomplete = a.Reason, a.Incomplete
	for _, address := range a.Addresses {
		institution, purpose, _ := strings.Cut(address, "/")
		r := RecipientState{Recipient: names.InstitutionID(institution), Purpose: names.Purpose(purpose), State: Delivered}
		d := new(nodepb.KeptDelivery)
		waits, err := p.load(deliveryKey(address, kept.Sequence), d)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case waits && d.Dead:
			r.State, r.Reason = Dead, d.Reason
		case waits:
			r.State, r.Reason = InTransit, d.Reason
		}
		s.Recipients = append(s.Recipients, r)
	}
	return s, nil
}

// Published gives what an application published under its own number, while it is kept.
// The error wraps ErrNotFound or ErrUnavailable.
func (p *Publisher) Published(application string, t names.ClientTicket) (*registrypb.Publication, error) {
	kept := new(nodepb.KeptClientTicket)
	ok, err := p.load(outbox.Key{Table: tabTickets, ID: application + "\x00" + string(t)}, kept)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !ok {
		return nil, ErrNotFound
	}
	k, err := p.publication(kept.Sequence)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return readPublication(k.Publication)
}
