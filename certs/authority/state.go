package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

const stateFile = "state.json"

// state is state.json.
type state struct {
	Mesh  names.MeshID `json:"mesh"`
	Made  int          `json:"made"`  // roots ever made: names are not reused
	Signs string       `json:"signs"` // the root that signs
	Roots []root       `json:"roots"` // in the bundle, oldest first
}

type root struct {
	Name string `json:"name"`
	// StoppedAt is when it signed for the last time; zero if it signs or is yet to.
	StoppedAt time.Time `json:"stopped_at,omitzero"`
}

var rootName = regexp.MustCompile(`^root-[0-9]{1,9}$`)

func (a *Authority) load() (*state, error) {
	b, err := keyfile.Read(a.path(stateFile))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	s := new(state)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", a.path(stateFile), err)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", a.path(stateFile), err)
	}
	return s, nil
}

func (s *state) validate() error {
	if err := s.Mesh.Validate(); err != nil {
		return err
	}
	for _, r := range s.Roots {
		if !rootName.MatchString(r.Name) {
			return fmt.Errorf("root %q: want root-N", r.Name)
		}
	}
	if s.index(s.Signs) < 0 {
		return fmt.Errorf("signs: %q is not among the roots", s.Signs)
	}
	return nil
}

func (s *state) index(name string) int {
	return slices.IndexFunc(s.Roots, func(r root) bool { return r.Name == name })
}

func (a *Authority) save(s *state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return keyfile.Replace(a.path(stateFile), append(b, '\n'), keyfile.Public)
}

func (a *Authority) rootCert(name string) (*x509.Certificate, error) {
	b, err := keyfile.Read(a.path(name + ".pem"))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("certificate authority: %s is not PEM", a.path(name+".pem"))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", a.path(name+".pem"), err)
	}
	return c, nil
}

func (a *Authority) signingRoot(s *state) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	c, err := a.rootCert(s.Signs)
	if err != nil {
		return nil, nil, err
	}
	path := a.path(s.Signs + ".key")
	b, err := keyfile.ReadSecret(path, 0o077)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, nil, fmt.Errorf("certificate authority: %s is not PEM", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority: %s is not PKCS#8", path)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(c.PublicKey) {
		return nil, nil, fmt.Errorf("certificate authority: %s is not the key of %s.pem", path, s.Signs)
	}
	return c, key, nil
}
