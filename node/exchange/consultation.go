package exchange

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// consultation is one execution of one question. Its goroutine owns it.
type consultation struct {
	*Consultant
	key     outbox.Key
	kept    *nodepb.KeptConsultation
	request *registrypb.Request
	hash    []byte // SHA-256 of the request envelope
	ticket  names.Ticket
	inquiry names.Ticket // that this is a part of; empty: of none
}

// permit is one clearance that was verified.
type permit struct {
	envelope  []byte
	hash      []byte // SHA-256 of envelope
	clearance *registrypb.Clearance
	second    *permit // by the second clearing peer; nil: one suffices
}

// reply is what came of one permit.
type reply struct {
	permit     *permit
	by         names.NodeID // of the supplier; zero: nobody replied
	status     nodepb.Status
	reason     registrypb.Reason
	content    []byte
	commitment []byte // to content
	envelope   []byte // of the answer
	detail     string
	earlier    *reply // of the clearance before, which the supplier found invalid; nil: none
}

// answered reports whether the supplier replied, with data or a refusal.
func (r *reply) answered() bool { return r.by != names.NodeID{} }

// hasData reports whether the supplier's answer stands, even if it holds no record.
func (r *reply) hasData() bool {
	return r.status == nodepb.Status_DATA_FOUND || r.status == nodepb.Status_NO_DATA_FOUND
}

// carryOut takes a request to its end. Unless fresh gives it, it was kept before. A
// fresh one is kept and journaled at the same time: neither needs the other, and
// nothing leaves before both are durable.
func (c *Consultant) carryOut(ctx context.Context, key outbox.Key, a *asked, kept *nodepb.KeptConsultation, fresh *registrypb.Request) (*Result, error) {
	x := &consultation{Consultant: c, key: key, kept: kept, request: fresh,
		hash: sum(kept.Request), ticket: names.TicketOf(kept.Request), inquiry: a.Inquiry}
	if fresh == nil {
		x.request = new(registrypb.Request)
		if err := openInto(envelope.Request, kept.Request, x.request); err != nil {
			return nil, err
		}
	}
	requested := x.entry(nodepb.Event_REQUESTED)
	requested.Evidence = [][]byte{kept.Request}
	journaled := func() error { return appendOne(ctx, c.cfg.Journal, requested) }
	var err error
	if fresh != nil {
		err = together(journaled, func() error { return c.keep(key, kept) })
	} else {
		requested.Detail = "resumed"
		err = journaled()
	}
	if err != nil {
		return nil, err
	}
	if a.malformed {
		r := &ruling{outcome: registrypb.Outcome_DENY, reason: registrypb.Reason_MALFORMED_NUMBER}
		return x.finish(ctx, a, r, nil)
	}
	until, cancel := a.bounded(ctx)
	defer cancel()
	r, err := x.clear(ctx, until)
	if err == nil {
		err = x.clearSecond(ctx, until, r)
	}
	if err != nil {
		return nil, err
	}
	defer x.letGo(r.permits)
	replies := x.presentAll(until, r.permits)
	for _, p := range allOf(replies) {
		defer x.letGo([]*permit{p.permit})
	}
	return x.finish(ctx, a, r, replies)
}

// presentAll presents every permit, all at the same time.
func (x *consultation) presentAll(ctx context.Context, permits []*permit) []*reply {
	replies := make([]*reply, len(permits))
	if len(permits) == 1 {
		return []*reply{x.presentAnew(ctx, permits[0], permits)}
	}
	var all sync.WaitGroup
	for i, p := range permits {
		all.Go(func() { replies[i] = x.presentAnew(ctx, p, permits) })
	}
	all.Wait()
	slices.SortFunc(replies, func(a, b *reply) int {
		return cmp.Compare(a.permit.clearance.GetSupplier(), b.permit.clearance.GetSupplier())
	})
	return replies
}

// finish journals the outcome, keeps the result, and only then gives it away.
func (x *consultation) finish(ctx context.Context, a *asked, r *ruling, replies []*reply) (*Result, error) {
	if err := ctx.Err(); err != nil && slices.ContainsFunc(replies, func(p *reply) bool { return !p.answered() }) {
		return nil, err // cut short: whoever asks again continues
	}
	// What suppliers have answered is journaled even if nobody waits any more.
	ctx = context.WithoutCancel(ctx)
	result := r.result(replies)
	if err := appendAll(ctx, x.cfg.Journal, x.outcomes(r, replies)...); err != nil {
		return nil, err
	}
	x.kept.Result = result
	// Clearances that a supplier replied to are settled; the sweeper tells of the others.
	var settled []outbox.Change
	for _, p := range allOf(replies) {
		if p.answered() {
			settled = append(settled, outbox.Change{Key: clearanceKey(p.permit.clearance.GetId()), Delete: true})
			if s := p.permit.second; s != nil {
				settled = append(settled, outbox.Change{Key: clearanceKey(s.clearance.GetId()), Delete: true})
			}
		}
	}
	if err := x.keep(x.key, x.kept, settled...); err != nil {
		return nil, err
	}
	for _, p := range replies {
		if p.hasData() {
			x.acknowledge(p)
		}
	}
	return resultOf(x.kept, a.ClientTicket), nil
}

// outcomes gives the ANSWERED entries: one for each supplier, and one for what no
// supplier was asked, which is everything when the request was refused.
func (x *consultation) outcomes(r *ruling, replies []*reply) []*nodepb.Entry {
	var entries []*nodepb.Entry
	for _, p := range allOf(replies) {
		e := x.entry(nodepb.Event_ANSWERED)
		addClearance(e, p.permit.clearance, p.permit.hash)
		e.Evidence = [][]byte{p.permit.envelope}
		addDeliberation(e, x.cfg.Registry)
		if p.answered() {
			e.Supplier = nodeRef(p.by)
		}
		e.Status, e.Reason, e.Detail = p.status, p.reason, p.detail
		if p.hasData() {
			e.AnswerCommitment = p.commitment
			e.Evidence = append(e.Evidence, p.envelope)
		}
		addSecond(e, p.permit.second)
		entries = append(entries, e)
	}
	if len(replies) == 0 || r.incomplete {
		e := x.entry(nodepb.Event_ANSWERED)
		e.Outcome, e.Reason, e.Status, e.Authorization = r.outcome, r.reason, nodepb.Status_NO_RESULT, r.authorization
		if d := r.refusal; d != nil {
			e.Outcome, e.Clearer, e.RegistryIndex = d.GetOutcome(), d.GetClearer(), d.GetRegistryIndex()
			e.Withheld, e.Authorization, e.Evidence = d.GetWithheld(), d.GetAuthorization(), [][]byte{d.envelope}
		}
		addDeliberation(e, x.cfg.Registry)
		entries = append(entries, e)
	}
	return entries
}

func (x *consultation) entry(event nodepb.Event) *nodepb.Entry {
	e := requestEntry(x.cfg.Now(), nodepb.Role_CONSULTANT, event, string(x.ticket), x.request, x.hash)
	e.Inquiry = string(x.inquiry)
	return e
}

// result gives the overall outcome in the words of the network.
func (r *ruling) result(replies []*reply) *nodepb.KeptResult {
	k := &nodepb.KeptResult{Reason: r.reason, Successor: r.successor, Authorization: r.authorization}
	withheld := slices.Clone(r.withheld)
	good, bad, found := 0, 0, false
	for _, p := range replies {
		s := &nodepb.KeptSupplierResult{Supplier: p.permit.clearance.GetSupplier(), Status: p.status, Reason: p.reason,
			Withheld: p.permit.clearance.GetWithheld()}
		if p.hasData() {
			good++
			s.Records = p.content
			found = found || p.status == nodepb.Status_DATA_FOUND
		} else {
			bad++
			if k.Reason == registrypb.Reason_REASON_UNSPECIFIED {
				k.Reason = p.reason
			}
		}
		withheld = append(withheld, s.Withheld...)
		k.Suppliers = append(k.Suppliers, s)
	}
	slices.Sort(withheld)
	k.Withheld = slices.Compact(withheld)
	switch {
	case good == 0:
		k.Status = nodepb.Status_NO_RESULT
	case bad > 0 || r.incomplete:
		k.Status = nodepb.Status_INCOMPLETE_DATA
	case found:
		k.Status = nodepb.Status_DATA_FOUND
	default:
		k.Status = nodepb.Status_NO_DATA_FOUND
	}
	return k
}
