package sector

import (
	"bytes"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// check believes nothing of a forward that it can check itself: that the managing body
// of the own sector signed the permission, for this institution, in time; and that a
// third party cleared the exchange outside, as the managing body's own check had it.
func (x *answering) check() *refusal {
	p := new(nodepb.SectorPermission)
	if err := x.open(envelope.SectorPermission, x.raw.GetPermission(), x.manager, p); err != nil {
		return invalid("the permission is malformed, or not signed by the managing body")
	}
	if no := x.form(p); no != nil {
		return no
	}
	x.permission = p
	if no := x.inTime(p); no != nil {
		return no
	}
	if no := x.looked(func(v record.View) (*refusal, error) { return x.cleared(v, p) }); no != nil {
		return no
	}
	return x.stands()
}

// form judges a permission by itself, so that its names may stand in a journal.
func (x *answering) form(p *nodepb.SectorPermission) *refusal {
	for what, wrong := range map[string]bool{
		"mesh":        p.GetMesh() != string(x.Mesh),
		"id":          len(p.GetId()) != idSize,
		"node":        record.NodeID(p.GetManager()) != x.from,
		"institution": p.GetMember() != string(x.Self.Institution),
		"ticket":      names.Ticket(p.GetTicket()).Validate() != nil,
		"dataset":     names.DatasetID(p.GetDataset()).Validate() != nil,
		"request":     !bytes.Equal(p.GetRequestHash(), sum(x.raw.GetRequest())),
		"clearance":   !bytes.Equal(p.GetClearanceHash(), sum(x.raw.GetClearance())),
		"number of parts": len(p.GetParts()) == 0 || len(p.GetParts()) > directory.MaxParts ||
			len(p.GetFields()) == 0 || len(p.GetFields()) > 256,
	} {
		if wrong {
			return invalid("the permission is for another %s, or malformed", what)
		}
	}
	for _, f := range p.GetFields() {
		if names.FieldName(f).Validate() != nil {
			return invalid("the permission names a malformed field")
		}
	}
	for _, raw := range p.GetParts() {
		q, ok := x.query(p, raw)
		if !ok {
			return invalid("the permission has a malformed part")
		}
		x.parts = append(x.parts, part{q})
	}
	return nil
}

func (x *answering) query(p *nodepb.SectorPermission, raw *nodepb.SectorPart) (q exchange.Query, ok bool) {
	id, err := x.Schemes.Parse(subject.Scheme(raw.GetSubject().GetScheme()), raw.GetSubject().GetNumber())
	period := record.Period(raw.GetPeriod())
	q = exchange.Query{Dataset: names.DatasetID(p.GetDataset()), Subject: id, Period: period,
		Qualities: named[names.Quality](raw.GetQualities()), Fields: named[names.FieldName](p.GetFields())}
	ok = err == nil && id.Number() == raw.GetSubject().GetNumber() && raw.GetPeriod() != nil && period.Validate() == nil &&
		len(q.Qualities) > 0 && len(q.Qualities) <= 64
	for _, quality := range q.Qualities {
		ok = ok && quality.Validate() == nil
	}
	return q, ok
}

func (x *answering) inTime(p *nodepb.SectorPermission) *refusal {
	return x.Member.inTime(x.from, time.UnixMilli(p.GetIssuedUnixMs()), time.UnixMilli(p.GetAnswerByUnixMs()))
}

// inTime judges when a permission was given, and until when.
func (m *Member) inTime(from names.NodeID, issued, answerBy time.Time) *refusal {
	now, skew := m.Now(), m.Bounds.Skew
	switch {
	case issued.After(now.Add(skew)):
		return invalid("the permission comes from the future: compare the clocks of %s and this node", from)
	case answerBy.After(issued.Add(m.Bounds.ReleaseLife)):
		return invalid("the permission gives itself longer than the bounds of the mesh")
	case now.After(answerBy.Add(skew)):
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "it had to be answered by %s", answerBy.UTC().Format(time.RFC3339Nano))
	case issued.Before(m.notBefore):
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "issued before this node can know which it has answered: its disk was restored")
	}
	return nil
}

// cleared checks the clearance as the managing body must have done, and that the
// permission goes no further.
func (x *answering) cleared(v record.View, p *nodepb.SectorPermission) (*refusal, error) {
	request := new(registrypb.Request)
	if _, err := decode(envelope.Request, x.raw.GetRequest(), request); err != nil {
		return invalid("malformed request"), nil
	}
	presented := time.UnixMilli(p.GetPresentedUnixMs())
	if presented.After(x.Now().Add(x.Bounds.Skew)) {
		return invalid("presented in the future"), nil
	}
	c, bad := x.checker.Check(v, presented, x.Bounds, x.Mesh, x.from, record.NodeID(request.GetRequester()), x.raw.GetRequest(), x.raw.GetClearance())
	if bad != nil {
		return refuse(bad.Reason, "the clearance: %s", bad.Detail), nil
	}
	x.checked = c
	switch {
	case string(c.Ticket) != p.GetTicket() || c.Dataset != names.DatasetID(p.GetDataset()):
		return invalid("the permission is for another exchange than the clearance"), nil
	case !slices.Equal(texts(c.Fields), p.GetFields()):
		return invalid("the permission names other fields than the clearance"), nil
	case c.Requester.Institution == x.Self.Institution:
		return invalid("this institution would answer itself"), nil
	}
	for _, q := range x.parts {
		if q.Period.From < c.Period.From || q.Period.Until > c.Period.Until || q.Subject.Scheme() != c.Subject.Scheme() {
			return invalid("the permission goes beyond the period that was cleared"), nil
		}
		for _, quality := range q.Qualities {
			if !slices.Contains(c.Qualities, quality) {
				return invalid("the permission names a quality that gave no route"), nil
			}
		}
	}
	dataset, err := v.Dataset(c.Dataset)
	if err != nil {
		return nil, err
	}
	if dataset == nil {
		return invalid("no such dataset"), nil
	}
	x.schema = dataset.GetSchema()
	return nil, nil
}
