package record

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Interned remembers which names the small numbers of one state stand for; they
// never change. The zero value is ready, and safe for concurrent use.
type Interned struct {
	mu    sync.RWMutex
	names map[interned]string
}

// interned is a number that a name is known by.
type interned struct {
	kind byte
	n    uint64
}

// name gives the name of a number; empty: it is not remembered.
func (i *Interned) name(of interned) string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.names[of]
}

func (i *Interned) remember(of interned, name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.names == nil {
		i.names = make(map[interned]string)
	}
	i.names[of] = name
}

// Reference says that an institution has a file on a subject.
type Reference struct {
	Institution names.InstitutionID
	Quality     names.Quality
	Period      names.Period
	Filed       subject.ID // the number under which it was declared
}

// NumberState is what became of a subject's number.
type NumberState struct {
	// Replaced: Successor is the number now in use, at the end of the line of
	// successors.
	Replaced bool
	// Merged: its subject had the successor as well, at the same time.
	Merged    bool
	Successor subject.ID
	Cancelled bool
	// DeceasedOn is the day of death, told of this number or one it replaced.
	DeceasedOn *names.Date
}

// Counts are the sizes of the person directory.
type Counts struct{ Subjects, References uint64 }

func (c Counts) pack() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, c.Subjects), c.References)
}

// Counts gives the number of subjects with references, and of references.
func (v View) Counts() (Counts, error) {
	b, err := v.g.Get([]byte{tabCounts})
	switch {
	case err != nil || b == nil:
		return Counts{}, err
	case len(b) != 16:
		return Counts{}, fmt.Errorf("%w: counts", ErrCorrupt)
	}
	return Counts{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

// References gives the references on a subject, those under numbers that id
// replaced included, sorted and without repetition. Nobody's: none.
func (v View) References(id subject.ID) ([]Reference, error) {
	family, err := v.family(id)
	if err != nil {
		return nil, err
	}
	var refs []Reference
	for _, member := range family {
		if refs, err = v.appendReferences(refs, member); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(refs, Reference.compare)
	return slices.Compact(refs), nil
}

// compare orders references as References gives them, and looks at nothing that does not
// decide.
func (r Reference) compare(o Reference) int {
	if c := strings.Compare(string(r.Institution), string(o.Institution)); c != 0 {
		return c
	}
	if c := strings.Compare(string(r.Quality), string(o.Quality)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(r.Period.From, o.Period.From), cmp.Compare(r.Period.Until, o.Period.Until),
		cmp.Compare(r.Filed.Number(), o.Filed.Number()))
}

func (v View) appendReferences(refs []Reference, id subject.ID) ([]Reference, error) {
	b, err := v.g.Get(subjectKey(tabReferences, id))
	if err != nil {
		return nil, err
	}
	entries, err := unpackEntries(b)
	if err != nil {
		return nil, err
	}
	refs = slices.Grow(refs, len(entries))
	for _, e := range entries {
		inst, err := v.interned('i', e.institution)
		if err != nil {
			return nil, err
		}
		quality, err := v.interned('q', e.quality)
		if err != nil {
			return nil, err
		}
		refs = append(refs, Reference{names.InstitutionID(inst), names.Quality(quality), e.period, id})
	}
	return refs, nil
}

func (v View) interned(kind byte, n uint64) (string, error) {
	of := interned{kind, n}
	if v.names != nil {
		if name := v.names.name(of); name != "" {
			return name, nil
		}
	}
	b, err := v.g.Get(internedKey(kind, n))
	if err != nil {
		return "", err
	}
	if b == nil {
		return "", fmt.Errorf("%w: interned name", ErrCorrupt)
	}
	if v.names != nil {
		v.names.remember(of, string(b))
	}
	return string(b), nil
}

// Number tells what became of a number; of one nothing is known of, the zero value.
func (v View) Number(id subject.ID) (NumberState, error) {
	row, err := v.number(id)
	if err != nil {
		return NumberState{}, err
	}
	s := NumberState{Cancelled: row.cancelled, DeceasedOn: row.deceased}
	if row.successor != "" {
		s.Replaced, s.Merged = true, row.merged
		if s.Successor, err = v.last(id); err != nil {
			return NumberState{}, err
		}
	}
	if s.DeceasedOn != nil || len(row.predecessors) == 0 {
		return s, nil
	}
	family, err := v.family(id)
	if err != nil {
		return NumberState{}, err
	}
	for _, member := range family {
		row, err := v.number(member)
		if err != nil {
			return NumberState{}, err
		}
		if s.DeceasedOn = row.deceased; s.DeceasedOn != nil {
			break
		}
	}
	return s, nil
}

// Current gives the number now in use for id: id itself when it was not replaced.
func (v View) Current(id subject.ID) (subject.ID, error) { return v.last(id) }

func (v View) number(id subject.ID) (*numberRow, error) {
	b, err := v.g.Get(subjectKey(tabNumber, id))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return new(numberRow), nil
	}
	return unpackNumber(b)
}

// last follows the line of successors to its end.
func (v View) last(id subject.ID) (subject.ID, error) {
	for range maxFamily {
		row, err := v.number(id)
		if err != nil {
			return subject.ID{}, err
		}
		if row.successor == "" {
			return id, nil
		}
		id = subject.Raw(id.Scheme(), row.successor)
	}
	return subject.ID{}, fmt.Errorf("%w: endless line of successors", ErrCorrupt)
}

// family gives id and all numbers that it replaced, directly or not; id first.
func (v View) family(id subject.ID) ([]subject.ID, error) {
	family := []subject.ID{id}
	for i := 0; i < len(family); i++ {
		row, err := v.number(family[i])
		if err != nil {
			return nil, err
		}
		for _, p := range row.predecessors {
			family = append(family, subject.Raw(id.Scheme(), p))
		}
		if len(family) > maxFamily {
			return nil, fmt.Errorf("%w: endless line of predecessors", ErrCorrupt)
		}
	}
	return family, nil
}

// Family gives every number that stands for the same subject as id: the one now in
// use first, then all that it replaced, directly or not.
func (v View) Family(id subject.ID) ([]subject.ID, error) {
	now, err := v.last(id)
	if err != nil {
		return nil, err
	}
	return v.family(now)
}
