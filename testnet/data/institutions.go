package data

import (
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Institution is a member of the test network.
type Institution struct {
	ID            names.InstitutionID
	Name          string
	Type          names.InstitutionType
	Sector        names.SectorID
	ManagingBody  bool
	NumberSchemes []subject.Scheme // whose history it keeps
	City          string           // id of the city it works for; empty: the country
}

// Proto gives the registry's record of the institution, without its first key.
func (i Institution) Proto() *registrypb.Institution {
	p := &registrypb.Institution{
		Id: string(i.ID), Name: i.Name, Type: string(i.Type), Sector: string(i.Sector), ManagingBody: i.ManagingBody,
	}
	for _, s := range i.NumberSchemes {
		p.NumberSchemes = append(p.NumberSchemes, string(s))
	}
	return p
}

// Institution types.
const (
	populationRegister names.InstitutionType = "population-register"
	unemploymentOffice names.InstitutionType = "unemployment-office"
	pensionOffice      names.InstitutionType = "pension-office"
	nssoType           names.InstitutionType = "social-security-office"
	healthInsurance    names.InstitutionType = "health-insurance"
	pcsa               names.InstitutionType = "pcsa"
	energyRegulator    names.InstitutionType = "energy-regulator"
	selfEmployedOffice names.InstitutionType = "self-employed-office"
	risksOffice        names.InstitutionType = "occupational-risks-office"
	holidayOffice      names.InstitutionType = "holiday-office"
	childBenefitFund   names.InstitutionType = "child-benefit-fund"
	taxOffice          names.InstitutionType = "tax-office"
	disabilityOffice   names.InstitutionType = "disability-office"
	healthControl      names.InstitutionType = "health-insurance-control"
	careerRegister     names.InstitutionType = "career-register"
	integrationService names.InstitutionType = "integration-service"
	employmentService  names.InstitutionType = "employment-service"
	telecomRegulator   names.InstitutionType = "telecom-regulator"
	municipality       names.InstitutionType = "municipality"
	inspection         names.InstitutionType = "inspection-service"
	transport          names.InstitutionType = "transport-company"
	socialSecretariat  names.InstitutionType = "social-secretariat"
	employingFirm      names.InstitutionType = "employer"
)

// first are the institutions in the order they join. The first three are the
// registry's members by default: the demonstration's consultations are mostly
// between the others, so that even with a member down somebody who is no party
// can clear them.
var first = []Institution{
	{ID: "national-register", Name: "National Register", Type: populationRegister, NumberSchemes: []subject.Scheme{subject.SSIN}},
	{ID: "neo", Name: "National Employment Office", Type: unemploymentOffice},
	{ID: "fpd", Name: "Federal Pensions Department", Type: pensionOffice},
	{ID: "nsso", Name: "National Social Security Office", Type: nssoType},
	{ID: "nic", Name: "National Intermutual College", Type: healthInsurance, Sector: "health-insurance", ManagingBody: true},
	{ID: "pcsa-ghent", Name: "PCSA of Ghent", Type: pcsa, City: "ghent"},
	{ID: "fps-economy", Name: "FPS Economy, energy", Type: energyRegulator},
	{ID: "nisse", Name: "National Institute for the Social Security of the Self-employed", Type: selfEmployedOffice},
	{ID: "fedris", Name: "Federal Agency for Occupational Risks", Type: risksOffice},
	{ID: "onva", Name: "National Office for Annual Vacation", Type: holidayOffice},
	{ID: "child-benefit", Name: "Child Benefit Fund", Type: childBenefitFund},
	{ID: "fps-finance", Name: "FPS Finance", Type: taxOffice},
	{ID: "dg-han", Name: "FPS Social Security, DG Persons with a Handicap", Type: disabilityOffice},
	{ID: "nihdi", Name: "National Institute for Health and Disability Insurance", Type: healthControl},
	{ID: "sigedis", Name: "Sigedis", Type: careerRegister},
	{ID: "pps-integration", Name: "PPS Social Integration", Type: integrationService},
	{ID: "vdab", Name: "Flemish Employment Service", Type: employmentService},
	{ID: "bipt", Name: "Institute for Postal Services and Telecommunications", Type: telecomRegulator},
	{ID: "muni-ghent", Name: "City of Ghent", Type: municipality, City: "ghent"},
	{ID: "social-inspection", Name: "Social Inspection", Type: inspection},
	{ID: "public-transport", Name: "Public Transport Company, reduction cards", Type: transport},
	{ID: "social-secretariat", Name: "Social Secretariat, for employers", Type: socialSecretariat},
}

// institutions gives the first n that join, and others that are asked for by name.
func institutions(n int, also []names.InstitutionID) ([]Institution, error) {
	all := everyInstitution()
	chosen := all[:n:n]
	for _, id := range also {
		i := slices.IndexFunc(all, func(i Institution) bool { return i.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("test network: no institution is called %q", id)
		}
		if !slices.ContainsFunc(chosen, func(i Institution) bool { return i.ID == id }) {
			chosen = append(chosen, all[i])
		}
	}
	return chosen, nil
}

func everyInstitution() []Institution {
	all := append([]Institution(nil), first...)
	for _, c := range cities[1:] {
		all = append(all,
			Institution{ID: names.InstitutionID("pcsa-" + c.ID), Name: "PCSA of " + c.Name, Type: pcsa, City: c.ID},
			Institution{ID: names.InstitutionID("muni-" + c.ID), Name: "City of " + c.Name, Type: municipality, City: c.ID})
	}
	all = append(all, funds...)
	// Only asked for by name: it declares, and holds nothing that the lives tell of.
	return append(all, Institution{ID: "acme-works", Name: "Acme Works, an employer", Type: employingFirm})
}

// Institutions gives the members of the network in the order they join. The
// caller must not change it.
func (w *World) Institutions() []Institution { return w.institutions }

// Institution gives one member by its id.
func (w *World) Institution(id names.InstitutionID) (Institution, bool) {
	for _, i := range w.institutions {
		if i.ID == id {
			return i, true
		}
	}
	return Institution{}, false
}

// serves reports whether i has anything to do with the household.
func (i Institution) serves(h *Household) bool { return i.City == "" || i.City == h.City.ID }
