package clearing

import (
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Case is what is to be decided: a request whose form and signature were checked.
type Case struct {
	Self    names.InstitutionID // the clearing peer's
	Schemes subject.Schemes
	Request *registrypb.Request
	Cleared []string // suppliers that other peers have cleared
	// At is when it is decided. An authorization must be in force on the day of the
	// request and on this one: the former is only what the requester says.
	At time.Time
}

// Decision is the outcome of the preventive check.
type Decision struct {
	// Outcome is unspecified when Recused says that this peer may not decide.
	Outcome registrypb.Outcome
	Reason  registrypb.Reason
	// Recused: the peer is a party to all of this (no Outcome), or to some of it
	// (PERMIT for the rest), and another must be asked.
	Recused bool
	// Authorization is the row that the decision rests on. It is nil when nothing
	// may be told that depends on the subject.
	Authorization    *registrypb.Authorization
	Fields, Withheld []string
	Destinations     []Destination // in order of supplier
	Successor        subject.ID    // for REPLACED_NUMBER
	// Mandate is the one that a permit rests on, where the authorization asks for one.
	Mandate *record.Mandate
}

// Destination is a supplier, and the qualities of the files that give the route.
type Destination struct {
	Supplier  names.InstitutionID
	Qualities []names.Quality
	// FiledUnder are the numbers, other than the one asked by, under which the
	// supplier's files stand: those it replaced.
	FiledUnder []subject.ID
}

func deny(r registrypb.Reason) Decision {
	return Decision{Outcome: registrypb.Outcome_DENY, Reason: r}
}

// Decide makes the preventive check, step by step in its published order. It reads
// nothing but its arguments, not even a clock. The error is that of the view.
func Decide(v record.View, c Case) (Decision, error) {
	req := c.Request
	from := record.NodeID(req.Requester)

	// 1. The requester is admitted, and not suspended.
	stands, err := v.NodeStands(from)
	if err != nil {
		return Decision{}, err
	}
	if !stands {
		return deny(registrypb.Reason_REQUESTER_NOT_ADMITTED), nil
	}
	requester, err := v.Institution(from.Institution)
	if err != nil {
		return Decision{}, err
	}
	self, err := v.Institution(c.Self)
	if err != nil {
		return Decision{}, err
	}
	if self == nil || party(self, requester) { // says nothing of the subject
		return Decision{Recused: true}, nil
	}

	// 2. The number is well formed, and as its scheme writes it.
	id, err := c.Schemes.Parse(subject.Scheme(req.Subject.GetScheme()), req.Subject.GetNumber())
	if err != nil || id.Number() != req.Subject.GetNumber() {
		return deny(registrypb.Reason_MALFORMED_NUMBER), nil
	}

	// 3. An authorization is in force.
	rows, d, err := inForce(v, requester, req, id, c.At)
	if err != nil || len(rows) == 0 {
		return d, err
	}

	// 4. The requester is integrated, under this number or one that is the same subject's.
	current, err := v.Current(id)
	if err != nil {
		return Decision{}, err
	}
	refs, err := v.References(current)
	if err != nil {
		return Decision{}, err
	}
	rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool {
		return !integrated(refs, from.Institution, z.RequesterQualities, record.Period(req.Period))
	})
	if len(rows) == 0 {
		return deny(registrypb.Reason_NOT_INTEGRATED), nil
	}

	// 5. Now what became of the number may be told.
	if d, told, err := numberTold(v, id, record.Period(req.Period)); told || err != nil {
		d.Authorization = rows[0]
		return d, err
	}

	// 6. The suppliers that hold a file and offer the dataset for it.
	to, err := destinations(v, req, current, refs)
	if err != nil {
		return Decision{}, err
	}
	if len(to) == 0 {
		d := deny(registrypb.Reason_UNKNOWN_SUBJECT)
		d.Authorization = rows[0]
		return d, nil
	}

	// 7. This peer is no party to what it clears.
	to, recused, err := withoutParties(v, self, to, c.Cleared)
	if err != nil {
		return Decision{}, err
	}
	if recused && len(to) == 0 {
		return Decision{Recused: true}, nil
	}

	// 8 and 9. Fields, and what else the authorization asks for.
	mandate, err := mandateFor(v, rows, req, current, c.At)
	if err != nil {
		return Decision{}, err
	}
	d = best(rows, req, mandate != nil)
	if d.Outcome == registrypb.Outcome_PERMIT {
		d.Recused = recused
		if d.Authorization.MandateRequired {
			d.Mandate = mandate
		}
		if d.Destinations = to; len(to) > MaxSuppliers {
			d.Destinations, d.Recused = to[:MaxSuppliers], true
		}
	}
	return d, nil
}

// inForce gives the rows that are in force on the day of the request and on that of
// the decision; if there are none, the decision.
func inForce(v record.View, requester *registrypb.Institution, req *registrypb.Request, id subject.ID, decided time.Time) ([]*registrypb.Authorization, Decision, error) {
	rows, err := v.AuthorizationsFor(names.InstitutionType(requester.Type), names.DatasetID(req.Dataset), names.Purpose(req.Purpose))
	if err != nil {
		return nil, Decision{}, err
	}
	rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool { return !slices.Contains(z.Modes, req.Mode) })
	if len(rows) == 0 {
		return nil, Decision{Outcome: registrypb.Outcome_NOT_APPLICABLE, Reason: registrypb.Reason_NOT_ALLOWED}, nil
	}
	rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool { return !isInForce(z, req, decided) })
	if len(rows) == 0 {
		return nil, deny(registrypb.Reason_NOT_ALLOWED), nil
	}
	dataset, err := v.Dataset(names.DatasetID(req.Dataset))
	if err != nil {
		return nil, Decision{}, err
	}
	if dataset.GetScheme() != string(id.Scheme()) { // an enterprise's number for a dataset on persons
		return nil, deny(registrypb.Reason_MALFORMED_NUMBER), nil
	}
	return rows, Decision{}, nil
}

func isInForce(z *registrypb.Authorization, req *registrypb.Request, decided time.Time) bool {
	asked := names.DateOf(time.UnixMilli(req.TimeUnixMs).UTC())
	period := record.Period(z.Period)
	return !z.Revoked && period.Contains(asked) && period.Contains(names.DateOf(decided.UTC()))
}

// integrated reports whether inst holds a reference in one of the qualities that
// overlaps the period.
func integrated(refs []record.Reference, inst names.InstitutionID, qualities []string, period names.Period) bool {
	return slices.ContainsFunc(refs, func(r record.Reference) bool {
		return r.Institution == inst && slices.Contains(qualities, string(r.Quality)) && r.Period.Overlaps(period)
	})
}

// numberTold decides on numbers that were replaced or cancelled, and on subjects
// who were dead before the period began.
func numberTold(v record.View, id subject.ID, period names.Period) (d Decision, told bool, err error) {
	state, err := v.Number(id)
	switch {
	case err != nil:
		return Decision{}, false, err
	case state.Replaced:
		d = deny(registrypb.Reason_REPLACED_NUMBER)
		d.Successor = state.Successor
	case state.Cancelled:
		d = deny(registrypb.Reason_CANCELLED_NUMBER)
	case state.DeceasedOn != nil && period.From > *state.DeceasedOn:
		d = deny(registrypb.Reason_DECEASED_SUBJECT)
	default:
		return Decision{}, false, nil
	}
	return d, true, nil
}

// destinations gives the suppliers, other than the requester and within those it
// asks for, whose offering covers a file of theirs on some day of the period.
func destinations(v record.View, req *registrypb.Request, current subject.ID, refs []record.Reference) (to []Destination, err error) {
	offerings, err := v.OfferingsOf(names.DatasetID(req.Dataset))
	if err != nil {
		return nil, err
	}
	for _, o := range offerings {
		if o.Withdrawn || o.Institution == req.Requester.GetInstitution() ||
			len(req.Suppliers) > 0 && !slices.Contains(req.Suppliers, o.Institution) {
			continue
		}
		d := Destination{Supplier: names.InstitutionID(o.Institution)}
		for _, r := range refs {
			if r.Institution != d.Supplier || !covers(o, r, record.Period(req.Period)) {
				continue
			}
			if !slices.Contains(d.Qualities, r.Quality) {
				d.Qualities = append(d.Qualities, r.Quality)
			}
			if r.Filed != current && !slices.Contains(d.FiledUnder, r.Filed) && len(d.FiledUnder) < maxFiledUnder {
				d.FiledUnder = append(d.FiledUnder, r.Filed)
			}
		}
		if len(d.Qualities) == 0 {
			continue
		}
		stands, err := v.Stands(d.Supplier)
		if err != nil {
			return nil, err
		}
		if stands {
			to = append(to, d)
		}
	}
	return to, nil
}

// covers reports whether offering, file and question share a day.
func covers(o *registrypb.Offering, r record.Reference, asked names.Period) bool {
	offered := record.Period(o.Period)
	return slices.Contains(o.Qualities, string(r.Quality)) &&
		max(offered.From, r.Period.From, asked.From) <= min(offered.Until, r.Period.Until, asked.Until)
}

// withoutParties takes away the suppliers that are cleared, and those to which self
// is a party; it is recused if there are any of these.
func withoutParties(v record.View, self *registrypb.Institution, to []Destination, cleared []string) (rest []Destination, recused bool, err error) {
	for _, d := range to {
		if slices.Contains(cleared, string(d.Supplier)) {
			continue
		}
		supplier, err := v.Institution(d.Supplier)
		if err != nil {
			return nil, false, err
		}
		if party(self, supplier) {
			recused = true
			continue
		}
		rest = append(rest, d)
	}
	return rest, recused, nil
}

// mandateFor gives the mandate in force that opens what is asked to the requester, on the
// day of the request and on that of the decision: of several the first, by the number now
// in use and by id. It looks for one only where a row asks for it.
func mandateFor(v record.View, rows []*registrypb.Authorization, req *registrypb.Request, about subject.ID, decided time.Time) (*record.Mandate, error) {
	if !slices.ContainsFunc(rows, func(z *registrypb.Authorization) bool { return z.MandateRequired }) {
		return nil, nil
	}
	all, err := v.MandatesOf(about)
	if err != nil {
		return nil, err
	}
	asked, today := names.DateOf(time.UnixMilli(req.TimeUnixMs).UTC()), names.DateOf(decided.UTC())
	for _, m := range all {
		if m.Opens(names.InstitutionID(req.Requester.GetInstitution()), names.Purpose(req.Purpose), names.DatasetID(req.Dataset)) &&
			m.InForce(asked) && m.InForce(today) {
			return m, nil
		}
	}
	return nil, nil
}

// best decides by the row that permits most of what is asked; among equals, and
// when none permits, by the first.
func best(rows []*registrypb.Authorization, req *registrypb.Request, mandate bool) (best Decision) {
	for i, z := range rows {
		d := byRow(z, req, mandate)
		better := d.Outcome == registrypb.Outcome_PERMIT &&
			(best.Outcome != registrypb.Outcome_PERMIT || len(d.Fields) > len(best.Fields))
		if i == 0 || better {
			best = d
		}
	}
	return best
}

// byRow makes steps 8 and 9 under one authorization; mandate says that there is one in
// force. Mandates and second clearing peers are for consultations: what clears many
// subjects at once shows neither.
func byRow(z *registrypb.Authorization, req *registrypb.Request, mandate bool) Decision {
	d := Decision{Outcome: registrypb.Outcome_PERMIT, Authorization: z}
	d.Fields, d.Withheld = permitted(req.Fields, z.Fields)
	single := req.Mode == string(names.Consultation)
	switch {
	case len(d.Fields) == 0:
		d.Reason = registrypb.Reason_NO_PERMITTED_FIELD
	case z.MandateRequired && !(mandate && single):
		d.Reason = registrypb.Reason_MANDATE_MISSING
	case req.AuthLevel < z.MinAuthLevel:
		d.Reason = registrypb.Reason_AUTH_LEVEL_TOO_LOW
	case z.SecondClearingPeer && !single:
		d.Reason = registrypb.Reason_NO_ELIGIBLE_CLEARER
	default:
		return d
	}
	d.Outcome, d.Fields = registrypb.Outcome_DENY, nil
	return d
}
