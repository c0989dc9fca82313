package journal

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
)

// Sizes in bytes of the random values, and of what is computed with them.
const (
	SaltSize       = 32
	BlindingSize   = 32
	CommitmentSize = sha256.Size
)

// EntryCommitment gives the commitment to an entry, exactly as its bytes were
// stored: HMAC-SHA256(salt, entry). Without the salt it tells nothing of the
// entry, not even to somebody who guesses it.
func EntryCommitment(salt [SaltSize]byte, entry []byte) [CommitmentSize]byte {
	h := hashes.Get().(*keyed)
	defer hashes.Put(h)
	return h.of(salt[:], entry)
}

// keyed computes HMAC-SHA256 as RFC 2104 has it, and does so again: the library's takes five
// objects for each key, and each entry has its own.
type keyed struct {
	sha hash.Hash
	pad [sha256.BlockSize]byte
	sum [sha256.Size]byte
}

var hashes = sync.Pool{New: func() any { return &keyed{sha: sha256.New()} }}

// of takes a key of at most a block.
func (h *keyed) of(key, message []byte) [sha256.Size]byte {
	h.padded(key, 0x36, message)
	h.sha.Sum(h.sum[:0])
	h.padded(key, 0x5c, h.sum[:])
	h.sha.Sum(h.sum[:0])
	clear(h.pad[:])
	return h.sum
}

// padded begins to hash anew: the key under a mask, and then b.
func (h *keyed) padded(key []byte, mask byte, b []byte) {
	clear(h.pad[:])
	copy(h.pad[:], key)
	for i := range h.pad {
		h.pad[i] ^= mask
	}
	h.sha.Reset()
	h.sha.Write(h.pad[:])
	h.sha.Write(b)
}

// LeafHash gives the hash of a commitment as a leaf of the journal's Merkle
// tree, as RFC 6962 has it: SHA-256(0x00 ‖ commitment).
func LeafHash(commitment [CommitmentSize]byte) [sha256.Size]byte {
	var b [1 + CommitmentSize]byte // the leading zero says that it is a leaf
	copy(b[1:], commitment[:])
	return sha256.Sum256(b[:])
}

// Commit gives the commitment to an answer's content: SHA-256(blinding ‖
// content). Journals keep it; the blinding never enters one, for without it even
// a yes/no answer cannot be guessed. A blinding of another length than
// BlindingSize is an error: its end would be taken for the content's beginning.
func Commit(blinding, content []byte) ([]byte, error) {
	if len(blinding) != BlindingSize {
		return nil, fmt.Errorf("blinding of %d bytes, want %d", len(blinding), BlindingSize)
	}
	h := sha256.New()
	h.Write(blinding)
	h.Write(content)
	return h.Sum(nil), nil
}
