package directory

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// MaxParts is how many parts a route to one member may have.
const MaxParts = 16

// Route says what to look up at one member.
type Route struct {
	Member names.InstitutionID
	Parts  []Part // in order of time; at least one
}

// Part is one stretch of days on which the subject was with the member, under one
// number.
type Part struct {
	Subject   subject.ID
	Period    names.Period
	Qualities []names.Quality // sorted
}

// References gives what stands on a subject, under any of its numbers, in order of
// time.
func (d *Directory) References(id subject.ID) (all []Reference, err error) {
	err = d.db.View(func(tx *badger.Txn) error {
		all, err = references(tx, []subject.ID{id})
		return err
	})
	return all, err
}

// Family gives every number of a subject, the one asked by first.
func (d *Directory) Family(id subject.ID) (all []subject.ID, err error) {
	err = d.db.View(func(tx *badger.Txn) error {
		s := &draft{tx: tx, rows: make(map[subject.ID]*row)}
		all, err = s.family(id)
		return err
	})
	return all, err
}

func references(tx *badger.Txn, ids []subject.ID) (all []Reference, err error) {
	s := &draft{tx: tx, rows: make(map[subject.ID]*row)}
	done := make(map[subject.ID]bool)
	for _, id := range ids {
		family, err := s.family(id)
		if err != nil {
			return nil, err
		}
		for _, f := range family {
			if !done[f] {
				done[f] = true
				all = append(all, s.rows[f].references...)
			}
		}
	}
	slices.SortFunc(all, compare)
	return all, nil
}

// Route gives where to look for a subject, asked by any of ids, which are one
// subject's: the members that have a file in one of the qualities on a day of the
// period, on which they were members. It is sorted by who had a file first. No
// qualities: in any.
func (d *Directory) Route(ids []subject.ID, qualities []names.Quality, asked names.Period) (routes []Route, err error) {
	err = d.db.View(func(tx *badger.Txn) error {
		refs, err := references(tx, ids)
		if err != nil {
			return err
		}
		for _, r := range refs {
			if len(qualities) > 0 && !slices.Contains(qualities, r.Quality) {
				continue
			}
			m, ok, err := member(tx, r.Member)
			if err != nil {
				return err
			}
			days := names.Period{From: max(r.Period.From, m.Period.From, asked.From), Until: min(r.Period.Until, m.Period.Until, asked.Until)}
			if !ok || days.From > days.Until {
				continue
			}
			at := slices.IndexFunc(routes, func(o Route) bool { return o.Member == r.Member })
			if at < 0 {
				at = len(routes)
				routes = append(routes, Route{Member: r.Member})
			}
			routes[at].Parts = append(routes[at].Parts, Part{r.Subject, days, []names.Quality{r.Quality}})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range routes {
		if routes[i].Parts = joined(routes[i].Parts); len(routes[i].Parts) > MaxParts {
			return nil, refuse("more than %d stretches of days at one institution", MaxParts)
		}
	}
	return routes, nil
}

// joined makes one part of those under one number that touch: a source that is asked
// twice for one day answers twice.
func joined(parts []Part) (out []Part) {
	slices.SortStableFunc(parts, func(a, b Part) int {
		return cmp.Or(bytes.Compare(a.Subject.Key(), b.Subject.Key()), cmp.Compare(a.Period.From, b.Period.From))
	})
	for _, p := range parts {
		if n := len(out); n > 0 && out[n-1].Subject == p.Subject && p.Period.From <= out[n-1].Period.Until+1 {
			last := &out[n-1]
			last.Period.Until = max(last.Period.Until, p.Period.Until)
			for _, q := range p.Qualities {
				if !slices.Contains(last.Qualities, q) {
					last.Qualities = append(last.Qualities, q)
				}
			}
			slices.Sort(last.Qualities)
			continue
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b Part) int { return cmp.Compare(a.Period.From, b.Period.From) })
	return out
}

// Outline gives what the registry of the mesh is to hold of a subject: the days on
// which the sector has a file, by quality, without a trace of who in it, or of when
// that changed.
func Outline(refs []Reference) (out []Reference) {
	sorted := slices.Clone(refs)
	slices.SortStableFunc(sorted, func(a, b Reference) int {
		return cmp.Or(bytes.Compare(a.Subject.Key(), b.Subject.Key()), cmp.Compare(a.Quality, b.Quality), cmp.Compare(a.Period.From, b.Period.From))
	})
	for _, r := range sorted {
		r.Member = ""
		if n := len(out); n > 0 && out[n-1].Subject == r.Subject && out[n-1].Quality == r.Quality && r.Period.From <= out[n-1].Period.Until+1 {
			out[n-1].Period.Until = max(out[n-1].Period.Until, r.Period.Until)
			continue
		}
		out = append(out, r)
	}
	return out
}
