package data

import (
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Told is what one institution is told of a change.
type Told struct {
	Institution names.InstitutionID
	Purpose     names.Purpose
	Fields      []names.FieldName // sorted
}

// Told says who is told of a change about p, by the lives: whoever is subscribed on that
// day, may be told by a deliberation, and has a file in a quality that both name, on some
// day that the change is about; each with the fields that the deliberation gives.
func (w *World) Told(p *Person, publisher names.InstitutionID, dataset names.DatasetID, about names.Period, changed []names.FieldName, today names.Date) (all []Told) {
	for _, s := range w.Subscriptions() {
		i, _ := w.Institution(names.InstitutionID(s.Institution))
		if i.ID == publisher || s.Dataset != string(dataset) || s.Period.From > int32(today) {
			continue
		}
		for _, a := range w.rules {
			if a.RequesterType != string(i.Type) || a.Dataset != s.Dataset || a.Purpose != s.Purpose || !slices.Contains(a.Modes, string(names.Notification)) ||
				a.Period.From > int32(today) || a.Period.Until < int32(today) {
				continue
			}
			var both []string
			for _, quality := range s.Qualities {
				if slices.Contains(a.RequesterQualities, quality) {
					both = append(both, quality)
				}
			}
			t := Told{Institution: i.ID, Purpose: names.Purpose(s.Purpose)}
			for _, f := range changed {
				if slices.Contains(a.Fields, string(f)) {
					t.Fields = append(t.Fields, f)
				}
			}
			slices.Sort(t.Fields)
			if len(t.Fields) > 0 && w.hasFile(p, i.ID, both, about) {
				all = append(all, t)
			}
		}
	}
	return all
}
