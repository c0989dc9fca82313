package envelope

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"testing"
)

func signedBy(t *testing.T, payload string, keys ...crypto.Signer) []byte {
	t.Helper()
	raw, err := Sign(Command, []byte(payload), keys...)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func memoryKey(n byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	return k, k.Public().(ed25519.PublicKey)
}

// recalled reports whether m knows of raw, and holds that against whether pub signed it.
func recalled(t *testing.T, m *Memory, raw []byte, pub ed25519.PublicKey) bool {
	t.Helper()
	o, err := Open(Command, raw)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := Open(Command, raw)
	known := m.Recall(raw, o)
	if o.VerifiedBy(pub) != plain.VerifiedBy(pub) {
		t.Fatalf("with a memory the verdict is %v", o.VerifiedBy(pub))
	}
	return known
}

// TestMemory: what is remembered is what verified, of just those bytes; and of envelopes
// that are verified together nothing is, if one of them is not as it was signed.
func TestMemory(t *testing.T) {
	a, pubA := memoryKey(1)
	b, pubB := memoryKey(2)
	m := new(Memory)
	first := signedBy(t, "first", a)
	if recalled(t, m, first, pubA) {
		t.Error("it was never noted")
	}
	m.Note(first, pubA)
	if !recalled(t, m, first, pubA) {
		t.Error("it was noted")
	}
	forged := bytes.Clone(first)
	forged[bytes.Index(forged, []byte("first"))] = 'F'
	if recalled(t, m, forged, pubA) || recalled(t, m, signedBy(t, "first", b), pubB) {
		t.Error("other bytes are known")
	}

	var all [][]byte
	for n := range 12 {
		all = append(all, signedBy(t, fmt.Sprint("command ", n), a))
	}
	foreign := signedBy(t, "of a key not met", b)
	twice := signedBy(t, "by two", a, b)
	bad := bytes.Clone(all[11])
	bad[bytes.Index(bad, []byte("command 11"))] = 'C'
	m.Ahead(Command, append([][]byte{bad, []byte("no envelope")}, all[:3]...))
	for _, raw := range append([][]byte{bad}, all[:3]...) {
		if recalled(t, m, raw, pubA) {
			t.Fatal("remembered beside one that does not verify")
		}
	}
	m.Ahead(Command, append([][]byte{foreign, twice, nil}, all...))
	for n, raw := range all {
		if !recalled(t, m, raw, pubA) {
			t.Errorf("%d is not remembered", n)
		}
	}
	if recalled(t, m, foreign, pubB) || recalled(t, m, twice, pubA) {
		t.Error("remembered without the key, or of one signature of two")
	}
	for n := range 3 * maxRemembered {
		m.Note(fmt.Appendf(nil, "%d", n), pubA)
	}
	if len(m.young)+len(m.old) > 2*maxRemembered || recalled(t, m, first, pubA) {
		t.Errorf("%d are remembered", len(m.young)+len(m.old))
	}
	var none *Memory
	none.Note(first, pubA)
	none.Ahead(Command, all)
	if recalled(t, none, first, pubA) {
		t.Error("nobody remembered")
	}
}

func BenchmarkAhead(b *testing.B) {
	for _, size := range []int{2, 8, 32} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			key, pub := memoryKey(1)
			var raws [][]byte
			for n := range size {
				raw, err := Sign(Command, fmt.Appendf(nil, "command %d", n), key)
				if err != nil {
					b.Fatal(err)
				}
				raws = append(raws, raw)
			}
			for b.Loop() {
				m := new(Memory)
				m.Note([]byte("x"), pub)
				m.Ahead(Command, raws)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/signature")
		})
	}
}
