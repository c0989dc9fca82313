package outbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

const (
	version  = 0x02
	earlier  = 0x01 // a key of its own for each value: no nonce in it, and zeros for one
	saltSize = 24
	headSize = 1 + 8 + saltSize + nonceSize
	// nonceSize is that of AES-GCM.
	nonceSize = 12
	// maxSealed is how many values one key seals, far below where random nonces meet.
	maxSealed = 1 << 28
)

// seals is the key under which an outbox seals at present, and those it opened with
// lately: deriving one for each value would cost more than sealing does.
type seals struct {
	mu      sync.Mutex
	salt    []byte
	present cipher.AEAD
	count   int
	known   map[[saltSize]byte]cipher.AEAD
}

// maxKnown is how many keys are remembered; one is made each time the outbox opens.
const maxKnown = 64

// seal encrypts value for its row and end.
func (o *Outbox) seal(k Key, until time.Time, value []byte) ([]byte, error) {
	aead, salt, err := o.sealing()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, headSize, headSize+len(value)+aead.Overhead())
	raw[0] = version
	if !until.IsZero() {
		binary.BigEndian.PutUint64(raw[1:], uint64(until.UnixMilli()))
	}
	copy(raw[9:], salt)
	rand.Read(raw[9+saltSize : headSize])
	b := bind(k, raw[:headSize])
	defer bounds.Put(b)
	return aead.Seal(raw, raw[9+saltSize:headSize], value, *b), nil
}

// sealing gives the key to seal with, and its salt.
func (o *Outbox) sealing() (cipher.AEAD, []byte, error) {
	s := &o.seals
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.present == nil || s.count >= maxSealed {
		salt := make([]byte, saltSize)
		rand.Read(salt)
		aead, err := o.derive(salt)
		if err != nil {
			return nil, nil, err
		}
		s.salt, s.present, s.count = salt, aead, 0
	}
	s.count++
	return s.present, s.salt, nil
}

// open decrypts what seal made for the row, unless it has ended.
func (o *Outbox) open(k Key, raw []byte) ([]byte, error) {
	until, err := untilOf(raw)
	if err != nil {
		return nil, err
	}
	head, nonce := headSize, noNonce[:]
	if raw[0] == earlier {
		head -= nonceSize
	} else {
		nonce = raw[9+saltSize : headSize]
	}
	aead, err := o.opening([saltSize]byte(raw[9:]))
	if err != nil {
		return nil, err
	}
	b := bind(k, raw[:head])
	defer bounds.Put(b)
	value, err := aead.Open(nil, nonce, raw[head:], *b)
	if err != nil {
		return nil, ErrDamaged
	}
	if o.ended(until) {
		return nil, ErrNotFound
	}
	return value, nil
}

// noNonce is that of values in the earlier form.
var noNonce [nonceSize]byte

// opening gives the key of a salt; see the package comment.
func (o *Outbox) opening(salt [saltSize]byte) (cipher.AEAD, error) {
	s := &o.seals
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(s.salt) == string(salt[:]) {
		return s.present, nil
	}
	if aead := s.known[salt]; aead != nil {
		return aead, nil
	}
	aead, err := o.derive(salt[:])
	if err != nil {
		return nil, err
	}
	if s.known == nil || len(s.known) >= maxKnown {
		s.known = make(map[[saltSize]byte]cipher.AEAD)
	}
	s.known[salt] = aead
	return aead, nil
}

func (o *Outbox) derive(salt []byte) (cipher.AEAD, error) {
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

// bind gives what a value is bound to, its row and its head, in memory of bounds. The head
// begins with what tells its size, so the two cannot be mistaken for others.
func bind(k Key, head []byte) *[]byte {
	b := bounds.Get().(*[]byte)
	*b = append(append(append((*b)[:0], byte(k.Table)), k.ID...), head...)
	return b
}

var bounds = sync.Pool{New: func() any { return new([]byte) }}

// untilOf reads a value's end, in Unix milliseconds; 0 is none.
func untilOf(raw []byte) (int64, error) {
	if len(raw) < headSize || raw[0] != version && raw[0] != earlier {
		return 0, fmt.Errorf("%w: no such form", ErrDamaged)
	}
	return int64(binary.BigEndian.Uint64(raw[1:9])), nil
}

func (o *Outbox) ended(until int64) bool { return until != 0 && o.now().UnixMilli() > until }
