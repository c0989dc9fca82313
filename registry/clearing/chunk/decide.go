package chunk

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// slice is how many subjects are decided before others are let through.
const slice = 64

// rulings are what was decided on the subjects of a chunk.
type rulings struct {
	cleared map[names.InstitutionID][]*cleared
	refused []*refused
	recused packed.Bits
	// managing are the suppliers that speak for a sector.
	managing map[names.InstitutionID]bool
}

// cleared is a ClearedGroup in the making.
type cleared struct {
	key     string
	group   *registrypb.ClearedGroup
	numbers []string
}

type refused struct {
	key     string
	group   *registrypb.RefusedGroup
	numbers []string
}

// decideAll decides on each pending subject, by itself and in one view. pass is called
// every few subjects, and lets others go first.
func decideAll(ctx context.Context, v record.View, self names.InstitutionID, schemes subject.Schemes, r *Request,
	already []string, pending packed.Bits, at time.Time, pass func(context.Context) error) (*rulings, error) {
	v = v.Remembering()
	dataset, err := v.Dataset(names.DatasetID(r.Order.Dataset))
	if err != nil {
		return nil, err
	}
	all := &rulings{cleared: map[names.InstitutionID][]*cleared{}, recused: packed.NewBits(packed.Len(r.Subjects))}
	c := clearing.Case{Self: self, Schemes: schemes, Request: r.Order.Request(r.TimeUnixMs), Cleared: already, At: at}
	for i, number := range packed.All(r.Subjects) {
		if i%slice == 0 && pass != nil {
			if err := pass(ctx); err != nil {
				return nil, err
			}
		}
		if len(pending) > 0 && !pending.Has(i) {
			continue
		}
		c.Request.Subject.Number = number
		d, err := clearing.Decide(v, c)
		if err != nil {
			return nil, err
		}
		if d.Recused {
			all.recused.Set(i)
		}
		if d.Outcome != registrypb.Outcome_PERMIT {
			all.refuse(d, number)
			continue
		}
		for _, to := range d.Destinations {
			all.clear(dataset, d, to, number)
		}
	}
	return all, nil
}

// note looks up which suppliers speak for a sector.
func (all *rulings) note(v record.View) error {
	all.managing = make(map[names.InstitutionID]bool)
	for id := range all.cleared {
		i, err := v.Institution(id)
		if err != nil {
			return err
		}
		all.managing[id] = i.GetManagingBody()
	}
	return nil
}

// clear puts a subject among those that a supplier may answer about under the same terms.
func (all *rulings) clear(dataset *registrypb.Dataset, d clearing.Decision, to clearing.Destination, number string) {
	// Of one order, the authorization decides which fields are permitted.
	var b strings.Builder
	b.WriteString(d.Authorization.GetId())
	for _, q := range to.Qualities {
		b.WriteByte(0)
		b.WriteString(string(q))
	}
	key := b.String()
	groups := all.cleared[to.Supplier]
	at := slices.IndexFunc(groups, func(g *cleared) bool { return g.key == key })
	if at < 0 {
		g := &cleared{key: key, group: &registrypb.ClearedGroup{
			Authorization: d.Authorization.GetId(), Fields: d.Fields, Withheld: d.Withheld, YesNo: YesNo(dataset, d.Fields),
		}}
		for _, q := range to.Qualities {
			g.group.SupplierQualities = append(g.group.SupplierQualities, string(q))
		}
		at, groups = len(groups), append(groups, g)
		all.cleared[to.Supplier] = groups
	}
	g := groups[at]
	if len(to.FiledUnder) > 0 {
		f := &registrypb.FiledUnder{At: uint32(len(g.numbers))}
		for _, id := range to.FiledUnder {
			f.Numbers = append(f.Numbers, id.Number())
		}
		g.group.FiledUnder = append(g.group.FiledUnder, f)
	}
	g.numbers = append(g.numbers, number)
}

// refuse puts a subject among those that were decided alike.
func (all *rulings) refuse(d clearing.Decision, number string) {
	key := d.Outcome.String() + "\x00" + d.Reason.String() + "\x00" + d.Authorization.GetId() + "\x00" + strings.Join(d.Withheld, "\x00")
	at := slices.IndexFunc(all.refused, func(g *refused) bool { return g.key == key })
	if at < 0 {
		at = len(all.refused)
		all.refused = append(all.refused, &refused{key: key, group: &registrypb.RefusedGroup{
			Outcome: d.Outcome, Reason: d.Reason, Authorization: d.Authorization.GetId(), Withheld: d.Withheld,
		}})
	}
	g := all.refused[at]
	g.numbers = append(g.numbers, number)
	if d.Reason == registrypb.Reason_REPLACED_NUMBER {
		g.group.Successors = append(g.group.Successors, d.Successor.Number())
	}
}

// suppliers gives those that were cleared, in order, and the groups of each.
func (all *rulings) suppliers(scheme subject.Scheme) (ids []names.InstitutionID, groups map[names.InstitutionID][]*registrypb.ClearedGroup) {
	groups = make(map[names.InstitutionID][]*registrypb.ClearedGroup)
	for id, list := range all.cleared {
		ids = append(ids, id)
		slices.SortFunc(list, func(a, b *cleared) int { return cmp.Compare(a.key, b.key) })
		for _, g := range list {
			g.group.Subjects = packed.Of(scheme, g.numbers)
			groups[id] = append(groups[id], g.group)
		}
	}
	slices.Sort(ids)
	return ids, groups
}

func (all *rulings) refusedGroups(scheme subject.Scheme) (groups []*registrypb.RefusedGroup) {
	slices.SortFunc(all.refused, func(a, b *refused) int { return cmp.Compare(a.key, b.key) })
	for _, g := range all.refused {
		g.group.Subjects = packed.Of(scheme, g.numbers)
		groups = append(groups, g.group)
	}
	return groups
}
