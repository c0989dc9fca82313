package record

import (
	"encoding/binary"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Replay applies a long history to an empty state quicker than command by command. What
// commands do to the rows of subjects (OfDirectory) is not done at once, but handed out
// in small pieces, effects; sorted by key they make each row once, with Fold. All that
// Apply judges is judged, some of it only then: that a row that is withdrawn was there,
// the limit of one institution's references on one subject, and how much each command
// writes. So the verdict of a history as a whole is that of Apply on each command in turn:
// all were accepted, or not.
//
// A Replay is not safe for concurrent use, but for Fold with counts of its own.
type Replay struct {
	rules *Rules
	// emit takes the effect of a command on the row of key. Neither slice is its to keep.
	emit func(key, effect []byte) error

	commands uint32
	written  []uint32 // by each command, in bytes, as far as known
	effect   []byte
}

// NewReplay makes one for an empty state that Bootstrap has founded.
func NewReplay(r *Rules, emit func(key, effect []byte) error) *Replay {
	return &Replay{rules: r, emit: emit}
}

// Apply is Apply for the next command of a history. Its effects on subjects' rows go to
// emit, in the order in which they must be folded.
func (p *Replay) Apply(s State, index uint64, raw []byte) (Result, error) {
	o := newOverlay(s)
	a := newApplier(o, p.rules)
	a.index = index
	a.replay = p
	res, err := a.apply(raw)
	if res.Refusal, err = refusalOf(err); err != nil || res.Refusal != "" || res.Repeated {
		return res, err
	}
	p.commands++
	p.written = append(p.written, uint32(o.size))
	return res, o.commit()
}

// declare hands out what declare would do to the subjects' rows.
func (p *Replay) declare(rows []declared, self uint64, qualities []uint64) error {
	for i, r := range rows {
		b := binary.AppendUvarint(p.effect[:0], uint64(p.commands))
		withdrawn := uint64(0)
		if r.withdrawn {
			withdrawn = 1
		}
		b = binary.AppendUvarint(b, qualities[r.quality]<<1|withdrawn)
		p.effect = appendEntry(b, entry{institution: self, period: r.period})
		if i > 0 && rows[i-1].id == r.id {
			if err := p.emit(nil, p.effect); err != nil {
				return err
			}
			continue
		}
		if err := p.emit(subjectKey(tabReferences, r.id), p.effect); err != nil {
			return err
		}
	}
	return nil
}

// Fold makes a row of all its effects, in order: the one value to be written, or nil when
// nothing is left. The error is a refusal, or wraps ErrCorrupt.
func (p *Replay) Fold(key, effects []byte, counts *Counts) ([]byte, error) {
	in := reader{b: effects}
	var entries []entry
	size := 0 // of the row, packed
	for len(in.b) > 0 {
		command := in.uvarint()
		before := len(entries)
		var self uint64
		for next := command; next == command; {
			mark := in.uvarint()
			e, ok := readEntry(&in)
			if !ok || command >= uint64(len(p.written)) {
				return nil, fmt.Errorf("%w: effects", ErrCorrupt)
			}
			e.quality, self = mark>>1, e.institution
			if mark&1 == 1 {
				var there bool
				if entries, there = remove(entries, e); !there {
					return nil, refuse("it withdraws a reference that is not there")
				}
				size -= entrySize(e)
			} else {
				var isNew bool
				if entries, isNew = insert(entries, e); isNew {
					size += entrySize(e)
				}
			}
			if len(in.b) == 0 {
				break
			}
			peek := in
			if next = peek.uvarint(); next == command {
				in = peek
			}
		}
		own := 0
		for _, e := range entries {
			if e.institution == self {
				own++
			}
		}
		if own > maxOwnRows {
			return nil, refuse("more than %d references of one institution on one subject", maxOwnRows)
		}
		if before > 0 || len(entries) > 0 {
			p.written[command] += uint32(len(key) + size + rowOverhead)
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	counts.Subjects++
	counts.References += uint64(len(entries))
	return packEntries(entries), nil
}

// End judges what could not be judged before everything was folded, and writes what
// stands in the state about all rows together.
func (p *Replay) End(s State, counts Counts) error {
	for n, written := range p.written {
		if written > MaxWrite {
			return refuse("command %d of the history writes %d bytes, at most %d are accepted", n+1, written, MaxWrite)
		}
	}
	if counts == (Counts{}) {
		return nil
	}
	return s.Set([]byte{tabCounts}, counts.pack())
}

// entrySize is how many bytes packEntries takes for e.
func entrySize(e entry) int {
	var b [4 * binary.MaxVarintLen64]byte
	return len(packEntry(b[:0], e))
}

// appendEntry writes an entry without its quality.
func appendEntry(b []byte, e entry) []byte {
	b = binary.AppendUvarint(b, e.institution)
	b = binary.AppendVarint(b, int64(e.period.From))
	return binary.AppendVarint(b, int64(e.period.Until))
}

func readEntry(in *reader) (e entry, ok bool) {
	e.institution = in.uvarint()
	e.period = names.Period{From: names.Date(in.varint()), Until: names.Date(in.varint())}
	return e, !in.bad
}
