package outbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

const (
	version  = 0x01
	saltSize = 24
	headSize = 1 + 8 + saltSize
)

// seal encrypts value for its row and end.
func (o *Outbox) seal(row []byte, until time.Time, value []byte) ([]byte, error) {
	raw := make([]byte, headSize, headSize+len(value)+16)
	raw[0] = version
	if !until.IsZero() {
		binary.BigEndian.PutUint64(raw[1:], uint64(until.UnixMilli()))
	}
	rand.Read(raw[9:headSize])
	aead, err := o.aead(raw[9:headSize])
	if err != nil {
		return nil, err
	}
	return aead.Seal(raw, make([]byte, aead.NonceSize()), value, bound(row, raw)), nil
}

// open decrypts what seal made for the row, unless it has ended.
func (o *Outbox) open(row, raw []byte) ([]byte, error) {
	until, err := untilOf(raw)
	if err != nil {
		return nil, err
	}
	aead, err := o.aead(raw[9:headSize])
	if err != nil {
		return nil, err
	}
	value, err := aead.Open(nil, make([]byte, aead.NonceSize()), raw[headSize:], bound(row, raw))
	if err != nil {
		return nil, ErrDamaged
	}
	if o.ended(until) {
		return nil, ErrNotFound
	}
	return value, nil
}

// aead gives the cipher of one value; see the package comment.
func (o *Outbox) aead(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha256.New, o.root, "value"+string(salt), badgerdb.KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound gives what a value is bound to: its row and the head of raw. The head has
// a fixed size, so the two cannot be mistaken for others.
func bound(row, raw []byte) []byte {
	return append(append(make([]byte, 0, len(row)+headSize), row...), raw[:headSize]...)
}

// untilOf reads a value's end, in Unix milliseconds; 0 is none.
func untilOf(raw []byte) (int64, error) {
	if len(raw) < headSize || raw[0] != version {
		return 0, fmt.Errorf("%w: no such form", ErrDamaged)
	}
	return int64(binary.BigEndian.Uint64(raw[1:9])), nil
}

func (o *Outbox) ended(until int64) bool { return until != 0 && o.now().UnixMilli() > until }
