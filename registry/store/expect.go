package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

// Expect passes a snapshot on as it is read, if it says of itself that it ends at index,
// and else fails with ErrBadSnapshot. Consensus knows at which index it took a snapshot;
// one that claims a later index would make its receiver pass over whatever comes next.
func Expect(index uint64, snapshot io.Reader) io.Reader {
	return &expecting{index: index, r: snapshot}
}

type expecting struct {
	index uint64
	r     io.Reader
	begun bool
}

func (e *expecting) Read(b []byte) (int, error) {
	if !e.begun {
		e.begun = true
		const at = len(snapshotMagic) + 8 + 1 + sha256.Size
		head := make([]byte, at+8)
		n, err := io.ReadFull(e.r, head)
		if err != nil && n == 0 {
			return 0, err
		}
		// A shorter one is refused for that, by who reads on.
		if n == len(head) && binary.BigEndian.Uint64(head[at:]) != e.index {
			return 0, fmt.Errorf("%w: it claims to end at index %d and was taken at %d", ErrBadSnapshot, binary.BigEndian.Uint64(head[at:]), e.index)
		}
		e.r = io.MultiReader(bytes.NewReader(head[:n]), e.r)
	}
	return e.r.Read(b)
}
