package data

import "github.com/crossroads-mesh/crossroads/registry/names"

// quarters of the years for which wages are kept.
var quarters = func() (all []names.Period) {
	for y := firstYear; y <= lastYear; y++ {
		for m := 1; m <= 12; m += 3 {
			all = append(all, names.Period{From: date(y, m, 1), Until: date(y, m+3, 1) - 1})
		}
	}
	return all
}()

func year(y int) names.Period {
	return names.Period{From: date(y, 1, 1), Until: date(y+1, 1, 1) - 1}
}

// clip gives the days that p and q share; it ends before it begins if none.
func clip(p, q names.Period) names.Period {
	return names.Period{From: max(p.From, q.From), Until: min(p.Until, q.Until)}
}

// days counts the days of p, both ends included; 0 if there are none.
func days(p names.Period) int { return max(0, int(p.Until-p.From)+1) }

// wages gives what a job paid over some days, to the cent: a month is a twelfth
// of 365 days.
func wages(j Job, s names.Period) Cents { return j.Monthly * 12 * Cents(days(s)) / 365 }

// registered gives the time p is in the register of residents.
func (p *Person) registered() names.Period {
	s := p.Life()
	if p.Former != nil {
		s.From = p.Former.ReplacedOn
	}
	return s
}

// insured gives the time p is insured for health care: those from abroad from
// their first work on.
func (p *Person) insured() names.Period {
	s := p.Life()
	if c, ok := p.career(); p.Bis || p.Former != nil {
		if !ok {
			return names.Period{From: 1, Until: 0}
		}
		s.From = c.From
	}
	return s
}

// career gives the time from the first spell of work to the pension or death.
func (p *Person) career() (names.Period, bool) {
	s := names.Period{From: names.Forever, Until: p.Death}
	if p.Pension != nil {
		s.Until = p.Pension.From - 1
	}
	for _, j := range p.Jobs {
		s.From = min(s.From, j.From)
	}
	for _, e := range p.SelfEmployed {
		s.From = min(s.From, e.From)
	}
	return s, s.From <= s.Until && s.From != names.Forever
}

// income adds up what a year brought in.
func (p *Person) income(y int) (sum Cents) {
	in := year(y)
	for _, j := range p.Jobs {
		sum += wages(j, clip(j.Period, in))
	}
	for _, e := range p.SelfEmployed {
		sum += e.Yearly * Cents(days(clip(e.Period, in))) / 365
	}
	for _, u := range p.Unemployed {
		sum += u.Daily * Cents(days(clip(u.Period, in))) * 6 / 7
	}
	for _, i := range p.Incapacities {
		sum += i.Daily * Cents(days(clip(i.Period, in))) * 6 / 7
	}
	if p.Pension != nil {
		sum += p.Pension.Monthly * 12 * Cents(days(clip(p.Pension.Period, in))) / 365
	}
	return sum
}

// holidayPay is 15.38 % of the blue-collar wages of the year before.
func (p *Person) holidayPay(y int) (sum Cents) {
	for _, j := range p.Jobs {
		if j.Kind == "blue-collar" {
			sum += wages(j, clip(j.Period, year(y-1))) * 1538 / 10_000
		}
	}
	return sum
}

// kind names the household and counts its minors.
func (h *Household) kind() (kind string, minors int) {
	partner, children := false, 0
	for _, m := range h.Members {
		partner = partner || m.Relation == Partner
		if m.Relation == Child {
			children++
		}
		if !m.aged(18, Today) {
			minors++
		}
	}
	switch {
	case len(h.Members) == 1:
		return "single", minors
	case partner && children > 0:
		return "couple-with-children", minors
	case partner && len(h.Members) == 2:
		return "couple", minors
	case children > 0:
		return "single-parent", minors
	}
	return "other", minors
}
