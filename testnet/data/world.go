package data

import (
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Today is the day up to which lives are told: 2026-01-01. It does not move with
// the clock, so that a seed gives the same world next year.
const Today names.Date = 20454

// Limits of a Config.
const (
	MinInstitutions = 3
	MaxInstitutions = 50
	MaxPersons      = 20_000_000
)

// Config says which world to make.
type Config struct {
	Seed         uint64
	Persons      int // 1 to MaxPersons
	Institutions int // MinInstitutions to MaxInstitutions
	// Careers has every institution keep a record of some 1 KB on everybody, which every
	// other may ask for: load for measuring.
	Careers bool
}

// World is an invented country. It holds no person: they are made when asked for.
// It is safe for concurrent use.
type World struct {
	cfg          Config
	institutions []Institution
	datasets     []*Dataset
	numbers      numbers
	rules        []*registrypb.Authorization // as Authorizations gives them; for Expected
	latest       atomic.Pointer[drawn]       // for Expected, which is asked about one person many times
}

// New makes a world, in which institutions that are named in also take part beside
// the first ones. It fails only for a Config out of its limits, or a name that is none.
func New(cfg Config, also ...names.InstitutionID) (*World, error) {
	if cfg.Persons < 1 || cfg.Persons > MaxPersons {
		return nil, fmt.Errorf("test network: %d persons: want 1 to %d", cfg.Persons, MaxPersons)
	}
	if cfg.Institutions < MinInstitutions || cfg.Institutions > MaxInstitutions {
		return nil, fmt.Errorf("test network: %d institutions: want %d to %d", cfg.Institutions, MinInstitutions, MaxInstitutions)
	}
	members, err := institutions(cfg.Institutions, also)
	if err != nil {
		return nil, err
	}
	w := &World{cfg: cfg, institutions: members, numbers: newNumbers(cfg.Seed), datasets: catalogue}
	if cfg.Careers {
		w.datasets = w.withCareers()
	}
	w.rules = w.Authorizations()
	return w, nil
}

// drawn is a block of persons.
type drawn struct {
	block  int
	people []*Person
}

// look is Find for who changes nothing of the person.
func (w *World) look(id subject.ID) (*Person, bool) {
	i, ok := w.numbers.place(id)
	if !ok || i >= w.cfg.Persons {
		return nil, false
	}
	d := w.latest.Load()
	if d == nil || d.block != i/blockSize {
		d = &drawn{i / blockSize, w.block(i / blockSize)}
		w.latest.Store(d)
	}
	if p := d.people[i%blockSize]; p.SSIN == id || p.Former != nil && p.Former.SSIN == id {
		return p, true
	}
	return nil, false
}

// Config gives what the world was made from.
func (w *World) Config() Config { return w.cfg }

// Persons gives every person in order of Index, one block of ten in memory at a
// time. A Person is the receiver's to keep.
func (w *World) Persons() iter.Seq[*Person] {
	return func(yield func(*Person) bool) {
		for b := 0; b*blockSize < w.cfg.Persons; b++ {
			for i, p := range w.block(b) {
				if b*blockSize+i >= w.cfg.Persons {
					return
				}
				if !yield(p) {
					return
				}
			}
		}
	}
}

// Person gives the person at place i, 0 <= i < Config.Persons.
func (w *World) Person(i int) *Person { return w.block(i / blockSize)[i%blockSize] }

// Find gives the person who has, or had before it was replaced, this number.
func (w *World) Find(id subject.ID) (*Person, bool) {
	i, ok := w.numbers.place(id)
	if !ok || i >= w.cfg.Persons {
		return nil, false
	}
	if p := w.Person(i); p.SSIN == id || p.Former != nil && p.Former.SSIN == id {
		return p, true
	}
	return nil, false
}
