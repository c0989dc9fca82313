package traffic

import (
	"encoding/json"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Change is one that an institution publishes, and how many must be told of it.
type Change struct {
	From    names.InstitutionID
	Request api.PublicationRequest
	Told    int
}

// changing is a kind of change: who publishes it, about whom, and what is told.
type changing struct {
	from    names.InstitutionID
	dataset names.DatasetID
	about   names.Period
	who     func(*data.Person) bool
	record  func(*data.Person) string
	fields  []names.FieldName
}

var lastQuarter = names.Period{From: data.Today - 92, Until: data.Today - 1}

// works tells whether somebody has had a job for a while that goes on.
func works(p *data.Person) bool {
	for _, j := range p.Jobs {
		if j.From <= lastQuarter.From && j.Until == names.Forever {
			return true
		}
	}
	return false
}

// lives tells whether a person's number is in use and is the only one.
func lives(p *data.Person) bool {
	return p.Former == nil && p.Death == names.Forever && p.Cancelled == names.Forever
}

var changings = []changing{
	{"national-register", "person-address/v1", names.Period{From: data.Today + 3, Until: names.Forever}, func(p *data.Person) bool { return !p.Bis },
		func(p *data.Person) string {
			return fmt.Sprintf(`{"street":"Korenmarkt","house_number":"%d","postal_code":"9000","municipality":"Ghent","start_date":"2026-01-04","end_date":null}`, 1+p.Index%400)
		}, []names.FieldName{"street", "house_number", "postal_code", "municipality", "start_date", "end_date"}},
	{"nsso", "wages-quarterly/v1", lastQuarter, works,
		func(p *data.Person) string {
			return fmt.Sprintf(`{"year":2025,"quarter":4,"employer_number":"123456778","gross_wage":%d.50,"days_employed":60,"working_time_percent":100}`, 6000+p.Index%4000)
		}, []names.FieldName{"year", "quarter", "employer_number", "gross_wage", "days_employed", "working_time_percent"}},
}

// Changes gives changes of which at least so many deliveries come, if there are persons
// enough: a person moves, and the wages of a quarter are known.
func Changes(w *data.World, deliveries int, on names.Date) (all []Change) {
	for p := range w.Persons() {
		if deliveries <= 0 {
			break
		}
		if !lives(p) {
			continue
		}
		for _, c := range changings {
			if !c.who(p) {
				continue
			}
			told := len(w.Told(p, c.from, c.dataset, c.about, c.fields, on))
			if told == 0 {
				continue
			}
			about := c.about
			all = append(all, Change{From: c.from, Told: told, Request: api.PublicationRequest{
				Subject: subjectOf(p), Dataset: c.dataset, Period: &about, Record: json.RawMessage(c.record(p)),
			}})
			deliveries -= told
		}
	}
	return all
}

func subjectOf(p *data.Person) api.Subject {
	return api.Subject{Scheme: string(subject.SSIN), Number: p.SSIN.Number()}
}
