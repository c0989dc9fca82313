package reading

import (
	"cmp"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// GivenMandate is a mandate that the subject gave.
type GivenMandate struct {
	ID       names.MandateID   `json:"id"`
	Holder   Institution       `json:"holder"`
	OnBehalf string            `json:"on_behalf,omitempty"` // the enterprise for which the holder uses it: scheme and number
	Purpose  names.Purpose     `json:"purpose"`
	Datasets []names.DatasetID `json:"datasets"`
	Period   names.Period      `json:"period"`
	Provider names.ProviderID  `json:"provider"` // that attests that it was given
	Given    time.Time         `json:"given"`
	InForce  bool              `json:"in_force"` // today
	Revoked  bool              `json:"revoked,omitempty"`

	standing *record.Mandate
}

// given takes in what one node told. Of a mandate that several tell of, the one that says
// it was revoked is the newer.
func (sv *SubjectView) given(told []*nodepb.HeldMandate) {
	for _, h := range told[:min(len(told), mandate.MaxListed)] {
		m := mandate.FromWire(h)
		if m.ID.Validate() != nil {
			continue
		}
		g := GivenMandate{ID: m.ID, Holder: Institution{ID: m.Holder}, Purpose: m.Purpose, Datasets: m.Datasets, Period: m.Period,
			Provider: m.Provider, Given: m.Given, Revoked: m.Revoked, standing: m}
		if !m.OnBehalf.IsZero() {
			g.OnBehalf = string(m.OnBehalf.Scheme()) + " " + m.OnBehalf.Number()
		}
		at := slices.IndexFunc(sv.Mandates, func(o GivenMandate) bool { return o.ID == g.ID })
		switch {
		case at < 0:
			sv.Mandates = append(sv.Mandates, g)
		case g.Revoked:
			sv.Mandates[at] = g
		}
	}
}

// named adds what is public to the mandates, and orders them.
func (sv *SubjectView) named(v record.View, today names.Date) error {
	for i := range sv.Mandates {
		m := &sv.Mandates[i]
		holder, err := v.Institution(m.Holder.ID)
		if err != nil {
			return err
		}
		m.Holder.Name = holder.GetName()
		m.InForce = m.standing.InForce(today)
	}
	slices.SortFunc(sv.Mandates, func(a, b GivenMandate) int { return cmp.Or(b.Given.Compare(a.Given), cmp.Compare(a.ID, b.ID)) })
	return nil
}
