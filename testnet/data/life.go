package data

import (
	"math/rand/v2"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// live draws the life of p, whose birth, household and number are known.
func (w *World) live(dice *rand.Rand, p *Person) {
	p.Death = drawDeath(dice, p)
	if p.Bis {
		w.work(dice, p, names.Period{From: max(anniversary(p.Birth, 18), Today-names.Date(1000+dice.IntN(3000))), Until: p.Death})
		return
	}
	if !p.aged(18, Today) {
		p.ChildBenefit = &ChildBenefit{names.Period{From: p.Birth, Until: names.Forever}, Cents(17_000 + 600*dice.IntN(10))}
		if chance(dice, 2) {
			p.Disability = &Disability{names.Period{From: p.Birth, Until: names.Forever}, 6 + dice.IntN(10), chance(dice, 30)}
			p.reimburse(p.Disability.Period, "disability")
		}
		return
	}
	start := anniversary(p.Birth, 18) + names.Date(dice.IntN(5*365))
	if p.Former != nil {
		start = p.Former.Since
	}
	career := names.Period{From: start, Until: p.Death}
	retires := retirement(p.Birth)
	if retires <= Today && retires <= p.Death {
		career.Until = retires - 1
	}
	w.work(dice, p, career)
	if career.Until < p.Death {
		p.retire(dice, names.Period{From: retires, Until: p.Death})
	}
	if from := anniversary(p.Birth, 18) + names.Date(dice.IntN(12000)); chance(dice, 4) && from < min(Today, p.Death) {
		p.Disability = &Disability{names.Period{From: from, Until: p.Death}, 7 + dice.IntN(12), chance(dice, 50)}
		p.reimburse(p.Disability.Period, "disability")
	}
	if from := Today - names.Date(30+dice.IntN(700)); chance(dice, 3) && p.Death == names.Forever && p.aged(19, from) {
		p.Inquiries = append(p.Inquiries, names.Period{From: from, Until: names.Forever})
	}
}

// drawDeath lets some of the old, and a few others, have died in recent years.
func drawDeath(dice *rand.Rand, p *Person) names.Date {
	perMille := 3
	if p.aged(66, Today) {
		perMille = 60
	}
	died := Today - names.Date(20+dice.IntN(1500))
	if dice.IntN(1000) < perMille && p.aged(19, died) && p.Household.Since() < died {
		return died
	}
	return names.Forever
}

// retirement is the first of the month after the legal age: 65, and 66 for those
// who reach 65 after January 2025.
func retirement(birth names.Date) names.Date {
	d := anniversary(birth, 65)
	if d >= date(2025, 2, 1) {
		d = anniversary(birth, 66)
	}
	y, m, _ := d.Time().Date()
	return date(y, int(m)+1, 1)
}

// work fills a career with spells, one after the other.
func (w *World) work(dice *rand.Rand, p *Person, career names.Period) {
	horizon := min(career.Until, Today)
	wage := Cents(220_000 + 1_000*dice.IntN(260)) // full time, a month, in today's money
	worked := false
	for at := career.From; at <= horizon; {
		throw := dice.IntN(100)
		var days int
		spell := func(least, spread int) names.Period {
			days = least + dice.IntN(spread)
			s := names.Period{From: at, Until: at + names.Date(days) - 1}
			if s.Until >= horizon {
				s.Until = career.Until
			}
			return s
		}
		switch {
		case throw < 66:
			w.hire(dice, p, spell(300, 5200), wage)
			worked = true
		case throw < 73 && !p.Bis:
			p.SelfEmployed = append(p.SelfEmployed, SelfEmployment{spell(700, 5000), pick(dice, activities), wage*10 + Cents(dice.IntN(900_000))})
		case throw < 87 && worked:
			p.Unemployed = append(p.Unemployed, unemployment(dice, p, spell(60, 700)))
			if u := p.Unemployed[len(p.Unemployed)-1]; u.Until > Today && chance(dice, 25) {
				p.reimburse(names.Period{From: min(u.From+365, Today), Until: u.Until}, "low-income")
			}
		case throw < 92 && worked:
			s := spell(40, 500)
			p.Incapacities = append(p.Incapacities, Incapacity{s, Cents(4_800 + 10*dice.IntN(400))})
		case !p.Bis && at > Today-8*365:
			s := spell(150, 900)
			if chance(dice, 65) {
				p.support(dice, s)
			}
		case p.aged(66, Today) && chance(dice, 60): // years at home, as many had in that generation
			spell(2000, 6000)
		default:
			spell(60, 400)
		}
		at += names.Date(days + 1 + dice.IntN(20))
	}
}

func (w *World) hire(dice *rand.Rand, p *Person, s names.Period, wage Cents) {
	j := Job{Period: s, Kind: "white-collar", Percent: 100, Monthly: wage}
	j.Employer = employer(w.cfg.Seed, dice.IntN(max(20, min(200_000, w.cfg.Persons/15))))
	if chance(dice, 40) {
		j.Kind = "blue-collar"
	}
	if chance(dice, 30) {
		j.Percent = pick(dice, []int{50, 60, 80, 90})
		j.Monthly = wage * Cents(j.Percent) / 100
	}
	p.Jobs = append(p.Jobs, j)
	days := int(min(s.Until, Today) - s.From)
	if days > 900 && chance(dice, 8) {
		from := s.From + names.Date(300+dice.IntN(days-600))
		p.CareerBreaks = append(p.CareerBreaks, CareerBreak{names.Period{From: from, Until: min(from+names.Date(90+dice.IntN(200)), s.Until)}, pick(dice, []int{20, 50, 100})})
	}
	if days > 100 && chance(dice, 3) {
		p.Accidents = append(p.Accidents, Accident{s.From + names.Date(dice.IntN(days)), j.Employer, dice.IntN(16)})
	}
}

func unemployment(dice *rand.Rand, p *Person, s names.Period) Unemployment {
	u := Unemployment{s, "cohabiting", Cents(3_900 + 10*dice.IntN(250))}
	switch n := len(p.Household.Members); {
	case n == 1:
		u.Category, u.Daily = "single", u.Daily+700
	case p.Relation == ReferencePerson && n > 2:
		u.Category, u.Daily = "with-family", u.Daily+1_400
	}
	return u
}

// support grants a living wage for a spell without other income, and what comes
// with it of right.
func (p *Person) support(dice *rand.Rand, s names.Period) {
	l := LivingWage{s, "cohabiting", 87_613}
	switch n := len(p.Household.Members); {
	case n == 1:
		l.Category, l.Monthly = "single", 131_420
	case p.Relation == ReferencePerson:
		l.Category, l.Monthly = "with-family", 177_607
	}
	p.LivingWages = append(p.LivingWages, l)
	p.Inquiries = append(p.Inquiries, names.Period{From: s.From - names.Date(5+dice.IntN(25)), Until: s.Until})
	p.reimburse(s, "living-wage")
}

// retire computes the pension from the career, and adds the income guarantee to
// a small one.
func (p *Person) retire(dice *rand.Rand, s names.Period) {
	days := 0
	for _, j := range p.Jobs {
		days += int(j.Until - j.From)
	}
	for _, e := range p.SelfEmployed {
		days += int(e.Until - e.From)
	}
	years := min(days/365, 45)
	p.Pension = &Pension{s, Cents(40_000+years*3_100) + Cents(100*dice.IntN(200)), years}
	if years < 25 && chance(dice, 60) {
		p.Guarantee = &IncomeGuarantee{s, Cents(20_000 + 100*dice.IntN(500))}
		p.reimburse(s, "income-guarantee")
	}
}

// reimburse adds a spell of increased reimbursement; spells never overlap, the
// first ground holds.
func (p *Person) reimburse(s names.Period, ground string) {
	for _, r := range p.Reimbursed {
		if r.Overlaps(s) {
			return
		}
	}
	if s.From <= s.Until {
		p.Reimbursed = append(p.Reimbursed, Reimbursement{s, ground})
	}
}
