package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Source gives a node's own X.509-SVID and the bundle that peers are verified
// with, as they are at the moment of asking. DirSource is one, and so is
// go-spiffe's workloadapi.X509Source. It must be safe for concurrent use.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

var (
	// ErrExpired means that an X.509-SVID is outside its period of validity.
	ErrExpired = errors.New("X.509-SVID is not valid at this time")
	// ErrWrongPeer means that the peer proved another identity than was dialled.
	ErrWrongPeer = errors.New("peer is not the one that was dialled")
	// ErrNotAdmitted means that the peer is who it says, and is not let in.
	ErrNotAdmitted = errors.New("peer is not admitted")
)

// TLS makes the TLS configurations of a node. Each handshake takes certificate
// and bundle anew from the source, so a rotation needs no restart and drops no
// connection. It is safe for concurrent use.
type TLS struct {
	src   Source
	mesh  names.MeshID
	admit func(spiffeid.ID) error
	now   func() time.Time
}

// NewTLS makes the TLS configurations of a node of mesh. Every peer that shows
// a certificate of a node of mesh is then put to admit, on every connection in both
// directions; an error refuses it. Being in the trust domain is not being
// admitted, so a nil admit lets nobody in. crypto/tls asks before the peer has
// proved that it holds the key of its certificate, and so anybody can make it ask:
// admit must be quick and without effect.
func NewTLS(src Source, mesh names.MeshID, admit func(spiffeid.ID) error) *TLS {
	if admit == nil {
		admit = func(spiffeid.ID) error { return errors.New("no rule of admission is set") }
	}
	return &TLS{src: src, mesh: mesh, admit: admit, now: time.Now}
}

// ServerTLS gives the configuration of a listener that speaks the given ALPN
// protocols. A client must show a certificate.
func (t *TLS) ServerTLS(alpn ...string) *tls.Config {
	c := t.config(spiffeid.ID{})
	c.NextProtos = alpn
	// Only presence is asked of crypto/tls: VerifyConnection verifies.
	c.ClientAuth = tls.RequireAnyClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.certificate() }
	return c
}

// ClientTLS gives the configuration of a dialler that expects exactly peer at the
// other end, speaking alpn.
func (t *TLS) ClientTLS(peer spiffeid.ID, alpn string) *tls.Config {
	c := t.config(peer)
	c.NextProtos = []string{alpn}
	// Host names say nothing here: VerifyConnection verifies the SPIFFE ID.
	c.InsecureSkipVerify = true
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate() }
	if peer.IsZero() {
		// A zero peer must not mean "anyone".
		c.VerifyConnection = func(tls.ConnectionState) error {
			return fmt.Errorf("%w: no peer was named", ErrWrongPeer)
		}
	}
	return c
}

// config holds what both directions share. VerifyConnection runs on resumed
// sessions too, which VerifyPeerCertificate (all that go-spiffe's tlsconfig sets)
// does not; and there are no sessions to resume, because tickets are off, which
// also rules out 0-RTT data, which anybody could replay.
func (t *TLS) config(want spiffeid.ID) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return t.verify(want, cs) },
	}
}

// verify judges the other end; want is the zero ID where any admitted node may call.
func (t *TLS) verify(want spiffeid.ID, cs tls.ConnectionState) error {
	if cs.Version < tls.VersionTLS13 {
		return errors.New("peer speaks a TLS older than 1.3")
	}
	id, _, err := x509svid.Verify(cs.PeerCertificates, t.src, x509svid.WithTime(t.now()))
	if err != nil {
		return fmt.Errorf("peer %s: %w", id, err)
	}
	if !want.IsZero() && id != want {
		return fmt.Errorf("%w: want %s, got %s", ErrWrongPeer, want, id)
	}
	if _, err := NodeOf(t.mesh, id); err != nil {
		return err
	}
	if err := t.admit(id); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotAdmitted, id, err)
	}
	return nil
}

// certificate gives the node's own certificate, and refuses to show one that
// peers would refuse anyway: the error then stands in the right node's log.
func (t *TLS) certificate() (*tls.Certificate, error) {
	svid, err := t.src.GetX509SVID()
	if err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	if _, err := NodeOf(t.mesh, svid.ID); err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	if err := checkValid(svid, t.now()); err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	c := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, x := range svid.Certificates {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c, nil
}

// checkValid reports whether now lies in the period of validity of the whole
// chain. The error wraps ErrExpired.
func checkValid(svid *x509svid.SVID, now time.Time) error {
	for _, c := range svid.Certificates {
		switch {
		case now.After(c.NotAfter):
			return fmt.Errorf("%w: %s expired at %s, it is %s here; renew it and check the clock", ErrExpired,
				svid.ID, c.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		case now.Before(c.NotBefore):
			return fmt.Errorf("%w: %s is valid from %s, it is %s here; check the clock", ErrExpired,
				svid.ID, c.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
