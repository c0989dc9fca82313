package record

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// entry is one reference of a subject's row. Institution and quality are interned.
// An open-ended reference takes 6 or 7 bytes, another 8 or 9:
//
//	uvarint institution, uvarint quality, varint from, uvarint (0: Forever, else until-from+1)
type entry struct {
	institution, quality uint64
	period               names.Period
}

func (e entry) compare(f entry) int {
	switch { // and not cmp.Or, which compares all four
	case e.institution != f.institution:
		return cmp.Compare(e.institution, f.institution)
	case e.quality != f.quality:
		return cmp.Compare(e.quality, f.quality)
	case e.period.From != f.period.From:
		return cmp.Compare(e.period.From, f.period.From)
	}
	return cmp.Compare(e.period.Until, f.period.Until)
}

// packEntries wants the entries sorted, so that equal sets are equal bytes.
func packEntries(entries []entry) []byte {
	b := make([]byte, 0, 9*len(entries))
	for _, e := range entries {
		b = packEntry(b, e)
	}
	return b
}

func packEntry(b []byte, e entry) []byte {
	b = binary.AppendUvarint(b, e.institution)
	b = binary.AppendUvarint(b, e.quality)
	b = binary.AppendVarint(b, int64(e.period.From))
	if e.period.Until == names.Forever {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(e.period.Until-e.period.From)+1)
}

func unpackEntries(b []byte) ([]entry, error) { return appendEntries(make([]entry, 0, len(b)/7+1), b) }

// appendEntries is unpackEntries in the memory of entries, which are none.
func appendEntries(entries []entry, b []byte) ([]entry, error) {
	r := reader{b: b}
	for len(r.b) > 0 {
		e := entry{institution: r.uvarint(), quality: r.uvarint()}
		from, length := r.varint(), r.uvarint()
		const span = uint64(names.Forever-names.Always) + 1
		if r.bad || from < int64(names.Always) || from > int64(names.Forever) || length > span {
			return nil, fmt.Errorf("%w: references", ErrCorrupt)
		}
		e.period = names.Period{From: names.Date(from), Until: names.Forever}
		if length > 0 {
			e.period.Until = names.Date(from + int64(length) - 1)
		}
		if e.period.Until > names.Forever || len(entries) > 0 && entries[len(entries)-1].compare(e) >= 0 {
			return nil, fmt.Errorf("%w: references", ErrCorrupt)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// insert adds e to sorted entries; false: it was there.
func insert(entries []entry, e entry) ([]entry, bool) {
	i, found := slices.BinarySearchFunc(entries, e, entry.compare)
	if found {
		return entries, false
	}
	return slices.Insert(entries, i, e), true
}

// remove takes e from sorted entries; false: it was not there.
func remove(entries []entry, e entry) ([]entry, bool) {
	i, found := slices.BinarySearchFunc(entries, e, entry.compare)
	if !found {
		return entries, false
	}
	return slices.Delete(entries, i, i+1), true
}

// numberRow is the history of one subject number. Successor and predecessors are
// numbers of the same scheme.
//
//	flags, [varint deceased], [string successor], uvarint n, n × string predecessor
type numberRow struct {
	cancelled    bool
	deceased     *names.Date
	successor    string
	merged       bool // successor was a number of the same person at the same time
	predecessors []string
}

const (
	flagReplaced = 1 << iota
	flagCancelled
	flagDeceased
	flagMerged
)

func (n *numberRow) pack() []byte {
	b := []byte{0}
	if n.deceased != nil {
		b[0] |= flagDeceased
		b = binary.AppendVarint(b, int64(*n.deceased))
	}
	if n.cancelled {
		b[0] |= flagCancelled
	}
	if n.merged {
		b[0] |= flagMerged
	}
	if n.successor != "" {
		b[0] |= flagReplaced
		b = appendString(b, n.successor)
	}
	b = binary.AppendUvarint(b, uint64(len(n.predecessors)))
	for _, p := range n.predecessors {
		b = appendString(b, p)
	}
	return b
}

func unpackNumber(b []byte) (*numberRow, error) {
	r := reader{b: b}
	flags := r.byte()
	n := &numberRow{cancelled: flags&flagCancelled != 0, merged: flags&flagMerged != 0}
	if flags&flagDeceased != 0 {
		d := names.Date(r.varint())
		n.deceased = &d
	}
	if flags&flagReplaced != 0 {
		n.successor = r.string()
	}
	for count := r.uvarint(); count > 0 && !r.bad; count-- {
		n.predecessors = append(n.predecessors, r.string())
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: number history", ErrCorrupt)
	}
	return n, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes packed values off b; after a failure it gives zero values and bad
// stays set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) advance(n int) {
	if n <= 0 {
		r.bad, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.advance(0)
		return 0
	}
	c := r.b[0]
	r.advance(1)
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.advance(n)
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.advance(n)
	return v
}

func (r *reader) string() string {
	n := r.uvarint()
	if n == 0 || n > uint64(len(r.b)) {
		r.advance(0)
		return ""
	}
	s := string(r.b[:n])
	r.advance(int(n))
	return s
}
