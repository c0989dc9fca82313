package envelope

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"filippo.io/edwards25519"
)

// torsion are the encodings of all points of small order, those included that are
// longer than they need be: where verifiers differ.
var torsion = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// TestVerifiersAgree holds a Verifier that remembers against none, on signatures that
// verifiers of different rules judge differently: with points of small order as key,
// as nonce or added to either, with scalars that are not reduced, and with single bits
// changed.
func TestVerifiersAgree(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	held, refused := 0, 0
	agree := func(pub ed25519.PublicKey, signed, sig []byte) {
		t.Helper()
		slow := (*Verifier)(nil).ready(pub).verify(pub, signed, sig)
		quick := new(Verifier).key(pub).verify(pub, signed, sig)
		if slow != quick {
			t.Fatalf("key %x, signature %x: %v without, %v with a Verifier", pub, sig, slow, quick)
		}
		if slow {
			held++
		} else {
			refused++
		}
	}
	for i, code := range torsion {
		small, err := hex.DecodeString(code)
		if err != nil {
			t.Fatal(err)
		}
		point, err := new(edwards25519.Point).SetBytes(small)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range torsion {
			r, _ := hex.DecodeString(other)
			agree(small, []byte("anything"), append(r, make([]byte, 32)...))
		}
		for j := range 40 {
			msg := []byte{byte(i), byte(j)}
			a, r := scalar(dice), scalar(dice)
			keyPoint, noncePoint := new(edwards25519.Point).ScalarBaseMult(a), new(edwards25519.Point).ScalarBaseMult(r)
			if j&1 == 1 {
				keyPoint.Add(keyPoint, point)
			}
			if j&2 == 2 {
				noncePoint.Add(noncePoint, point)
			}
			pub, nonce := ed25519.PublicKey(keyPoint.Bytes()), noncePoint.Bytes()
			digest := sha512.Sum512(append(append(append([]byte{}, nonce...), pub...), msg...))
			k, err := edwards25519.NewScalar().SetUniformBytes(digest[:])
			if err != nil {
				t.Fatal(err)
			}
			sig := append(nonce, edwards25519.NewScalar().MultiplyAdd(k, a, r).Bytes()...)
			agree(pub, msg, sig)
			agree(pub, msg, plusOrder(sig))
			bad := append([]byte{}, sig...)
			bad[dice.IntN(64)] ^= 1 << dice.IntN(8)
			agree(pub, msg, bad)
			agree(pub, msg, sig[:63])
		}
	}
	if held < 500 || refused < 500 {
		t.Fatalf("%d held and %d did not: too few of one kind", held, refused)
	}
}

func scalar(dice *rand.Rand) *edwards25519.Scalar {
	var wide [64]byte
	for i := range wide {
		wide[i] = byte(dice.Uint32())
	}
	s, err := edwards25519.NewScalar().SetUniformBytes(wide[:])
	if err != nil {
		panic(err)
	}
	return s
}

// plusOrder adds the order of the group to the scalar: the same number for whoever
// does not insist on the smallest.
func plusOrder(sig []byte) []byte {
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	out, carry := append([]byte{}, sig...), 0
	for i := range 32 {
		carry += int(out[32+i]) + int(order[i])
		out[32+i] = byte(carry)
		carry >>= 8
	}
	return out
}
