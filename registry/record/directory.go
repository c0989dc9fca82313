package record

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// subject checks a number that an author sent: known scheme, well formed, canonical.
// row is what a refusal calls it; the number itself is never repeated.
func (a *applier) subject(s *registrypb.Subject, row int) (subject.ID, error) {
	id, err := a.rules.Schemes.Parse(subject.Scheme(s.GetScheme()), s.GetNumber())
	switch {
	case err != nil:
		return id, refuse("row %d: %v", row, err)
	case id.Number() != s.Number:
		return id, refuse("row %d: the number is not in its canonical form (no spaces or separators)", row)
	case id.Number() == "" || len(id.Number()) > maxNumberLen:
		return id, refuse("row %d: the number is empty, or longer than %d bytes", row, maxNumberLen)
	}
	return id, nil
}

func checkRows(n int) error {
	if n == 0 || n > MaxRows {
		return refuse("%d rows in one command, want 1 to %d", n, MaxRows)
	}
	return nil
}

// declared is one row of a command that declares references.
type declared struct {
	id        subject.ID
	row       int // as a refusal calls it, from 1
	quality   int // place in the command's qualities
	period    names.Period
	withdrawn bool
}

func (a *applier) declareReferences(refs *registrypb.References) error {
	if err := checkRows(len(refs.References)); err != nil {
		return err
	}
	rows := make([]declared, len(refs.References))
	var qualities []string
	places := make(map[string]int)
	for i, r := range refs.References {
		id, err := a.subject(r.Subject, i+1)
		if err != nil {
			return err
		}
		place, known := places[r.Quality]
		if !known {
			if err := names.Quality(r.Quality).Validate(); err != nil {
				return refuse("row %d: %v", i+1, err)
			}
			place = len(qualities)
			places[r.Quality], qualities = place, append(qualities, r.Quality)
		}
		if err := checkPeriod(r.Period); err != nil {
			return refuse("row %d: %v", i+1, err)
		}
		rows[i] = declared{id, i + 1, place, Period(r.Period), r.Withdrawn}
	}
	slices.SortStableFunc(rows, func(x, y declared) int { return compareSubjects(x.id, y.id) })
	return a.declare(rows, qualities)
}

// declare takes rows in order of subject, and reads and writes each subject's row
// once, however many references of the command are on that subject.
func (a *applier) declare(rows []declared, qualities []string) error {
	if slices.ContainsFunc(rows, func(r declared) bool { return !r.withdrawn }) {
		if err := a.forItself(a.author, "a file in the directory"); err != nil {
			return err
		}
	}
	self, err := a.intern('i', a.author)
	if err != nil {
		return err
	}
	numbers, err := a.internQualities(qualities)
	if err != nil {
		return err
	}
	counts, err := a.view.Counts()
	if err != nil {
		return err
	}
	if a.replay != nil {
		if err := a.replay.declare(rows, self, numbers); err != nil {
			return err
		}
		return a.Set([]byte{tabCounts}, counts.pack()) // of the size that it will have
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].id == rows[0].id {
			n++
		}
		if err := a.declareOn(rows[:n], self, numbers, &counts); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return a.Set([]byte{tabCounts}, counts.pack())
}

// declareOn takes the rows on one subject.
func (a *applier) declareOn(rows []declared, self uint64, qualities []uint64, counts *Counts) error {
	k := subjectKey(tabReferences, rows[0].id)
	was, err := a.Get(k)
	if err != nil {
		return err
	}
	entries, err := appendEntries(a.entries[:0], was)
	if err != nil {
		return err
	}
	defer func() { a.entries = entries }()
	before := len(entries)
	for _, r := range rows {
		e := entry{institution: self, quality: qualities[r.quality], period: r.period}
		if r.withdrawn {
			var there bool
			if entries, there = remove(entries, e); !there {
				return refuse("row %d withdraws a reference that is not there", r.row)
			}
			continue
		}
		entries, _ = insert(entries, e)
	}
	own := 0
	for _, e := range entries {
		if e.institution == self {
			own++
		}
	}
	if own > maxOwnRows {
		return refuse("row %d: %s has more than %d references on one subject", rows[0].row, a.author, maxOwnRows)
	}
	counts.References += uint64(len(entries)) - uint64(before)
	switch {
	case before == 0 && len(entries) > 0:
		counts.Subjects++
	case before > 0 && len(entries) == 0:
		counts.Subjects--
	}
	if len(entries) == 0 {
		if was == nil {
			return nil
		}
		return a.Delete(k)
	}
	return a.Set(k, packEntries(entries))
}

// compareSubjects orders subjects as their keys are ordered.
func compareSubjects(x, y subject.ID) int {
	return cmp.Or(cmp.Compare(x.Scheme(), y.Scheme()), cmp.Compare(x.Number(), y.Number()))
}

// internQualities gives the small numbers of the qualities, new ones in the order in
// which they stand there. None stands there twice.
func (a *applier) internQualities(qualities []string) ([]uint64, error) {
	// Counted for each institution by itself, so that its own nodes, which do not see
	// what others use, come to the same verdict.
	counter := key(tabQualities, a.author)
	b, err := a.Get(counter)
	if err != nil {
		return nil, err
	}
	before, _ := binary.Uvarint(b)
	used := before
	numbers := make([]uint64, len(qualities))
	for i, q := range qualities {
		mine := key(tabQualities, a.author, q)
		known, err := a.Get(mine)
		if err != nil {
			return nil, err
		}
		if known == nil {
			if used++; used > maxQualities {
				return nil, refuse("%s has used %d different qualities, and may use no other", a.author, maxQualities)
			}
			if err := a.Set(mine, present); err != nil {
				return nil, err
			}
		}
		if numbers[i], err = a.intern('q', q); err != nil {
			return nil, err
		}
	}
	if used > before {
		err = a.Set(counter, binary.AppendUvarint(nil, used))
	}
	return numbers, err
}

// intern gives the small number that stands for name in packed rows. Numbers are
// given once, from 1, and never taken back. The kind is 'i' for institutions, 'q'
// for qualities.
func (a *applier) intern(kind byte, name string) (uint64, error) {
	forward := append([]byte{tabIntern, kind}, name...)
	v, err := a.Get(forward)
	if err != nil {
		return 0, err
	}
	if v != nil {
		n, size := binary.Uvarint(v)
		if size != len(v) {
			return 0, fmt.Errorf("%w: interned name", ErrCorrupt)
		}
		return n, nil
	}
	counter := []byte{tabInternNext, kind}
	if v, err = a.Get(counter); err != nil {
		return 0, err
	}
	last, _ := binary.Uvarint(v)
	n := last + 1
	packed := binary.AppendUvarint(nil, n)
	return n, errors.Join(a.Set(forward, packed), a.Set(counter, packed),
		a.Set(internedKey(kind, n), []byte(name)))
}

func internedKey(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tabInterned, kind}, n)
}

func (a *applier) setNumbers(events *registrypb.NumberEvents) error {
	if err := checkRows(len(events.Events)); err != nil {
		return err
	}
	author, err := a.view.Institution(names.InstitutionID(a.author))
	if err != nil {
		return err
	}
	for i, e := range events.Events {
		id, err := a.subject(e.Subject, i+1)
		if err != nil {
			return err
		}
		if !slices.Contains(author.GetNumberSchemes(), string(id.Scheme())) {
			return refuse("row %d: %s does not keep the history of %s numbers", i+1, a.author, id.Scheme())
		}
		if d := names.Date(e.Date); d < names.Always || d > names.Forever {
			return refuse("row %d: date out of range", i+1)
		}
		if e.Kind != registrypb.NumberEvent_REPLACED && e.Kind != registrypb.NumberEvent_MERGED && e.Successor != nil {
			return refuse("row %d: only a replaced or merged number has a successor", i+1)
		}
		if err := a.numberEvent(id, e, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) numberEvent(id subject.ID, e *registrypb.NumberEvent, row int) error {
	n, err := a.view.number(id)
	if err != nil {
		return err
	}
	switch e.Kind {
	case registrypb.NumberEvent_CANCELLED:
		n.cancelled = true
	case registrypb.NumberEvent_DECEASED:
		d := names.Date(e.Date)
		n.deceased = &d
	case registrypb.NumberEvent_REPLACED, registrypb.NumberEvent_MERGED:
		successor, err := a.subject(e.Successor, row)
		if err != nil {
			return err
		}
		if e.Kind == registrypb.NumberEvent_MERGED {
			if err := a.reached(2, "a merger of numbers"); err != nil {
				return err
			}
			n.merged = n.merged || n.successor == ""
		}
		return a.replace(id, n, successor, row)
	default:
		return refuse("row %d: unknown kind of event", row)
	}
	return a.Set(subjectKey(tabNumber, id), n.pack())
}

// replace joins two numbers for ever. A number has one successor: see the package
// documentation for why it cannot be given another.
func (a *applier) replace(id subject.ID, n *numberRow, successor subject.ID, row int) error {
	switch {
	case successor.Scheme() != id.Scheme():
		return refuse("row %d: a successor is of the same scheme", row)
	case n.successor == successor.Number():
		return nil
	case n.successor != "":
		return refuse("row %d: the number was replaced by another before", row)
	}
	root, err := a.view.last(successor)
	if err != nil {
		return err
	}
	if root == id { // id has no successor, so it is the end of its own line
		return refuse("row %d: a number cannot come to replace itself", row)
	}
	joined := 0
	for _, top := range []subject.ID{root, id} {
		family, err := a.view.family(top)
		if err != nil {
			return err
		}
		joined += len(family)
	}
	if joined > maxFamily {
		return refuse("row %d: more than %d numbers would be one subject", row, maxFamily)
	}
	n.successor = successor.Number()
	next, err := a.view.number(successor)
	if err != nil {
		return err
	}
	next.predecessors = append(next.predecessors, id.Number())
	return errors.Join(a.Set(subjectKey(tabNumber, id), n.pack()), a.Set(subjectKey(tabNumber, successor), next.pack()))
}
