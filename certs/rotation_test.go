package certs_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
)

// rotating is a node whose identity changes under its running TLS configurations.
type rotating struct {
	id      spiffeid.ID
	renewer *authority.Renewer
	source  *certs.DirSource
	server  *tls.Config // made once, as a listener does
	tls     *certs.TLS
}

func newRotating(t *testing.T, a *authority.Authority, now func() time.Time, institution string) *rotating {
	id, dir := nodeID(t, institution), t.TempDir()
	r := &rotating{id: id, renewer: authority.NewRenewer(a, id, dir, time.Hour, quietLog)}
	if err := r.renewer.Renew(); err != nil {
		t.Fatal(err)
	}
	r.source = must[*certs.DirSource](t)(certs.OpenDir(dir, quietLog))
	r.source.SetClock(now)
	r.tls = certs.NewTLS(r.source, mesh, anyone)
	r.tls.SetClock(now)
	r.server = r.tls.ServerTLS("x/1")
	return r
}

func (r *rotating) renew(t *testing.T) {
	t.Helper()
	if err := r.renewer.Renew(); err != nil {
		t.Fatal(err)
	}
	r.source.Reload()
}

// TestRootRotationDropsNothing takes two nodes from one root to the next, one node
// at a time, and connects both ways at every step; one connection stays open
// through it all.
func TestRootRotationDropsNothing(t *testing.T) {
	clock := time.Now()
	now := func() time.Time { return clock }
	a, _ := newAuthority(t, mesh, authority.Clock(now))
	x, y := newRotating(t, a, now, "x"), newRotating(t, a, now, "y")
	stolen := must[*x509svid.SVID](t)(a.Issue(x.id, authority.MaxLife)) // of the first root

	echo := keepOpen(t, x, y)
	check := func(step string) {
		t.Helper()
		for _, pair := range [][2]*rotating{{x, y}, {y, x}} {
			serverErr, clientErr, _ := connect(t, pair[0].server, pair[1].tls.ClientTLS(pair[0].id, "x/1"))
			if serverErr != nil || clientErr != nil {
				t.Fatalf("%s: %v, %v", step, serverErr, clientErr)
			}
		}
		echo(step)
	}
	check("at first")
	if _, err := a.AddRoot(); err != nil {
		t.Fatal(err)
	}
	check("new root, nobody knows it")
	x.renew(t)
	check("x knows the new root")
	y.renew(t)
	check("both know the new root")
	if err := a.UseRoot(); err != nil {
		t.Fatal(err)
	}
	y.renew(t)
	check("y is of the new root, x of the old")
	x.renew(t)
	check("both are of the new root")
	clock = clock.Add(authority.MaxLife)
	x.renew(t)
	y.renew(t)
	if n, err := a.RetireRoots(false); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	x.renew(t)
	check("x has forgotten the old root")
	y.renew(t)
	check("both have forgotten the old root")

	clock = clock.Add(-time.Minute) // while the old root's last SVID would still be valid
	thief := certs.NewTLS(fixed{stolen, x.source}, mesh, anyone)
	thief.SetClock(now)
	serverErr, _, _ := connect(t, y.server, thief.ClientTLS(y.id, "x/1"))
	if serverErr == nil || !strings.Contains(serverErr.Error(), "unknown authority") {
		t.Errorf("an identity of the retired root: %v", serverErr)
	}
}

// keepOpen connects two nodes and gives a function that sends something over that
// very connection and waits for it to come back.
func keepOpen(t *testing.T, server, client *rotating) func(step string) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		c := tls.Server(far, server.server)
		_, err := io.Copy(c, c)
		done <- err
	}()
	c := tls.Client(near, client.tls.ClientTLS(server.id, "x/1"))
	t.Cleanup(func() {
		_ = near.Close()
		<-done
	})
	return func(step string) {
		t.Helper()
		_ = near.SetDeadline(time.Now().Add(2 * time.Minute))
		b := []byte{42}
		if _, err := c.Write(b); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
}
