package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Past says which public commands a replica holds, in 40 bytes: the index of the last
// one and a hash over all of them. Two replicas with the same Past hold the same public
// commands at the same indexes, whoever sent them.
//
// The hash of a command is SHA-256 over the hash of the one before (the fingerprint of
// the rules before the first), its index in 8 bytes, and the SHA-256 of its payload.
// Signatures are left out, since the same command may be signed more than once.
type Past struct {
	Index uint64 // 0: no public command yet
	Hash  []byte
}

const pastSize = 8 + sha256.Size

// PublicPast gives the Past of this view.
func (v View) PublicPast() (Past, error) {
	b, err := v.g.Get([]byte{tabPast})
	switch {
	case err != nil || b == nil:
		return Past{}, err
	case len(b) != pastSize:
		return Past{}, fmt.Errorf("%w: past", ErrCorrupt)
	}
	return Past{binary.BigEndian.Uint64(b), b[8:]}, nil
}

// Pasts gives the Past of this view and some earlier ones, the latest first, each some four
// times as many indexes back as the one before: whoever holds another history finds among
// them about where the two part.
func (v View) Pasts() ([]Past, error) {
	last, err := v.PublicPast()
	if err != nil || last.Index == 0 {
		return nil, err
	}
	pasts := []Past{last}
	for back := uint64(1); back < last.Index; back *= 4 {
		found, err := v.indexes([]byte{tabPublic}, indexKey(tabPublic, last.Index-back), 1)
		if err != nil {
			return nil, err
		}
		if found[0] == pasts[len(pasts)-1].Index {
			continue
		}
		hash, err := v.g.Get(indexKey(tabPublic, found[0]))
		if err != nil {
			return nil, err
		}
		pasts = append(pasts, Past{found[0], bytes.Clone(hash)})
	}
	return pasts, nil
}

// Shares reports whether this view, of whatever is later, holds up to and with the
// index upTo the very public commands that p stands for.
func (v View) Shares(p Past, upTo uint64) (bool, error) {
	if p.Index > upTo {
		return false, nil
	}
	if p.Index > 0 {
		have, err := v.g.Get(indexKey(tabPublic, p.Index))
		if err != nil || !bytes.Equal(have, p.Hash) || len(have) != sha256.Size {
			return false, err
		}
	}
	next, err := v.indexes([]byte{tabPublic}, indexKey(tabPublic, p.Index+1), 1)
	return len(next) == 0 || next[0] > upTo, err
}

// lengthen adds a public command to the past, and gives the hash that stands with it.
func (a *applier) lengthen(payloadHash []byte) ([]byte, error) {
	last, err := a.view.PublicPast()
	if err != nil {
		return nil, err
	}
	if last.Index == 0 {
		last.Hash = a.rules.Fingerprint()
	}
	h := sha256.New()
	h.Write(last.Hash)
	h.Write(binary.BigEndian.AppendUint64(nil, a.index))
	h.Write(payloadHash)
	sum := h.Sum(nil)
	return sum, a.Set([]byte{tabPast}, append(binary.BigEndian.AppendUint64(nil, a.index), sum...))
}
