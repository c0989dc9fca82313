// Package forest computes the root of a Merkle tree (RFC 6962) from its leaves, or from
// the hashes of whole subtrees where the leaves are not at hand, in memory that grows
// with the logarithm of their number.
package forest

import (
	"crypto/sha256"
	"errors"
	"math/bits"
)

// Hash is a node of the tree.
type Hash = [sha256.Size]byte

// subtree is the hash over 2^level leaves, the first of which is index·2^level.
type subtree struct {
	level uint
	index uint64
	hash  Hash
}

// Forest holds the hash over a run of leaves of a tree (RFC 6962) in as few whole
// subtrees as will do: at most two of each level. Leaves and subtrees are added from
// the left, each where the one before ended. The zero Forest is empty.
type Forest []subtree

// Leaf adds the hash of a leaf.
func (f *Forest) Leaf(sequence uint64, leaf Hash) { f.add(subtree{0, sequence, leaf}) }

func (f *Forest) add(s subtree) {
	for len(*f) > 0 && s.index%2 == 1 {
		l := (*f)[len(*f)-1]
		if l.level != s.level || l.index != s.index-1 {
			break
		}
		*f = (*f)[:len(*f)-1]
		s = subtree{s.level + 1, s.index / 2, nodeHash(l.hash, s.hash)}
	}
	*f = append(*f, s)
}

// Root gives the root of the tree whose leaves, all of them, were added.
func (f Forest) Root() Hash {
	if len(f) == 0 {
		return sha256.Sum256(nil)
	}
	h := f[len(f)-1].hash
	for i := len(f) - 2; i >= 0; i-- {
		h = nodeHash(f[i].hash, h)
	}
	return h
}

// Hashes gives the hashes of the subtrees, from the left: what Cover takes.
func (f Forest) Hashes() [][]byte {
	list := make([][]byte, len(f))
	for i, s := range f {
		list[i] = s.hash[:]
	}
	return list
}

// Cover adds the hashes of the whole subtrees that cover from to until.
func (f *Forest) Cover(from, until uint64, hashes [][]byte) error {
	for ; from < until; hashes = hashes[1:] {
		level := bits.Len64(until-from) - 1
		if from != 0 {
			level = min(level, bits.TrailingZeros64(from))
		}
		if len(hashes) == 0 || len(hashes[0]) != sha256.Size {
			return errors.New("its hashes do not cover the tree")
		}
		f.add(subtree{uint(level), from >> level, Hash(hashes[0])})
		from += 1 << level
	}
	if len(hashes) != 0 {
		return errors.New("it has more hashes than cover the tree")
	}
	return nil
}

func nodeHash(l, r Hash) Hash {
	b := make([]byte, 0, 1+2*sha256.Size)
	return sha256.Sum256(append(append(append(b, 1), l[:]...), r[:]...))
}
