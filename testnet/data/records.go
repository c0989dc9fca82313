package data

import "github.com/crossroads-mesh/crossroads/registry/names"

// Qualities in which institutions hold files.
const (
	qRegistered    names.Quality = "registered"
	qBis           names.Quality = "bis-register"
	qEmployee      names.Quality = "employee"
	qUnemployed    names.Quality = "unemployed"
	qCareerBreak   names.Quality = "career-break"
	qInsured       names.Quality = "insured"
	qReimbursed    names.Quality = "increased-reimbursement"
	qIncapacity    names.Quality = "work-incapacity"
	qCareer        names.Quality = "pension-career"
	qPensioner     names.Quality = "pensioner"
	qGuarantee     names.Quality = "income-guarantee"
	qLivingWage    names.Quality = "living-wage"
	qInquiry       names.Quality = "social-inquiry"
	qEnergy        names.Quality = "energy-customer"
	qSelfEmployed  names.Quality = "self-employed"
	qAccident      names.Quality = "accident-victim"
	qHoliday       names.Quality = "holiday-entitled"
	qChild         names.Quality = "child-beneficiary"
	qTaxpayer      names.Quality = "taxpayer"
	qDisabled      names.Quality = "recognised-handicap"
	qControlled    names.Quality = "incapacity-control"
	qCareerAccount names.Quality = "career-account"
	qSubsidised    names.Quality = "living-wage-subsidy"
	qJobSeeker     names.Quality = "job-seeker"
	qTelecom       names.Quality = "telecom-customer"
	qInhabitant    names.Quality = "inhabitant"
	qInspected     names.Quality = "inspection-file"
	qTraveller     names.Quality = "traveller"
	qApplicant     names.Quality = "applicant"
	qStaff         names.Quality = "staff"
)

// Years for which quarterly wages and taxable incomes are kept.
const firstYear, lastYear = 2024, 2025

// catalogue is every dataset. Fields that say the same thing have the same name
// everywhere: start_date, end_date (null: it goes on), monthly_amount.
var catalogue = []*Dataset{
	{
		ID: "person-identity/v1", Title: "Identity of a person", Supplier: populationRegister, Qualities: q(qRegistered, qBis),
		Columns: []Column{{"last_name", Text}, {"first_name", Text}, {"birth_date", Day}, {"sex", Text}, {"nationality", Text}, {"resident", Boolean}},
		records: func(p *Person, add func(names.Period, ...any)) {
			add(p.Life(), p.LastName, p.FirstName, p.Birth, string(p.Sex), p.Nationality, !p.Bis)
		},
	},
	{
		ID: "person-address/v1", Title: "Main residence", Supplier: populationRegister, Qualities: q(qRegistered),
		Columns: []Column{{"street", Text}, {"house_number", Text}, {"postal_code", Text}, {"municipality", Text}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if p.Bis {
				return
			}
			c := p.Household.City
			for _, a := range p.Household.Addresses {
				s := clip(a.Period, p.registered())
				add(s, a.Street, a.Number, c.PostalCode, c.Name, s.From, s.Until)
			}
		},
	},
	{
		ID: "household-composition/v1", Title: "Composition of the household", Supplier: populationRegister, Qualities: q(qRegistered),
		Columns: []Column{{"relation", Text}, {"household_type", Text}, {"size", Integer}, {"minors", Integer}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if p.Bis {
				return
			}
			kind, minors := p.Household.kind()
			s := clip(names.Period{From: p.Household.Since(), Until: names.Forever}, p.registered())
			add(s, string(p.Relation), kind, len(p.Household.Members), minors, s.From, s.Until)
		},
	},
	{
		ID: "employment-relation/v1", Title: "Employment relations (Dimona)", Supplier: nssoType, Qualities: q(qEmployee),
		Columns: []Column{{"employer_number", Text}, {"enterprise_number", Text}, {"employer_name", Text}, {"worker_kind", Text}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, j := range p.Jobs {
				add(j.Period, j.Employer.Number, j.Employer.Enterprise, j.Employer.Name, j.Kind, j.From, j.Until)
			}
		},
	},
	{
		ID: "wages-quarterly/v1", Title: "Quarterly wages and working time (DmfA)", Supplier: nssoType, Qualities: q(qEmployee),
		Columns: []Column{{"year", Integer}, {"quarter", Integer}, {"employer_number", Text}, {"gross_wage", Decimal}, {"days_employed", Integer}, {"working_time_percent", Integer}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, j := range p.Jobs {
				for i, quarter := range quarters {
					if s := clip(quarter, j.Period); s.From <= s.Until {
						add(s, firstYear+i/4, i%4+1, j.Employer.Number, wages(j, s), days(s), j.Percent)
					}
				}
			}
		},
	},
	{
		ID: "employment-regime/v1", Title: "Which regimes of work are open to a person", Supplier: nssoType, Qualities: q(qEmployee),
		Columns: []Column{{"flexi_job_allowed", Boolean}, {"student_hours_left", Integer}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, j := range p.Jobs {
				hours := 0
				if !p.aged(26, Today) {
					hours = 650
				}
				add(clip(j.Period, names.Period{From: Today - 364, Until: names.Forever}), j.Percent >= 80, hours)
			}
		},
	},
	{
		ID: "unemployment-benefit/v1", Title: "Paid unemployment", Supplier: unemploymentOffice, Qualities: q(qUnemployed),
		Columns: []Column{{"category", Text}, {"daily_amount", Decimal}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, u := range p.Unemployed {
				add(u.Period, u.Category, u.Daily, u.From, u.Until)
			}
		},
	},
	{
		ID: "career-break/v1", Title: "Career break and time credit", Supplier: unemploymentOffice, Qualities: q(qCareerBreak),
		Columns: []Column{{"percent", Integer}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, b := range p.CareerBreaks {
				add(b.Period, b.Percent, b.From, b.Until)
			}
		},
	},
	{
		ID: "insurability/v1", Title: "Health insurance", Supplier: healthInsurance, Qualities: q(qInsured),
		Columns: []Column{{"insured", Boolean}, {"title", Text}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			title := "holder"
			if p.ChildBenefit != nil {
				title = "dependant"
			}
			s := p.insured()
			add(s, true, title, s.From, s.Until)
		},
	},
	{
		ID: "increased-reimbursement/v1", Title: "Increased reimbursement of health care", Supplier: healthInsurance, Qualities: q(qReimbursed),
		Columns: []Column{{"entitled", Boolean}, {"ground", Text}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, r := range p.Reimbursed {
				add(r.Period, true, r.Ground, r.From, r.Until)
			}
		},
	},
	{
		ID: "work-incapacity/v1", Title: "Incapacity for work", Supplier: healthInsurance, Qualities: q(qIncapacity),
		Columns: []Column{{"daily_amount", Decimal}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, i := range p.Incapacities {
				add(i.Period, i.Daily, i.From, i.Until)
			}
		},
	},
	{
		ID: "replacement-income/v1", Title: "Sums paid in place of wages", Supplier: unemploymentOffice, Qualities: q(qUnemployed, qIncapacity, qPensioner),
		Columns: []Column{{"kind", Text}, {"amount", Decimal}, {"paid_per", Text}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, u := range p.Unemployed {
				add(u.Period, "unemployment", u.Daily, "day", u.From, u.Until)
			}
		},
		also: []furtherSource{
			{healthInsurance, func(p *Person, add func(names.Period, ...any)) {
				for _, i := range p.Incapacities {
					add(i.Period, "incapacity", i.Daily, "day", i.From, i.Until)
				}
			}},
			{pensionOffice, func(p *Person, add func(names.Period, ...any)) {
				if r := p.Pension; r != nil {
					add(r.Period, "pension", r.Monthly, "month", r.From, r.Until)
				}
			}},
		},
	},
	{
		ID: "pension-rights/v1", Title: "Pension register", Supplier: pensionOffice, Qualities: q(qPensioner),
		Columns: []Column{{"kind", Text}, {"monthly_amount", Decimal}, {"career_years", Integer}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if r := p.Pension; r != nil {
				add(r.Period, "retirement", r.Monthly, r.CareerYears, r.From, r.Until)
			}
		},
	},
	{
		ID: "income-guarantee/v1", Title: "Income guarantee for the elderly", Supplier: pensionOffice, Qualities: q(qGuarantee),
		Columns: []Column{{"entitled", Boolean}, {"monthly_amount", Decimal}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if g := p.Guarantee; g != nil {
				add(g.Period, true, g.Monthly, g.From, g.Until)
			}
		},
	},
	{
		ID: "living-wage/v1", Title: "Living wage", Supplier: pcsa, Qualities: q(qLivingWage),
		Columns: []Column{{"entitled", Boolean}, {"category", Text}, {"monthly_amount", Decimal}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, l := range p.LivingWages {
				add(l.Period, true, l.Category, l.Monthly, l.From, l.Until)
			}
		},
	},
	{
		ID: "energy-contract/v1", Title: "Energy supply contract", Supplier: energyRegulator, Qualities: q(qEnergy),
		Columns: []Column{{"meter", Text}, {"commodity", Text}, {"social_tariff", Boolean}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if e := p.Energy; e != nil {
				add(e.Period, e.Meter, e.Commodity, e.SocialTariff, e.From, e.Until)
			}
		},
	},
	{
		ID: "self-employed-career/v1", Title: "Self-employed career", Supplier: selfEmployedOffice, Qualities: q(qSelfEmployed),
		Columns: []Column{{"activity", Text}, {"yearly_income", Decimal}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, s := range p.SelfEmployed {
				add(s.Period, s.Activity, s.Yearly, s.From, s.Until)
			}
		},
	},
	{
		ID: "work-accident/v1", Title: "Accidents at work", Supplier: risksOffice, Qualities: q(qAccident),
		Columns: []Column{{"accident_date", Day}, {"employer_number", Text}, {"incapacity_percent", Integer}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for _, a := range p.Accidents {
				add(names.Period{From: a.On, Until: p.Death}, a.On, a.Employer.Number, a.Incapacity)
			}
		},
	},
	{
		ID: "holiday-pay/v1", Title: "Holiday pay of blue-collar workers", Supplier: holidayOffice, Qualities: q(qHoliday),
		Columns: []Column{{"year", Integer}, {"gross_amount", Decimal}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for y := firstYear; y <= lastYear; y++ {
				if sum := p.holidayPay(y); sum > 0 {
					add(year(y), y, sum)
				}
			}
		},
	},
	{
		ID: "child-benefit/v1", Title: "Child benefit", Supplier: childBenefitFund, Qualities: q(qChild),
		Columns: []Column{{"entitled", Boolean}, {"monthly_amount", Decimal}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if c := p.ChildBenefit; c != nil {
				add(c.Period, true, c.Monthly, c.From, c.Until)
			}
		},
	},
	{
		ID: "taxable-income/v1", Title: "Taxable income", Supplier: taxOffice, Qualities: q(qTaxpayer),
		Columns: []Column{{"year", Integer}, {"taxable_income", Decimal}},
		records: func(p *Person, add func(names.Period, ...any)) {
			for y := firstYear; y <= lastYear; y++ {
				if sum := p.income(y); sum > 0 {
					add(year(y), y, sum)
				}
			}
		},
	},
	{
		ID: "disability-recognition/v1", Title: "Recognition of a handicap", Supplier: disabilityOffice, Qualities: q(qDisabled),
		Columns: []Column{{"recognised", Boolean}, {"points", Integer}, {"parking_card", Boolean}, {"start_date", Day}, {"end_date", Day}},
		records: func(p *Person, add func(names.Period, ...any)) {
			if d := p.Disability; d != nil {
				add(d.Period, true, d.Points, d.ParkingCard, d.From, d.Until)
			}
		},
	},
}

func q(all ...names.Quality) []names.Quality { return all }
