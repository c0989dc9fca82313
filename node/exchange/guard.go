package exchange

import (
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// guarded is what a passed guard found.
type guarded struct {
	queries []Query // at least one
	schema  string
	index   uint64 // of the registry, up to which nothing forbids
}

// guard checks the clearance, the time and every right, in this node's own view as
// it is now; presented is when the clearance came. It is called before a source is
// asked and again before anything leaves. The second look compares states first: where the
// tables are those of the first look, all that it could find in them is known, and the
// clock alone has moved on.
func (x *presentation) guard(presented time.Time) (g *guarded, no *refusal) {
	standing, err := x.cfg.Registry.Standing()
	if err != nil {
		return nil, refuse(registrypb.Reason_REGISTRY_STALE, "%v", err)
	}
	err = x.cfg.Registry.View(func(v record.View) error {
		if x.in != nil && v.State() == x.in {
			same := *x.passed
			g, no = &same, x.expired()
			return nil
		}
		var failed error
		g, no, failed = x.guardIn(v.Remembering(), presented)
		if failed == nil && no == nil {
			x.passed, x.in = g, v.State()
		}
		return failed
	})
	if err != nil {
		return nil, refuse(registrypb.Reason_REGISTRY_STALE, "registry cannot be read: %v", err)
	}
	if no != nil {
		return nil, no
	}
	g.index = standing.Index
	return g, nil
}

func (x *presentation) guardIn(v record.View, presented time.Time) (*guarded, *refusal, error) {
	var bad *clearing.Refusal
	if x.checked == nil && x.part != nil {
		x.checked, bad = x.checker.CheckPart(v, presented, x.cfg.Bounds, x.cfg.Mesh, x.cfg.Self, x.from, *x.part)
	} else if x.checked == nil {
		x.checked, bad = x.checker.Check(v, presented, x.cfg.Bounds, x.cfg.Mesh, x.cfg.Self, x.from, x.raw.GetRequest(), x.raw.GetClearance())
	} else {
		bad = x.checked.Recheck(v, x.cfg.Now(), x.cfg.Mesh)
	}
	if bad != nil {
		return nil, refuse(bad.Reason, "%s", bad.Detail), nil
	}
	if no := x.expired(); no != nil {
		return nil, no, nil
	}
	if issued := time.UnixMilli(x.clearance.GetIssuedUnixMs()); issued.Before(x.cfg.NotBefore) {
		return nil, refuse(registrypb.Reason_CLEARANCE_EXPIRED, "issued before this node can know which it has seen: its disk was restored"), nil
	}
	c := x.checked
	dataset, err := v.Dataset(c.Dataset)
	if err != nil {
		return nil, nil, err
	}
	if dataset == nil {
		return nil, refuse(registrypb.Reason_CLEARANCE_INVALID, "no such dataset"), nil
	}
	if same, err := x.sameSubject(v); err != nil || !same {
		return nil, refuse(registrypb.Reason_CLEARANCE_INVALID, "it names numbers that are not of its subject"), err
	}
	queries, err := x.queries(v)
	if err != nil {
		return nil, nil, err
	}
	if len(queries) > maxQueries {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "own files stand under more than %d numbers of one subject", maxQueries), nil
	}
	if len(queries) == 0 {
		return nil, refuse(registrypb.Reason_REVOKED, "no own reference in force that gave the route"), nil
	}
	return &guarded{queries: queries, schema: dataset.GetSchema()}, nil, nil
}

// sameSubject reports whether the numbers that the clearance names beside the one
// asked by are numbers at all and, as far as this node can know, the same subject's: a
// member holds the history of numbers, any other node believes the clearing peer.
func (x *presentation) sameSubject(v record.View) (bool, error) {
	for _, id := range x.checked.FiledUnder {
		parsed, err := x.cfg.Schemes.Parse(id.Scheme(), id.Number())
		if err != nil || parsed != id {
			return false, nil
		}
	}
	if len(x.checked.FiledUnder) == 0 {
		return true, nil
	}
	member, err := v.IsMember(x.cfg.Self)
	if err != nil || !member {
		return true, err
	}
	family, err := v.Family(x.checked.Subject)
	foreign := func(id subject.ID) bool { return !slices.Contains(family, id) }
	return !slices.ContainsFunc(x.checked.FiledUnder, foreign), err
}

// maxQueries is one more than the other subjects that a journal entry can name.
const maxQueries = 17

// queries are what the source is asked: one for each number under which this
// institution has a file that gave the route, as its own references say.
func (x *presentation) queries(v record.View) (queries []Query, err error) {
	c := x.checked
	for _, id := range append([]subject.ID{c.Subject}, c.FiledUnder...) {
		refs, err := v.References(id)
		if err != nil {
			return nil, err
		}
		for _, r := range refs {
			if r.Institution != x.cfg.Self.Institution || !r.Period.Overlaps(c.Period) || !slices.Contains(c.Qualities, r.Quality) {
				continue
			}
			at := slices.IndexFunc(queries, func(q Query) bool { return q.Subject == r.Filed })
			if at < 0 {
				at = len(queries)
				queries = append(queries, Query{Dataset: c.Dataset, Subject: r.Filed, Period: c.Period, Fields: c.Fields})
			}
			if q := &queries[at]; !slices.Contains(q.Qualities, r.Quality) {
				q.Qualities = append(q.Qualities, r.Quality)
			}
		}
	}
	return queries, nil
}

// stillStands looks once more, cheaply if the registry has not moved on.
func (x *presentation) stillStands(g *guarded, presented time.Time) *refusal {
	standing, err := x.cfg.Registry.Standing()
	switch {
	case err != nil:
		return refuse(registrypb.Reason_REGISTRY_STALE, "%v", err)
	case standing.Index != g.index:
		_, no := x.guard(presented)
		return no
	}
	return x.expired()
}

// expired refuses once nothing may leave any more.
func (x *presentation) expired() *refusal {
	if x.cfg.Now().After(x.checked.ReleaseBy) {
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "data had to leave by %s", x.checked.ReleaseBy)
	}
	return nil
}
