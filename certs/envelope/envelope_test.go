package envelope

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

func newKey(t testing.TB, seed byte) ed25519.PrivateKey {
	t.Helper()
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func pub(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// TestPAEVector is the worked example of the DSSE specification.
func TestPAEVector(t *testing.T) {
	got := PAE("http://example.com/HelloWorld", []byte("hello world"))
	want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"
	if string(got) != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestSignAndOpen(t *testing.T) {
	a, b, c := newKey(t, 1), newKey(t, 2), newKey(t, 3)
	raw, err := Sign(Grant, []byte("payload"), a)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = AddSignature(raw, b); err != nil {
		t.Fatal(err)
	}
	if raw, err = AddSignature(raw, b); err != nil {
		t.Fatal(err)
	}
	o, err := Open(Grant, raw)
	if err != nil {
		t.Fatal(err)
	}
	if !o.VerifiedBy(pub(a)) || !o.VerifiedBy(pub(b)) || o.VerifiedBy(pub(c)) {
		t.Error("wrong signers verified")
	}
	if n := o.CountVerified([]ed25519.PublicKey{pub(a), pub(a), pub(b), pub(c), pub(b)}); n != 2 {
		t.Errorf("%d signers counted, want 2", n)
	}
	if _, err := Open(Answer, raw); !errors.Is(err, ErrWrongType) {
		t.Errorf("opened as another type: %v", err)
	}
}

// TestNoMessagePassesForAnother relabels a signed message, and moves its bytes.
func TestDetached(t *testing.T) {
	key, payload := newKey(t, 1), []byte("payload")
	sig, err := SignDetached(NodeMeta, payload, key)
	if err != nil || len(sig) != ed25519.SignatureSize {
		t.Fatalf("%d bytes, %v", len(sig), err)
	}
	if !VerifyDetached(NodeMeta, payload, sig, pub(key)) {
		t.Error("its own signature does not verify")
	}
	bad := append([]byte{}, sig...)
	bad[7] ^= 1
	for name, holds := range map[string]bool{
		"of another kind":    VerifyDetached(Grant, payload, sig, pub(key)),
		"of another payload": VerifyDetached(NodeMeta, []byte("payloae"), sig, pub(key)),
		"of another key":     VerifyDetached(NodeMeta, payload, sig, pub(newKey(t, 2))),
		"of no key":          VerifyDetached(NodeMeta, payload, sig, nil),
		"changed":            VerifyDetached(NodeMeta, payload, bad, pub(key)),
		"cut":                VerifyDetached(NodeMeta, payload, sig[:63], pub(key)),
		"none":               VerifyDetached(NodeMeta, payload, nil, pub(key)),
	} {
		if holds {
			t.Errorf("a signature %s verifies", name)
		}
	}
}

func TestNoMessagePassesForAnother(t *testing.T) {
	a := newKey(t, 1)
	raw, _ := Sign(Request, []byte("payload"), a)
	env := new(certspb.Envelope)
	if err := proto.Unmarshal(raw, env); err != nil {
		t.Fatal(err)
	}
	env.Type = string(Clearance)
	relabelled, _ := proto.Marshal(env)
	o, err := Open(Clearance, relabelled)
	if err != nil {
		t.Fatal(err)
	}
	if o.VerifiedBy(pub(a)) {
		t.Fatal("a request passes for a clearance")
	}
	env.Type = string(Request)
	env.Payload[0] ^= 1
	altered, _ := proto.Marshal(env)
	if o, _ = Open(Request, altered); o.VerifiedBy(pub(a)) {
		t.Fatal("an altered payload verifies")
	}
}

func FuzzOpen(f *testing.F) {
	k := newKey(f, 1)
	raw, _ := Sign(Grant, []byte("payload"), k)
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := Open(Grant, raw)
		if err != nil {
			return
		}
		if o.VerifiedBy(pub(k)) && string(o.Payload) != "payload" {
			t.Fatal("forged")
		}
	})
}
