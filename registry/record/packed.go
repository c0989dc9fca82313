package record

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// maxDigits of a number that is packed as one: it fits in 63 bits.
const maxDigits = 18

// declarePacked is declareReferences of the packed form.
func (a *applier) declarePacked(p *registrypb.PackedReferences) error {
	rows := make([]declared, 0, min(MaxRows, len(p.Rows)/4))
	err := walkPacked(p, func(row int, number string, r declared) error {
		id, err := a.rules.Schemes.Parse(subject.Scheme(p.Scheme), number)
		switch {
		case err != nil:
			return refuse("row %d: %v", row, err)
		case id.Number() != number:
			return refuse("row %d: the number is not in its canonical form (no spaces or separators)", row)
		}
		r.id, r.row = id, row
		rows = append(rows, r)
		return nil
	})
	if err != nil {
		return err
	}
	if err := checkRows(len(rows)); err != nil {
		return err
	}
	return a.declare(rows, p.Qualities)
}

// walkPacked reads the rows of p in order; numbers come unchecked, but for their
// length and order. Its errors are refusals, and those of fn.
func walkPacked(p *registrypb.PackedReferences, fn func(row int, number string, r declared) error) error {
	if p.GetDigits() > maxDigits {
		return refuse("packed numbers of %d digits, want at most %d", p.GetDigits(), maxDigits)
	}
	if len(p.GetQualities()) > maxQualities {
		return refuse("%d qualities in one command, want at most %d", len(p.Qualities), maxQualities)
	}
	seen := make(map[string]bool, len(p.GetQualities()))
	for _, q := range p.GetQualities() {
		if err := names.Quality(q).Validate(); err != nil {
			return refuse("%v", err)
		}
		if seen[q] {
			return refuse("a quality stands in the packed command twice")
		}
		seen[q] = true
	}
	in := reader{b: p.GetRows()}
	n := numbers{digits: int(p.GetDigits())}
	for row := 1; len(in.b) > 0; row++ {
		if row > MaxRows {
			return checkRows(row)
		}
		if err := n.next(&in, row); err != nil {
			return err
		}
		quality, from, length := in.uvarint(), in.uvarint(), in.uvarint()
		const span = uint64(names.Forever-names.Always) + 1
		if in.bad || from > span || length > span || quality>>1 >= uint64(len(p.Qualities)) {
			return refuse("row %d of the packed rows is malformed", row)
		}
		r := declared{quality: int(quality >> 1), withdrawn: quality&1 == 1}
		// In 64 bits: base is any number that its author likes.
		start := int64(p.Base) + int64(from)
		end := int64(names.Forever)
		if length > 0 {
			end = start + int64(length) - 1
		}
		if start < int64(names.Always) || start > end || end > int64(names.Forever) {
			return refuse("row %d: period out of range", row)
		}
		r.period = names.Period{From: names.Date(start), Until: names.Date(end)}
		if err := fn(row, n.number, r); err != nil {
			return err
		}
	}
	return nil
}

// numbers reads the numbers of packed rows.
type numbers struct {
	digits int
	last   uint64
	number string
}

func (n *numbers) next(in *reader, row int) error {
	if n.digits == 0 {
		shared, further := in.uvarint(), in.uvarint()
		if in.bad || shared > uint64(len(n.number)) || further > uint64(len(in.b)) || shared+further == 0 || shared+further > maxNumberLen {
			return refuse("row %d of the packed rows is malformed", row)
		}
		was := n.number
		n.number = n.number[:shared] + string(in.b[:further])
		in.b = in.b[further:]
		if n.number < was {
			return refuse("row %d of the packed rows is out of order", row)
		}
		return nil
	}
	above := in.uvarint()
	if in.bad || above >= powers[n.digits]-n.last {
		return refuse("row %d of the packed rows is malformed", row)
	}
	if above == 0 && row > 1 {
		return nil
	}
	n.last += above
	var b [maxDigits]byte
	for i, v := n.digits-1, n.last; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	n.number = string(b[:n.digits])
	return nil
}

// powers of ten.
var powers = func() (p [maxDigits + 1]uint64) {
	for i, v := 0, uint64(1); i < len(p); i++ {
		p[i] = v
		v *= 10
	}
	return p
}()

// Declaration is one reference that an institution declares, or withdraws.
type Declaration struct {
	Subject   subject.ID
	Quality   names.Quality
	Period    names.Period
	Withdrawn bool
}

// PackReferences packs declarations, which it sorts by number; those on one number
// keep their order. All are of one scheme. There may be at most MaxRows. Whether they
// make sense the registry says.
func PackReferences(rows []Declaration) (*registrypb.PackedReferences, error) {
	if len(rows) == 0 || len(rows) > MaxRows {
		return nil, fmt.Errorf("%d rows in one command, want 1 to %d", len(rows), MaxRows)
	}
	slices.SortStableFunc(rows, func(a, b Declaration) int { return cmp.Compare(a.Subject.Number(), b.Subject.Number()) })
	p := &registrypb.PackedReferences{
		Scheme: string(rows[0].Subject.Scheme()), Digits: digitsOf(rows), Base: int32(rows[0].Period.From),
		Rows: make([]byte, 0, 8*len(rows)),
	}
	for _, r := range rows {
		p.Base = min(p.Base, int32(r.Period.From))
	}
	places := make(map[names.Quality]uint64)
	var last uint64
	was := ""
	for _, r := range rows {
		if string(r.Subject.Scheme()) != p.Scheme {
			return nil, fmt.Errorf("numbers of two schemes, %s and %s, in one command", p.Scheme, r.Subject.Scheme())
		}
		if err := r.Period.Validate(); err != nil {
			return nil, err
		}
		place, known := places[r.Quality]
		if !known {
			place = uint64(len(p.Qualities))
			places[r.Quality], p.Qualities = place, append(p.Qualities, string(r.Quality))
		}
		number := r.Subject.Number()
		if p.Digits > 0 {
			v, _ := strconv.ParseUint(number, 10, 64) // digitsOf has seen to it
			p.Rows, last = binary.AppendUvarint(p.Rows, v-last), v
		} else {
			shared := 0
			for shared < len(was) && shared < len(number) && was[shared] == number[shared] {
				shared++
			}
			p.Rows = appendString(binary.AppendUvarint(p.Rows, uint64(shared)), number[shared:])
			was = number
		}
		place <<= 1
		if r.Withdrawn {
			place |= 1
		}
		p.Rows = binary.AppendUvarint(p.Rows, place)
		p.Rows = binary.AppendUvarint(p.Rows, uint64(int32(r.Period.From)-p.Base))
		length := uint64(0)
		if r.Period.Until != names.Forever {
			length = uint64(r.Period.Until-r.Period.From) + 1
		}
		p.Rows = binary.AppendUvarint(p.Rows, length)
	}
	return p, nil
}

// digitsOf gives how many digits all numbers have, or 0 if they are not all so.
func digitsOf(rows []Declaration) uint32 {
	n := len(rows[0].Subject.Number())
	if n == 0 || n > maxDigits {
		return 0
	}
	for _, r := range rows {
		number := r.Subject.Number()
		if len(number) != n {
			return 0
		}
		for i := range n {
			if number[i] < '0' || number[i] > '9' {
				return 0
			}
		}
	}
	return uint32(n)
}

// unpackReferences gives the rows of p on subjects that are wanted, one by one. The
// error is a refusal: it is for commands that were accepted, and so have none.
func unpackReferences(p *registrypb.PackedReferences, wanted func(subject.ID) bool) (refs []*registrypb.Reference, err error) {
	err = walkPacked(p, func(_ int, number string, r declared) error {
		if wanted(subject.Raw(subject.Scheme(p.Scheme), number)) {
			refs = append(refs, &registrypb.Reference{
				Subject: &registrypb.Subject{Scheme: p.Scheme, Number: number}, Quality: p.Qualities[r.quality],
				Period: &registrypb.Period{From: int32(r.period.From), Until: int32(r.period.Until)}, Withdrawn: r.withdrawn,
			})
		}
		return nil
	})
	return refs, err
}

// UnpackReferences gives the rows of packed references one by one, for people to read.
// It checks their form alone.
func UnpackReferences(p *registrypb.PackedReferences) ([]*registrypb.Reference, error) {
	return unpackReferences(p, func(subject.ID) bool { return true })
}
