package runs

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// A filter tells of a key that a run certainly does not hold it. Each key has a line
// of 64 bytes, one of the processor's, and six bits in that: at ten bits a key it is
// wrong for one key in a hundred.
type filter []byte

const (
	lineSize   = 64
	bitsPerKey = 10
	probes     = 6
)

func newFilter(keys uint64) filter {
	return make(filter, (keys*bitsPerKey/8/lineSize+1)*lineSize)
}

func (f filter) line(h uint64) []byte {
	n := uint64(len(f) / lineSize)
	at := (h >> 32) * n >> 32
	return f[at*lineSize : (at+1)*lineSize]
}

// add adds keys by their hashes. Each is a line somewhere in the filter, which is in no cache
// of the processor when the filter is large: with many at once, it fetches several at a time.
func (f filter) add(hashes ...uint64) {
	for _, h := range hashes {
		line := f.line(h)
		for b, i := h*0x9e3779b97f4a7c15, 0; i < probes; i++ {
			bit := b >> 55
			line[bit/8] |= 1 << (bit % 8)
			b <<= 9
		}
	}
}

func (f filter) may(h uint64) bool {
	line := f.line(h)
	for b, i := h*0x9e3779b97f4a7c15, 0; i < probes; i++ {
		bit := b >> 55
		if line[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
		b <<= 9
	}
	return true
}

func hashOf(key []byte) uint64 { return xxhash.Sum64(key) }

// entry reads one row of a block, or one key of the index, at off: the bytes that its
// key shares with the one before, the rest of the key, and where what follows stands.
func entryKey(b []byte, off int) (shared, start, end int, ok bool) {
	s, n := binary.Uvarint(b[off:])
	if n <= 0 {
		return 0, 0, 0, false
	}
	off += n
	l, n := binary.Uvarint(b[off:])
	if n <= 0 || l > uint64(len(b)-off-n) || s > maxKey {
		return 0, 0, 0, false
	}
	off += n
	return int(s), off, off + int(l), true
}
