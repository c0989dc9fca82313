package authority

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
)

// read gives the identity in dir as a node would have it now: whole and in time.
func read(t *testing.T, dir string) *x509svid.SVID {
	t.Helper()
	d, err := certs.OpenDir(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	svid, err := d.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

// TestRenewerKeepsFresh looks at the directory again and again through four lives
// of an SVID, with a rotation of roots on the way.
func TestRenewerKeepsFresh(t *testing.T) {
	dir, ca := t.TempDir(), filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		a, err := New(ca, mesh)
		if err != nil {
			t.Fatal(err)
		}
		const ttl = time.Hour
		r := NewRenewer(a, node, dir, ttl, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()

		serials := map[string]bool{}
		for minute := range 4 * 60 {
			svid := read(t, dir)
			serials[svid.Certificates[0].SerialNumber.String()] = true
			if left := time.Until(svid.Certificates[0].NotAfter); left < ttl/2-2*time.Minute {
				t.Fatalf("only %s left", left)
			}
			switch minute {
			case 100:
				_, err = a.AddRoot()
			case 130:
				err = a.UseRoot()
			case 200:
				_, err = a.RetireRoots(true)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute + time.Second)
			synctest.Wait()
			if _, held, err := certs.ReadDir(dir); err != nil || !held.Equal(bundle(t, a)) {
				t.Fatalf("minute %d: the bundle was not passed on (%v)", minute, err)
			}
		}
		if n := len(serials); n < 7 || n > 10 {
			t.Errorf("%d SVIDs in four lives, want about 8", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestRenewerMends starts from nothing and from junk, and goes on after a failure.
func TestRenewerMends(t *testing.T) {
	dir, ca := t.TempDir(), filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		a, err := New(ca, mesh)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- NewRenewer(a, node, dir, 0, slog.New(slog.DiscardHandler)).Run(ctx) }()
		synctest.Wait()
		first := read(t, dir)

		if err := os.WriteFile(filepath.Join(dir, certs.SVIDFile), []byte("junk"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(ca, ca+".gone"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // it fails, and tries again
		if err := os.Rename(ca+".gone", ca); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if again := read(t, dir); again.Certificates[0].Equal(first.Certificates[0]) || again.ID != node {
			t.Error("not a new identity")
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
