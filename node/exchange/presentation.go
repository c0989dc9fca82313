package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// presentation is one clearance being presented. Its goroutine owns it.
type presentation struct {
	*Supplier
	from          names.NodeID
	raw           *nodepb.Presentation
	requestHash   []byte
	clearanceHash []byte
	part          *clearing.Part        // both, when their form is right; otherwise nil
	request       *registrypb.Request   // well formed, or nil; believed only once checked
	clearance     *registrypb.Clearance // likewise
	checked       *clearing.Checked     // once clearing.Check passed
	signed        *nodepb.Answer        // what was signed just now
	genuine       bool                  // both are signed by whom they name, though refused
	also          []*registrypb.Subject // other numbers that the source was asked by
	resolved      bool                  // the sector was asked
	seal          []byte                // of what the sector journaled for itself
	presented     time.Time             // when the clearance was judged to be in time
	arrived       time.Time             // when this presentation came, with its monotonic reading
	passed        *guarded              // what the last guard that passed found, and
	in            any                   // the state of the registry that it looked at; nil: unknown
}

// read takes a presentation apart. There is always one to journal with.
func (s *Supplier) read(from names.NodeID, p *nodepb.Presentation) (*presentation, *refusal) {
	x := &presentation{Supplier: s, from: from, raw: p}
	if len(p.GetRequest()) > maxRequest || len(p.GetClearance()) > maxClearance {
		return x, refuse(registrypb.Reason_CLEARANCE_INVALID, "request or clearance too large")
	}
	x.requestHash, x.clearanceHash = sum(p.GetRequest()), sum(p.GetClearance())
	if part, bad := clearing.ReadPart(s.cfg.Mesh, p.GetRequest(), p.GetClearance()); bad == nil {
		if wellFormed(part.Request, s.cfg.Mesh, s.cfg.Schemes) == nil && len(part.Clearance.GetId()) == clearanceIDSize {
			x.part, x.request, x.clearance = part, part.Request, part.Clearance
			return x, x.readSecond()
		}
	}
	request, err := decodeRequest(p.GetRequest(), s.cfg.Mesh, s.cfg.Schemes)
	if err != nil {
		return x, refuse(registrypb.Reason_CLEARANCE_INVALID, "malformed request")
	}
	x.request = request
	clearance := new(registrypb.Clearance)
	if err := openInto(envelope.Clearance, p.GetClearance(), clearance); err != nil || len(clearance.GetId()) != clearanceIDSize {
		return x, refuse(registrypb.Reason_CLEARANCE_INVALID, "malformed clearance")
	}
	x.clearance = clearance
	return x, nil
}

// clearanceIDSize is the size of a clearance's id in bytes.
const clearanceIDSize = 16

// answer checks everything, gets the content, and lets it out once it is kept and
// journaled.
func (x *presentation) answer(ctx context.Context) (*nodepb.PresentResponse, *refusal) {
	id := x.clearance.GetId()
	seen, err := x.seen(id)
	if err != nil {
		return nil, outboxFailed(err)
	}
	// A clearance is judged to be in time once: when it is first presented.
	presented := x.cfg.Now()
	same := seen != nil && bytes.Equal(seen.GetClearanceHash(), x.clearanceHash) &&
		bytes.Equal(seen.GetRequestHash(), x.requestHash) && record.NodeID(seen.GetRequester()) == x.from
	if same {
		presented = time.UnixMilli(seen.GetPresentedUnixMs())
	}
	x.presented = presented
	same = same && bytes.Equal(seen.GetSecondClearanceHash(), x.secondHash())
	g, no := x.guard(presented)
	if no != nil {
		return nil, no
	}
	if seen != nil && (!same || seen.GetResponse() == nil) {
		return nil, refuse(registrypb.Reason_CLEARANCE_REPLAYED, "seen before, and its answer is not kept for this requester")
	}
	event, resp, kept := nodepb.Event_RESENT, seen.GetResponse(), true
	x.also, x.seal = seen.GetAlsoSubjects(), seen.GetSectorSeal()
	if seen == nil {
		event = nodepb.Event_SUPPLIED
		content, fresh, no := x.content(ctx, g)
		if no != nil {
			return nil, no
		}
		x.settle(ctx, false)
		if g, no = x.guard(presented); no != nil {
			return nil, no
		}
		if resp, err = x.sign(content); err != nil {
			return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "answer could not be signed")
		}
		if no := x.keep(presented, resp, content, fresh); no != nil {
			return nil, no
		}
		kept = !fresh
	} else {
		x.settle(ctx, false)
	}
	e, no := x.answerEntry(event, resp)
	if no != nil {
		return nil, no
	}
	if kept {
		e.Detail = "the answer kept from before: the source was not asked again"
	}
	if err := x.journal(ctx, e); err != nil {
		return nil, refuse(registrypb.Reason_JOURNAL_UNAVAILABLE, "%s could not be journaled", event)
	}
	x.hold(ctx, false)
	// Writing may have taken long: what was true before must still be.
	return resp, x.stillStands(g, presented)
}

// answerEntry tells of an answer by its commitment.
func (x *presentation) answerEntry(event nodepb.Event, resp *nodepb.PresentResponse) (*nodepb.Entry, *refusal) {
	a := x.signed
	if a == nil {
		var err error
		if a, _, err = decodeAnswer(resp.GetAnswer()); err != nil {
			return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "own answer cannot be read: %v", err)
		}
	}
	e := x.entry(event)
	e.Status, e.AnswerCommitment = a.GetStatus(), a.GetCommitment()
	e.Evidence = append(e.Evidence, resp.GetAnswer())
	x.addSecond(e)
	return e, nil
}

// keep writes seen-mark and outcome in one step.
func (x *presentation) keep(presented time.Time, resp *nodepb.PresentResponse, content *nodepb.KeptContent, fresh bool) *refusal {
	until := x.checked.ReleaseBy.Add(x.cfg.Bounds.Skew + x.cfg.SeenMargin)
	mark, err := seenChange(x.clearance.GetId(), &nodepb.KeptSeen{
		ClearanceHash:   x.clearanceHash,
		RequestHash:     x.requestHash,
		Requester:       nodeRef(x.from),
		PresentedUnixMs: presented.UnixMilli(),
		UntilUnixMs:     until.UnixMilli(),
		Response:        resp,
		AlsoSubjects:    x.also,
		SectorSeal:      x.seal,

		SecondClearanceHash: x.secondHash(),
	})
	if err != nil {
		return outboxFailed(err)
	}
	changes := []outbox.Change{mark, x.answered()}
	if fresh {
		row, err := contentChange(x.requestHash, content, x.cfg.Now().Add(x.cfg.Life))
		if err != nil {
			return outboxFailed(err)
		}
		changes = append(changes, row)
	}
	if err := x.cfg.Outbox.Write(changes...); err != nil {
		return outboxFailed(err)
	}
	return nil
}

// answered marks the request as answered for as long as any clearance for it can
// count, and so longer than its answer is kept. The mark holds nothing else.
func (x *presentation) answered() outbox.Change {
	b := x.cfg.Bounds
	cleared := clearing.RequestLife + b.Skew
	until := time.UnixMilli(x.request.GetTimeUnixMs()).Add(cleared + b.PresentLife + b.Skew + x.cfg.SeenMargin)
	if kept := x.cfg.Now().Add(x.cfg.Life); kept.After(until) {
		until = kept
	}
	return outbox.Change{Key: answeredKey(x.requestHash), Value: []byte{1}, Until: until}
}

// outboxFailed refuses as a failing journal does: what cannot be written down must
// not happen.
func outboxFailed(err error) *refusal {
	return refuse(registrypb.Reason_JOURNAL_UNAVAILABLE, "outbox: %v", err)
}

func isNotFound(err error) bool { return errors.Is(err, outbox.ErrNotFound) }

// content gives what the source says, filtered: kept from before for the very same
// request and fields, or else fetched now.
func (x *presentation) content(ctx context.Context, g *guarded) (c *nodepb.KeptContent, fresh bool, no *refusal) {
	fields := slices.Sorted(slices.Values(x.clearance.GetFields()))
	kept := new(nodepb.KeptContent)
	ok, err := x.load(contentKey(x.requestHash), kept)
	if err != nil {
		return nil, false, outboxFailed(err)
	}
	if ok && slices.Equal(kept.GetFields(), fields) {
		x.also, x.seal = kept.GetAlsoSubjects(), kept.GetSectorSeal()
		return kept, false, nil
	}
	if !ok {
		switch _, err := x.cfg.Outbox.Get(answeredKey(x.requestHash)); {
		case err == nil:
			return nil, false, refuse(registrypb.Reason_CLEARANCE_REPLAYED, "this request was answered, and its answer is no longer kept")
		case !isNotFound(err):
			return nil, false, outboxFailed(err)
		}
	}
	for _, q := range g.queries {
		if q.Subject != x.checked.Subject {
			x.also = append(x.also, &registrypb.Subject{Scheme: string(q.Subject.Scheme()), Number: q.Subject.Number()})
		}
	}
	content, n, no := x.obtain(ctx, g)
	if no != nil {
		return nil, false, no
	}
	blinding := make([]byte, blindingSize)
	rand.Read(blinding)
	return &nodepb.KeptContent{Fields: fields, Status: statusOf(n), Content: content, Blinding: blinding, AlsoSubjects: x.also, SectorSeal: x.seal}, true, nil
}

// obtain gives the content and how many records it holds: found in the sector, or
// fetched from the own source and cut to what is permitted.
func (x *presentation) obtain(ctx context.Context, g *guarded) (content []byte, records int, no *refusal) {
	if x.cfg.Sector != nil && x.cfg.Sector.Resolves(x.checked.Dataset) {
		return x.resolve(ctx)
	}
	all, no := x.fetch(ctx, g.queries)
	if no != nil {
		return nil, 0, no
	}
	// Cutting reads every byte, so it is the check of their form as well.
	err := boundRecords(all)
	if err == nil {
		content, err = filter(all, x.checked.Fields)
	}
	if err == nil {
		err = x.schemas.check(x.checked.Dataset, g.schema, all)
	}
	if err != nil {
		return nil, 0, refuse(registrypb.Reason_SUPPLIER_ERROR, "source gave what must not leave: %v", err)
	}
	return content, len(all), nil
}

// fetch asks the source.
func (x *presentation) fetch(ctx context.Context, queries []Query) (all []Record, no *refusal) {
	source, ok := x.cfg.Sources[x.checked.Dataset]
	if !ok {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "no source is configured for this dataset")
	}
	ctx, cancel := context.WithTimeout(ctx, x.checked.ReleaseBy.Sub(x.cfg.Now()))
	defer cancel()
	for _, q := range queries {
		records, err := source.Fetch(ctx, q)
		if err != nil {
			// A source should not name the subject; should it do so, the log does not.
			text := strings.ReplaceAll(err.Error(), q.Subject.Number(), "***")
			x.cfg.Log.Warn("source failed", "dataset", q.Dataset, "ticket", x.ticket(), "err", text)
			if errors.Is(err, ErrSourceUnavailable) || ctx.Err() != nil {
				return nil, refuse(registrypb.Reason_SUPPLIER_UNAVAILABLE, "source unavailable")
			}
			return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "source failed")
		}
		all = append(all, records...)
	}
	return all, nil
}

func (x *presentation) ticket() string {
	if x.request == nil {
		return ""
	}
	return string(names.TicketOf(x.raw.GetRequest()))
}

// entry begins a journal entry. The requester is who is on the connection; what a
// clearance says is in it only once it was checked.
func (x *presentation) entry(event nodepb.Event) *nodepb.Entry {
	e := requestEntry(x.cfg.Now(), nodepb.Role_SUPPLIER, event, x.ticket(), x.request, x.requestHash)
	e.ClearanceHash = x.clearanceHash
	if x.checked != nil || x.genuine {
		e.Evidence = [][]byte{x.raw.GetRequest(), x.raw.GetClearance()}
	}
	if x.checked != nil {
		addClearance(e, x.clearance, x.clearanceHash)
		addDeliberation(e, x.cfg.Registry)
	} else if x.clearance != nil {
		// In an entry that names a clearance the fields are the permitted ones, and
		// nobody has vouched for any yet.
		e.ClearanceId, e.Fields = x.clearance.GetId(), nil
	}
	e.Requester, e.Supplier = nodeRef(x.from), nodeRef(x.cfg.Self)
	e.AlsoSubjects, e.SectorSeal = x.also, x.seal
	return e
}

// journal appends even when the requester has gone: an outcome is an outcome.
func (x *presentation) journal(ctx context.Context, e *nodepb.Entry) error {
	err := appendOne(context.WithoutCancel(ctx), x.cfg.Journal, e)
	if err != nil {
		x.cfg.Log.Error("journal failed: nothing is answered", "event", e.GetEvent(), "ticket", e.GetTicket(), "err", err)
	}
	return err
}
