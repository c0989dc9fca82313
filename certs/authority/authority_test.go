package authority

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const mesh = "demo.example"

var node = spiffeid.RequireFromString("spiffe://demo.example/institution/pension-office/node/n1")

// clock is a time that a test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newTest(t testing.TB) (*Authority, *clock) {
	t.Helper()
	c := &clock{time.Now()}
	a, err := New(filepath.Join(t.TempDir(), "ca"), mesh, Clock(c.now))
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func issue(t testing.TB, a *Authority, ttl time.Duration) *x509svid.SVID {
	t.Helper()
	svid, err := a.Issue(node, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

func bundle(t testing.TB, a *Authority) *x509bundle.Bundle {
	t.Helper()
	b, err := a.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vouches reports whether the authority's present bundle verifies svid at the time.
func vouches(t testing.TB, a *Authority, svid *x509svid.SVID) bool {
	t.Helper()
	id, _, err := x509svid.Verify(svid.Certificates, bundle(t, a), x509svid.WithTime(a.now()))
	return err == nil && id == svid.ID
}

func TestIssue(t *testing.T) {
	a, c := newTest(t)
	svid := issue(t, a, time.Hour)
	if !vouches(t, a, svid) {
		t.Fatal("the bundle does not verify what was issued")
	}
	leaf := svid.Certificates[0]
	if leaf.IsCA || len(leaf.URIs) != 1 || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("not an X.509-SVID: %+v", leaf.KeyUsage)
	}
	if other := issue(t, a, time.Hour); other.Certificates[0].SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Error("a serial number twice")
	}
	c.t = c.t.Add(time.Hour + time.Second)
	if vouches(t, a, svid) {
		t.Error("it is valid for longer than was asked")
	}
}

func TestIssueRefuses(t *testing.T) {
	a, c := newTest(t)
	for id, ttl := range map[string]time.Duration{
		"spiffe://other.example/institution/a/node/n1":   time.Hour,
		"spiffe://demo.example/agent":                    time.Hour,
		"spiffe://demo.example":                          time.Hour,
		"spiffe://demo.example/institution/a/node/long":  MaxLife + 1,
		"spiffe://demo.example/institution/a/node/minus": -1,
	} {
		if _, err := a.Issue(spiffeid.RequireFromString(id), ttl); !errors.Is(err, ErrRefused) {
			t.Errorf("%s for %s: %v", id, ttl, err)
		}
		if _, err := a.Token(spiffeid.RequireFromString(id), ttl); !errors.Is(err, ErrRefused) {
			t.Errorf("token for %s for %s: %v", id, ttl, err)
		}
	}
	start := c.t
	c.t = start.Add(RootLife - time.Hour)
	if _, err := a.Issue(node, 2*time.Hour); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("past the root's end: %v", err)
	}
	c.t = start.Add(-time.Hour)
	if _, err := a.Issue(node, time.Hour); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("before the root's beginning: %v", err)
	}
}

func TestFiles(t *testing.T) {
	a, _ := newTest(t)
	info, err := os.Stat(a.path("root-1.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root key: %v, %v", info.Mode(), err)
	}
	before := bundle(t, a)
	if _, err := New(a.dir, mesh); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over an old one: %v", err)
	}
	again, err := Open(a.dir)
	if err != nil || !bundle(t, again).Equal(before) {
		t.Errorf("opened again: %v", err)
	}
	if m, err := again.Mesh(); m != mesh || err != nil {
		t.Errorf("%s, %v", m, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(text string) func(*Authority) error {
		return func(a *Authority) error { return os.WriteFile(a.path(stateFile), []byte(text), 0o600) }
	}
	for name, spoil := range map[string]func(*Authority) error{
		"key for all": func(a *Authority) error { return os.Chmod(a.path("root-1.key"), 0o644) },
		"another's key": func(a *Authority) error {
			b, _ := newTest(t)
			return os.Rename(b.path("root-1.key"), a.path("root-1.key"))
		},
		"path in state":  write(`{"mesh":"m","signs":"../x","roots":[{"name":"../x"}]}`),
		"no root signs":  write(`{"mesh":"m","signs":"","roots":[]}`),
		"unknown field":  write(`{"mesh":"m","signs":"root-1","roots":[{"name":"root-1"}],"more":1}`),
		"junk in state":  write(`{"mesh":`),
		"state is gone":  func(a *Authority) error { return os.Remove(a.path(stateFile)) },
		"nothing at all": func(a *Authority) error { return os.RemoveAll(a.dir) },
	} {
		a, _ := newTest(t)
		if err := spoil(a); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(a.dir); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestNewRefusesBadMesh(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := New(dir, "Not A Mesh"); err == nil {
		t.Error("made")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was left behind")
	}
}

func TestRotation(t *testing.T) {
	a, c := newTest(t)
	first := issue(t, a, MaxLife)
	if err := a.UseRoot(); !errors.Is(err, ErrRefused) {
		t.Errorf("no root waits: %v", err)
	}
	if _, err := a.AddRoot(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddRoot(); !errors.Is(err, ErrRefused) {
		t.Errorf("one waits already: %v", err)
	}
	known := bundle(t, a)
	if n := len(known.X509Authorities()); n != 2 {
		t.Fatalf("%d roots", n)
	}
	old := issue(t, a, MaxLife)
	if n, err := a.RetireRoots(true); n != 0 || err != nil {
		t.Errorf("retired the one that signs or the one that waits: %d, %v", n, err)
	}
	if err := a.UseRoot(); err != nil {
		t.Fatal(err)
	}
	next := issue(t, a, MaxLife)
	if next.Certificates[0].CheckSignatureFrom(known.X509Authorities()[1]) != nil {
		t.Error("the new root does not sign")
	}
	// Who learned the bundle before the new root signed needs nothing more.
	if _, _, err := x509svid.Verify(next.Certificates, known); err != nil {
		t.Error(err)
	}
	c.t = c.t.Add(MaxLife - time.Second)
	if _, err := a.RetireRoots(false); !errors.Is(err, ErrRefused) {
		t.Errorf("retired while it vouches: %v", err)
	}
	if !vouches(t, a, old) || !vouches(t, a, first) {
		t.Error("an identity of the old root was dropped")
	}
	c.t = c.t.Add(time.Second)
	if n, err := a.RetireRoots(false); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if vouches(t, a, old) || !vouches(t, a, issue(t, a, 0)) {
		t.Error("wrong roots are left")
	}
	if _, err := os.Stat(a.path("root-1.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the retired key is still there")
	}
	if _, err := a.AddRoot(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.path("root-3.key")); err != nil {
		t.Errorf("a name was used again: %v", err)
	}
}

func TestForcedRetirement(t *testing.T) {
	a, _ := newTest(t)
	stolen := issue(t, a, MaxLife)
	if _, err := a.AddRoot(); err != nil {
		t.Fatal(err)
	}
	if err := a.UseRoot(); err != nil {
		t.Fatal(err)
	}
	if n, err := a.RetireRoots(true); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if vouches(t, a, stolen) {
		t.Error("the bundle still vouches for it")
	}
}
