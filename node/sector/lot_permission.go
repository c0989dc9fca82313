package sector

import (
	"bytes"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// check believes nothing that it can check itself: the managing body's permission, and, by
// the outline, that a third party cleared each of these subjects for it.
func (x *lotAnswering) check() *refusal {
	p := new(nodepb.SectorLotPermission)
	if err := x.open(envelope.SectorLotPermission, x.raw.GetPermission(), x.manager, p); err != nil {
		return invalid("the permission is malformed, or not signed by the managing body")
	}
	n := packed.Len(p.GetSubjects())
	for what, wrong := range map[string]bool{
		"mesh":               p.GetMesh() != string(x.Mesh),
		"id":                 len(p.GetId()) != idSize,
		"node":               record.NodeID(p.GetManager()) != x.from,
		"institution":        p.GetMember() != string(x.Self.Institution),
		"ticket":             names.Ticket(p.GetTicket()).Validate() != nil,
		"outline":            !bytes.Equal(p.GetOutlineHash(), sum(x.raw.GetOutline())),
		"number of subjects": n == 0 || len(p.GetPlaces()) != n || len(p.GetBlindings()) != n*chunk.BlindingSize,
		"list of subjects":   packed.Check(p.GetSubjects(), x.Schemes, chunk.MaxOutlined) != nil,
	} {
		if wrong {
			return invalid("the permission is for another %s, or malformed", what)
		}
	}
	x.permission = p
	if no := x.inTime(x.from, time.UnixMilli(p.GetIssuedUnixMs()), time.UnixMilli(p.GetAnswerByUnixMs())); no != nil {
		return no
	}
	if no := x.looked(x.cleared); no != nil {
		return no
	}
	return x.stands()
}

// cleared checks the outline as the managing body must have checked the clearance, and that
// the permission goes no further.
func (x *lotAnswering) cleared(v record.View) (*refusal, error) {
	p := x.permission
	read, bad := chunk.ReadOutline(x.Mesh, x.raw.GetDemand(), x.raw.GetOutline())
	if bad != nil {
		return refuse(bad.Reason, "the clearance: %s", bad.Detail), nil
	}
	presented := time.UnixMilli(p.GetPresentedUnixMs())
	requester := record.NodeID(read.Order.Requester)
	switch {
	case presented.After(x.Now().Add(x.Bounds.Skew)):
		return invalid("presented in the future"), nil
	case string(read.Order.Ticket) != p.GetTicket() || !bytes.Equal(read.Clearance.GetRequestHash(), p.GetRequestHash()) || read.Order.Scheme != p.GetSubjects().GetScheme():
		return invalid("the permission is for another chunk than the clearance"), nil
	case !bytes.Equal(read.Demand.GetClearanceHash(), p.GetClearanceHash()):
		return invalid("the demand is for another clearance than the permission"), nil
	case requester.Institution == x.Self.Institution:
		return invalid("this institution would answer itself"), nil
	}
	c, bad := x.lots.Check(v, presented, x.Bounds, x.Mesh, x.from, requester, read)
	if bad != nil {
		return refuse(bad.Reason, "the clearance: %s", bad.Detail), nil
	}
	x.read = read
	if no := x.named(c); no != nil {
		return no, nil
	}
	dataset, err := v.Dataset(names.DatasetID(read.Order.Dataset))
	if err != nil {
		return nil, err
	}
	if dataset == nil {
		return invalid("no such dataset"), nil
	}
	x.checked, x.schema = c, dataset.GetSchema()
	return nil, nil
}

// named finds each subject of the permission in the outline, and what to look up of it.
func (x *lotAnswering) named(c *chunk.Checked) *refusal {
	p := x.permission
	routes := p.GetRoutes()
	var subjects []lotSubject
	for i, number := range packed.All(p.GetSubjects()) {
		if i > 0 && p.Places[i] <= p.Places[i-1] {
			return invalid("the permission names a subject twice, or in no order")
		}
		var route *nodepb.SectorLotRoute
		if len(routes) > 0 && routes[0].GetAt() == uint32(i) {
			route, routes = routes[0], routes[1:]
		}
		group, ok := x.read.Outlined(int(p.Places[i]), p.Blindings[i*chunk.BlindingSize:(i+1)*chunk.BlindingSize], number, route.GetFiledUnder())
		if !ok {
			return invalid("the permission names a subject that was not cleared")
		}
		s := lotSubject{number: number, cleared: c.Groups[group]}
		if no := x.lookUp(&s, route); no != nil {
			return no
		}
		subjects = append(subjects, s)
	}
	if len(routes) > 0 {
		return invalid("the permission has a malformed part")
	}
	x.subjects = subjects
	return nil
}

func (x *lotAnswering) lookUp(s *lotSubject, route *nodepb.SectorLotRoute) *refusal {
	c := s.cleared
	if route == nil {
		s.queries = []exchange.Query{{Dataset: c.Dataset, Subject: subject.Raw(c.Subject.Scheme(), s.number), Period: c.Period, Qualities: c.Qualities, Fields: c.Fields}}
		return nil
	}
	if len(route.GetParts()) == 0 || len(route.GetParts()) > directory.MaxParts {
		return invalid("the permission is for another number of parts, or malformed")
	}
	for _, part := range route.GetParts() {
		id, err := x.Schemes.Parse(subject.Scheme(part.GetSubject().GetScheme()), part.GetSubject().GetNumber())
		period := record.Period(part.GetPeriod())
		switch {
		case err != nil || id.Number() != part.GetSubject().GetNumber() || part.GetPeriod() == nil || period.Validate() != nil || len(part.GetQualities()) == 0:
			return invalid("the permission has a malformed part")
		case period.From < c.Period.From || period.Until > c.Period.Until || id.Scheme() != c.Subject.Scheme():
			return invalid("the permission goes beyond the period that was cleared")
		}
		q := exchange.Query{Dataset: c.Dataset, Subject: id, Period: period, Qualities: named[names.Quality](part.GetQualities()), Fields: c.Fields}
		for _, quality := range q.Qualities {
			if !slices.Contains(c.Qualities, quality) {
				return invalid("the permission names a quality that gave no route")
			}
		}
		s.queries = append(s.queries, q)
	}
	return nil
}

func (x *lotAnswering) stands() *refusal {
	return x.Member.stands(x.permission.GetAnswerByUnixMs(), func(v record.View) *clearing.Refusal { return x.checked.Recheck(v, x.Now(), x.Mesh) })
}
