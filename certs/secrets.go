package certs

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
)

// BoxPublicKey is the public half of a BoxKey, as the registry publishes it.
type BoxPublicKey [32]byte

// ParseBoxPublicKey checks 32 bytes that came from outside. The error wraps
// ErrBadKey; it refuses the few points with which every exchange of keys gives
// the same, known secret.
func ParseBoxPublicKey(b []byte) (BoxPublicKey, error) {
	pub, err := ecdh.X25519().NewPublicKey(b)
	if err != nil {
		return BoxPublicKey{}, fmt.Errorf("%w: X25519 public key has %d bytes, want 32", ErrBadKey, len(b))
	}
	probe, err := ecdh.X25519().NewPrivateKey(append(make([]byte, 31), 1))
	if err != nil {
		return BoxPublicKey{}, err
	}
	if _, err := probe.ECDH(pub); err != nil {
		return BoxPublicKey{}, fmt.Errorf("%w: X25519 public key is a point of low order", ErrBadKey)
	}
	return BoxPublicKey(b), nil
}

// String gives the key in base64.
func (k BoxPublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// BoxKey is an X25519 key pair for golang.org/x/crypto/nacl/box: what gossip
// packets are authenticated with. It is not changed after it is made.
type BoxKey struct{ key *ecdh.PrivateKey }

// Public gives the public half.
func (k *BoxKey) Public() BoxPublicKey { return BoxPublicKey(k.key.PublicKey().Bytes()) }

// Private gives a copy of the private half, as package box wants it.
func (k *BoxKey) Private() *[32]byte {
	b := [32]byte(k.key.Bytes())
	return &b
}

// Format shows the public half and hides the private one, under every verb.
func (k *BoxKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.Public().String()) }

// NewBoxKey makes a key pair and writes it to a new file (PKCS#8, PEM, mode
// 0600). The error wraps fs.ErrExist if path exists.
func NewBoxKey(path string) (*BoxKey, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := createPKCS8(path, key); err != nil {
		return nil, fmt.Errorf("new gossip key: %w", err)
	}
	return &BoxKey{key}, nil
}

// LoadBoxKey reads the file that NewBoxKey wrote. The error wraps ErrExposed or
// ErrBadKey.
func LoadBoxKey(path string) (*BoxKey, error) {
	k, err := loadPKCS8(path)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	key, ok := k.(*ecdh.PrivateKey)
	if !ok || key.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("gossip key: %w: %s holds %T, want X25519", ErrBadKey, path, k)
	}
	return &BoxKey{key}, nil
}

// StorageKeySize is the size of a storage key in bytes: AES-256.
const StorageKeySize = 32

const pemStorage = "CROSSROADS STORAGE KEY"

// NewStorageKey makes the 32-byte key that a node's databases are encrypted with
// and writes it to a new file (PEM, mode 0600). The error wraps fs.ErrExist if
// path exists.
func NewStorageKey(path string) ([]byte, error) {
	key := make([]byte, StorageKeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: pemStorage, Bytes: key})
	if err := keyfile.Create(path, b, keyfile.Secret); err != nil {
		return nil, fmt.Errorf("new storage key: %w", err)
	}
	return key, nil
}

// LoadStorageKey reads the file that NewStorageKey wrote. The error wraps
// ErrExposed or ErrBadKey.
func LoadStorageKey(path string) ([]byte, error) {
	key, err := loadSecretPEM(path, pemStorage)
	if err != nil {
		return nil, fmt.Errorf("storage key: %w", err)
	}
	if len(key) != StorageKeySize {
		return nil, fmt.Errorf("storage key: %w: %s holds %d bytes, want %d", ErrBadKey, path, len(key), StorageKeySize)
	}
	return key, nil
}
