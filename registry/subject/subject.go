// Package subject holds the numbers of those whom data are about: persons
// (SSIN), enterprises (CBE) and employers (NSSO), and whatever scheme another
// country adds. A Scheme says how its numbers are checked and normalised; the
// three Belgian ones are built in.
//
// A subject number must never reach a log, a metric or an error text. ID
// therefore prints as "ssin:***" under every verb, in slog and in encoding/json;
// only Number gives the digits, to be used where they are meant to go.
package subject

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
)

// ErrMalformed is returned for a number that its scheme refuses. The text never
// repeats the number.
var ErrMalformed = errors.New("malformed subject number")

// ErrUnknownScheme is returned for a scheme this node does not know.
var ErrUnknownScheme = errors.New("unknown identifier scheme")

// Scheme names an identifier scheme: "ssin", "cbe", "nsso".
type Scheme string

// The built-in schemes.
const (
	SSIN Scheme = "ssin"
	CBE  Scheme = "cbe"
	NSSO Scheme = "nsso"
)

// Checker says how the numbers of one scheme are checked.
type Checker interface {
	// Normalise gives the canonical form of a number that may carry the usual
	// separators, or an error that wraps ErrMalformed and says why without
	// repeating the number.
	Normalise(number string) (string, error)
}

// Schemes is a set of identifier schemes. It is not changed after it is built,
// and so is safe for concurrent use.
type Schemes map[Scheme]Checker

// Belgian gives the three built-in schemes.
func Belgian() Schemes {
	return Schemes{SSIN: ssinChecker{}, CBE: cbeChecker{}, NSSO: nssoChecker{}}
}

// Parse checks number under scheme and gives its canonical ID. The error wraps
// ErrUnknownScheme or ErrMalformed.
func (s Schemes) Parse(scheme Scheme, number string) (ID, error) {
	c, ok := s[scheme]
	if !ok {
		return ID{}, fmt.Errorf("%w: want one this mesh knows, as ssin, cbe or nsso", ErrUnknownScheme)
	}
	n, err := c.Normalise(number)
	if err != nil {
		return ID{}, err
	}
	return ID{scheme, n}, nil
}

// ID is the canonical number of one subject. The zero ID is nobody's. IDs are
// comparable. An ID made by Raw is not checked.
type ID struct {
	scheme Scheme
	number string
}

// Raw makes an ID from parts that were checked before they were stored or signed.
func Raw(scheme Scheme, number string) ID { return ID{scheme, number} }

// Scheme gives the scheme of the number.
func (i ID) Scheme() Scheme { return i.scheme }

// Number gives the digits. They are personal data: never log them.
func (i ID) Number() string { return i.number }

// IsZero reports whether i is the zero ID.
func (i ID) IsZero() bool { return i == ID{} }

// Key gives the bytes under which tables keep this subject: scheme, zero byte,
// number. Schemes hold no zero byte, so no two subjects share a key.
func (i ID) Key() []byte {
	return i.AppendKey(make([]byte, 0, len(i.scheme)+1+len(i.number)))
}

// AppendKey appends the bytes of Key to k.
func (i ID) AppendKey(k []byte) []byte {
	k = append(k, i.scheme...)
	k = append(k, 0)
	return append(k, i.number...)
}

// String hides the number.
func (i ID) String() string { return string(i.scheme) + ":***" }

// GoString hides the number.
func (i ID) GoString() string { return i.String() }

// Format hides the number under every verb.
func (i ID) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(i.String())) }

// LogValue hides the number.
func (i ID) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalJSON hides the number: an API that is meant to show it says so by
// calling Number.
func (i ID) MarshalJSON() ([]byte, error) { return json.Marshal(i.String()) }
