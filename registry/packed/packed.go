// Package packed keeps many subjects' numbers in few bytes: those of one lot, of which
// there are thousands in a message and a journal's entry. Numbers of one length in
// decimal digits take as many bytes as an integer of that size (11 digits: 5 bytes);
// others are kept as they are.
//
// Packed numbers are personal data like any others.
package packed

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Limits.
const (
	maxDigits = 18 // that fit an uint64
	// MaxNumber is the longest number, in bytes.
	MaxNumber = 63
)

// ErrMalformed means subjects that Of would not have made.
var ErrMalformed = errors.New("malformed list of subjects")

// widths gives the bytes of a number of so many digits.
var widths = func() (w [maxDigits + 1]int) {
	for d, most := 1, uint64(9); d <= maxDigits; d, most = d+1, most*10+9 {
		for n := most; n > 0; n >>= 8 {
			w[d]++
		}
	}
	return w
}()

// Of packs numbers of one scheme, in their order.
func Of(scheme subject.Scheme, numbers []string) *registrypb.Subjects {
	s := &registrypb.Subjects{Scheme: string(scheme), Digits: digitsOf(numbers)}
	if s.Digits == 0 {
		s.Others = slices.Clone(numbers)
		return s
	}
	s.Numbers = make([]byte, 0, len(numbers)*widths[s.Digits])
	for _, n := range numbers {
		s.Numbers = appendNumber(s.Numbers, n)
	}
	return s
}

// digitsOf gives how many decimal digits each number has, or 0.
func digitsOf(numbers []string) uint32 {
	if len(numbers) == 0 || len(numbers[0]) == 0 || len(numbers[0]) > maxDigits {
		return 0
	}
	for _, n := range numbers {
		if len(n) != len(numbers[0]) || !decimal(n) {
			return 0
		}
	}
	return uint32(len(numbers[0]))
}

func decimal(n string) bool {
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	return true
}

func appendNumber(b []byte, number string) []byte {
	var v uint64
	for i := range len(number) {
		v = v*10 + uint64(number[i]-'0')
	}
	for i := widths[len(number)] - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

// Len gives how many there are.
func Len(s *registrypb.Subjects) int {
	if d := s.GetDigits(); d > 0 && d <= maxDigits {
		return len(s.GetNumbers()) / widths[d]
	}
	return len(s.GetOthers())
}

// Size gives about how many bytes they take.
func Size(s *registrypb.Subjects) int {
	n := len(s.GetNumbers())
	for _, o := range s.GetOthers() {
		n += len(o) + 2
	}
	return n
}

// Check insists that s is what Of makes of at most so many numbers, and that the scheme
// reads each of them as it stands.
func Check(s *registrypb.Subjects, schemes subject.Schemes, most int) error {
	if err := CheckForm(s, most); err != nil {
		return err
	}
	for _, n := range All(s) {
		if id, err := schemes.Parse(subject.Scheme(s.Scheme), n); err != nil || id.Number() != n {
			return fmt.Errorf("%w: a number is not as its scheme writes it", ErrMalformed)
		}
	}
	return nil
}

// CheckForm is Check without the scheme's word.
func CheckForm(s *registrypb.Subjects, most int) error {
	d := s.GetDigits()
	switch {
	case s == nil || d > maxDigits:
		return fmt.Errorf("%w: there are none, or of too many digits", ErrMalformed)
	case d == 0 && len(s.Numbers) > 0 || d > 0 && (len(s.Others) > 0 || len(s.Numbers)%widths[d] != 0):
		return fmt.Errorf("%w: they are written in no one way", ErrMalformed)
	case Len(s) == 0 || Len(s) > most:
		return fmt.Errorf("%w: %d of them, want 1 to %d", ErrMalformed, Len(s), most)
	}
	for _, o := range s.Others {
		if len(o) == 0 || len(o) > MaxNumber {
			return fmt.Errorf("%w: a number of %d bytes", ErrMalformed, len(o))
		}
	}
	if d > 0 {
		for _, n := range All(s) {
			if len(n) != int(d) { // an integer that is too large
				return fmt.Errorf("%w: a number of more digits than the others", ErrMalformed)
			}
		}
	} else if digitsOf(s.Others) != 0 {
		return fmt.Errorf("%w: they could be packed", ErrMalformed)
	}
	return nil
}

// At gives the number in place i.
func At(s *registrypb.Subjects, i int) string {
	if s.GetDigits() == 0 {
		return s.Others[i]
	}
	w := widths[s.Digits]
	var v uint64
	for _, c := range s.Numbers[i*w : (i+1)*w] {
		v = v<<8 | uint64(c)
	}
	var b [20]byte
	at := len(b)
	for v > 0 || len(b)-at < int(s.Digits) {
		at--
		b[at] = byte('0' + v%10)
		v /= 10
	}
	return string(b[at:])
}

// All gives the numbers and their places, in order.
func All(s *registrypb.Subjects) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i := range Len(s) {
			if !yield(i, At(s, i)) {
				return
			}
		}
	}
}

// Find gives the place of a subject, or -1.
func Find(s *registrypb.Subjects, id subject.ID) int {
	n := id.Number()
	if string(id.Scheme()) != s.GetScheme() || n == "" {
		return -1
	}
	if s.Digits == 0 {
		return slices.Index(s.Others, n)
	}
	if len(n) != int(s.Digits) || !decimal(n) {
		return -1
	}
	w := widths[s.Digits]
	want := appendNumber(make([]byte, 0, 8), n)
	for rest, at := s.Numbers, 0; ; {
		i := bytes.Index(rest, want)
		if i < 0 {
			return -1
		}
		if (at+i)%w == 0 {
			return (at + i) / w
		}
		rest, at = rest[i+1:], at+i+1
	}
}

// Bits is a set of places.
type Bits []byte

// NewBits gives an empty set of places below n.
func NewBits(n int) Bits { return make(Bits, (n+7)/8) }

// Set adds a place.
func (b Bits) Set(i int) { b[i/8] |= 1 << (i % 8) }

// Has reports whether a place is in the set; none beyond it is.
func (b Bits) Has(i int) bool { return i/8 < len(b) && b[i/8]&(1<<(i%8)) != 0 }

// Any reports whether there is any.
func (b Bits) Any() bool { return slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// Fill adds all places below n.
func (b Bits) Fill(n int) {
	for i := range n {
		b.Set(i)
	}
}

// Count gives how many there are.
func (b Bits) Count() (n int) {
	for _, c := range b {
		n += bits.OnesCount8(c)
	}
	return n
}
