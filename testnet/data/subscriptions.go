package data

import (
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// subscription is what institutions of a type want to be told of, for a purpose for
// which a deliberation lets them be.
type subscription struct {
	subscriber names.InstitutionType
	dataset    names.DatasetID
	purpose    names.Purpose
	qualities  []names.Quality
}

var subscriptions = []subscription{
	// Who moves is told of once.
	{pensionOffice, "person-address/v1", "pension-calculation", q(qCareer, qPensioner)},
	{healthInsurance, "person-address/v1", "insurability", q(qInsured)},
	{childBenefitFund, "person-address/v1", "child-benefit-grant", q(qChild)},
	{holidayOffice, "person-address/v1", "holiday-pay", q(qHoliday)},
	// Dimona: the employer declares once.
	{pensionOffice, "employment-relation/v1", "pension-calculation", q(qCareer)},
	{unemploymentOffice, "employment-relation/v1", "unemployment-control", q(qUnemployed)},
	{risksOffice, "employment-relation/v1", "accident-compensation", q(qAccident)},
	// DmfA, every quarter.
	{pensionOffice, "wages-quarterly/v1", "pension-calculation", q(qCareer)},
	{healthInsurance, "wages-quarterly/v1", "insurability", q(qInsured)},
	{holidayOffice, "wages-quarterly/v1", "holiday-pay", q(qHoliday)},
	{careerRegister, "wages-quarterly/v1", "career-account", q(qCareerAccount)},
	{childBenefitFund, "wages-quarterly/v1", "child-benefit-supplement", q(qChild)},
	// Living wage.
	{integrationService, "living-wage/v1", "living-wage-subsidy", q(qSubsidised)},
	{healthInsurance, "living-wage/v1", "increased-reimbursement-grant", q(qInsured)},
}

// Subscriptions gives who is told of what automatically.
func (w *World) Subscriptions() (all []*registrypb.Subscription) {
	for _, i := range w.institutions {
		for _, s := range subscriptions {
			if s.subscriber != i.Type {
				continue
			}
			r := &registrypb.Subscription{Institution: string(i.ID), Dataset: string(s.dataset), Purpose: string(s.purpose),
				Period: &registrypb.Period{From: int32(date(2024, 1, 1)), Until: int32(names.Forever)}}
			for _, quality := range s.qualities {
				r.Qualities = append(r.Qualities, string(quality))
			}
			all = append(all, r)
		}
	}
	return all
}
