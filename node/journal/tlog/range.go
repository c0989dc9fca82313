package tlog

import (
	"crypto/sha256"
	"math/bits"

	merkle "golang.org/x/mod/sumdb/tlog"
)

// compact is what must be kept of a tree to add leaves to it: the roots of its
// perfect subtrees, largest first.
type compact struct {
	n     int64
	peaks []Hash
}

// add adds a leaf and gives made each hash that is complete with it, leaf included,
// from below.
func (c *compact) add(leaf Hash, made func(level int, h Hash)) {
	h, level := leaf, 0
	made(level, h)
	for n := c.n; n&1 == 1; n >>= 1 {
		last := len(c.peaks) - 1
		h = merkle.NodeHash(c.peaks[last], h)
		c.peaks = c.peaks[:last]
		level++
		made(level, h)
	}
	c.peaks = append(c.peaks, h)
	c.n++
}

// root gives the root of the tree.
func (c *compact) root() Hash {
	if len(c.peaks) == 0 {
		return sha256.Sum256(nil)
	}
	h := c.peaks[len(c.peaks)-1]
	for i := len(c.peaks) - 2; i >= 0; i-- {
		h = merkle.NodeHash(c.peaks[i], h)
	}
	return h
}

// peakIndexes gives where the peaks of a tree of n leaves are stored.
func peakIndexes(n int64) (at []int64) {
	for lo := int64(0); lo < n; {
		level := bits.Len64(uint64(n-lo)) - 1
		at = append(at, merkle.StoredHashIndex(level, lo>>level))
		lo += 1 << level
	}
	return at
}
