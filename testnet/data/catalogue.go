package data

import (
	"embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

//go:embed schemas/*.json
var schemas embed.FS

// Dataset is one kind of record and where it comes from.
type Dataset struct {
	ID        names.DatasetID
	Title     string
	Qualities []names.Quality       // of the suppliers' files
	Supplier  names.InstitutionType // the authentic source
	Columns   []Column              // the fields, in the order in which records give them
	records   recordsOf
	also      []furtherSource

	only   names.InstitutionID // not empty: of this institution alone, wherever people live
	schema string              // empty: a file says it
}

// recordsOf gives a source's records on a person to add.
type recordsOf func(p *Person, add func(names.Period, ...any))

// furtherSource is another authentic source of the same kind of record.
type furtherSource struct {
	supplier names.InstitutionType
	records  recordsOf
}

// recordsAt gives what an institution holds, nil if it is no source.
func (d *Dataset) recordsAt(i Institution) recordsOf {
	if d.only != "" && d.only != i.ID {
		return nil
	}
	if i.Type == d.Supplier {
		return d.records
	}
	for _, s := range d.also {
		if s.supplier == i.Type {
			return s.records
		}
	}
	return nil
}

// Column is one field of a dataset.
type Column struct {
	Field names.FieldName
	Kind  Kind
}

// Kind is the type of a field's values.
type Kind int

// The kinds, and the Go types that Record.Values holds for them (or nil: null).
const (
	Text    Kind = iota // string
	Integer             // int
	Decimal             // Cents
	Boolean             // bool
	Day                 // names.Date; names.Forever is null
)

// Record is one record of a dataset on one person.
type Record struct {
	Period names.Period // a consultation gets the record if its period overlaps this one
	Values []any        // one for each column
}

// Schema gives the JSON Schema (2020-12) of one record.
func (d *Dataset) Schema() string {
	if d.schema != "" {
		return d.schema
	}
	b, err := schemas.ReadFile("schemas/" + d.FileName() + ".json")
	if err != nil {
		panic(err) // the files are part of the program: a test reads each of them
	}
	return string(b)
}

// FileName gives the id in a form fit for a file or a table: "wages-quarterly-v1".
func (d *Dataset) FileName() string { return strings.ReplaceAll(string(d.ID), "/", "-") }

// Proto gives the registry's record of the dataset.
func (d *Dataset) Proto() *registrypb.Dataset {
	p := &registrypb.Dataset{Id: string(d.ID), Title: d.Title, Schema: d.Schema(), Scheme: string(subject.SSIN)}
	for _, q := range d.Qualities {
		p.Qualities = append(p.Qualities, string(q))
	}
	return p
}

// Records gives what an institution has on p in this dataset: nothing if it is
// not one of its sources.
func (d *Dataset) Records(at Institution, p *Person) []Record {
	records := d.recordsAt(at)
	if records == nil || d.only == "" && !at.serves(p.Household) {
		return nil
	}
	var all []Record
	records(p, func(period names.Period, values ...any) {
		if period.From <= period.Until {
			all = append(all, Record{period, values})
		}
	})
	return all
}

// JSON writes a record as the institution's system would: an object with the
// columns in order.
func (d *Dataset) JSON(r Record) json.RawMessage {
	b := []byte{'{'}
	for i, c := range d.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, string(c.Field)), ':')
		switch v := r.Values[i].(type) {
		case nil:
			b = append(b, "null"...)
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case bool:
			b = strconv.AppendBool(b, v)
		case Cents:
			b = append(b, v.String()...)
		case names.Date:
			if v == names.Forever {
				b = append(b, "null"...)
			} else {
				b = strconv.AppendQuote(b, v.String())
			}
		case string:
			text, _ := json.Marshal(v) // a string always marshals
			b = append(b, text...)
		default:
			panic(fmt.Sprintf("%s: %s: a %T in the catalogue", d.ID, c.Field, v))
		}
	}
	return append(b, '}')
}

// String gives the amount in euro with two decimals.
func (c Cents) String() string {
	sign := ""
	if c < 0 {
		sign, c = "-", -c
	}
	return fmt.Sprintf("%s%d.%02d", sign, c/100, c%100)
}

// Datasets gives the catalogue. It is the same in every world, but for career records:
// a network that lacks a source lacks only its offerings. The caller must not change it.
func (w *World) Datasets() []*Dataset { return w.datasets }

// Dataset gives one dataset by its id.
func (w *World) Dataset(id names.DatasetID) (*Dataset, bool) {
	for _, d := range w.datasets {
		if d.ID == id {
			return d, true
		}
	}
	return nil, false
}

// Offerings gives who supplies what, by the institutions of this world.
func (w *World) Offerings() []*registrypb.Offering {
	var all []*registrypb.Offering
	for _, i := range w.institutions {
		for _, d := range w.Supplies(i) {
			o := &registrypb.Offering{
				Institution: string(i.ID), Dataset: string(d.ID),
				Period: &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)},
			}
			for _, q := range d.Qualities {
				o.Qualities = append(o.Qualities, string(q))
			}
			all = append(all, o)
		}
	}
	return all
}

// Supplies gives the datasets of which i is a source.
func (w *World) Supplies(i Institution) []*Dataset {
	var all []*Dataset
	for _, d := range w.datasets {
		if d.recordsAt(i) != nil {
			all = append(all, d)
		}
	}
	return all
}
