// Package content is what a supplier answers about a chunk of a lot: for each subject, in
// the clearance's order, what there is on it, in a form that needs no JSON around it, and a
// commitment to all of it that tells nothing of one subject to whoever is shown another.
//
//	item   code (1)                                  none, yes, no, revoked, failed, unresolved
//	       0x01 ‖ size (varint) ‖ JSON array          records, the permitted fields only
//	leaf   SHA-256(0x00 ‖ blinding ‖ size of the number (1) ‖ number ‖ item)
//	root   of the Merkle tree over the leaves, shaped as in RFC 6962
//	blinding of place i   HMAC-SHA256(seed, i as 4 bytes, big-endian)
//
// The root is what the supplier signs and what journals keep. Whoever has the seed can show
// one subject's item with its blinding and its path; the neighbours in the path are hashes
// over blindings that cannot be guessed, so even a yes or no stays hidden.
package content

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"iter"

	"github.com/crossroads-mesh/crossroads/node/journal/forest"
)

// Code says what there is on a subject.
type Code byte

// The codes.
const (
	None    Code = 0 // no record
	Records Code = 1
	Yes     Code = 2
	No      Code = 3
	Revoked Code = 4 // the supplier has no file in force, or no longer
	Failed  Code = 5 // its own system gave what must not leave
	// Unresolved: the supplier speaks for a sector, which has no answer.
	Unresolved Code = 6
	Last            = Unresolved
)

// MaxSize is the largest content of one chunk, in bytes.
const MaxSize = 4 << 20

// SeedSize is the size of a seed, in bytes.
const SeedSize = 32

// ErrMalformed means bytes that are no content of so many subjects.
var ErrMalformed = errors.New("malformed content of a chunk")

// Item is what there is on one subject.
type Item struct {
	Code    Code
	Records []byte // a JSON array, with Records
}

// Append adds an item to dst.
func Append(dst []byte, i Item) []byte {
	dst = append(dst, byte(i.Code))
	if i.Code == Records {
		dst = binary.AppendUvarint(dst, uint64(len(i.Records)))
		dst = append(dst, i.Records...)
	}
	return dst
}

// Read takes content apart into the items of n subjects. The items are parts of raw.
func Read(raw []byte, n int) ([]Item, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(raw), MaxSize)
	}
	if n > len(raw) {
		return nil, fmt.Errorf("%w: of fewer subjects", ErrMalformed)
	}
	items := make([]Item, n)
	for i := range items {
		item, rest, err := next(raw)
		if err != nil {
			return nil, err
		}
		items[i], raw = item, rest
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("%w: of more subjects", ErrMalformed)
	}
	return items, nil
}

func next(raw []byte) (Item, []byte, error) {
	if len(raw) == 0 || raw[0] > byte(Last) {
		return Item{}, nil, fmt.Errorf("%w: it ends early, or has no such code", ErrMalformed)
	}
	i, raw := Item{Code: Code(raw[0])}, raw[1:]
	if i.Code != Records {
		return i, raw, nil
	}
	size, k := binary.Uvarint(raw)
	if k <= 0 || size > uint64(len(raw)-k) || k > 1 && raw[k-1] == 0 {
		return Item{}, nil, fmt.Errorf("%w: records beyond its end", ErrMalformed)
	}
	i.Records = raw[k : k+int(size)]
	return i, raw[k+int(size):], nil
}

// Seed gives a fresh seed.
func Seed() []byte {
	s := make([]byte, SeedSize)
	rand.Read(s)
	return s
}

// leaves computes leaves one after the other. It is for one goroutine.
type leaves struct {
	mac, sha hash.Hash
	buf      []byte
}

func newLeaves(seed []byte) *leaves {
	return &leaves{mac: hmac.New(sha256.New, seed), sha: sha256.New()}
}

func (l *leaves) blinding(place int) []byte {
	l.mac.Reset()
	l.buf = binary.BigEndian.AppendUint32(l.buf[:0], uint32(place))
	l.mac.Write(l.buf)
	return l.mac.Sum(l.buf[:0])
}

func (l *leaves) leaf(place int, number string, i Item) (h forest.Hash) {
	l.buf = l.blinding(place)
	return leafOf(l.sha, &l.buf, number, i)
}

// leafOf hashes a leaf; buf holds the blinding.
func leafOf(sha hash.Hash, buf *[]byte, number string, i Item) (h forest.Hash) {
	sha.Reset()
	b := append((*buf)[:sha256.Size], byte(len(number)))
	b = Append(append(b, number...), i)
	sha.Write([]byte{0})
	sha.Write(b)
	*buf = b
	sha.Sum(h[:0])
	return h
}

// Root gives the root over the items of subjects with these numbers, which must be as many.
func Root(seed []byte, numbers iter.Seq[string], items []Item) (forest.Hash, error) {
	if len(seed) != SeedSize {
		return forest.Hash{}, fmt.Errorf("%w: a seed of %d bytes, want %d", ErrMalformed, len(seed), SeedSize)
	}
	l := newLeaves(seed)
	var f forest.Forest
	place := 0
	for n := range numbers {
		if place >= len(items) {
			return forest.Hash{}, fmt.Errorf("%w: of fewer subjects", ErrMalformed)
		}
		f.Leaf(uint64(place), l.leaf(place, n, items[place]))
		place++
	}
	if place != len(items) {
		return forest.Hash{}, fmt.Errorf("%w: of more subjects", ErrMalformed)
	}
	return f.Root(), nil
}

// Proof shows what was answered about one subject and tells nothing of any other.
type Proof struct {
	Place    int      `json:"place"`
	Size     int      `json:"size"` // subjects in the chunk's answer
	Blinding []byte   `json:"blinding"`
	Item     []byte   `json:"item"`
	Path     [][]byte `json:"path"`
}

// Prove makes the proof of one place.
func Prove(seed []byte, numbers iter.Seq[string], items []Item, place int) (*Proof, error) {
	if place < 0 || place >= len(items) || len(seed) != SeedSize {
		return nil, fmt.Errorf("%w: there is no such place", ErrMalformed)
	}
	l := newLeaves(seed)
	hashes := make([]forest.Hash, 0, len(items))
	for n := range numbers {
		if len(hashes) == len(items) {
			return nil, fmt.Errorf("%w: of fewer subjects", ErrMalformed)
		}
		hashes = append(hashes, l.leaf(len(hashes), n, items[len(hashes)]))
	}
	if len(hashes) != len(items) {
		return nil, fmt.Errorf("%w: of more subjects", ErrMalformed)
	}
	p := &Proof{Place: place, Size: len(items), Blinding: append([]byte{}, l.blinding(place)...), Item: Append(nil, items[place])}
	p.Path = path(hashes, place)
	return p, nil
}

// path gives the hashes beside the way from a leaf to the root, from the leaf on.
func path(hashes []forest.Hash, place int) [][]byte {
	if len(hashes) == 1 {
		return nil
	}
	k := split(len(hashes))
	if place < k {
		h := root(hashes[k:])
		return append(path(hashes[:k], place), h[:])
	}
	h := root(hashes[:k])
	return append(path(hashes[k:], place-k), h[:])
}

// split gives the largest power of two below n.
func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func root(hashes []forest.Hash) forest.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	k := split(len(hashes))
	l, r := root(hashes[:k]), root(hashes[k:])
	return node(l[:], r[:])
}

func node(l, r []byte) forest.Hash {
	b := append(append(append(make([]byte, 0, 1+2*sha256.Size), 1), l...), r...)
	return sha256.Sum256(b)
}

// Verify gives what a proof shows of the subject with this number, if it leads to the root.
func (p *Proof) Verify(root []byte, number string) (Item, error) {
	item, rest, err := next(p.Item)
	if err != nil || len(rest) > 0 || len(p.Blinding) != sha256.Size || p.Place < 0 || p.Place >= p.Size {
		return Item{}, fmt.Errorf("%w: no proof", ErrMalformed)
	}
	buf := append([]byte{}, p.Blinding...)
	h := leafOf(sha256.New(), &buf, number, item)
	var sides []bool // whether the neighbour stands left, from the root on
	for place, n := p.Place, p.Size; n > 1; {
		k := split(n)
		if left := place < k; left {
			sides, n = append(sides, false), k
		} else {
			sides, place, n = append(sides, true), place-k, n-k
		}
	}
	if len(sides) != len(p.Path) {
		return Item{}, fmt.Errorf("%w: a path of another length", ErrMalformed)
	}
	for i, beside := range p.Path {
		if len(beside) != sha256.Size {
			return Item{}, fmt.Errorf("%w: no proof", ErrMalformed)
		}
		if sides[len(sides)-1-i] {
			h = node(beside, h[:])
		} else {
			h = node(h[:], beside)
		}
	}
	if !hmac.Equal(h[:], root) {
		return Item{}, errors.New("it does not lead to what the supplier signed")
	}
	return item, nil
}
