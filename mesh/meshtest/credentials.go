package meshtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/mesh"
)

// CA is a throw-away certificate authority.
type CA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last atomic.Int64
}

// NewCA makes an authority for one test. It may be made in a synctest bubble or outside.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "meshtest"},
		// From before the first moment of a synctest bubble to well after now.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &CA{t: t, cert: cert, key: key}
	ca.last.Store(1)
	return ca
}

// Credentials issues an identity, given as a SPIFFE ID, that does not expire before 2099.
func (ca *CA) Credentials(id string) *Credentials {
	return ca.CredentialsUntil(id, ca.cert.NotAfter)
}

// CredentialsUntil issues an identity that expires.
func (ca *CA) CredentialsUntil(id string, end time.Time) *Credentials {
	ca.t.Helper()
	c := &Credentials{ca: ca, id: ID(ca.t, id)}
	c.Renew(end)
	return c
}

// ID parses a SPIFFE ID.
func ID(t testing.TB, id string) spiffeid.ID {
	t.Helper()
	out, err := spiffeid.FromString(id)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Credentials are mesh.Credentials of one identity.
type Credentials struct {
	ca  *CA
	id  spiffeid.ID
	now atomic.Pointer[tls.Certificate]
}

var _ mesh.Credentials = (*Credentials)(nil)

// ID is the identity.
func (c *Credentials) ID() spiffeid.ID { return c.id }

// Renew issues the identity anew, with a new key; handshakes from now on use it.
func (c *Credentials) Renew(end time.Time) {
	c.ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.ca.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(c.ca.last.Add(1)), URIs: []*url.URL{c.id.URL()},
		NotBefore: c.ca.cert.NotBefore, NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.ca.cert, key.Public(), c.ca.key)
	if err != nil {
		c.ca.t.Fatal(err)
	}
	c.now.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
}

// ServerTLS implements mesh.Credentials.
func (c *Credentials) ServerTLS(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: alpn, SessionTicketsDisabled: true,
		ClientAuth:       tls.RequireAnyClientCert,
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
		VerifyConnection: func(cs tls.ConnectionState) error { return c.verify(cs, spiffeid.ID{}) },
	}
}

// ClientTLS implements mesh.Credentials.
func (c *Credentials) ClientTLS(peer spiffeid.ID, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		InsecureSkipVerify:   true, // a SPIFFE ID is no host name; VerifyConnection does it all
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
		VerifyConnection:     func(cs tls.ConnectionState) error { return c.verify(cs, peer) },
	}
}

func (c *Credentials) verify(cs tls.ConnectionState, want spiffeid.ID) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf, roots := cs.PeerCertificates[0], x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	opts := x509.VerifyOptions{Roots: roots, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 {
		return errors.New("not exactly one SPIFFE ID")
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err == nil && !want.IsZero() && id != want {
		err = fmt.Errorf("peer is %s, not %s", id, want)
	}
	return err
}
