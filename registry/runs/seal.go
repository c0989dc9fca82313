package runs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrDamaged means that a run is not what was written, or was written with another
// storage key. Nothing mends it but a restore of the replica.
var ErrDamaged = errors.New("damaged run")

const saltSize = 32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The parts of a file, as they stand in nonces.
const (
	partBlock byte = iota + 1
	partIndex
	partFilter
	partFoot
)

// seal protects the parts of one file; aead is nil without a storage key.
type seal struct {
	aead cipher.AEAD
	salt []byte
}

func newSeal(key, salt []byte) (*seal, error) {
	s := &seal{salt: salt}
	if len(key) == 0 {
		return s, nil
	}
	k, err := hkdf.Key(sha256.New, key, salt, "crossroads registry run", 32)
	if err != nil {
		return nil, err
	}
	c, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	s.aead, err = cipher.NewGCM(c)
	return s, err
}

func place(part byte, number uint64) (n [12]byte) {
	n[0] = part
	binary.BigEndian.PutUint64(n[4:], number)
	return n
}

// close appends the sealed part to dst.
func (s *seal) close(dst []byte, part byte, number uint64, open []byte) []byte {
	n := place(part, number)
	if s.aead != nil {
		return s.aead.Seal(dst, n[:], open, nil)
	}
	return binary.BigEndian.AppendUint32(append(dst, open...), s.sum(n, open))
}

// sum binds a part to its place and file, as the tag of the cipher does.
func (s *seal) sum(n [12]byte, open []byte) uint32 {
	c := crc32.Update(crc32.Checksum(s.salt, castagnoli), castagnoli, n[:])
	return crc32.Update(c, castagnoli, open)
}

// open gives the part, in place of the sealed one.
func (s *seal) open(part byte, number uint64, sealed []byte) ([]byte, error) {
	n := place(part, number)
	if s.aead != nil {
		b, err := s.aead.Open(sealed[:0], n[:], sealed, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: part %d.%d", ErrDamaged, part, number)
		}
		return b, nil
	}
	at := len(sealed) - 4
	if at < 0 || binary.BigEndian.Uint32(sealed[at:]) != s.sum(n, sealed[:at]) {
		return nil, fmt.Errorf("%w: part %d.%d", ErrDamaged, part, number)
	}
	return sealed[:at], nil
}
