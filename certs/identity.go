package certs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
)

// The files of an identity directory, all PEM.
const (
	SVIDFile   = "svid.pem"   // the certificate, then what chains it to a root
	KeyFile    = "key.pem"    // its private key, PKCS#8; not readable by the world
	BundleFile = "bundle.pem" // the roots that peers are verified with
)

// Everyone else must not read key.pem; a group may, because that is how
// orchestrators mount secrets.
const notTheWorld = 0o007

// ErrBadIdentity means that an identity directory does not hold a certificate,
// its key and a bundle that it verifies with.
var ErrBadIdentity = errors.New("bad identity directory")

// identity is what was read of a directory at one moment: a matching whole.
type identity struct {
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

// ReadDir reads the identity in dir once, whether or not it has expired. The error
// wraps ErrBadIdentity.
func ReadDir(dir string) (*x509svid.SVID, *x509bundle.Bundle, error) {
	i, err := readDir(dir)
	return i.svid, i.bundle, err
}

// readDir reads an identity, as a matching whole or not at all. A writer may be
// between two files, so a mismatch is read once more.
func readDir(dir string) (identity, error) {
	i, err := readOnce(dir)
	if err != nil {
		i, err = readOnce(dir)
	}
	return i, err
}

func readOnce(dir string) (identity, error) {
	certPEM, err := keyfile.Read(filepath.Join(dir, SVIDFile))
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrBadIdentity, err)
	}
	keyPEM, err := keyfile.ReadSecret(filepath.Join(dir, KeyFile), notTheWorld)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrBadIdentity, err)
	}
	bundlePEM, err := keyfile.Read(filepath.Join(dir, BundleFile))
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrBadIdentity, err)
	}
	return parseIdentity(certPEM, keyPEM, bundlePEM)
}

func parseIdentity(certPEM, keyPEM, bundlePEM []byte) (identity, error) {
	svid, err := parseSVID(certPEM, keyPEM)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %s and %s: %w", ErrBadIdentity, SVIDFile, KeyFile, err)
	}
	bundle, err := x509bundle.Parse(svid.ID.TrustDomain(), bundlePEM)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %s: %w", ErrBadIdentity, BundleFile, err)
	}
	// Whether it has expired is asked at every use; here only whether it belongs
	// together, so an expired one is judged as at its end.
	when, leaf := time.Now(), svid.Certificates[0]
	if when.After(leaf.NotAfter) {
		when = leaf.NotAfter
	} else if when.Before(leaf.NotBefore) {
		when = leaf.NotBefore
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle, x509svid.WithTime(when)); err != nil {
		return identity{}, fmt.Errorf("%w: %s does not verify with %s: %w", ErrBadIdentity, SVIDFile, BundleFile, err)
	}
	return identity{svid, bundle}, nil
}

// parseSVID takes the first key of keyPEM that belongs to the certificate: while
// WriteDir replaces the files, key.pem holds the next key and the present one.
func parseSVID(certPEM, keyPEM []byte) (*x509svid.SVID, error) {
	var first error
	for rest := keyPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		svid, err := x509svid.Parse(certPEM, pem.EncodeToMemory(block))
		if err == nil {
			return svid, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("%w: no PEM block in %s", ErrBadKey, KeyFile)
	}
	return nil, first
}

// WriteDir replaces the identity in dir, which must exist. At every moment, and
// after a crash at any of them, the directory holds a matching whole, the old
// identity or the new one: roots and keys join before the certificate changes,
// and go after it has. One writer at a time.
func WriteDir(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) error {
	steps, err := planWrite(dir, svid, bundle)
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	for _, s := range steps {
		if err := s.do(dir); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
	}
	return nil
}

// writeStep puts one file in its place.
type writeStep struct {
	file string
	data []byte
	mode fs.FileMode
}

func (s writeStep) do(dir string) error {
	return keyfile.Replace(filepath.Join(dir, s.file), s.data, s.mode)
}

func planWrite(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) ([]writeStep, error) {
	certPEM, keyPEM, err := svid.Marshal()
	if err != nil {
		return nil, err
	}
	bundlePEM, err := bundle.Marshal()
	if err != nil {
		return nil, err
	}
	if _, err := parseIdentity(certPEM, keyPEM, bundlePEM); err != nil {
		return nil, err
	}
	bothKeys, allRoots := keyPEM, bundlePEM
	if old, err := readDir(dir); err == nil {
		_, oldKey, err := old.svid.Marshal()
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(oldKey, keyPEM) {
			bothKeys = slices.Concat(keyPEM, oldKey)
		}
		if allRoots, err = union(bundle, old.bundle); err != nil {
			return nil, err
		}
	}
	return []writeStep{
		{BundleFile, allRoots, keyfile.Public},
		{KeyFile, bothKeys, keyfile.Secret},
		{SVIDFile, certPEM, keyfile.Public},
		{KeyFile, keyPEM, keyfile.Secret},
		{BundleFile, bundlePEM, keyfile.Public},
	}, nil
}

// union gives the roots of a and b, which are of one mesh: where they are not,
// the new identity is another node's and nothing of the old one is kept.
func union(a, b *x509bundle.Bundle) ([]byte, error) {
	all := a.Clone()
	if a.TrustDomain() == b.TrustDomain() {
		for _, c := range b.X509Authorities() {
			all.AddX509Authority(c)
		}
	}
	return all.Marshal()
}
