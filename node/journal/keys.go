package journal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// period is a retention period, a month of UTC: year × 12 + month − 1.
type period uint32

func periodOf(t time.Time) period {
	y, m, _ := t.UTC().Date()
	return period(y*12 + int(m) - 1)
}

func (p period) String() string { return fmt.Sprintf("%04d-%02d", p/12, p%12+1) }

// A key file is named after its month and holds
//
//	"XRJKEY1\n" ‖ period (4, little-endian) ‖ nonce (12) ‖ AES-256-GCM of the period key (48)
//
// sealed under a key derived from the storage key, with the first 12 bytes as
// additional data.
const (
	keyMagic    = "XRJKEY1\n"
	keyPrefix   = "key-"
	keyTemp     = "new-key"
	keyFileSize = len(keyMagic) + 4 + 12 + 32 + gcmOverhead
)

// periodKey is what is derived from the key of one month.
type periodKey struct {
	aead  cipher.AEAD
	index []byte    // keys the hashes of the index
	macs  sync.Pool // of hmacs under index
}

// keyRing holds the period keys. It is safe for concurrent use; only the writer
// makes keys.
type keyRing struct {
	fs       disk.FS
	wrap     cipher.AEAD
	indexKey []byte // encrypts the index at rest

	mu     sync.RWMutex
	keys   map[period]*periodKey
	closed map[period]bool     // being erased: no entry of that month is taken any more
	erased map[period]*Erasure // whose tombstone stands, whether the key is gone yet or not
}

// openKeys reads all key files but those of the erased months.
func openKeys(fs disk.FS, storageKey []byte, erased map[period]*Erasure) (*keyRing, error) {
	wrap, err := newAEAD(derive(storageKey, "crossroads journal wrap v1"))
	if err != nil {
		return nil, err
	}
	r := &keyRing{fs: fs, wrap: wrap, keys: map[period]*periodKey{}, closed: map[period]bool{}, erased: erased,
		indexKey: derive(storageKey, "crossroads journal index database v1")}
	names, err := fs.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if month, ok := strings.CutPrefix(name, keyPrefix); ok {
			if p, err := parsePeriod(month); err == nil && erased[p] != nil {
				continue // overwritten perhaps, and only not yet removed
			}
			if err := r.load(name); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

func (r *keyRing) load(name string) error {
	f, err := r.fs.Open(name, false)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, keyFileSize+1)
	n, err := f.ReadAt(b, 0)
	if n != keyFileSize {
		return fmt.Errorf("%w: key file %s has %d bytes or more, want %d (%v): restore it", ErrCorrupt, name, n, keyFileSize, err)
	}
	b = b[:n]
	head := len(keyMagic) + 4
	p := period(binary.LittleEndian.Uint32(b[len(keyMagic):]))
	if !bytes.HasPrefix(b, []byte(keyMagic)) || name != keyPrefix+p.String() {
		return fmt.Errorf("%w: %s is no key file of that month: restore it", ErrCorrupt, name)
	}
	key, err := r.wrap.Open(nil, b[head:head+12], b[head+12:], b[:head])
	if err != nil {
		return fmt.Errorf("%w: the storage key does not open %s: give the key this journal was made with, or restore the file", ErrCorrupt, name)
	}
	return r.add(p, key)
}

func (r *keyRing) add(p period, key []byte) error {
	aead, err := newAEAD(derive(key, "crossroads journal record v1"))
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys[p] = &periodKey{aead: aead, index: derive(key, "crossroads journal index v1")}
	return nil
}

// missing says why a month has no key.
func (r *keyRing) missing(p period) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.erased[p]; e != nil {
		return e.err()
	}
	return fmt.Errorf("%w: the key file %s%s is missing: restore it", ErrCorrupt, keyPrefix, p)
}

// get gives the key of a month, nil when there is none.
func (r *keyRing) get(p period) *periodKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[p]
}

// make gives the key of a month, made and durable if there was none.
func (r *keyRing) make(p period) (*periodKey, error) {
	if k := r.get(p); k != nil {
		return k, nil
	}
	if r.isClosed(p) {
		return nil, r.missing(p)
	}
	secret := make([]byte, 32+12)
	rand.Read(secret)
	key, nonce := secret[:32], secret[32:]
	b := binary.LittleEndian.AppendUint32([]byte(keyMagic), uint32(p))
	head := bytes.Clone(b)
	b = r.wrap.Seal(append(b, nonce...), nonce, key, head)
	if err := writeWhole(r.fs, keyTemp, keyPrefix+p.String(), b); err != nil {
		return nil, fmt.Errorf("write the key of %s: %w", p, err)
	}
	if err := r.add(p, key); err != nil {
		return nil, err
	}
	return r.get(p), nil
}

// periods gives the months that have a key, in order.
func (r *keyRing) periods() []period {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ps := make([]period, 0, len(r.keys))
	for p := range r.keys {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}

// mac gives the hash under which a term stands in the index.
func (k *periodKey) mac(kind byte, term string) (sum [macSize]byte) {
	h, _ := k.macs.Get().(hash.Hash)
	if h == nil {
		h = hmac.New(sha256.New, k.index)
	}
	defer k.macs.Put(h)
	h.Reset()
	var b [1 + 64 + sha256.Size]byte
	h.Write(append(append(b[:0], kind), term...))
	copy(sum[:], h.Sum(b[:0]))
	return sum
}

func derive(key []byte, label string) []byte {
	b, err := hkdf.Key(sha256.New, key, nil, label, 32)
	if err != nil {
		panic(err) // only for lengths that this code does not ask for
	}
	return b
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
