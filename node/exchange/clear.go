package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Limits on what a clearing peer or a requester may send.
const (
	maxRequest   = 24 << 10
	maxClearance = 24 << 10
)

// ruling is what the clearing peers decided together.
type ruling struct {
	outcome       registrypb.Outcome
	reason        registrypb.Reason
	successor     *registrypb.Subject
	authorization string
	withheld      []string
	refusal       *decision // what a clearing peer signed against it, or against the rest
	permits       []*permit
	incomplete    bool // for some suppliers nobody could decide
	stale         bool // a peer found the request's time too far from its own
}

// verdict is what one clearing peer's reply means for the search.
type verdict int

const (
	decided verdict = iota // there is nothing left to ask
	recused                // this one will not decide the rest
	failed                 // this one may later
)

// clear asks clearing peers in turn until every supplier is cleared or one
// refuses, or until ends. Its error is that of ctx, or ErrJournalUnavailable.
func (x *consultation) clear(ctx, until context.Context) (*ruling, error) {
	candidates, err := x.candidates()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRegistryStale, err)
	}
	r := &ruling{outcome: registrypb.Outcome_DENY}
	settled, left, err := x.search(until, candidates, r)
	if err == nil && !settled {
		err = ctx.Err()
	}
	if err != nil {
		x.letGo(r.permits)
		return nil, err
	}
	if settled {
		return r, nil
	}
	r.incomplete = true
	switch {
	case left > 0:
		r.reason = registrypb.Reason_CLEARING_UNAVAILABLE
	case r.stale:
		r.reason = registrypb.Reason_STALE_REQUEST
	default:
		r.reason = registrypb.Reason_NO_ELIGIBLE_CLEARER
	}
	return r, nil
}

// search asks candidates for what r lacks, for as long as clearing may take. It reports
// whether nothing is left to ask, and else how many may still decide later. Its error
// wraps ErrJournalUnavailable.
func (x *consultation) search(ctx context.Context, candidates []names.NodeID, r *ruling) (settled bool, left int, err error) {
	end := time.Now().Add(x.cfg.ClearFor)
	for round := 0; len(candidates) > 0 && ctx.Err() == nil && time.Now().Before(end); round++ {
		var again []names.NodeID
		for _, to := range x.cfg.Peers.Order(candidates) {
			v, err := x.ask(ctx, to, min(x.cfg.ClearTimeout<<min(round, 4), time.Until(end)), r)
			if err != nil || v == decided {
				return err == nil, 0, err
			}
			if v == failed {
				again = append(again, to)
			}
		}
		if candidates = again; len(again) > 0 {
			_ = pause(ctx, min(25*time.Millisecond<<min(round, 4), time.Until(end)))
		}
	}
	return false, len(candidates), nil
}

// candidates gives the members that may clear for this node, in the order that the
// request itself draws. Those of the own institution or sector are parties. Those that
// offer the dataset, or whose sector does, come last: they may be suppliers, and would
// then have to step aside, which costs everybody a call and a sync.
func (x *consultation) candidates() (ranked []names.NodeID, err error) {
	err = x.cfg.Registry.View(func(v record.View) error {
		v = v.Remembering()
		members, err := v.Members()
		if err != nil {
			return err
		}
		own, err := v.Institution(x.cfg.Self.Institution)
		if err != nil {
			return err
		}
		var others, offering []names.NodeID
		offerings, err := v.OfferingsOf(names.DatasetID(x.request.GetDataset()))
		if err != nil {
			return err
		}
		for _, m := range members {
			ok, err := x.noParty(v, own, m)
			if err != nil {
				return err
			}
			may, err := maySupply(v, m, offerings)
			switch {
			case err != nil:
				return err
			case ok && may:
				offering = append(offering, m)
			case ok:
				others = append(others, m)
			}
		}
		ranked = append(clearing.Rank(others, x.hash), clearing.Rank(offering, x.hash)...)
		return nil
	})
	return ranked, err
}

// maySupply reports whether a member's institution, or one of its sector, is among those
// that offer.
func maySupply(v record.View, m names.NodeID, offerings []*registrypb.Offering) (bool, error) {
	inst, err := v.Institution(m.Institution)
	if err != nil {
		return false, err
	}
	for _, o := range offerings {
		if o.GetWithdrawn() {
			continue
		}
		if o.GetInstitution() == string(m.Institution) {
			return true, nil
		}
		supplier, err := v.Institution(names.InstitutionID(o.GetInstitution()))
		if err != nil {
			return false, err
		}
		if inst.GetSector() != "" && inst.GetSector() == supplier.GetSector() {
			return true, nil
		}
	}
	return false, nil
}

// noParty reports whether a member is in service, and not of the own institution or
// sector.
func (x *consultation) noParty(v record.View, own *registrypb.Institution, m names.NodeID) (bool, error) {
	inst, err := v.Institution(m.Institution)
	if err != nil {
		return false, err
	}
	stands, err := v.NodeStands(m)
	party := m.Institution == x.cfg.Self.Institution || own.GetSector() != "" && own.GetSector() == inst.GetSector()
	return stands && !party, err
}

// ask puts the request to one clearing peer and takes what it decides into r.
func (x *consultation) ask(ctx context.Context, to names.NodeID, timeout time.Duration, r *ruling) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := &registrypb.ClearRequest{Request: x.kept.Request}
	for _, p := range r.permits {
		req.Cleared = append(req.Cleared, p.clearance.GetSupplier())
	}
	resp, err := x.cfg.Peers.Clear(ctx, to, req)
	if err != nil {
		x.cfg.Log.Info("clearing peer did not decide", "peer", to.String(), "ticket", x.ticket, "err", err)
		return failed, nil
	}
	if len(resp.GetClearances()) == 0 {
		d, err := x.verifyDecision(to, resp.GetDecision())
		if err != nil {
			x.cfg.Log.Warn("decision does not verify", "peer", to.String(), "ticket", x.ticket, "err", err)
			return failed, nil
		}
		return r.take(d), nil
	}
	permits, err := x.verify(to, resp, r.permits)
	if err != nil {
		x.cfg.Log.Warn("clearance does not verify", "peer", to.String(), "ticket", x.ticket, "err", err)
		return failed, nil
	}
	if err := x.keepPermits(permits); err != nil {
		return failed, err
	}
	r.outcome, r.reason = registrypb.Outcome_PERMIT, registrypb.Reason_REASON_UNSPECIFIED
	r.authorization = permits[0].clearance.GetAuthorization()
	r.permits = append(r.permits, permits...)
	if resp.GetRecused() {
		return recused, nil
	}
	return decided, nil
}

// verify checks the clearances of one reply as far as the consultant can. One that
// is wrong discredits the whole reply.
func (x *consultation) verify(from names.NodeID, resp *registrypb.ClearResponse, had []*permit) ([]*permit, error) {
	if n := len(resp.GetClearances()); n == 0 || n > maxSuppliers {
		return nil, fmt.Errorf("%d clearances, want 1 to %d", n, maxSuppliers)
	}
	if resp.GetOutcome() != registrypb.Outcome_PERMIT {
		return nil, errors.New("clearances without a permit")
	}
	var permits []*permit
	err := x.cfg.Registry.View(func(v record.View) error {
		v = v.Remembering()
		for _, raw := range resp.GetClearances() {
			p, err := x.verifyOne(v, from, raw)
			if err != nil {
				return err
			}
			for _, other := range slices.Concat(had, permits) {
				if other.clearance.GetSupplier() == p.clearance.GetSupplier() || bytes.Equal(other.clearance.GetId(), p.clearance.GetId()) {
					return errors.New("two clearances for one supplier, or of one id")
				}
			}
			permits = append(permits, p)
		}
		return nil
	})
	return permits, err
}

// check is one thing in which a message must be the one that was asked for.
type check struct {
	what string
	same bool
}

func (x *consultation) verifyOne(v record.View, from names.NodeID, raw []byte) (*permit, error) {
	if len(raw) > maxClearance {
		return nil, errors.New("clearance too large")
	}
	opened, err := envelope.Open(envelope.Clearance, raw)
	if err != nil {
		return nil, err
	}
	if err := x.signedBy(v, opened, from.Institution); err != nil {
		return nil, err
	}
	c := new(registrypb.Clearance)
	if err := proto.Unmarshal(opened.Payload, c); err != nil {
		return nil, errors.New("clearance is not protobuf")
	}
	q := x.request
	supplier := names.InstitutionID(c.GetSupplier())
	outside := func(f string) bool { return len(q.Fields) > 0 && !slices.Contains(q.Fields, f) }
	authorization := names.AuthorizationID(c.GetAuthorization())
	for _, f := range [...]check{
		{"mesh", c.GetMesh() == string(x.cfg.Mesh)},
		{"id", len(c.GetId()) == 16},
		{"ticket", c.GetTicket() == string(x.ticket)},
		{"clearer", record.NodeID(c.GetClearer()) == from},
		{"requester", record.NodeID(c.GetRequester()) == x.cfg.Self},
		{"supplier", supplier.Validate() == nil && supplier != x.cfg.Self.Institution && (len(q.Suppliers) == 0 || slices.Contains(q.Suppliers, c.GetSupplier()))},
		{"request", bytes.Equal(c.GetRequestHash(), x.hash)},
		{"subject", proto.Equal(c.GetSubject(), q.GetSubject())},
		{"dataset", c.GetDataset() == q.GetDataset()},
		{"fields", len(c.GetFields()) > 0 && len(c.GetFields()) <= maxFields && !slices.ContainsFunc(c.GetFields(), outside)},
		{"period", proto.Equal(c.GetPeriod(), q.GetPeriod())},
		{"purpose", c.GetPurpose() == q.GetPurpose() && c.GetMode() == q.GetMode()},
		{"withheld", subset(c.GetWithheld(), q.Fields)},
		{"right", authorization.Validate() == nil},
		{"times", x.timely(c)},
	} {
		if !f.same {
			return nil, fmt.Errorf("clearance is for another %s", f.what)
		}
	}
	return &permit{envelope: raw, hash: sum(raw), clearance: c}, nil
}

// timely holds the times of a clearance to the bounds of the mesh, so that none can be
// kept, or waited for, longer.
func (x *consultation) timely(c *registrypb.Clearance) bool {
	b, now := x.cfg.Bounds, x.cfg.Now()
	issued, presentBy := time.UnixMilli(c.GetIssuedUnixMs()), time.UnixMilli(c.GetPresentByUnixMs())
	releaseBy := time.UnixMilli(c.GetReleaseByUnixMs())
	return !issued.After(now.Add(b.Skew)) && !presentBy.Before(now.Add(-b.Skew)) &&
		!presentBy.Before(issued) && !presentBy.After(issued.Add(b.PresentLife)) &&
		!releaseBy.Before(presentBy) && !releaseBy.After(issued.Add(b.ReleaseLife))
}

// signedBy reports whether a key of the institution that is not retired signed.
func (c *Consultant) signedBy(v record.View, o *envelope.Opened, by names.InstitutionID) error {
	for _, id := range o.KeyIDs() {
		k, err := v.Key(id)
		if err != nil {
			return err
		}
		if k != nil && !k.GetRetired() && k.GetInstitution() == string(by) && c.verifier.VerifiedBy(o, k.GetPublicKey()) {
			return nil
		}
	}
	return fmt.Errorf("%w: no key in force of %s signed", envelope.ErrBadSignature, by)
}

func clearanceKey(id []byte) outbox.Key { return outbox.Key{Table: clearances, ID: string(id)} }

// keepPermits writes clearances down before they are presented, so that each ends
// in the journal: answered, or expired unused.
func (x *consultation) keepPermits(permits []*permit) error {
	var rows []outbox.Change
	for _, p := range permits {
		raw, err := proto.Marshal(&nodepb.KeptClearance{Request: x.kept.Request, Clearance: p.envelope})
		if err != nil {
			return err
		}
		rows = append(rows, outbox.Change{Key: clearanceKey(p.clearance.GetId()), Value: raw})
	}
	x.mu.Lock()
	for _, p := range permits {
		x.inFlight[string(p.clearance.GetId())] = true
	}
	x.mu.Unlock()
	if err := x.cfg.Outbox.Write(rows...); err != nil {
		x.letGo(permits)
		return fmt.Errorf("%w: %w", ErrJournalUnavailable, err)
	}
	return nil
}

// letGo leaves clearances to the sweeper.
func (x *consultation) letGo(permits []*permit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range permits {
		delete(x.inFlight, string(p.clearance.GetId()))
		if p.second != nil {
			delete(x.inFlight, string(p.second.clearance.GetId()))
		}
	}
}
