package data

import (
	"fmt"
	"math/rand/v2"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// block draws ten persons and everything about them.
func (w *World) block(b int) []*Person {
	dice := rand.New(rand.NewPCG(mix(w.cfg.Seed), mix(uint64(b))))
	people := make([]*Person, blockSize)
	for place := range people {
		day, sequence := w.numbers.birth(b, place)
		sex := sexAt(b, place)
		people[place] = &Person{
			Index: b*blockSize + place, Birth: day, Sex: sex, Death: names.Forever, Cancelled: names.Forever,
			SSIN:        ssin(day, sequence, 0),
			FirstName:   pick(dice, firstNames[sex]),
			LastName:    pick(dice, lastNames),
			Nationality: pick(dice, nationalities),
		}
	}
	for _, h := range settle(dice, b, people) {
		h.Members[0].Relation = ReferencePerson
		for _, p := range h.Members {
			p.Household = h
		}
	}
	for place, p := range people {
		if alone := len(p.Household.Members) == 1; place == adultX && alone && chance(dice, 18) {
			w.comeFromAbroad(dice, p)
		}
		w.live(dice, p)
	}
	for _, p := range people {
		w.connect(dice, p)
	}
	return people
}

// settle puts ten people into households.
func settle(dice *rand.Rand, b int, people []*Person) []*Household {
	var all []*Household
	found := func(head *Person) *Household {
		h := &Household{ID: b*blockSize + len(all), City: drawCity(dice), Members: []*Person{head}}
		// Long enough ago to have lived elsewhere, never before the head was of age.
		since := max(anniversary(head.Birth, 18), Today-names.Date(400+dice.IntN(7000)))
		since = min(since, Today-30)
		if span := int(Today - since); span > 2000 && chance(dice, 40) {
			moved := since + names.Date(300+dice.IntN(span-600))
			h.Addresses = append(h.Addresses, drawAddress(dice, since, moved-1))
			since = moved
		}
		h.Addresses = append(h.Addresses, drawAddress(dice, since, names.Forever))
		all = append(all, h)
		return h
	}
	pair := func(f, m *Person, years, percent int) {
		h := found(f)
		if gap := int(f.Birth - m.Birth); max(gap, -gap) <= years*365 && chance(dice, percent) {
			m.Relation = Partner
			h.Members = append(h.Members, m)
			return
		}
		found(m)
	}
	pair(people[seniorF], people[seniorM], 12, 80)
	pair(people[middleF], people[middleM], 12, 75)
	pair(people[adultF], people[adultM], 10, 80)
	found(people[adultX])
	if parents := people[middleF]; chance(dice, 70) {
		join(all, people[youngX], parents)
	} else {
		found(people[youngX])
	}
	parent := findParent(dice, people, people[childF])
	join(all, people[childF], parent)
	if !mayBeParent(parent, people[childM]) || chance(dice, 40) {
		parent = findParent(dice, people, people[childM])
	}
	join(all, people[childM], parent)
	return all
}

// join makes child live with parent, and take the name of the father where there
// is one.
func join(all []*Household, child, parent *Person) {
	for _, h := range all {
		if !contains(h.Members, parent) {
			continue
		}
		child.Relation = Child
		if !mayBeParent(parent, child) {
			child.Relation = OtherRelative
		}
		child.LastName, child.Nationality = parent.LastName, parent.Nationality
		for _, p := range h.Members[:min(2, len(h.Members))] {
			if p.Sex == Male && mayBeParent(p, child) && child.Relation == Child {
				child.LastName = p.LastName
			}
		}
		h.Members = append(h.Members, child)
		return
	}
}

// findParent prefers those of the right age; failing that the child lives with
// the oldest of the block's adults as another relative.
func findParent(dice *rand.Rand, people []*Person, child *Person) *Person {
	candidates := []*Person{people[adultF], people[adultX], people[adultM], people[middleF]}
	if chance(dice, 30) {
		candidates[0], candidates[1] = candidates[1], candidates[0]
	}
	for _, p := range candidates {
		if mayBeParent(p, child) {
			return p
		}
	}
	return people[middleM]
}

func mayBeParent(p, child *Person) bool {
	most := 60
	if p.Sex == Female {
		most = 46
	}
	return p.aged(18, child.Birth) && !p.aged(most, child.Birth)
}

func contains(people []*Person, p *Person) bool {
	for _, q := range people {
		if q == p {
			return true
		}
	}
	return false
}

// comeFromAbroad gives p a bis number: still in use, replaced since by a number of
// the register, or cancelled.
func (w *World) comeFromAbroad(dice *rand.Rand, p *Person) {
	_, sequence := w.numbers.birth(p.Index/blockSize, p.Index%blockSize)
	p.Nationality = pick(dice, []string{"FR", "NL", "RO", "PL", "PT", "IT"})
	since := max(anniversary(p.Birth, 18), Today-names.Date(2000+dice.IntN(3000)))
	bis := ssin(p.Birth, sequence, bisSexKnown)
	switch throw := dice.IntN(100); {
	case throw < 45:
		p.Former = &FormerNumber{SSIN: bis, Since: since, ReplacedOn: since + names.Date(400+dice.IntN(800))}
	case throw < 60:
		p.SSIN, p.Bis = ssin(p.Birth, sequence, bisSexUnknown), true
		p.Cancelled = Today - names.Date(30+dice.IntN(900))
	default:
		p.SSIN, p.Bis = bis, true
	}
}

// connect signs the reference person up for energy.
func (w *World) connect(dice *rand.Rand, p *Person) {
	if p.Relation != ReferencePerson || p.Bis {
		return
	}
	e := &EnergyContract{Period: names.Period{From: p.Household.Since(), Until: p.Death}, Meter: meterCode(p.Household.ID), Commodity: "electricity"}
	if chance(dice, 20) {
		e.Commodity = "natural-gas"
	}
	if e.From > e.Until {
		return
	}
	for _, m := range p.Household.Members {
		for _, r := range m.Reimbursed {
			e.SocialTariff = e.SocialTariff || r.Contains(Today)
		}
	}
	p.Energy = e
}

func drawAddress(dice *rand.Rand, from, until names.Date) Address {
	return Address{names.Period{From: from, Until: until}, pick(dice, streets), fmt.Sprint(1 + dice.IntN(180))}
}

func drawCity(dice *rand.Rand) *City {
	throw := dice.IntN(100)
	for i := range cities {
		if throw -= cities[i].weight; throw < 0 {
			return &cities[i]
		}
	}
	return &cities[0]
}

func chance(dice *rand.Rand, percent int) bool { return dice.IntN(100) < percent }

func pick[T any](dice *rand.Rand, from []T) T { return from[dice.IntN(len(from))] }
