package data

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// CareerPurpose is that of the authorizations for career records.
const CareerPurpose names.Purpose = "career-check"

const qCareerRecord names.Quality = "career-record"

// careerColumns make a record of some 1 KB: one year of a career as an employer, a
// payroll office and a fund would write it down, by quarter.
var careerColumns = func() []Column {
	all := []Column{
		{"year", Integer}, {"employer_number", Text}, {"enterprise_number", Text}, {"employer_name", Text}, {"workplace", Text},
		{"joint_committee", Text}, {"worker_kind", Text}, {"occupation", Text}, {"contract", Text}, {"start_date", Day}, {"end_date", Day},
		{"working_time_percent", Integer}, {"weekly_hours", Decimal},
	}
	for quarter := range 4 {
		for _, c := range []Column{{"gross_wage", Decimal}, {"days_paid", Integer}, {"hours_paid", Decimal}, {"contributions", Decimal}} {
			all = append(all, Column{names.FieldName(fmt.Sprintf("%s_q%d", c.Field, quarter+1)), c.Kind})
		}
	}
	return append(all, Column{"gross_wage_year", Decimal}, Column{"contributions_year", Decimal}, Column{"contribution_reduction", Decimal},
		Column{"holiday_days", Integer}, Column{"illness_days", Integer}, Column{"equivalent_days", Integer}, Column{"pension_accrual", Decimal},
		Column{"declared_on", Day}, Column{"next_declaration", Day}, Column{"declaration", Text}, Column{"held_by", Text})
}()

// CareerDataset names the career records of one institution.
func CareerDataset(of names.InstitutionID) names.DatasetID {
	return names.DatasetID("career-" + string(of) + "/v1")
}

// withCareers gives the catalogue of a world with Config.Careers.
func (w *World) withCareers() []*Dataset {
	all := catalogue[:len(catalogue):len(catalogue)]
	for place, i := range w.institutions {
		if i.Cooperating() {
			continue // its managing body answers
		}
		d := &Dataset{
			ID: CareerDataset(i.ID), Title: "A year of a career, as kept by " + i.Name, Supplier: i.Type, only: i.ID,
			Qualities: q(qCareerRecord), Columns: careerColumns,
			records: func(p *Person, add func(names.Period, ...any)) { add(careerPeriod(p), w.career(i, place, p)...) },
		}
		d.schema = schemaOf(d)
		all = append(all, d)
	}
	return all
}

func careerPeriod(p *Person) names.Period {
	return names.Period{From: Today - 364, Until: names.Forever}
}

// career draws a person's record at one institution: no two have the same.
func (w *World) career(at Institution, place int, p *Person) []any {
	dice := rand.New(rand.NewPCG(mix(w.cfg.Seed^uint64(place+1)<<32), mix(uint64(p.Index)^0xca4ee4)))
	e := employer(w.cfg.Seed, dice.IntN(200_000))
	percent := pick(dice, []int{50, 60, 80, 90, 100, 100, 100})
	hours := Cents(3800 * percent / 100)
	c := p.Household.City
	values := []any{
		lastYear, e.Number, e.Enterprise, e.Name, fmt.Sprintf("%s %d, %s %s", pick(dice, streets), 1+dice.IntN(200), c.PostalCode, c.Name),
		fmt.Sprintf("%d.%02d", 100+dice.IntN(240), dice.IntN(9)), pick(dice, []string{"blue-collar", "white-collar"}), pick(dice, activities),
		pick(dice, []string{"permanent", "fixed-term", "temporary", "student"}), Today - names.Date(365+dice.IntN(9_000)), names.Forever, percent, hours,
	}
	monthly := Cents(220_000+1_000*dice.IntN(260)) * Cents(percent) / 100
	var year, contributions Cents
	for range 4 {
		days := 56 + dice.IntN(9)
		wage := monthly*3 + Cents(dice.IntN(40_000))
		year, contributions = year+wage, contributions+wage*1307/10_000
		values = append(values, wage, days, hours/5*Cents(days), wage*1307/10_000)
	}
	return append(values, year, contributions, Cents(dice.IntN(200_000)), 10+dice.IntN(15), dice.IntN(30), dice.IntN(60), year*10/1000,
		Today-names.Date(1+dice.IntN(300)), Today+names.Date(1+dice.IntN(90)), fmt.Sprintf("DEMO-%d-%s-%09d", lastYear, e.Number, p.Index), at.Name)
}

// careerFile is the file in which an institution keeps its record.
func careerFile(p *Person, add addFile) { add(p.SSIN, qCareerRecord, careerPeriod(p)) }

// careerAuthorizations let every institution ask every other's records on those on whom
// it has one itself.
func (w *World) careerAuthorizations() (all []*registrypb.Authorization) {
	asked := map[names.InstitutionType]bool{}
	for _, requester := range w.institutions {
		if requester.Cooperating() || asked[requester.Type] {
			continue
		}
		asked[requester.Type] = true
		for _, supplier := range w.institutions {
			if supplier.Cooperating() || supplier.ID == requester.ID {
				continue
			}
			a := &registrypb.Authorization{
				Id: fmt.Sprintf("demo-career-%s-%s", requester.Type, supplier.ID), Deliberation: "DEMO-2024/900", LegalBasis: "Invented act on careers, art. 1",
				RequesterType: string(requester.Type), RequesterQualities: []string{string(qCareerRecord)}, Dataset: string(CareerDataset(supplier.ID)),
				Purpose: string(CareerPurpose), Modes: []string{string(names.Consultation)},
				Period: &registrypb.Period{From: int32(date(2024, 1, 1)), Until: int32(names.Forever)},
			}
			for _, c := range careerColumns {
				a.Fields = append(a.Fields, string(c.Field))
			}
			all = append(all, a)
		}
	}
	return all
}

// schemaOf writes the JSON Schema of a dataset whose records have just these columns.
func schemaOf(d *Dataset) string {
	kinds := map[Kind]any{
		Text: map[string]any{"type": "string", "maxLength": 200}, Integer: map[string]any{"type": "integer"}, Decimal: map[string]any{"type": "number"},
		Boolean: map[string]any{"type": "boolean"}, Day: map[string]any{"type": []string{"string", "null"}, "format": "date"},
	}
	// A map would lose the order, which is that of the fields everywhere.
	var properties bytes.Buffer
	required := []string{}
	for i, c := range d.Columns {
		if i > 0 {
			properties.WriteByte(',')
		}
		kind, err := json.Marshal(kinds[c.Kind])
		if err != nil {
			panic(err) // it is made of strings
		}
		fmt.Fprintf(&properties, "%q:%s", c.Field, kind)
		required = append(required, string(c.Field))
	}
	b, err := json.Marshal(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:crossroads:dataset:" + string(d.ID), "title": d.Title,
		"type": "object", "properties": json.RawMessage("{" + properties.String() + "}"), "required": required, "additionalProperties": false,
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}
