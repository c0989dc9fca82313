package data

import (
	"math/rand/v2"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// healthFund is a health-insurance fund: a cooperating institution behind the sector's
// managing body. It has no file in the directory of the mesh, and offers nothing there.
const healthFund names.InstitutionType = "health-insurance-fund"

// funds are the invented institutions behind the managing body. They take part only
// where they are asked for by name.
var funds = []Institution{
	{ID: "fund-amber", Name: "Amber Mutuality", Type: healthFund, Sector: "health-insurance"},
	{ID: "fund-birch", Name: "Birch Mutuality", Type: healthFund, Sector: "health-insurance"},
	{ID: "fund-cedar", Name: "Cedar Mutuality", Type: healthFund, Sector: "health-insurance"},
}

// FundIDs names the funds that there can be.
func FundIDs() (ids []names.InstitutionID) {
	for _, f := range funds {
		ids = append(ids, f.ID)
	}
	return ids
}

// Cooperating reports whether i is behind a managing body.
func (i Institution) Cooperating() bool { return i.Sector != "" && !i.ManagingBody }

// Funds gives the cooperating institutions of this world. None: the managing body has
// all in systems of its own.
func (w *World) Funds() (all []Institution) {
	for _, i := range w.institutions {
		if i.Cooperating() {
			all = append(all, i)
		}
	}
	return all
}

// ManagingBody gives that of a sector.
func (w *World) ManagingBody(s names.SectorID) (Institution, bool) {
	for _, i := range w.institutions {
		if i.ManagingBody && i.Sector == s {
			return i, true
		}
	}
	return Institution{}, false
}

// Affiliation says with which fund a person is, and since when.
type Affiliation struct {
	Fund   names.InstitutionID
	Period names.Period
}

// Affiliations gives with whom p is, in order of time: one in four has changed once.
// The dice are of their own, so that a world with funds has the same lives as one
// without.
func (w *World) Affiliations(p *Person) []Affiliation {
	all := w.Funds()
	s := p.insured()
	if len(all) == 0 || s.From > s.Until {
		return nil
	}
	dice := rand.New(rand.NewPCG(mix(w.cfg.Seed), mix(uint64(p.Index)^0x5ec70)))
	first := dice.IntN(len(all))
	changed := Today - names.Date(30+dice.IntN(1500))
	if len(all) > 1 && chance(dice, 25) && s.From < changed && changed <= s.Until {
		second := (first + 1 + dice.IntN(len(all)-1)) % len(all)
		return []Affiliation{
			{all[first].ID, names.Period{From: names.Always, Until: changed - 1}},
			{all[second].ID, names.Period{From: changed, Until: names.Forever}},
		}
	}
	return []Affiliation{{all[first].ID, names.Period{From: names.Always, Until: names.Forever}}}
}

// SectorReference is one row of a sector's own directory.
type SectorReference struct {
	Fund    names.InstitutionID
	Subject subject.ID
	Quality names.Quality
	Period  names.Period
}

// SectorReferences gives who in the sector has the files on p that its managing body
// has for the mesh. The same row never comes twice.
func (w *World) SectorReferences(p *Person) (all []SectorReference) {
	affiliations := w.Affiliations(p)
	for _, r := range w.References(p) {
		if i, _ := w.Institution(r.Institution); !i.ManagingBody {
			continue
		}
		for _, a := range affiliations {
			row := SectorReference{a.Fund, r.Subject, r.Quality, clip(r.Period, a.Period)}
			if row.Period.From <= row.Period.Until && !slices.Contains(all, row) {
				all = append(all, row)
			}
		}
	}
	return all
}

// Holds gives the datasets that are in i's own systems: of a managing body with funds
// none, of a fund those that the managing body offers.
func (w *World) Holds(i Institution) []*Dataset {
	switch {
	case i.Cooperating():
		if m, ok := w.ManagingBody(i.Sector); ok {
			return w.Supplies(m)
		}
		return nil
	case i.ManagingBody && len(w.Funds()) > 0:
		return nil
	}
	return w.Supplies(i)
}

// Held gives the records that i's own systems have on p: of a fund, those of the days on
// which p was with it.
func (w *World) Held(d *Dataset, i Institution, p *Person) []Record {
	if !i.Cooperating() {
		return d.Records(i, p)
	}
	m, ok := w.ManagingBody(i.Sector)
	if !ok {
		return nil
	}
	with := w.Affiliations(p)
	return slices.DeleteFunc(d.Records(m, p), func(r Record) bool {
		return !slices.ContainsFunc(with, func(a Affiliation) bool { return a.Fund == i.ID && a.Period.Overlaps(r.Period) })
	})
}
