package journal

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
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
	m := hmac.New(sha256.New, salt[:])
	m.Write(entry)
	return [CommitmentSize]byte(m.Sum(nil))
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
