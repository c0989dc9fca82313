package certs_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"

	"github.com/crossroads-mesh/crossroads/certs"
)

// keyFiles are the three kinds of secret file, seen alike.
var keyFiles = map[string]struct {
	make, load func(path string) (any, error)
}{
	"signing": {
		func(p string) (any, error) { return certs.NewSigner(p) },
		func(p string) (any, error) { return certs.LoadSigner(p) },
	},
	"gossip": {
		func(p string) (any, error) { return certs.NewBoxKey(p) },
		func(p string) (any, error) { return certs.LoadBoxKey(p) },
	},
	"storage": {
		func(p string) (any, error) { return certs.NewStorageKey(p) },
		func(p string) (any, error) { return certs.LoadStorageKey(p) },
	},
}

func TestSecretFiles(t *testing.T) {
	for name, k := range keyFiles {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k")
			made := must[any](t)(k.make(path))
			loaded := must[any](t)(k.load(path))
			if fmt.Sprint(made) != fmt.Sprint(loaded) {
				t.Error("another key came back")
			}
			info := must[fs.FileInfo](t)(os.Stat(path))
			if info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
			before := must[[]byte](t)(os.ReadFile(path))
			if _, err := k.make(path); !errors.Is(err, fs.ErrExist) {
				t.Errorf("made over an old one: %v", err)
			}
			if after := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(before, after) {
				t.Fatal("the old key is gone")
			}
			if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
				t.Errorf("left behind: %v", files)
			}
			for other, o := range keyFiles {
				if _, err := o.load(path); other != name && !errors.Is(err, certs.ErrBadKey) {
					t.Errorf("read as a %s key: %v", other, err)
				}
			}
			for _, mode := range []fs.FileMode{0o640, 0o604, 0o644, 0o620} {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
				if _, err := k.load(path); !errors.Is(err, certs.ErrExposed) || !strings.Contains(err.Error(), "chmod 600") {
					t.Errorf("mode %v: %v", mode, err)
				}
			}
			for _, junk := range []string{"", "junk", string(before) + string(before), string(before[:len(before)/2])} {
				if err := os.WriteFile(path, []byte(junk), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := k.load(path); !errors.Is(err, certs.ErrBadKey) {
					t.Errorf("%d bytes of junk: %v", len(junk), err)
				}
			}
		})
	}
}

func TestSignerSigns(t *testing.T) {
	s := must[crypto.Signer](t)(certs.NewSigner(filepath.Join(t.TempDir(), "k")))
	sig := must[[]byte](t)(s.Sign(rand.Reader, []byte("message"), crypto.Hash(0)))
	if !ed25519.Verify(s.Public().(ed25519.PublicKey), []byte("message"), sig) {
		t.Error("the signature does not verify")
	}
}

// TestSecretsDoNotPrint looks for the secret bytes in what every verb prints.
func TestSecretsDoNotPrint(t *testing.T) {
	dir := t.TempDir()
	s := must[crypto.Signer](t)(certs.NewSigner(filepath.Join(dir, "s")))
	b := must[*certs.BoxKey](t)(certs.NewBoxKey(filepath.Join(dir, "b")))
	for _, c := range []struct {
		secret any
		shown  string
	}{{s, "ed25519-"}, {b, b.Public().String()}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			if got := fmt.Sprintf(verb, c.secret); !strings.HasPrefix(got, c.shown) || len(got) > 50 {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}

func TestBoxKeysSpeakNaCl(t *testing.T) {
	dir := t.TempDir()
	a := must[*certs.BoxKey](t)(certs.NewBoxKey(filepath.Join(dir, "a")))
	b := must[*certs.BoxKey](t)(certs.NewBoxKey(filepath.Join(dir, "b")))
	aPub, bPub, nonce := [32]byte(a.Public()), [32]byte(b.Public()), [24]byte{1}
	sealed := box.Seal(nil, []byte("alive"), &nonce, &bPub, a.Private())
	if opened, ok := box.Open(nil, sealed, &nonce, &aPub, b.Private()); !ok || string(opened) != "alive" {
		t.Error("the other end cannot open the box")
	}
}

func TestParseBoxPublicKeyRefuses(t *testing.T) {
	lowOrder, _ := hex.DecodeString("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
	for name, b := range map[string][]byte{
		"nothing": nil, "short": make([]byte, 31), "long": make([]byte, 33), "zero": make([]byte, 32), "low order": lowOrder,
	} {
		if _, err := certs.ParseBoxPublicKey(b); !errors.Is(err, certs.ErrBadKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPublicKeyForms(t *testing.T) {
	dir := t.TempDir()
	pub := must[crypto.Signer](t)(certs.NewSigner(filepath.Join(dir, "k"))).Public().(ed25519.PublicKey)
	path := filepath.Join(dir, "k.pub")
	for range 2 { // it may be written again
		if err := certs.WritePublicKey(path, pub); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := certs.ReadPublicKey(path); err != nil || !got.Equal(pub) {
		t.Errorf("PEM: %v", err)
	}
	if got, err := certs.ParsePublicKey([]byte(certs.EncodePublicKey(pub) + "\n")); err != nil || !got.Equal(pub) {
		t.Errorf("base64: %v", err)
	}
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, junk := range []string{"", "junk", zero, certs.EncodePublicKey(pub[:31]), "-----BEGIN PUBLIC KEY-----", string(must[[]byte](t)(os.ReadFile(filepath.Join(dir, "k"))))} {
		if _, err := certs.ParsePublicKey([]byte(junk)); !errors.Is(err, certs.ErrBadKey) {
			t.Errorf("%.30q: %v", junk, err)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	pub := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	p, _ := certs.PublicKeyPEM(pub)
	f.Add(p)
	f.Add([]byte(certs.EncodePublicKey(pub)))
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := certs.ParsePublicKey(b)
		if err != nil {
			return
		}
		for _, form := range [][]byte{[]byte(certs.EncodePublicKey(pub)), must[[]byte](t)(certs.PublicKeyPEM(pub))} {
			if back, err := certs.ParsePublicKey(form); err != nil || !back.Equal(pub) {
				t.Fatalf("came back as %x, %v", back, err)
			}
		}
	})
}
