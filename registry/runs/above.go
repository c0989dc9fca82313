package runs

import "sync/atomic"

// Above tells of the rows that whoever uses a version keeps elsewhere, above it: of a key
// that there is certainly no such row. It knows a few thousand keys well; beyond, it only
// tells less often. It never forgets a key. It is safe for concurrent use: whoever saw a row
// that was added before it was written finds it.
type Above struct {
	bits [1 << 10]atomic.Uint64
	some atomic.Bool
}

const aboveProbes = 4

// Add says that there may be a row with this key, from now on.
func (a *Above) Add(key []byte) {
	for h, i := hashOf(key), 0; i < aboveProbes; i++ {
		a.bits[h>>6&1023].Or(1 << (h & 63))
		h >>= 16
	}
	a.some.Store(true)
}

// May reports whether there may be a row with this key.
func (a *Above) May(key []byte) bool {
	if !a.some.Load() {
		return false
	}
	for h, i := hashOf(key), 0; i < aboveProbes; i++ {
		if a.bits[h>>6&1023].Load()&(1<<(h&63)) == 0 {
			return false
		}
		h >>= 16
	}
	return true
}
