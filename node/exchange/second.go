package exchange

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// bytes gives the envelope, of none nothing.
func (p *permit) bytes() []byte {
	if p == nil {
		return nil
	}
	return p.envelope
}

// sum gives the hash of the envelope, of none nothing.
func (p *permit) sum() []byte {
	if p == nil {
		return nil
	}
	return p.hash
}

// clearSecond finds a second clearing peer for each permit whose authorization asks for
// one. What nobody else clears is dropped: the first clearance then ends unused. Its
// error is that of ctx, or ErrJournalUnavailable; then all permits are let go.
func (x *consultation) clearSecond(ctx, until context.Context, r *ruling) error {
	open, err := x.lackSecond(r.permits)
	if err != nil || len(open) == 0 {
		return err
	}
	candidates, err := x.candidates()
	if err == nil {
		err = x.findSecond(until, candidates, open)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		x.letGo(r.permits)
		return err
	}
	alone := func(p *permit) bool { return slices.Contains(open, p) && p.second == nil }
	var dropped []*permit
	for _, p := range r.permits {
		if alone(p) {
			dropped = append(dropped, p)
		}
	}
	if len(dropped) == 0 {
		return nil
	}
	x.letGo(dropped)
	r.permits = slices.DeleteFunc(r.permits, alone)
	r.incomplete, r.reason = true, registrypb.Reason_NO_ELIGIBLE_CLEARER
	if len(r.permits) == 0 {
		r.outcome = registrypb.Outcome_DENY
	}
	return nil
}

// lackSecond gives the permits whose authorization asks for a second clearing peer.
func (x *consultation) lackSecond(permits []*permit) (open []*permit, err error) {
	if len(permits) == 0 {
		return nil, nil
	}
	err = x.cfg.Registry.View(func(v record.View) error {
		v = v.Remembering()
		for _, p := range permits {
			z, err := v.Authorization(names.AuthorizationID(p.clearance.GetAuthorization()))
			if err != nil {
				return err
			}
			if z.GetSecondClearingPeer() {
				open = append(open, p)
			}
		}
		return nil
	})
	return open, err
}

// findSecond asks candidates in turn, in the order that the request draws, until every
// open permit has a second one. Its error wraps ErrJournalUnavailable.
func (x *consultation) findSecond(ctx context.Context, candidates []names.NodeID, open []*permit) error {
	limited, cancel := context.WithTimeout(ctx, x.cfg.ClearFor)
	defer cancel()
	for round := 0; len(candidates) > 0 && limited.Err() == nil; round++ {
		var again []names.NodeID
		for _, to := range x.cfg.Peers.Order(candidates) {
			wanted, err := x.wantFrom(to, open)
			if err != nil {
				return err
			}
			if len(wanted) == 0 {
				continue // it may be second for none of them
			}
			replied, err := x.askSecond(limited, to, x.cfg.ClearTimeout<<min(round, 4), open, wanted)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(open, func(p *permit) bool { return p.second == nil }) {
				return nil
			}
			if !replied {
				again = append(again, to)
			}
		}
		if candidates = again; len(again) > 0 {
			_ = pause(limited, 25*time.Millisecond<<min(round, 4))
		}
	}
	return nil
}

// wantFrom gives the permits that still lack a second one, and that a member may give it
// to: it has nothing to do with the one that gave the first.
func (x *consultation) wantFrom(to names.NodeID, open []*permit) (wanted []*permit, err error) {
	err = x.cfg.Registry.View(func(v record.View) error {
		for _, p := range open {
			if p.second != nil {
				continue
			}
			apart, err := clearing.Apart(v, to.Institution, names.InstitutionID(p.clearance.GetClearer().GetInstitution()))
			if err != nil {
				return err
			}
			if apart {
				wanted = append(wanted, p)
			}
		}
		return nil
	})
	return wanted, err
}

// askSecond has one member decide for itself, and keeps of its clearances those that
// permit what the first ones do. It reports whether the member decided at all. Its error
// wraps ErrJournalUnavailable.
func (x *consultation) askSecond(ctx context.Context, to names.NodeID, timeout time.Duration, open, wanted []*permit) (replied bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := &registrypb.ClearRequest{Request: x.kept.Request}
	for _, p := range open {
		if !slices.Contains(wanted, p) {
			req.Cleared = append(req.Cleared, p.clearance.GetSupplier())
		}
	}
	resp, err := x.cfg.Peers.Clear(ctx, to, req)
	if err != nil {
		x.cfg.Log.Info("second clearing peer did not decide", "peer", to.String(), "ticket", x.ticket, "err", err)
		return false, nil
	}
	if len(resp.GetClearances()) == 0 {
		return true, nil // it does not permit, or is a party; its journal says which
	}
	permits, err := x.verify(to, resp, nil)
	if err != nil {
		x.cfg.Log.Warn("second clearance does not verify", "peer", to.String(), "ticket", x.ticket, "err", err)
		return false, nil
	}
	var kept []*permit
	for _, q := range permits {
		at := slices.IndexFunc(wanted, func(p *permit) bool { return clearing.Together(p.clearance, q.clearance) })
		if at < 0 {
			continue // it permits something else than the first: another may agree
		}
		kept = append(kept, q)
		wanted[at].second = q
	}
	if len(kept) == 0 {
		return true, nil
	}
	return true, x.keepPermits(kept)
}

// addSecond names the second clearance in an entry, and puts it last of its evidence.
func addSecond(e *nodepb.Entry, second *permit) {
	if second == nil {
		return
	}
	e.SecondClearance = &nodepb.SecondClearance{Id: second.clearance.GetId(), Hash: second.hash, Clearer: second.clearance.GetClearer()}
	e.Evidence = append(e.Evidence, second.envelope)
}

// readSecond takes the second clearance of a presentation apart, if there is one.
func (x *presentation) readSecond() *refusal {
	raw := x.raw.GetSecondClearance()
	if len(raw) == 0 {
		return nil
	}
	if len(raw) > maxClearance || bytes.Equal(raw, x.raw.GetClearance()) {
		return refuse(registrypb.Reason_CLEARANCE_INVALID, "second clearance too large, or the first once more")
	}
	part, bad := clearing.ReadPart(x.cfg.Mesh, x.raw.GetRequest(), raw)
	if bad != nil || len(part.Clearance.GetId()) != clearanceIDSize {
		return refuse(registrypb.Reason_CLEARANCE_INVALID, "malformed second clearance")
	}
	x.part.Second = part
	return nil
}

// secondHash gives the hash of the second clearance, of none nothing.
func (x *presentation) secondHash() []byte {
	if x.part == nil || x.part.Second == nil {
		return nil
	}
	return x.part.Second.Hash
}

// addSecond names the second clearance that was checked.
func (x *presentation) addSecond(e *nodepb.Entry) {
	if x.checked.Second() == nil {
		return
	}
	addSecond(e, &permit{envelope: x.raw.GetSecondClearance(), hash: x.part.Second.Hash, clearance: x.part.Second.Clearance})
}
