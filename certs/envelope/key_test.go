package envelope

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"testing"

	"filippo.io/edwards25519"
	"github.com/hdevalence/ed25519consensus"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// smallOrder holds encodings of points of small order, canonical and not.
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000", // the identity
	"0100000000000000000000000000000000000000000000000000000000000080", // the same, sign bit set
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // the same, not reduced
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
	"0000000000000000000000000000000000000000000000000000000000000000", // order 4
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 4, not reduced
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
}

// TestKeysThatProveNothing forges, for each point of small order, a signature that
// the ZIP-215 rule alone accepts for any message, and wants it refused here.
func TestKeysThatProveNothing(t *testing.T) {
	forged := append(edwards25519.NewIdentityPoint().Bytes(), make([]byte, 32)...) // R is the identity, S is 0
	for _, text := range smallOrder {
		weak, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if !ed25519consensus.Verify(weak, PAE(Command, []byte("anything")), forged) {
			t.Fatalf("%s: the forgery is none; this test shows nothing", text)
		}
		if err := CheckKey(weak); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: %v", text, err)
		}
		raw, err := proto.Marshal(&certspb.Envelope{
			Type: string(Command), Payload: []byte("anything"),
			Signatures: []*certspb.Signature{{KeyId: string(KeyID(weak)), Signature: forged}},
		})
		if err != nil {
			t.Fatal(err)
		}
		o, err := Open(Command, raw)
		if err != nil {
			t.Fatal(err)
		}
		if o.VerifiedBy(weak) || o.CountVerified([]ed25519.PublicKey{weak}) != 0 {
			t.Errorf("%s: the forgery passes", text)
		}
	}
}

func TestCheckKey(t *testing.T) {
	if err := CheckKey(pub(newKey(t, 1))); err != nil {
		t.Errorf("a good key: %v", err)
	}
	notOnCurve := append([]byte{2}, make([]byte, 31)...)
	for name, k := range map[string]ed25519.PublicKey{
		"nothing": nil, "short": make([]byte, 31), "long": bytes.Repeat([]byte{1}, 33), "not on the curve": notOnCurve,
	} {
		if err := CheckKey(k); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForeignSignaturesDoNotCount puts wrong signatures beside and in place of
// right ones.
func TestForeignSignaturesDoNotCount(t *testing.T) {
	a, b := newKey(t, 1), newKey(t, 2)
	raw, err := Sign(Command, []byte("payload"), a)
	if err != nil {
		t.Fatal(err)
	}
	env := new(certspb.Envelope)
	if err := proto.Unmarshal(raw, env); err != nil {
		t.Fatal(err)
	}
	good := env.Signatures[0]
	for name, sigs := range map[string][]*certspb.Signature{
		"none":                       nil,
		"a's under b's name":         {{KeyId: string(KeyID(pub(b))), Signature: good.Signature}},
		"cut off":                    {{KeyId: good.KeyId, Signature: good.Signature[:63]}},
		"empty":                      {{KeyId: good.KeyId}},
		"another's of another thing": {{KeyId: string(KeyID(pub(b))), Signature: ed25519.Sign(b, PAE(Grant, []byte("payload")))}},
	} {
		env.Signatures = sigs
		raw, err := proto.Marshal(env)
		if err != nil {
			t.Fatal(err)
		}
		o, err := Open(Command, raw)
		if err != nil {
			t.Fatal(err)
		}
		if n := o.CountVerified([]ed25519.PublicKey{pub(a), pub(b), nil}); n != 0 {
			t.Errorf("%s: %d counted", name, n)
		}
	}
}

func TestOpenBoundsItsInput(t *testing.T) {
	if _, err := Open(Command, make([]byte, MaxSize+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too large: %v", err)
	}
	env := &certspb.Envelope{Type: string(Command)}
	for range maxSignatures + 1 {
		env.Signatures = append(env.Signatures, &certspb.Signature{KeyId: "x"})
	}
	raw, err := proto.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Command, raw); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many signatures: %v", err)
	}
}
