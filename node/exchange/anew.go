package exchange

import (
	"context"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// anewTries is how often one supplier is cleared anew, and anewPause how long the first
// try waits; the second waits four times as long.
const (
	anewTries = 2
	anewPause = 50 * time.Millisecond
)

// presentAnew presents a permit and, when its supplier finds the clearance invalid, another
// one. An honest clearance becomes invalid on its way when the member that gave it, or the
// leader that granted it its standing, leaves the members; and the supplier may know of a
// new member later than others. The right is looked up anew by whoever clears, and again by
// the supplier, so that nothing that was taken away is honoured for it.
func (x *consultation) presentAnew(ctx context.Context, p *permit, all []*permit) *reply {
	r := x.present(ctx, p)
	for try := range anewTries {
		if !r.answered() || r.reason != registrypb.Reason_CLEARANCE_INVALID || pause(ctx, anewPause<<(2*try)) != nil {
			break
		}
		q := x.clearAnew(ctx, r.permit, all)
		if q == nil {
			break
		}
		again := x.present(ctx, q)
		again.earlier = r
		r = again
	}
	return r
}

// clearAnew has a member, another one if there is, clear the supplier of p once more; nil:
// none does. The caller lets the permit go.
func (x *consultation) clearAnew(ctx context.Context, p *permit, all []*permit) *permit {
	candidates, err := x.candidates()
	if err != nil {
		return nil
	}
	was := record.NodeID(p.clearance.GetClearer())
	if i := slices.Index(candidates, was); i >= 0 {
		candidates = append(slices.Delete(candidates, i, i+1), was)
	}
	supplier := func(q *permit) names.InstitutionID { return names.InstitutionID(q.clearance.GetSupplier()) }
	r := new(ruling)
	for _, q := range all {
		if supplier(q) != supplier(p) {
			r.permits = append(r.permits, q)
		}
	}
	had := len(r.permits)
	_, _, err = x.search(ctx, candidates, r)
	fresh := &ruling{permits: r.permits[had:]}
	if err == nil {
		err = x.clearSecond(ctx, ctx, fresh)
	}
	if err != nil { // the journal says so elsewhere: what the supplier replied stands
		x.letGo(fresh.permits)
		return nil
	}
	var found *permit
	for _, q := range fresh.permits {
		if found == nil && supplier(q) == supplier(p) {
			found = q
		} else {
			x.letGo([]*permit{q})
		}
	}
	if found != nil {
		x.cfg.Log.Info("cleared anew", "supplier", p.clearance.GetSupplier(), "ticket", x.ticket, "first", was.String(), "now", record.NodeID(found.clearance.GetClearer()).String())
	}
	return found
}

// allOf gives replies, each after those that came before it.
func allOf(replies []*reply) (all []*reply) {
	for _, r := range replies {
		at := len(all)
		for ; r != nil; r = r.earlier {
			all = slices.Insert(all, at, r)
		}
	}
	return all
}
