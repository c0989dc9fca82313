package journal

import (
	"crypto/sha256"
	"errors"
	"math/bits"
)

// subtree is the hash over 2^level leaves, the first of which is index·2^level.
type subtree struct {
	level uint
	index uint64
	hash  [sha256.Size]byte
}

// forest holds the hash over a run of leaves of a tree (RFC 6962) in as few whole
// subtrees as will do: at most two of each level. Leaves and subtrees are added from
// the left, each where the one before ended.
type forest []subtree

func (f *forest) leaf(sequence uint64, commitment [CommitmentSize]byte) {
	f.add(subtree{0, sequence, LeafHash(commitment)})
}

func (f *forest) add(s subtree) {
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

// root gives the root of the tree whose leaves, all of them, were added.
func (f forest) root() [sha256.Size]byte {
	if len(f) == 0 {
		return sha256.Sum256(nil)
	}
	h := f[len(f)-1].hash
	for i := len(f) - 2; i >= 0; i-- {
		h = nodeHash(f[i].hash, h)
	}
	return h
}

func (f forest) hashes() [][]byte {
	list := make([][]byte, len(f))
	for i, s := range f {
		list[i] = s.hash[:]
	}
	return list
}

// cover adds the hashes of the whole subtrees that cover from to until.
func (f *forest) cover(from, until uint64, hashes [][]byte) error {
	for ; from < until; hashes = hashes[1:] {
		level := bits.Len64(until-from) - 1
		if from != 0 {
			level = min(level, bits.TrailingZeros64(from))
		}
		if len(hashes) == 0 || len(hashes[0]) != sha256.Size {
			return errors.New("its hashes do not cover the tree")
		}
		f.add(subtree{uint(level), from >> level, [sha256.Size]byte(hashes[0])})
		from += 1 << level
	}
	if len(hashes) != 0 {
		return errors.New("it has more hashes than cover the tree")
	}
	return nil
}

func nodeHash(l, r [sha256.Size]byte) [sha256.Size]byte {
	b := make([]byte, 0, 1+2*sha256.Size)
	return sha256.Sum256(append(append(append(b, 1), l[:]...), r[:]...))
}
