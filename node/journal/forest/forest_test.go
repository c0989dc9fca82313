package forest

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	merkle "golang.org/x/mod/sumdb/tlog"
)

func leaf(i int) Hash { return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{0}, uint64(i))) }

// naive is RFC 6962 word for word.
func naive(leaves []Hash) Hash {
	if len(leaves) == 0 {
		return sha256.Sum256(nil)
	}
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return Hash(merkle.NodeHash(merkle.Hash(naive(leaves[:k])), merkle.Hash(naive(leaves[k:]))))
}

// TestEveryRun: the root is that of the dumb way, however the leaves are cut into what
// is given as leaves and what as covering hashes.
func TestEveryRun(t *testing.T) {
	const most = 40
	var leaves []Hash
	for size := 0; size <= most; size++ {
		want := naive(leaves)
		for first := 0; first <= size; first++ {
			for until := first; until <= size; until++ {
				part := func(from, to int) [][]byte {
					var f Forest
					for i := from; i < to; i++ {
						f.Leaf(uint64(i), leaves[i])
					}
					return f.Hashes()
				}
				var f Forest
				if err := f.Cover(0, uint64(first), part(0, first)); err != nil {
					t.Fatal(err)
				}
				for i := first; i < until; i++ {
					f.Leaf(uint64(i), leaves[i])
				}
				if err := f.Cover(uint64(until), uint64(size), part(until, size)); err != nil {
					t.Fatal(err)
				}
				if f.Root() != want {
					t.Fatalf("%d to %d of %d: another root", first, until, size)
				}
			}
		}
		leaves = append(leaves, leaf(size))
	}
}

// TestCoverRefuses: too few hashes, too many, or such of another length cover nothing.
func TestCoverRefuses(t *testing.T) {
	h := make([]byte, 32)
	for _, hashes := range [][][]byte{nil, {h}, {h, h, h}, {h, h[:31]}, {nil, h}} {
		var f Forest
		if f.Cover(0, 6, hashes) == nil {
			t.Errorf("%d hashes cover 6 leaves", len(hashes))
		}
	}
	var f Forest
	if err := f.Cover(1, 1<<62, make([][]byte, 5)); err == nil {
		t.Error("a huge tree is covered by nothing")
	}
}
