package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

const mesh = "demo.example"

var quietLog = slog.New(slog.DiscardHandler)

func anyone(spiffeid.ID) error { return nil }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newAuthority(t testing.TB, m names.MeshID, opts ...authority.Option) (*authority.Authority, string) {
	dir := t.TempDir()
	return must[*authority.Authority](t)(authority.New(dir, m, opts...)), dir
}

// oldAuthority gives one authority twice: as it is, and as it was two hours ago.
func oldAuthority(t testing.TB) (now, then *authority.Authority, dir string) {
	then, dir = newAuthority(t, mesh, authority.Clock(func() time.Time { return time.Now().Add(-2 * time.Hour) }))
	return must[*authority.Authority](t)(authority.Open(dir)), then, dir
}

func nodeID(t testing.TB, institution string) spiffeid.ID {
	n := names.NodeID{Institution: names.InstitutionID(institution), Node: "n1"}
	return must[spiffeid.ID](t)(certs.NodeSPIFFE(mesh, n))
}

// fixed is a Source that never changes and judges nothing.
type fixed struct {
	svid *x509svid.SVID
	x509bundle.Source
}

func (f fixed) GetX509SVID() (*x509svid.SVID, error) { return f.svid, nil }

func source(t testing.TB, a *authority.Authority, institution string) fixed {
	svid := must[*x509svid.SVID](t)(a.Issue(nodeID(t, institution), time.Hour))
	return fixed{svid, must[*x509bundle.Bundle](t)(a.Bundle())}
}

// forge makes an SVID for any URI (or none), signed by the root in an authority's directory,
// or by its own key if dir is empty.
func forge(t testing.TB, dir, uri string) *x509svid.SVID {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if uri != "" {
		c.URIs = []*url.URL{must[*url.URL](t)(url.Parse(uri))}
	}
	parent, signer := c, key
	if dir != "" {
		parent = must[*x509.Certificate](t)(x509.ParseCertificate(readPEM(t, filepath.Join(dir, "root-1.pem"))))
		signer = must[any](t)(x509.ParsePKCS8PrivateKey(readPEM(t, filepath.Join(dir, "root-1.key")))).(*ecdsa.PrivateKey)
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer))
	return &x509svid.SVID{
		Certificates: []*x509.Certificate{must[*x509.Certificate](t)(x509.ParseCertificate(der))},
		PrivateKey:   key,
	}
}

func readPEM(t testing.TB, path string) []byte {
	t.Helper()
	block, _ := pem.Decode(must[[]byte](t)(os.ReadFile(path)))
	return block.Bytes
}

// connect makes one connection and sends a byte over it each way. It gives what
// each end says of it; resumed tells whether the client resumed a session.
func connect(t testing.TB, server, client *tls.Config) (serverErr, clientErr error, resumed bool) {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = l.Close() }()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		s := tls.Server(c, server)
		if err := s.HandshakeContext(context.Background()); err != nil {
			done <- err
			return
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			done <- err
			return
		}
		_, err = s.Write([]byte{1})
		done <- errors.Join(err, s.CloseWrite())
	}()
	conn := must[net.Conn](t)(net.Dial("tcp", l.Addr().String()))
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := tls.Client(conn, client)
	clientErr = func() error {
		if err := c.HandshakeContext(context.Background()); err != nil {
			return err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		_, err := io.ReadAll(c) // takes the session tickets in, too
		return err
	}()
	return <-done, clientErr, c.ConnectionState().DidResume
}
