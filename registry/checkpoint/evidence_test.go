package checkpoint_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func keysOf(inst names.InstitutionID) []ed25519.PublicKey {
	return []ed25519.PublicKey{pub("another"), pub(string(inst))}
}

func cosigned(t testing.TB, n *checkpoint.Note, members ...string) *checkpoint.Note {
	for _, m := range members {
		line, err := n.Cosign(names.NodeID{Institution: names.InstitutionID(m), Node: "n1"}, time.Unix(1_780_000_000, 0), key(m))
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// From the bytes alone: the journal that shows two histories is named, and so is the
// member that cosigned both, and nobody else.
func TestEvidence(t *testing.T) {
	honest, forked := grow(t, leaves(9, 9, "")...), grow(t, leaves(9, 3, "!")...)
	found := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	e := checkpoint.NewEvidence(
		cosigned(t, signed(t, 9, forked.root(t, 9)), "liar", "honest"),
		cosigned(t, signed(t, 5, honest.root(t, 5)), "other", "liar"),
		forked.proof(t, 5, 9), member, found)
	back, err := checkpoint.ParseEvidence(e.Text())
	if err != nil {
		t.Fatal(err)
	}
	f, err := back.Verify(keysOf)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.String(), "nsso/n1 signed two histories of its journal; liar/n1 cosigned both"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	text := e.Text()
	for i := 0; i < len(text); i += 3 { // no change of it accuses anybody else
		b := bytes.Clone(text)
		b[i] ^= 1
		e, err := checkpoint.ParseEvidence(b)
		if err != nil {
			continue
		}
		f, err := e.Verify(keysOf)
		if err == nil && f.Forked && (f.Journal != journal || len(f.Members) > 1 || len(f.Members) == 1 && f.Members[0].Institution != "liar") {
			t.Fatalf("byte %d: %s", i, f)
		}
	}
}

// Evidence that somebody makes up accuses nobody.
func TestEvidenceMadeUp(t *testing.T) {
	tr, forked := grow(t, leaves(9, 9, "")...), grow(t, leaves(9, 0, "!")...)
	older, newer := cosigned(t, signed(t, 5, tr.root(t, 5)), "liar"), cosigned(t, signed(t, 9, tr.root(t, 9)), "liar")
	verify := func(a, b *checkpoint.Note, proof []checkpoint.Hash) (*checkpoint.Finding, error) {
		return checkpoint.NewEvidence(a, b, proof, member, time.Now()).Verify(keysOf)
	}
	if f, err := verify(older, newer, tr.proof(t, 5, 9)); !errors.Is(err, checkpoint.ErrNoContradiction) {
		t.Error(f, err)
	}
	if f, err := verify(older, newer, forked.proof(t, 5, 9)); err != nil || f.Forked || len(f.Members) > 0 {
		t.Error(f, err)
	}
	raw, _ := checkpoint.Sign(origin, 5, checkpoint.Hash{1}, key("liar")) // not the journal's key
	other, _ := checkpoint.Parse(raw)
	if f, err := verify(older, other, nil); !errors.Is(err, checkpoint.ErrNoContradiction) {
		t.Error(f, err)
	}
	// A cosignature lifted onto the other checkpoint does not verify there.
	lifted := signed(t, 5, forked.root(t, 5))
	for _, n := range []string{string(older.Bytes())} {
		i := bytes.LastIndex([]byte(n), []byte("— "))
		if err := lifted.Add([]byte(n[i:])); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := verify(older, lifted, nil); err != nil || !f.Forked || len(f.Members) > 0 {
		t.Error(f, err)
	}
}

func FuzzParseEvidence(f *testing.F) {
	tr := grow(f, leaves(9, 9, "")...)
	f.Add(checkpoint.NewEvidence(signed(f, 5, tr.root(f, 5)), signed(f, 9, checkpoint.Hash{}), tr.proof(f, 5, 9), member, time.Unix(0, 0)).Text())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := checkpoint.ParseEvidence(b); err == nil {
			if fd, err := e.Verify(keysOf); err == nil && fd.Forked && e.Older.Size != e.Newer.Size {
				t.Log(fd)
			}
		}
	})
}
