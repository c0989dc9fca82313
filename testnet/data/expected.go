package data

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Consultation is a question, as an application of an institution would put it.
type Consultation struct {
	Requester names.InstitutionID
	Purpose   names.Purpose
	Dataset   names.DatasetID
	Fields    []names.FieldName // empty: all that are permitted
	Scheme    subject.Scheme
	Number    string
	Period    names.Period
	AuthLevel uint32 // of the human user
	Mandate   bool   // one in force opens it
}

// Answer is what a consultation must bring when every node is up.
type Answer struct {
	Status        nodepb.Status
	Reason        registrypb.Reason // with NO_RESULT
	Successor     subject.ID        // with REPLACED_NUMBER
	Authorization names.AuthorizationID
	Withheld      []names.FieldName
	Suppliers     []Supplied // in order of institution
}

// Supplied is the part of one supplier.
type Supplied struct {
	Supplier names.InstitutionID
	Status   nodepb.Status     // DATA_FOUND or NO_DATA_FOUND
	Records  []json.RawMessage // permitted fields only
}

// Expected says what the answer to c must be on the given day, straight from the
// lives, in the order of the preventive check. It assumes that no institution is
// suspended and that somebody who is no party can clear.
func (w *World) Expected(c Consultation, on names.Date) Answer {
	refuse := func(r registrypb.Reason) Answer {
		return Answer{Status: nodepb.Status_NO_RESULT, Reason: r}
	}
	requester, ok := w.Institution(c.Requester)
	if !ok {
		return refuse(registrypb.Reason_REQUESTER_NOT_ADMITTED)
	}
	id, err := subject.Belgian().Parse(c.Scheme, c.Number)
	if err != nil {
		return refuse(registrypb.Reason_MALFORMED_NUMBER)
	}
	rule := w.authorization(requester.Type, c, on)
	if rule == nil {
		return refuse(registrypb.Reason_NOT_ALLOWED)
	}
	if id.Scheme() != subject.SSIN { // every dataset here is on persons
		return refuse(registrypb.Reason_MALFORMED_NUMBER)
	}
	p, known := w.look(id)
	if !known || !w.hasFile(p, c.Requester, rule.RequesterQualities, c.Period) {
		return refuse(registrypb.Reason_NOT_INTEGRATED)
	}
	switch {
	case p.Former != nil && id == p.Former.SSIN:
		a := refuse(registrypb.Reason_REPLACED_NUMBER)
		a.Successor = p.SSIN
		return a
	case p.Cancelled != names.Forever:
		return refuse(registrypb.Reason_CANCELLED_NUMBER)
	case c.Period.From > p.Death:
		return refuse(registrypb.Reason_DECEASED_SUBJECT)
	}
	dataset, _ := w.Dataset(c.Dataset) // an authorization names it, so it is there
	suppliers := w.suppliers(p, c.Requester, dataset, c.Period)
	if len(suppliers) == 0 {
		return refuse(registrypb.Reason_UNKNOWN_SUBJECT)
	}
	fields, withheld := permitted(rule, c.Fields)
	switch {
	case len(fields) == 0:
		return refuse(registrypb.Reason_NO_PERMITTED_FIELD)
	case rule.MandateRequired && !c.Mandate:
		return refuse(registrypb.Reason_MANDATE_MISSING)
	case c.AuthLevel < rule.MinAuthLevel:
		return refuse(registrypb.Reason_AUTH_LEVEL_TOO_LOW)
	}
	return w.collect(p, dataset, suppliers, c.Period, Answer{
		Authorization: names.AuthorizationID(rule.Id), Withheld: withheld,
	}, fields)
}

// authorization gives the row in force for a consultation, nil if there is none.
// No two rows of this world speak of the same requester, dataset and purpose.
func (w *World) authorization(requester names.InstitutionType, c Consultation, on names.Date) *registrypb.Authorization {
	for _, a := range w.rules {
		if a.RequesterType == string(requester) && a.Dataset == string(c.Dataset) && a.Purpose == string(c.Purpose) &&
			slices.Contains(a.Modes, string(names.Consultation)) && a.Period.From <= int32(on) && int32(on) <= a.Period.Until {
			return a
		}
	}
	return nil
}

// hasFile reports whether an institution has a file on p, under any of the numbers,
// in one of the qualities, that touches the period.
func (w *World) hasFile(p *Person, at names.InstitutionID, qualities []string, period names.Period) bool {
	return slices.ContainsFunc(w.References(p), func(r Reference) bool {
		return r.Institution == at && slices.Contains(qualities, string(r.Quality)) && r.Period.Overlaps(period)
	})
}

// suppliers gives the sources that have a file, in order of their ids. Nobody asks
// itself.
func (w *World) suppliers(p *Person, requester names.InstitutionID, d *Dataset, period names.Period) (found []Institution) {
	qualities := make([]string, len(d.Qualities))
	for i, quality := range d.Qualities {
		qualities[i] = string(quality)
	}
	for _, i := range w.institutions {
		if d.recordsAt(i) != nil && i.ID != requester && w.hasFile(p, i.ID, qualities, period) {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b Institution) int { return cmp.Compare(a.ID, b.ID) })
	return found
}

// permitted splits what is asked by what the authorization allows.
func permitted(rule *registrypb.Authorization, asked []names.FieldName) (fields, withheld []names.FieldName) {
	if len(asked) == 0 {
		for _, f := range rule.Fields {
			fields = append(fields, names.FieldName(f))
		}
		return fields, nil
	}
	for _, f := range asked {
		if slices.Contains(rule.Fields, string(f)) {
			fields = append(fields, f)
		} else {
			withheld = append(withheld, f)
		}
	}
	return fields, withheld
}

func (w *World) collect(p *Person, d *Dataset, suppliers []Institution, period names.Period, a Answer, fields []names.FieldName) Answer {
	a.Status = nodepb.Status_NO_DATA_FOUND
	for _, i := range suppliers {
		s := Supplied{Supplier: i.ID, Status: nodepb.Status_NO_DATA_FOUND}
		for _, r := range d.Records(i, p) {
			if r.Period.Overlaps(period) {
				s.Records = append(s.Records, d.project(r, fields))
			}
		}
		if len(s.Records) > 0 {
			s.Status, a.Status = nodepb.Status_DATA_FOUND, nodepb.Status_DATA_FOUND
		}
		a.Suppliers = append(a.Suppliers, s)
	}
	return a
}

// project writes the record with only some of its fields, in the order of the
// columns.
func (d *Dataset) project(r Record, fields []names.FieldName) json.RawMessage {
	part := &Dataset{ID: d.ID}
	var values []any
	for i, c := range d.Columns {
		if slices.Contains(fields, c.Field) {
			part.Columns = append(part.Columns, c)
			values = append(values, r.Values[i])
		}
	}
	return part.JSON(Record{r.Period, values})
}
