package certs

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
)

// ErrBadKey means that bytes are not the kind of key that was asked for.
var ErrBadKey = errors.New("bad key")

// ErrExposed means that a secret file can be read by others than its owner.
var ErrExposed = keyfile.ErrExposed

// onlyOwner are the permission bits that a file with a long-lived secret must
// not have.
const onlyOwner = 0o077

const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
)

// signer keeps an Ed25519 key out of logs.
type signer struct{ key ed25519.PrivateKey }

var _ crypto.Signer = (*signer)(nil)

// Public gives the ed25519.PublicKey.
func (s *signer) Public() crypto.PublicKey { return s.key.Public() }

// Sign signs message itself, not a digest of it: opts must be crypto.Hash(0).
func (s *signer) Sign(r io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(r, message, opts)
}

// Format shows which key it is and hides the key, under every verb.
func (s *signer) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, string(envelope.KeyID(s.key.Public().(ed25519.PublicKey))))
}

// NewSigner makes an Ed25519 signing key and writes it to a new file (PKCS#8,
// PEM, mode 0600). It fails, and the error wraps fs.ErrExist, if path exists: a
// key is never overwritten.
func NewSigner(path string) (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := createPKCS8(path, key); err != nil {
		return nil, fmt.Errorf("new signing key: %w", err)
	}
	return &signer{key}, nil
}

// LoadSigner reads the file that NewSigner wrote. The error wraps ErrExposed if
// others than its owner can read the file, and ErrBadKey if it holds no Ed25519 key.
func LoadSigner(path string) (crypto.Signer, error) {
	k, err := loadPKCS8(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing key: %w: %s holds %T, want Ed25519", ErrBadKey, path, k)
	}
	return &signer{key}, nil
}

func createPKCS8(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return keyfile.Create(path, pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der}), keyfile.Secret)
}

func loadPKCS8(path string) (any, error) {
	der, err := loadSecretPEM(path, pemPrivate)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not PKCS#8", ErrBadKey, path)
	}
	return k, nil
}

// loadSecretPEM gives the one PEM block of a file that only its owner can read.
func loadSecretPEM(path, want string) ([]byte, error) {
	b, err := keyfile.ReadSecret(path, onlyOwner)
	if err != nil {
		return nil, err
	}
	der, err := onePEM(b, want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return der, nil
}

func onePEM(b []byte, want string) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != want || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%w: want exactly one PEM block of type %q", ErrBadKey, want)
	}
	return block.Bytes, nil
}

// EncodePublicKey gives a public signing key in the base64 form of configuration
// files and the genesis file (44 characters).
func EncodePublicKey(pub ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(pub) }

// PublicKeyPEM gives a public signing key as a PEM file (PKIX).
func PublicKeyPEM(pub ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der}), nil
}

// ParsePublicKey reads a public signing key in either form: PEM, or base64 on
// one line. The error wraps ErrBadKey; keys that prove nothing (see
// envelope.CheckKey) are refused.
func ParsePublicKey(b []byte) (ed25519.PublicKey, error) {
	b = bytes.TrimSpace(b)
	pub, err := parsePublicKey(b)
	if err != nil {
		return nil, err
	}
	if err := envelope.CheckKey(pub); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	return pub, nil
}

func parsePublicKey(b []byte) (ed25519.PublicKey, error) {
	if !bytes.HasPrefix(b, []byte("-----")) {
		raw, err := base64.StdEncoding.Strict().DecodeString(string(b))
		if err != nil {
			return nil, fmt.Errorf("%w: public key is neither PEM nor base64", ErrBadKey)
		}
		return raw, nil
	}
	der, err := onePEM(b, pemPublic)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: public key is not PKIX", ErrBadKey)
	}
	pub, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: public key is %T, want Ed25519", ErrBadKey, k)
	}
	return pub, nil
}

// WritePublicKey writes a public signing key to path as PEM, in place of what may
// be there.
func WritePublicKey(path string, pub ed25519.PublicKey) error {
	b, err := PublicKeyPEM(pub)
	if err != nil {
		return err
	}
	return keyfile.Replace(path, b, keyfile.Public)
}

// ReadPublicKey reads a file with a public signing key in either form.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	b, err := keyfile.Read(path)
	if err != nil {
		return nil, err
	}
	pub, err := ParsePublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pub, nil
}
