package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// clear has every subject of the part decided: by what is kept from before, as far as it
// can still be used, and by clearing peers in turn. What is decided is kept before it
// is used.
func (p *part) clear(ctx context.Context) error {
	if err := p.recall(ctx); err != nil || !p.left.Any() {
		return err
	}
	candidates, err := p.candidates()
	if err != nil {
		return &later{why: "the registry cannot be read"}
	}
	cleared := slices.Clone(p.kept.Cleared)
	for _, r := range p.kept.Replies {
		permit, err := readPermit(r.Clearance)
		if err != nil {
			return err
		}
		cleared = append(cleared, permit.Supplier)
	}
	p.why = registrypb.Reason_NO_ELIGIBLE_CLEARER
	var busy *Busy
	for _, to := range p.cfg.Peers.Order(candidates) {
		req := &registrypb.ClearChunkRequest{Request: p.kept.Request, Cleared: cleared, Again: p.again}
		if p.left.Count() < len(p.kept.Lines) {
			req.Pending = p.left
		}
		limited, cancel := context.WithTimeout(ctx, p.cfg.ClearTimeout)
		resp, err := p.cfg.Peers.ClearChunk(limited, to, req)
		cancel()
		if p.cfg.Gate.Pass(ctx) != nil {
			return ctx.Err()
		}
		var got *rulings
		if err == nil {
			got, err = p.verify(to, resp, cleared)
		}
		if err != nil {
			p.again = true // it may have decided all the same
			p.why = registrypb.Reason_CLEARING_UNAVAILABLE
			if !errors.As(err, &busy) {
				p.cfg.Log.Info("clearing peer did not decide on a chunk", "peer", to.String(), "ticket", string(p.l.Ticket), "err", err)
			}
			continue
		}
		for _, permit := range got.permits {
			cleared = append(cleared, permit.Supplier)
		}
		p.permits = append(p.permits, got.permits...)
		if got.refused != nil {
			p.refused = append(p.refused, got.refused)
		}
		if p.left = got.left; !p.left.Any() {
			break
		}
	}
	if p.left.Any() && p.why == registrypb.Reason_CLEARING_UNAVAILABLE && (!p.giveUp || busy != nil) {
		w := &later{why: "no clearing peer decides"}
		if busy != nil {
			w = &later{why: "clearing peers take no chunk now", after: busy.After, busy: true}
		}
		// What others decided meanwhile would have ended before the rest is: it is asked anew.
		return w
	}
	p.kept.Clearances, p.kept.Left = nil, nil
	for _, permit := range p.permits {
		p.kept.Clearances = append(p.kept.Clearances, permit.envelope)
	}
	p.kept.Decisions = nil
	for _, d := range p.refused {
		p.kept.Decisions = append(p.kept.Decisions, d.envelope)
	}
	if p.left.Any() {
		p.kept.Left = p.left
	}
	return p.save()
}

// recall takes up what was decided before a crash, or before a supplier could not be
// reached. Clearances that can no longer be presented end as EXPIRED_UNUSED, and their
// subjects are decided anew.
func (p *part) recall(ctx context.Context) error {
	n := len(p.kept.Lines)
	p.left = packed.NewBits(n)
	if len(p.kept.Clearances)+len(p.kept.Decisions)+len(p.kept.Replies) == 0 {
		p.left.Fill(n)
		return nil
	}
	copy(p.left, p.kept.Left)
	for _, raw := range p.kept.Decisions {
		d, err := readDecision(raw)
		if err != nil {
			return err
		}
		p.refused = append(p.refused, d)
	}
	usable := p.cfg.Now().Add(time.Second / 2)
	var old []*permit
	for _, raw := range p.kept.Clearances {
		permit, err := readPermit(raw)
		if err != nil {
			return err
		}
		old = append(old, permit)
	}
	expired := slices.ContainsFunc(old, func(o *permit) bool { return time.UnixMilli(o.PresentByUnixMs).Before(usable) })
	if !expired && !p.left.Any() {
		p.permits = old
		return nil
	}
	for _, o := range old {
		if err := p.unused(ctx, o); err != nil {
			return err
		}
		for n := range numbersOf(o.ChunkClearance) {
			p.left.Set(p.places[n])
		}
	}
	p.kept.Clearances, p.kept.Left = nil, p.left
	return p.save()
}

// unused journals a clearance of which nothing came, once.
func (p *part) unused(ctx context.Context, o *permit) error {
	for _, event := range []nodepb.Event{nodepb.Event_EXPIRED_UNUSED, nodepb.Event_ANSWERED} {
		there, err := p.journaled(ctx, event, func(e *nodepb.Entry) bool { return slices.Equal(e.ClearanceId, o.Id) })
		if there || err != nil {
			return err
		}
	}
	e := orderEntry(p.cfg.Now(), nodepb.Role_CONSULTANT, nodepb.Event_EXPIRED_UNUSED, p.l.Order)
	addClearance(e, o.ChunkClearance, o.hash)
	e.Lot = &nodepb.LotPart{Chunk: uint32(p.chunk)}
	e.Detail = "no reply to this clearance was received"
	return appendEntry(ctx, p.cfg.Journal, e)
}

// candidates gives the members that may clear for this node, in the order that the request
// itself draws.
func (p *part) candidates() (ranked []names.NodeID, err error) {
	err = p.cfg.Registry.View(func(v record.View) error {
		members, err := v.Members()
		if err != nil {
			return err
		}
		own, err := v.Institution(p.cfg.Self.Institution)
		if err != nil {
			return err
		}
		var others []names.NodeID
		for _, m := range members {
			inst, err := v.Institution(m.Institution)
			if err != nil {
				return err
			}
			stands, err := v.NodeStands(m)
			if err != nil {
				return err
			}
			party := m.Institution == p.cfg.Self.Institution || own.GetSector() != "" && own.GetSector() == inst.GetSector()
			if stands && !party {
				others = append(others, m)
			}
		}
		ranked = clearing.Rank(others, p.request.Hash)
		return nil
	})
	return ranked, err
}

// readPermit reads a clearance that was verified when it was kept.
func readPermit(raw []byte) (*permit, error) {
	c := new(registrypb.ChunkClearance)
	o, err := envelope.Open(envelope.LotClearance, raw)
	if err == nil {
		err = proto.Unmarshal(o.Payload, c)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: a kept clearance cannot be read", ErrUnavailable)
	}
	return &permit{c, raw, sum(raw)}, nil
}

func readDecision(raw []byte) (*decision, error) {
	d := new(registrypb.ChunkDecision)
	o, err := envelope.Open(envelope.LotDecision, raw)
	if err == nil {
		err = proto.Unmarshal(o.Payload, d)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: a kept decision cannot be read", ErrUnavailable)
	}
	return &decision{d, raw}, nil
}
