package inquiry

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// result sums the parts up.
func (x *inquiry) result(results []*exchange.Result) *Result {
	r := &Result{Ticket: names.Ticket(x.kept.Ticket), ClientTicket: x.asked.ClientTicket}
	told, found, lacking := 0, false, registrypb.Reason_REASON_UNSPECIFIED
	for n, p := range results {
		r.Parts = append(r.Parts, PartResult{names.DatasetID(x.kept.Parts[n].Dataset), p})
		switch {
		case complete(p):
			found = found || p.Status == nodepb.Status_DATA_FOUND
		case lacking == registrypb.Reason_REASON_UNSPECIFIED:
			lacking = p.Reason
		}
		if p.Status != nodepb.Status_NO_RESULT {
			told++
		}
		if r.Successor.IsZero() {
			r.Successor = p.Successor
		}
	}
	switch {
	case told == 0:
		r.Status, r.Reason = nodepb.Status_NO_RESULT, lacking
		if lacking == registrypb.Reason_REASON_UNSPECIFIED {
			r.Reason = registrypb.Reason_UNKNOWN_SUBJECT
		}
	case lacking != registrypb.Reason_REASON_UNSPECIFIED:
		r.Status, r.Reason = nodepb.Status_INCOMPLETE_DATA, lacking
	case found:
		r.Status = nodepb.Status_DATA_FOUND
	default:
		r.Status = nodepb.Status_NO_DATA_FOUND
	}
	return r
}

// complete reports whether a part's sources told all they have. That nobody who may
// supply has a file is told by the registry, and leaves nothing open.
func complete(p *exchange.Result) bool {
	return p.Status == nodepb.Status_DATA_FOUND || p.Status == nodepb.Status_NO_DATA_FOUND ||
		p.Status == nodepb.Status_NO_RESULT && p.Reason == registrypb.Reason_UNKNOWN_SUBJECT
}

// journal appends the inquiry's own entry. The parts have entries of their own.
func (x *inquiry) journal(ctx context.Context, event nodepb.Event) error {
	e := entry(x.cfg.Self, x.cfg.Now(), event, x.question(Part{}, x.asked.ClientTicket), x.cfg.Schemes, names.Ticket(x.kept.Ticket))
	e.Inquiry = ""
	if x.again && event == nodepb.Event_INQUIRED {
		e.Detail = "resumed"
	}
	for _, p := range x.kept.Parts {
		e.Parts = append(e.Parts, proto.CloneOf(p))
	}
	if _, err := x.cfg.Journal.Append(ctx, e); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	return nil
}

// LocalRefusal is the entry of a question that the institution's own policy refuses: it
// never leaves the node, but the attempt is journaled before it is refused.
func LocalRefusal(self names.NodeID, now time.Time, q exchange.Question, schemes subject.Schemes, ticket names.Ticket) *nodepb.Entry {
	e := entry(self, now, nodepb.Event_ANSWERED, q, schemes, ticket)
	e.Outcome, e.Status, e.Reason = registrypb.Outcome_DENY, nodepb.Status_NO_RESULT, registrypb.Reason_LOCAL_POLICY
	e.Detail = "refused by this institution's own policy; nothing was asked of the network"
	return e
}

// entry begins a journal entry of a question of which there is no request.
func entry(self names.NodeID, now time.Time, event nodepb.Event, q exchange.Question, schemes subject.Schemes, ticket names.Ticket) *nodepb.Entry {
	e := &nodepb.Entry{
		TimeUnixMs: now.UnixMilli(), Role: nodepb.Role_CONSULTANT, Event: event, Ticket: string(ticket), ClientTicket: string(q.ClientTicket),
		Requester: &registrypb.NodeRef{Institution: string(self.Institution), Node: string(self.Node)},
		User:      string(q.User), Application: q.Application, AuthLevel: q.AuthLevel, Channel: q.Channel,
		Purpose: string(q.Purpose), Mode: string(names.Consultation), Dataset: string(q.Dataset),
		Period:  &registrypb.Period{From: int32(q.Period.From), Until: int32(q.Period.Until)},
		Inquiry: string(q.Inquiry),
	}
	for _, f := range q.Fields {
		e.Fields = append(e.Fields, string(f))
	}
	if id, err := schemes.Parse(q.Scheme, q.Number); err == nil {
		e.Subject = &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
	}
	return e
}
