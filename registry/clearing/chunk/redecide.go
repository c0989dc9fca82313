package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxAgain is how many subjects of one ruling are decided again at a time.
const MaxAgain = 32

// Ruling is what a clearing peer signed on a chunk, and can be held to: a clearance, or the
// decision on those whom it refused.
type Ruling struct {
	Order   *Order
	Clearer names.NodeID
	Index   uint64

	opened    *envelope.Opened
	clearance *registrypb.ChunkClearance // one of the two
	decision  *registrypb.ChunkDecision
}

// OpenRuling reads what is to be decided again. It verifies no signature. The error wraps
// clearing.ErrMalformed.
func OpenRuling(mesh names.MeshID, rr *registrypb.RedecideChunkRequest) (*Ruling, error) {
	o, err := OpenOrder(mesh, rr.GetOrder())
	if err != nil {
		return nil, err
	}
	w := &Ruling{Order: o}
	var orderHash []byte
	if (len(rr.GetClearance()) > 0) == (len(rr.GetDecision()) > 0) {
		return nil, fmt.Errorf("%w: want a clearance or a decision", clearing.ErrMalformed)
	}
	if len(rr.GetDecision()) > 0 {
		d := new(registrypb.ChunkDecision)
		w.opened, err = clearing.Open(envelope.LotDecision, rr.Decision, d)
		w.decision, w.Clearer, w.Index, orderHash = d, record.NodeID(d.Clearer), d.RegistryIndex, d.OrderHash
	} else {
		c := new(registrypb.ChunkClearance)
		w.opened, err = clearing.Open(envelope.LotClearance, rr.Clearance, c)
		w.clearance, w.Clearer, w.Index, orderHash = c, record.NodeID(c.Clearer), c.RegistryIndex, c.OrderHash
	}
	if err == nil && (!bytes.Equal(orderHash, o.Hash) || w.Clearer.Validate() != nil) {
		err = errors.New("what was decided is another order")
	}
	for _, s := range w.lists() {
		if err == nil {
			err = packed.CheckForm(s, MaxSubjects)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", clearing.ErrMalformed, err)
	}
	return w, nil
}

func (w *Ruling) lists() (all []*registrypb.Subjects) {
	for _, g := range w.clearance.GetGroups() {
		all = append(all, g.GetSubjects())
	}
	for _, g := range w.decision.GetGroups() {
		all = append(all, g.GetSubjects())
	}
	return all
}

// Len gives how many subjects it is about.
func (w *Ruling) Len() (n int) {
	for _, s := range w.lists() {
		n += packed.Len(s)
	}
	return n
}

// at gives the subject in a place, and what was ruled on it as if it had been asked alone.
func (w *Ruling) at(place int) (*registrypb.Request, *clearing.Ruling, error) {
	for i, s := range w.lists() {
		n := packed.Len(s)
		if place >= n {
			place -= n
			continue
		}
		number := packed.At(s, place)
		if w.clearance != nil {
			req := w.Order.Request(w.clearance.RequestTimeUnixMs)
			req.Subject.Number = number
			return req, clearing.RulingOn(Single(w.clearance, w.clearance.Groups[i]), nil), nil
		}
		d, g := w.decision, w.decision.Groups[i]
		req := w.Order.Request(d.RequestTimeUnixMs)
		req.Subject.Number = number
		single := &registrypb.Decision{
			Mesh: d.Mesh, Ticket: d.Ticket, Clearer: d.Clearer, Requester: d.Requester, RequestHash: d.RequestHash, Outcome: g.Outcome, Reason: g.Reason,
			Recused: g.Outcome == registrypb.Outcome_OUTCOME_UNSPECIFIED, Withheld: g.Withheld, Authorization: g.Authorization,
			RegistryIndex: d.RegistryIndex, TimeUnixMs: d.TimeUnixMs, Cleared: d.Cleared,
		}
		if place < len(g.Successors) {
			single.Successor = &registrypb.Subject{Scheme: s.Scheme, Number: g.Successors[place]}
		}
		return req, clearing.RulingOn(nil, single), nil
	}
	return nil, nil, fmt.Errorf("%w: it is about fewer subjects", clearing.ErrMalformed)
}

// Differs says where the ruling departs from what was decided again on its places: empty,
// where it does not.
func (w *Ruling) Differs(places []uint32, again *registrypb.RedecideChunkResponse) string {
	if len(again.GetDecisions()) != len(places) {
		return "it decided on another number of subjects"
	}
	for i, p := range places {
		_, was, err := w.at(int(p))
		if err != nil {
			return "it is about fewer subjects"
		}
		if d := was.Differs(again.Decisions[i]); d != "" {
			return d
		}
	}
	return ""
}

// Redecider decides some subjects of a chunk again, as of the same state of the registry.
type Redecider struct {
	Self     names.NodeID
	Mesh     names.MeshID
	Decider  *clearing.Redecider
	Registry interface {
		View(fn func(record.View) error) error
	}
}

// Redecide decides on what from shows, which must be a member, or the requester or supplier
// of what was in truth decided. The errors are those of clearing.Redecider.Redecide.
func (r *Redecider) Redecide(ctx context.Context, from names.NodeID, rr *registrypb.RedecideChunkRequest) (*registrypb.RedecideChunkResponse, error) {
	if len(rr.GetPlaces()) == 0 || len(rr.Places) > MaxAgain {
		return nil, fmt.Errorf("%w: %d places, want 1 to %d", clearing.ErrMalformed, len(rr.Places), MaxAgain)
	}
	w, err := OpenRuling(r.Mesh, rr)
	if err != nil {
		return nil, err
	}
	resp := new(registrypb.RedecideChunkResponse)
	return resp, r.Registry.View(func(v record.View) error {
		if err := r.entitled(v, from, w); err != nil {
			return err
		}
		for _, p := range rr.Places {
			req, was, err := w.at(int(p))
			if err != nil {
				return err
			}
			again, err := r.Decider.DecideAgain(v, req, was, ctx.Err)
			if err != nil {
				return err
			}
			resp.Decisions = append(resp.Decisions, again)
		}
		return nil
	})
}

func (r *Redecider) entitled(v record.View, from names.NodeID, w *Ruling) error {
	if ok, err := v.IsMember(r.Self); err != nil || !ok {
		return errors.Join(err, clearing.ErrNotMember)
	}
	requester := names.InstitutionID(w.Order.Requester.GetInstitution())
	for _, s := range []struct {
		by names.InstitutionID
		o  *envelope.Opened
	}{{requester, w.Order.Signed}, {w.Clearer.Institution, w.opened}} {
		keys, err := v.KeysOf(s.by)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys, func(k *registrypb.Key) bool { return s.o.VerifiedBy(k.PublicKey) }) {
			return fmt.Errorf("%w: %s", clearing.ErrBadSignature, s.by)
		}
	}
	if from.Institution == requester || string(from.Institution) == w.clearance.GetSupplier() {
		return nil
	}
	member, err := v.IsMember(from)
	if err == nil && !member {
		err = clearing.ErrNotParty
	}
	return err
}
