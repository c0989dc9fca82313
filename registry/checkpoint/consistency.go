package checkpoint

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// MaxProof bounds the hashes of a consistency proof, as C2SP tlog-witness does.
const MaxProof = 63

// Consistency says what a consistency proof shows.
type Consistency int

const (
	// Unproven: the proof proves nothing; it is for other trees, or garbage.
	Unproven Consistency = iota
	// Consistent: the older tree is the beginning of the newer one.
	Consistent
	// Forked: the newer tree certainly begins otherwise than the older one. The
	// journal signed two histories.
	Forked
)

// Compare says how two checkpoints of one journal stand to each other, the older
// first, given the proof (RFC 6962) that somebody offers. Two of the same size need
// none. Those of different epochs are not compared: a declared loss lies between them.
//
// A proof computes two roots: that of the newer tree, and that of its beginning. If
// the first is what the newer checkpoint says and the second is not what the older
// one says, then the proof itself shows the fork. That needs no trust in who made it.
// Where the older size is a power of two the proof leaves out its root, and shows a
// fork only as Unproven.
func Compare(older, newer *Note, proof []Hash) Consistency {
	switch {
	case older.Origin != newer.Origin || older.Epoch != newer.Epoch || older.Size > newer.Size:
		return Unproven
	case older.Size == newer.Size && older.Root == newer.Root:
		return Consistent
	case older.Size == newer.Size:
		return Forked
	case older.Size == 0: // the empty tree begins every other
		return Consistent
	}
	was, is, ok := roots(older.Size, newer.Size, older.Root, proof)
	switch {
	case !ok || is != newer.Root:
		return Unproven
	case was != older.Root:
		return Forked
	}
	return Consistent
}

// roots computes what a proof says the two roots are (RFC 9162, 2.1.4.2).
func roots(old, size int64, oldRoot Hash, proof []Hash) (was, is Hash, ok bool) {
	if old&(old-1) == 0 {
		proof = append([]Hash{oldRoot}, proof...)
	}
	if len(proof) == 0 {
		return was, is, false
	}
	fn, sn := old-1, size-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	was, is = proof[0], proof[0]
	for _, c := range proof[1:] {
		if sn == 0 {
			return was, is, false
		}
		if fn&1 == 1 || fn == sn {
			was, is = node(c, was), node(c, is)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			is = node(is, c)
		}
		fn, sn = fn>>1, sn>>1
	}
	return was, is, sn == 0
}

func node(l, r Hash) Hash {
	b := make([]byte, 0, 1+2*HashSize)
	b = append(b, 1)
	b = append(b, l[:]...)
	return sha256.Sum256(append(b, r[:]...))
}

// AddRequest is the body of add-checkpoint (C2SP tlog-witness).
type AddRequest struct {
	Old   int64 // the size that the witness cosigned last, as the journal believes
	Proof []Hash
	Note  []byte
}

// MaxAddRequest bounds the bytes of an add-checkpoint body.
const MaxAddRequest = MaxNote + 32 + MaxProof*48

// ParseAddRequest reads a body of add-checkpoint. It does not look into the note.
// The error wraps ErrMalformed.
func ParseAddRequest(body []byte) (*AddRequest, error) {
	if len(body) > MaxAddRequest {
		return nil, fmt.Errorf("%w: request of more than %d bytes", ErrMalformed, MaxAddRequest)
	}
	head, note, ok := strings.Cut(string(body), "\n\n")
	if !ok || note == "" {
		return nil, fmt.Errorf("%w: no empty line before the checkpoint", ErrMalformed)
	}
	lines := strings.Split(head, "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	r := &AddRequest{Note: []byte(note)}
	if !ok {
		return nil, fmt.Errorf("%w: the request does not begin with the old size", ErrMalformed)
	}
	if r.Old, ok = parseSize(size); !ok {
		return nil, fmt.Errorf("%w: old size", ErrMalformed)
	}
	if len(lines)-1 > MaxProof {
		return nil, fmt.Errorf("%w: proof of more than %d hashes", ErrMalformed, MaxProof)
	}
	for _, l := range lines[1:] {
		h, ok := ParseHash(l)
		if !ok {
			return nil, fmt.Errorf("%w: hash of the proof", ErrMalformed)
		}
		r.Proof = append(r.Proof, h)
	}
	return r, nil
}

// Bytes gives the body.
func (r *AddRequest) Bytes() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", r.Old)
	for _, h := range r.Proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(r.Note)
	return []byte(b.String())
}
