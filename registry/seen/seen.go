// Package seen tells of a key that certainly nobody added it to a set: a filter that grows
// while it is read, without a lock. Who looks for rows of which there mostly are none asks it
// before a search in a database.
package seen

import (
	"math/bits"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Keys is a set of keys that forgets none: May of a key that was added is true. Of a key that
// was not, it is wrong for about one in five thousand when as many were added as it was made
// for; beyond, it is wrong more often. It is safe for concurrent use: whoever learned of a row
// whose key was added before it was written is told that it may be there.
type Keys struct {
	bits []atomic.Uint64
	some atomic.Bool
}

const (
	bitsPerKey = 32
	probes     = 4
	mix        = 0x9e3779b97f4a7c15
)

// For makes a set for some keys; it takes four bytes for each.
func For(keys int) *Keys {
	return &Keys{bits: make([]atomic.Uint64, max(keys, 64)*bitsPerKey/64)}
}

// Add says that there may be a row with this key, from now on.
func (s *Keys) Add(key []byte) {
	h := xxhash.Sum64(key)
	for range probes {
		at, bit := s.place(h)
		s.bits[at].Or(bit)
		h *= mix
	}
	s.some.Store(true)
}

// May reports whether the key may have been added.
func (s *Keys) May(key []byte) bool {
	if !s.some.Load() {
		return false
	}
	h := xxhash.Sum64(key)
	for range probes {
		if at, bit := s.place(h); s.bits[at].Load()&bit == 0 {
			return false
		}
		h *= mix
	}
	return true
}

// place gives the bit that the high bits of h say.
func (s *Keys) place(h uint64) (at, bit uint64) {
	at, rest := bits.Mul64(h, uint64(len(s.bits)))
	return at, 1 << (rest >> 58)
}
