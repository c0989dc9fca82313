package data

import (
	"iter"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Reference is one row of the person directory: Institution has a file on
// Subject, in this quality, for this period.
type Reference struct {
	Institution names.InstitutionID
	Subject     subject.ID
	Quality     names.Quality
	Period      names.Period
}

// Proto gives the row as the registry takes it.
func (r Reference) Proto() *registrypb.Reference {
	return &registrypb.Reference{
		Subject: protoSubject(r.Subject), Quality: string(r.Quality),
		Period: &registrypb.Period{From: int32(r.Period.From), Until: int32(r.Period.Until)},
	}
}

func protoSubject(id subject.ID) *registrypb.Subject {
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

// References gives the files that the institutions of this world have on p, under
// the present and the former number. The same row never comes twice.
func (w *World) References(p *Person) []Reference {
	var all []Reference
	for _, i := range w.institutions {
		start := len(all)
		add := func(id subject.ID, quality names.Quality, period names.Period) {
			if period.From > period.Until {
				return
			}
			r := Reference{i.ID, id, quality, period}
			for _, known := range all[start:] {
				if known == r {
					return
				}
			}
			all = append(all, r)
		}
		if i.serves(p.Household) {
			files[i.Type](p, add)
		}
		if w.cfg.Careers && !i.Cooperating() {
			careerFile(p, add)
		}
	}
	return all
}

// Batch is some of the rows of one institution: at most the size asked for.
type Batch struct {
	Institution names.InstitutionID
	References  []*registrypb.Reference
}

// ReferenceBatches gives every row of the directory, by institution, in lots of at
// most size rows (the registry takes 10,000 in one command). It holds at most one
// unfinished lot per institution in memory.
func (w *World) ReferenceBatches(size int) iter.Seq[Batch] {
	return func(yield func(Batch) bool) {
		open := map[names.InstitutionID][]*registrypb.Reference{}
		for p := range w.Persons() {
			for _, r := range w.References(p) {
				rows := append(open[r.Institution], r.Proto())
				if len(rows) == size {
					if !yield(Batch{r.Institution, rows}) {
						return
					}
					rows = nil
				}
				open[r.Institution] = rows
			}
		}
		for _, i := range w.institutions {
			if rows := open[i.ID]; len(rows) > 0 && !yield(Batch{i.ID, rows}) {
				return
			}
		}
	}
}

// NumberEvents gives the history of numbers: replaced, cancelled, deceased. All of
// them are for the first institution that keeps the scheme (the national register).
func (w *World) NumberEvents() iter.Seq[*registrypb.NumberEvent] {
	return func(yield func(*registrypb.NumberEvent) bool) {
		for p := range w.Persons() {
			for _, e := range numberEvents(p) {
				if !yield(e) {
					return
				}
			}
		}
	}
}

func numberEvents(p *Person) (all []*registrypb.NumberEvent) {
	if f := p.Former; f != nil {
		all = append(all, &registrypb.NumberEvent{
			Subject: protoSubject(f.SSIN), Kind: registrypb.NumberEvent_REPLACED, Successor: protoSubject(p.SSIN), Date: int32(f.ReplacedOn),
		})
	}
	if p.Cancelled != names.Forever {
		all = append(all, &registrypb.NumberEvent{Subject: protoSubject(p.SSIN), Kind: registrypb.NumberEvent_CANCELLED, Date: int32(p.Cancelled)})
	}
	if p.Death != names.Forever {
		all = append(all, &registrypb.NumberEvent{Subject: protoSubject(p.SSIN), Kind: registrypb.NumberEvent_DECEASED, Date: int32(p.Death)})
	}
	return all
}

// untilClosed: after a death some files stay open for a year, until all is settled.
func untilClosed(p *Person, s names.Period) names.Period {
	if p.Death != names.Forever {
		s.Until += 365
	}
	return s
}

type addFile = func(subject.ID, names.Quality, names.Period)

// files says for each type of institution which files it has on a person.
var files = map[names.InstitutionType]func(*Person, addFile){
	populationRegister: func(p *Person, add addFile) {
		if p.Bis {
			add(p.SSIN, qBis, p.insured())
			return
		}
		add(p.SSIN, qRegistered, p.registered())
		if f := p.Former; f != nil {
			add(f.SSIN, qBis, names.Period{From: f.Since, Until: f.ReplacedOn - 1})
		}
	},
	nssoType: func(p *Person, add addFile) {
		for _, j := range p.Jobs {
			add(p.SSIN, qEmployee, j.Period)
			if f := p.Former; f != nil {
				add(f.SSIN, qEmployee, clip(j.Period, names.Period{From: f.Since, Until: f.ReplacedOn - 1}))
			}
		}
	},
	unemploymentOffice: func(p *Person, add addFile) {
		for _, u := range p.Unemployed {
			add(p.SSIN, qUnemployed, u.Period)
		}
		for _, b := range p.CareerBreaks {
			add(p.SSIN, qCareerBreak, b.Period)
		}
	},
	healthInsurance: func(p *Person, add addFile) {
		add(p.SSIN, qInsured, p.insured())
		for _, r := range p.Reimbursed {
			add(p.SSIN, qReimbursed, r.Period)
		}
		for _, i := range p.Incapacities {
			add(p.SSIN, qIncapacity, i.Period)
		}
		if f := p.Former; f != nil {
			add(f.SSIN, qInsured, clip(p.insured(), names.Period{From: f.Since, Until: f.ReplacedOn - 1}))
		}
	},
	healthFund: func(*Person, addFile) {}, // of that only its managing body knows
	pensionOffice: func(p *Person, add addFile) {
		if c, ok := p.career(); ok {
			add(p.SSIN, qCareer, c)
		}
		if p.Pension != nil {
			add(p.SSIN, qPensioner, untilClosed(p, p.Pension.Period))
		}
		if p.Guarantee != nil {
			add(p.SSIN, qGuarantee, p.Guarantee.Period)
		}
	},
	pcsa: func(p *Person, add addFile) {
		for _, l := range p.LivingWages {
			add(p.SSIN, qLivingWage, l.Period)
		}
		for _, i := range p.Inquiries {
			add(p.SSIN, qInquiry, i)
		}
	},
	energyRegulator: func(p *Person, add addFile) {
		if p.Energy != nil {
			add(p.SSIN, qEnergy, untilClosed(p, p.Energy.Period))
		}
	},
	selfEmployedOffice: func(p *Person, add addFile) {
		for _, s := range p.SelfEmployed {
			add(p.SSIN, qSelfEmployed, s.Period)
		}
	},
	risksOffice: func(p *Person, add addFile) {
		for _, a := range p.Accidents {
			add(p.SSIN, qAccident, names.Period{From: a.On, Until: p.Death})
		}
	},
	holidayOffice: func(p *Person, add addFile) {
		for y := firstYear; y <= lastYear; y++ {
			if p.holidayPay(y) > 0 {
				add(p.SSIN, qHoliday, year(y))
			}
		}
	},
	childBenefitFund: func(p *Person, add addFile) {
		if p.ChildBenefit != nil {
			add(p.SSIN, qChild, p.ChildBenefit.Period)
		}
	},
	taxOffice: func(p *Person, add addFile) {
		for y := firstYear; y <= lastYear; y++ {
			if p.income(y) > 0 {
				add(p.SSIN, qTaxpayer, year(y))
			}
		}
	},
	disabilityOffice: func(p *Person, add addFile) {
		if p.Disability != nil {
			add(p.SSIN, qDisabled, p.Disability.Period)
		}
	},
	healthControl: func(p *Person, add addFile) {
		for _, i := range p.Incapacities {
			add(p.SSIN, qControlled, i.Period)
		}
	},
	careerRegister: func(p *Person, add addFile) {
		if c, ok := p.career(); ok {
			add(p.SSIN, qCareerAccount, c)
		}
	},
	integrationService: func(p *Person, add addFile) {
		for _, l := range p.LivingWages {
			add(p.SSIN, qSubsidised, l.Period)
		}
	},
	employmentService: func(p *Person, add addFile) {
		for _, u := range p.Unemployed {
			if p.Household.City.Region == "flanders" {
				add(p.SSIN, qJobSeeker, u.Period)
			}
		}
	},
	telecomRegulator: func(p *Person, add addFile) {
		if p.Energy != nil {
			add(p.SSIN, qTelecom, p.Energy.Period)
		}
	},
	municipality: func(p *Person, add addFile) {
		if !p.Bis {
			add(p.SSIN, qInhabitant, clip(names.Period{From: p.Household.Since(), Until: names.Forever}, p.registered()))
		}
	},
	socialSecretariat: func(p *Person, add addFile) {
		if p.Index%5 == 0 && p.aged(18, Today) { // who applied for work with one of its employers
			add(p.SSIN, qApplicant, names.Period{From: Today - 60, Until: p.Death})
		}
	},
	employingFirm: func(*Person, addFile) {},
	transport: func(p *Person, add addFile) {
		if p.Index%3 != 0 { // who travels with it at all
			add(p.SSIN, qTraveller, clip(p.Life(), names.Period{From: anniversary(p.Birth, 12), Until: names.Forever}))
		}
	},
	inspection: func(p *Person, add addFile) {
		if p.Index%7 == 0 {
			for _, u := range p.Unemployed {
				add(p.SSIN, qInspected, u.Period)
			}
		}
	},
}
