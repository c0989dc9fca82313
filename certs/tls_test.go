package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
)

func TestBothEndsAreProved(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	var sawServer, sawClient atomic.Value
	server := certs.NewTLS(source(t, a, "server"), mesh, func(id spiffeid.ID) error { sawClient.Store(id); return nil })
	client := certs.NewTLS(source(t, a, "client"), mesh, func(id spiffeid.ID) error { sawServer.Store(id); return nil })
	serverErr, clientErr, _ := connect(t, server.ServerTLS("x/1", "y/1"), client.ClientTLS(nodeID(t, "server"), "y/1"))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if sawClient.Load() != nodeID(t, "client") || sawServer.Load() != nodeID(t, "server") {
		t.Fatalf("admission was asked about %v and %v", sawClient.Load(), sawServer.Load())
	}
}

// TestRefusedPeerDoesNotComeBack refuses a peer after its first connection. The
// peer kept its session and comes back with it.
func TestRefusedPeerDoesNotComeBack(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	own := source(t, a, "server")
	var suspended atomic.Bool
	admit := func(spiffeid.ID) error {
		if suspended.Load() {
			return errors.New("suspended")
		}
		return nil
	}
	naive := tlsconfig.MTLSServerConfig(own, own, func(id spiffeid.ID, _ [][]*x509.Certificate) error { return admit(id) })
	ours := certs.NewTLS(own, mesh, admit).ServerTLS("x/1")
	withTickets := certs.NewTLS(own, mesh, admit).ServerTLS("x/1")
	withTickets.SessionTicketsDisabled = false

	for _, c := range []struct {
		name               string
		server             *tls.Config
		resumes, comesBack bool
	}{
		{"VerifyPeerCertificate alone", naive, true, true}, // why this test is here
		{"VerifyConnection alone", withTickets, true, false},
		{"ours", ours, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			suspended.Store(false)
			client := certs.NewTLS(source(t, a, "client"), mesh, anyone).ClientTLS(own.svid.ID, "x/1")
			client.SessionTicketsDisabled = false // the peer does as it likes
			client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			client.ServerName = "server" // sessions are kept under it
			for range 2 {
				serverErr, clientErr, resumed := connect(t, c.server, client)
				if serverErr != nil || clientErr != nil {
					t.Fatal(serverErr, clientErr)
				}
				if resumed && !c.resumes {
					t.Fatal("a session was resumed")
				}
			}
			suspended.Store(true)
			serverErr, clientErr, resumed := connect(t, c.server, client)
			if resumed != c.resumes {
				t.Errorf("resumed: %v, want %v", resumed, c.resumes)
			}
			if back := serverErr == nil && clientErr == nil; back != c.comesBack {
				t.Errorf("came back: %v, want %v (%v, %v)", back, c.comesBack, serverErr, clientErr)
			}
			if !c.comesBack && !errors.Is(serverErr, certs.ErrNotAdmitted) {
				t.Errorf("the server says %v", serverErr)
			}
		})
	}
}

// TestRefusedServerIsNotDialledAgain is the same from the other end: the client's
// opinion is asked even where its caller and the server resume sessions.
func TestRefusedServerIsNotDialledAgain(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	var suspended atomic.Bool
	server := certs.NewTLS(source(t, a, "server"), mesh, anyone).ServerTLS("x/1")
	server.SessionTicketsDisabled = false
	client := certs.NewTLS(source(t, a, "client"), mesh, func(spiffeid.ID) error {
		if suspended.Load() {
			return errors.New("suspended")
		}
		return nil
	}).ClientTLS(nodeID(t, "server"), "x/1")
	client.SessionTicketsDisabled = false
	client.ServerName = "server"
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for _, wantResumed := range []bool{false, true} {
		if serverErr, clientErr, resumed := connect(t, server, client); serverErr != nil || clientErr != nil || resumed != wantResumed {
			t.Fatal(serverErr, clientErr, resumed)
		}
	}
	suspended.Store(true)
	if _, clientErr, _ := connect(t, server, client); !errors.Is(clientErr, certs.ErrNotAdmitted) {
		t.Fatalf("the client says %v", clientErr)
	}
}

func TestServerRefuses(t *testing.T) {
	a, yesterday, dir := oldAuthority(t)
	stranger, _ := newAuthority(t, "other.example")
	own := source(t, a, "server")
	good := source(t, a, "client")
	// A source that knows the other mesh's roots too, as a federated one does.
	own.Source = x509bundle.NewSet(must[*x509bundle.Bundle](t)(a.Bundle()), must[*x509bundle.Bundle](t)(stranger.Bundle()))
	unknown := must[*authority.Authority](t)(authority.New(t.TempDir(), mesh)) // same name, other root
	foreign := spiffeid.RequireFromString("spiffe://other.example/institution/client/node/n1")
	issue := func(a *authority.Authority, id spiffeid.ID) *x509svid.SVID {
		return must[*x509svid.SVID](t)(a.Issue(id, time.Hour))
	}
	for name, c := range map[string]struct {
		svid *x509svid.SVID
		edit func(*tls.Config)
		want string
	}{
		"no certificate":                     {edit: func(c *tls.Config) { c.GetClientCertificate = nil }, want: "didn't provide a certificate"},
		"other trust domain, roots known":    {svid: issue(stranger, foreign), want: certs.ErrOtherMesh.Error()},
		"own trust domain, unknown root":     {svid: issue(unknown, good.svid.ID), want: "unknown authority"},
		"self-signed":                        {svid: forge(t, "", good.svid.ID.String()), want: "unknown authority"},
		"expired":                            {svid: issue(yesterday, good.svid.ID), want: "expired"},
		"in the mesh but no node":            {svid: forge(t, dir, "spiffe://"+mesh+"/agent/x"), want: certs.ErrNotNode.Error()},
		"no SPIFFE ID":                       {svid: forge(t, dir, ""), want: "no URI SAN"},
		"certificate of one, key of another": {svid: &x509svid.SVID{ID: good.svid.ID, Certificates: good.svid.Certificates, PrivateKey: own.svid.PrivateKey}, want: "invalid signature"},
		"TLS 1.2":                            {svid: good.svid, edit: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, want: "unsupported versions"},
		"no common protocol":                 {svid: good.svid, edit: func(c *tls.Config) { c.NextProtos = []string{"z/1"} }, want: "unsupported application protocols"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			server := certs.NewTLS(own, mesh, func(id spiffeid.ID) error { asked = id != good.svid.ID; return nil })
			client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x/1"}}
			if c.svid != nil {
				client.GetClientCertificate = tlsconfig.GetClientCertificate(c.svid)
			}
			if c.edit != nil {
				c.edit(client)
			}
			serverErr, _, _ := connect(t, server.ServerTLS("x/1"), client)
			if serverErr == nil || !strings.Contains(serverErr.Error(), c.want) {
				t.Errorf("the server says %v, want %q", serverErr, c.want)
			}
			if asked {
				t.Error("admission was asked about somebody who is no node of the mesh")
			}
		})
	}
}

func TestClientRefuses(t *testing.T) {
	a, yesterday, _ := oldAuthority(t)
	want := nodeID(t, "server")
	sibling := spiffeid.RequireFromString(strings.TrimSuffix(want.String(), "n1") + "n2")
	for name, c := range map[string]struct {
		svid *x509svid.SVID
		want error
		text string
	}{
		"another institution":             {source(t, a, "imposter").svid, certs.ErrWrongPeer, ""},
		"another node of it":              {must[*x509svid.SVID](t)(a.Issue(sibling, 0)), certs.ErrWrongPeer, ""},
		"self-signed under the same name": {forge(t, "", want.String()), nil, "unknown authority"},
		"expired":                         {must[*x509svid.SVID](t)(yesterday.Issue(want, time.Hour)), nil, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			client := certs.NewTLS(source(t, a, "client"), mesh, anyone)
			server := &tls.Config{ClientAuth: tls.RequireAnyClientCert, GetCertificate: tlsconfig.GetCertificate(c.svid), NextProtos: []string{"x/1"}}
			_, clientErr, _ := connect(t, server, client.ClientTLS(want, "x/1"))
			if clientErr == nil || c.want != nil && !errors.Is(clientErr, c.want) || !strings.Contains(clientErr.Error(), c.text) {
				t.Errorf("the client says %v, want %v %s", clientErr, c.want, c.text)
			}
		})
	}
}

// TestNobodyIsNotAnybody asks for a connection to nobody in particular.
func TestNobodyIsNotAnybody(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	server := certs.NewTLS(source(t, a, "server"), mesh, anyone)
	client := certs.NewTLS(source(t, a, "client"), mesh, anyone)
	if _, err, _ := connect(t, server.ServerTLS("x/1"), client.ClientTLS(spiffeid.ID{}, "x/1")); !errors.Is(err, certs.ErrWrongPeer) {
		t.Errorf("the client says %v", err)
	}
	closed := certs.NewTLS(source(t, a, "server"), mesh, nil)
	if err, _, _ := connect(t, closed.ServerTLS("x/1"), client.ClientTLS(nodeID(t, "server"), "x/1")); !errors.Is(err, certs.ErrNotAdmitted) {
		t.Errorf("without a rule of admission the server says %v", err)
	}
}

// TestOwnExpiryIsSaidAtHome checks that a node with an expired SVID says so
// itself, rather than leave it to its peers' logs.
func TestOwnExpiryIsSaidAtHome(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	for name, offset := range map[string]time.Duration{"expired": 2 * time.Hour, "valid from": -2 * time.Hour} {
		server := certs.NewTLS(source(t, a, "server"), mesh, anyone)
		server.SetClock(func() time.Time { return time.Now().Add(offset) })
		client := certs.NewTLS(source(t, a, "client"), mesh, anyone)
		err, _, _ := connect(t, server.ServerTLS("x/1"), client.ClientTLS(nodeID(t, "server"), "x/1"))
		if !errors.Is(err, certs.ErrExpired) || !strings.Contains(err.Error(), name) {
			t.Errorf("the server says %v", err)
		}
	}
	client := certs.NewTLS(source(t, a, "client"), mesh, anyone)
	client.SetClock(func() time.Time { return time.Now().Add(2 * time.Hour) })
	cert, err := client.ClientTLS(nodeID(t, "server"), "x/1").GetClientCertificate(nil)
	if cert != nil || !errors.Is(err, certs.ErrExpired) {
		t.Errorf("the client shows %v, %v", cert, err)
	}
}
