package runs

import (
	"encoding/binary"
	"testing"
)

// BenchmarkFilter adds to a filter of as many keys as a country's largest run has.
func BenchmarkFilter(b *testing.B) {
	const rows = 16 << 20
	key := make([]byte, 20)
	b.Run("alone", func(b *testing.B) {
		f := newFilter(rows)
		for i := 0; b.Loop(); i++ {
			binary.BigEndian.PutUint64(key, uint64(i))
			f.add(hashOf(key))
		}
	})
	b.Run("many", func(b *testing.B) {
		f := newFilter(rows)
		var some []uint64
		for i := 0; b.Loop(); i++ {
			binary.BigEndian.PutUint64(key, uint64(i))
			if some = append(some, hashOf(key)); len(some) == addsAtOnce {
				f.add(some...)
				some = some[:0]
			}
		}
	})
}
