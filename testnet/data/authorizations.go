package data

import (
	"fmt"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// deliberation is one decision of an invented committee: one type of requester,
// for one purpose, may obtain some datasets about those on whom it has a file.
type deliberation struct {
	reference string
	basis     string
	requester names.InstitutionType
	purpose   names.Purpose
	qualities []names.Quality
	may       []grant
	modes     []names.Mode
	period    names.Period // zero: from 2024 on
	level     uint32
	mandate   bool
}

// grant is a dataset, and the fields of it ("": all, "-x -y": all but these).
type grant struct {
	dataset names.DatasetID
	fields  string
}

var interactive = []names.Mode{names.Consultation}
var alsoBatch = []names.Mode{names.Consultation, names.Batch}

// alsoTold may be told of changes without asking.
var alsoTold = []names.Mode{names.Consultation, names.Batch, names.Notification}

var deliberations = []deliberation{
	{reference: "001", basis: "Invented act on the living wage, art. 9", requester: pcsa, purpose: "social-inquiry", qualities: q(qLivingWage, qInquiry), modes: interactive, may: []grant{
		{"person-identity/v1", ""}, {"person-address/v1", ""}, {"household-composition/v1", ""},
		{"employment-relation/v1", "-enterprise_number"}, {"wages-quarterly/v1", "year quarter gross_wage working_time_percent"},
		{"unemployment-benefit/v1", ""}, {"pension-rights/v1", "-career_years"}, {"income-guarantee/v1", ""}, {"increased-reimbursement/v1", "-ground"},
		{"work-incapacity/v1", ""}, {"replacement-income/v1", ""}, {"self-employed-career/v1", ""}, {"taxable-income/v1", ""}, {"child-benefit/v1", ""}, {"disability-recognition/v1", "-points"},
	}},
	{reference: "002", basis: "Invented royal decree on the social energy tariff, art. 4", requester: energyRegulator, purpose: "social-energy-tariff", qualities: q(qEnergy), modes: alsoBatch, may: []grant{
		{"increased-reimbursement/v1", "entitled"}, {"income-guarantee/v1", "entitled"}, {"living-wage/v1", "entitled"}, {"disability-recognition/v1", "recognised"},
	}},
	{reference: "003", basis: "Invented decree on unemployment, art. 139", requester: unemploymentOffice, purpose: "unemployment-control", qualities: q(qUnemployed), modes: []names.Mode{names.Consultation, names.Notification}, may: []grant{
		{"person-identity/v1", ""}, {"person-address/v1", ""}, {"household-composition/v1", ""}, {"employment-relation/v1", ""}, {"wages-quarterly/v1", ""},
		{"self-employed-career/v1", "-yearly_income"}, {"pension-rights/v1", "kind start_date end_date"}, {"work-incapacity/v1", "start_date end_date"},
	}},
	{reference: "004", basis: "Invented decree on unemployment, art. 140", requester: unemploymentOffice, purpose: "unemployment-inspection", qualities: q(qUnemployed), modes: interactive, level: 3, may: []grant{
		{"wages-quarterly/v1", ""}, {"living-wage/v1", "-monthly_amount"},
	}},
	{reference: "005", basis: "Invented act on pensions, art. 21", requester: pensionOffice, purpose: "pension-calculation", qualities: q(qCareer, qPensioner), modes: alsoTold, may: []grant{
		{"person-identity/v1", ""}, {"person-address/v1", ""}, {"wages-quarterly/v1", ""}, {"employment-relation/v1", ""}, {"unemployment-benefit/v1", "start_date end_date"},
		{"career-break/v1", ""}, {"self-employed-career/v1", ""}, {"work-incapacity/v1", "start_date end_date"},
	}},
	{reference: "006", basis: "Invented act on the income guarantee, art. 7", requester: pensionOffice, purpose: "income-guarantee-inquiry", qualities: q(qPensioner), modes: interactive, may: []grant{
		{"household-composition/v1", ""}, {"taxable-income/v1", ""}, {"disability-recognition/v1", "recognised"},
	}},
	{reference: "007", basis: "Invented act on contributions, art. 31", requester: nssoType, purpose: "contribution-control", qualities: q(qEmployee), modes: interactive, may: []grant{
		{"person-identity/v1", ""}, {"unemployment-benefit/v1", "start_date end_date"}, {"insurability/v1", "insured"},
	}},
	{reference: "008", basis: "Invented act on health insurance, art. 32", requester: healthInsurance, purpose: "insurability", qualities: q(qInsured), modes: alsoTold, may: []grant{
		{"person-identity/v1", ""}, {"person-address/v1", ""}, {"wages-quarterly/v1", "year quarter gross_wage days_employed"}, {"unemployment-benefit/v1", "start_date end_date"},
		{"pension-rights/v1", "kind start_date end_date"}, {"self-employed-career/v1", "start_date end_date"},
	}},
	{reference: "009", basis: "Invented act on health insurance, art. 37", requester: healthInsurance, purpose: "increased-reimbursement-grant", qualities: q(qInsured), modes: alsoTold, may: []grant{
		{"living-wage/v1", "entitled start_date end_date"}, {"income-guarantee/v1", "entitled start_date end_date"}, {"disability-recognition/v1", "recognised start_date end_date"},
		{"household-composition/v1", "household_type size"}, {"taxable-income/v1", ""},
	}},
	{reference: "010", basis: "Invented act on debt mediation, art. 3", requester: pcsa, purpose: "debt-mediation", qualities: q(qLivingWage, qInquiry), modes: interactive, mandate: true, may: []grant{
		{"wages-quarterly/v1", "year quarter gross_wage"}, {"pension-rights/v1", "monthly_amount"}, {"energy-contract/v1", ""},
	}},
	{reference: "011", basis: "Invented temporary decree on heating, art. 1", requester: energyRegulator, purpose: "heating-premium", qualities: q(qEnergy), modes: alsoBatch,
		period: names.Period{From: date(2022, 10, 1), Until: date(2023, 3, 31)}, may: []grant{{"increased-reimbursement/v1", "entitled"}}},
	{reference: "012", basis: "Invented decree on the self-employed, art. 5", requester: selfEmployedOffice, purpose: "contribution-assessment", qualities: q(qSelfEmployed), modes: interactive, may: []grant{
		{"person-identity/v1", ""}, {"person-address/v1", ""}, {"pension-rights/v1", "-career_years"}, {"taxable-income/v1", ""}, {"employment-relation/v1", "worker_kind start_date end_date"},
	}},
	{reference: "013", basis: "Invented act on work accidents, art. 58", requester: risksOffice, purpose: "accident-compensation", qualities: q(qAccident), modes: []names.Mode{names.Consultation, names.Notification}, may: []grant{
		{"wages-quarterly/v1", ""}, {"employment-relation/v1", ""}, {"work-incapacity/v1", ""}, {"person-address/v1", ""},
	}},
	{reference: "014", basis: "Invented act on annual holidays, art. 10", requester: holidayOffice, purpose: "holiday-pay", qualities: q(qHoliday), modes: alsoTold, may: []grant{
		{"wages-quarterly/v1", ""}, {"unemployment-benefit/v1", "start_date end_date"}, {"work-incapacity/v1", "start_date end_date"}, {"person-address/v1", ""},
	}},
	{reference: "015", basis: "Invented decree on child benefit, art. 12", requester: childBenefitFund, purpose: "child-benefit-grant", qualities: q(qChild), modes: alsoTold, may: []grant{
		{"person-identity/v1", ""}, {"household-composition/v1", ""}, {"person-address/v1", "postal_code municipality"}, {"disability-recognition/v1", "-parking_card"},
	}},
	{reference: "016", basis: "Invented income tax code, art. 300", requester: taxOffice, purpose: "tax-assessment", qualities: q(qTaxpayer), modes: alsoBatch, may: []grant{
		{"unemployment-benefit/v1", ""}, {"pension-rights/v1", "-career_years"}, {"wages-quarterly/v1", "-days_employed"}, {"household-composition/v1", ""},
	}},
	{reference: "017", basis: "Invented act on allowances, art. 8", requester: disabilityOffice, purpose: "disability-allowance", qualities: q(qDisabled), modes: interactive, may: []grant{
		{"household-composition/v1", ""}, {"taxable-income/v1", ""}, {"pension-rights/v1", "monthly_amount"}, {"wages-quarterly/v1", "year quarter gross_wage"},
	}},
	{reference: "018", basis: "Invented act on health insurance, art. 141", requester: healthControl, purpose: "incapacity-control", qualities: q(qControlled), modes: interactive, level: 2, may: []grant{
		{"work-incapacity/v1", ""}, {"employment-relation/v1", "start_date end_date"}, {"unemployment-benefit/v1", "start_date end_date"},
	}},
	{reference: "019", basis: "Invented act on career data, art. 2", requester: careerRegister, purpose: "career-account", qualities: q(qCareerAccount), modes: alsoTold, may: []grant{
		{"wages-quarterly/v1", ""}, {"self-employed-career/v1", ""}, {"unemployment-benefit/v1", "start_date end_date"}, {"career-break/v1", ""},
	}},
	{reference: "020", basis: "Invented act on the living wage, art. 32", requester: integrationService, purpose: "living-wage-subsidy", qualities: q(qSubsidised), modes: alsoTold, may: []grant{
		{"living-wage/v1", ""}, {"household-composition/v1", "household_type size"},
	}},
	{reference: "021", basis: "Invented decree on job placement, art. 6", requester: employmentService, purpose: "job-placement", qualities: q(qJobSeeker), modes: interactive, may: []grant{
		{"unemployment-benefit/v1", "-daily_amount"}, {"employment-relation/v1", "worker_kind start_date end_date"}, {"person-address/v1", "postal_code municipality"},
	}},
	{reference: "022", basis: "Invented act on electronic communications, art. 38", requester: telecomRegulator, purpose: "social-telephone-tariff", qualities: q(qTelecom), modes: alsoBatch, may: []grant{
		{"increased-reimbursement/v1", "entitled"}, {"income-guarantee/v1", "entitled"}, {"disability-recognition/v1", "recognised"},
	}},
	{reference: "023", basis: "Invented municipal reductions decree, art. 2", requester: municipality, purpose: "municipal-reduction", qualities: q(qInhabitant), modes: alsoBatch, may: []grant{
		{"increased-reimbursement/v1", "entitled"}, {"household-composition/v1", "size minors"}, {"disability-recognition/v1", "parking_card"},
	}},
	{reference: "024", basis: "Invented social penal code, art. 24", requester: inspection, purpose: "social-fraud-inspection", qualities: q(qInspected), modes: alsoBatch, level: 3, may: []grant{
		{"unemployment-benefit/v1", ""}, {"employment-relation/v1", ""}, {"wages-quarterly/v1", ""}, {"person-address/v1", ""},
	}},
	{reference: "030", basis: "Invented act on flexible work, art. 12", requester: socialSecretariat, purpose: "pre-contractual-check", qualities: q(qApplicant), modes: interactive, mandate: true, may: []grant{
		{"employment-regime/v1", ""},
	}},
	{reference: "025", basis: "Invented decree on reduction cards, art. 6", requester: transport, purpose: "reduction-card", qualities: q(qTraveller), modes: alsoBatch, may: []grant{
		{"increased-reimbursement/v1", "entitled"}, {"income-guarantee/v1", "entitled"}, {"living-wage/v1", "entitled"}, {"disability-recognition/v1", "recognised"},
	}},
	{reference: "027", basis: "Invented royal decree on the immediate declaration of employment, art. 4", requester: employingFirm, purpose: "dimona", qualities: q(qStaff),
		modes: []names.Mode{names.Submission}, may: []grant{{"employment-relation/v1", ""}}},
	{reference: "028", basis: "Invented act on contributions, art. 21", requester: employingFirm, purpose: "dmfa", qualities: q(qStaff),
		modes: []names.Mode{names.Submission}, may: []grant{{"wages-quarterly/v1", ""}}},
	{reference: "026", basis: "Invented decree on child benefit, art. 41", requester: childBenefitFund, purpose: "child-benefit-supplement", qualities: q(qChild),
		modes: []names.Mode{names.Notification}, may: []grant{{"wages-quarterly/v1", "year quarter gross_wage"}}},
}

// Authorizations gives who may obtain what, in every world alike: rows for types
// of institutions that are not there do no harm.
func (w *World) Authorizations() []*registrypb.Authorization {
	var all []*registrypb.Authorization
	for _, d := range deliberations {
		for _, g := range d.may {
			all = append(all, d.row(g))
		}
	}
	if w.cfg.Careers {
		all = append(all, w.careerAuthorizations()...)
	}
	return all
}

func (d deliberation) row(g grant) *registrypb.Authorization {
	name, _, _ := strings.Cut(string(g.dataset), "/")
	a := &registrypb.Authorization{
		Id:           fmt.Sprintf("demo-%s-%s", d.reference, name),
		Deliberation: "DEMO-2024/" + d.reference, LegalBasis: d.basis,
		RequesterType: string(d.requester), Dataset: string(g.dataset), Purpose: string(d.purpose),
		Period:       &registrypb.Period{From: int32(date(2024, 1, 1)), Until: int32(names.Forever)},
		MinAuthLevel: d.level, MandateRequired: d.mandate,
	}
	if d.period != (names.Period{}) {
		a.Period = &registrypb.Period{From: int32(d.period.From), Until: int32(d.period.Until)}
	}
	for _, quality := range d.qualities {
		a.RequesterQualities = append(a.RequesterQualities, string(quality))
	}
	for _, m := range d.modes {
		a.Modes = append(a.Modes, string(m))
	}
	for _, f := range g.allowed() {
		a.Fields = append(a.Fields, string(f))
	}
	return a
}

// allowed spells the fields of a grant out, in the order of the columns.
func (g grant) allowed() (fields []names.FieldName) {
	listed := strings.Fields(g.fields)
	for _, c := range columnsOf(g.dataset) {
		named, excepted := false, false
		for _, f := range listed {
			named = named || f == string(c.Field)
			excepted = excepted || f == "-"+string(c.Field)
		}
		exceptions := g.fields == "" || g.fields[0] == '-'
		if named || exceptions && !excepted {
			fields = append(fields, c.Field)
		}
	}
	return fields
}

func columnsOf(id names.DatasetID) []Column {
	for _, d := range catalogue {
		if d.ID == id {
			return d.Columns
		}
	}
	return nil
}
