package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func newToken(t *testing.T, a *Authority, ttl time.Duration) string {
	t.Helper()
	secret, err := a.Token(node, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestJoin(t *testing.T) {
	a, _ := newTest(t)
	secret := newToken(t, a, time.Hour)
	key, csr, err := NewRequest(node)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Join(secret, csr)
	if err != nil {
		t.Fatal(err)
	}
	svid := &x509svid.SVID{ID: node, Certificates: chain, PrivateKey: key}
	if !vouches(t, a, svid) || !key.PublicKey.Equal(chain[0].PublicKey) {
		t.Error("it is not an SVID for that key")
	}
	if _, err := a.Join(secret, csr); !errors.Is(err, ErrToken) {
		t.Errorf("a second time: %v", err)
	}
}

// TestOneTokenOneIdentity lets many use one token at the same time.
func TestOneTokenOneIdentity(t *testing.T) {
	a, _ := newTest(t)
	secret := newToken(t, a, time.Hour)
	_, csr, err := NewRequest(node)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range cap(errs) {
		wg.Go(func() {
			again, err := Open(a.dir) // as another process would
			if err == nil {
				_, err = again.Join(secret, csr)
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	joined := 0
	for err := range errs {
		switch {
		case err == nil:
			joined++
		case !errors.Is(err, ErrToken):
			t.Error(err)
		}
	}
	if joined != 1 {
		t.Errorf("%d joined", joined)
	}
}

func TestTokenIsNotKept(t *testing.T) {
	a, _ := newTest(t)
	secret := newToken(t, a, time.Hour)
	err := filepath.WalkDir(a.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(path+string(b), secret) {
			t.Errorf("the token stands in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTokenExpires(t *testing.T) {
	a, c := newTest(t)
	secret := newToken(t, a, time.Minute)
	later := newToken(t, a, time.Hour)
	_, csr, _ := NewRequest(node)
	c.t = c.t.Add(time.Minute)
	if _, err := a.Join(secret, csr); !errors.Is(err, ErrToken) {
		t.Errorf("expired: %v", err)
	}
	newToken(t, a, time.Minute)
	files, err := os.ReadDir(a.path(tokenDir))
	if err != nil || len(files) != 2 {
		t.Errorf("%d tokens are kept, want the two that live (%v)", len(files), err)
	}
	if _, err := a.Join(later, csr); err != nil {
		t.Errorf("one that lives was swept away: %v", err)
	}
}

func TestJoinRefuses(t *testing.T) {
	a, _ := newTest(t)
	secret := newToken(t, a, time.Hour)
	_, good, _ := NewRequest(node)
	_, other, _ := NewRequest(spiffeid.RequireFromString("spiffe://demo.example/institution/pension-office/node/n2"))
	_, foreign, _ := NewRequest(spiffeid.RequireFromString("spiffe://other.example/institution/pension-office/node/n1"))
	tampered := append([]byte{}, good...)
	tampered[len(tampered)-1] ^= 1
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(key any, uris ...string) []byte {
		template := new(x509.CertificateRequest)
		for _, u := range uris {
			parsed, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			template.URIs = append(template.URIs, parsed)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ec, _, _ := NewRequest(node)
	for name, csr := range map[string][]byte{
		"nothing": nil, "junk": []byte("junk"), "endless": make([]byte, 1<<20), "truncated": good[:len(good)/2],
		"trailing bytes": append(append([]byte{}, good...), 0), "not signed by its key": tampered,
		"another node": other, "another mesh": foreign, "no name": request(ec), "two names": request(ec, node.String(), node.String()),
		"RSA": request(rsaKey, node.String()), "P-224": request(p224, node.String()),
	} {
		if _, err := a.Join(secret, csr); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, guess := range []string{"", "x", secret + "x", strings.ToUpper(secret), "../state.json"} {
		if _, err := a.Join(guess, good); !errors.Is(err, ErrToken) {
			t.Errorf("guess %q: %v", guess, err)
		}
	}
	if _, err := a.Join(secret, good); err != nil {
		t.Errorf("bad requests used up the token: %v", err)
	}
}

func FuzzParseCSR(f *testing.F) {
	_, good, _ := NewRequest(node)
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := parseCSR(der, node)
		if err == nil && csr.URIs[0].String() != node.String() {
			t.Fatal("another name passed")
		}
		if err != nil && !errors.Is(err, ErrBadRequest) {
			t.Fatal(err)
		}
	})
}
