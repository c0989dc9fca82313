package checkpoint_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

const mesh names.MeshID = "test.mesh"

var (
	journal = names.NodeID{Institution: "nsso", Node: "n1"}
	member  = names.NodeID{Institution: "neo", Node: "n1"}
	origin  = checkpoint.Origin(mesh, journal)
)

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func pub(name string) ed25519.PublicKey { return key(name).Public().(ed25519.PublicKey) }

// tree is a log in memory, by the reference implementation.
type tree struct{ hashes []tlog.Hash }

func (t *tree) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, x := range at {
		out[i] = t.hashes[x]
	}
	return out, nil
}

func grow(t testing.TB, leaves ...string) *tree {
	tr := new(tree)
	for i, l := range leaves {
		h, err := tlog.StoredHashes(int64(i), []byte(l), tr)
		if err != nil {
			t.Fatal(err)
		}
		tr.hashes = append(tr.hashes, h...)
	}
	return tr
}

func (t *tree) root(tb testing.TB, size int) checkpoint.Hash {
	h, err := tlog.TreeHash(int64(size), t)
	if err != nil {
		tb.Fatal(err)
	}
	return checkpoint.Hash(h)
}

func (t *tree) proof(tb testing.TB, old, size int) []checkpoint.Hash {
	p, err := tlog.ProveTree(int64(size), int64(old), t)
	if err != nil {
		tb.Fatal(err)
	}
	out := make([]checkpoint.Hash, len(p))
	for i, h := range p {
		out[i] = checkpoint.Hash(h)
	}
	return out
}

func signed(t testing.TB, size int, root checkpoint.Hash) *checkpoint.Note {
	raw, err := checkpoint.Sign(origin, int64(size), root, key("nsso"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := checkpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bare is a checkpoint as Compare looks at it.
func bare(size int, root checkpoint.Hash) *checkpoint.Note {
	return &checkpoint.Note{Origin: origin, Size: int64(size), Root: root}
}

func leaves(n int, from int, mark string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint("leaf ", i)
		if i >= from {
			out[i] += mark
		}
	}
	return out
}

// What we sign, two independent implementations accept, and the other way round.
func TestOthersReadOurs(t *testing.T) {
	n := signed(t, 4, checkpoint.Hash{1, 2, 3})
	at := time.Unix(1_780_000_000, 0).UTC()
	line, err := n.Cosign(member, at, key("neo"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Add(line); err != nil {
		t.Fatal(err)
	}
	jv, err := note.NewVerifier(checkpoint.JournalKey(origin, pub("nsso")))
	if err != nil {
		t.Fatal(err)
	}
	wv, err := torchwood.NewCosignatureVerifier(checkpoint.WitnessKey(mesh, member, pub("neo")))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := note.Open(n.Bytes(), note.VerifierList(jv, wv))
	if err != nil || len(opened.Sigs) != 2 {
		t.Fatalf("%v, %d signatures", err, len(opened.Sigs))
	}
	c, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil || c.Origin != origin || c.N != 4 || c.Hash != tlog.Hash(n.Root) {
		t.Fatalf("%+v %v", c, err)
	}
	if !n.SignedBy(pub("nsso")) || n.SignedBy(pub("neo")) {
		t.Error("journal's signature")
	}
	if when, ok := n.CosignedBy(member, pub("neo")); !ok || !when.Equal(at) {
		t.Error("cosignature", when, ok)
	}
	if _, ok := n.CosignedBy(journal, pub("neo")); ok {
		t.Error("cosignature under another name")
	}

	signer, err := torchwood.NewCosignatureSigner(checkpoint.WitnessName(mesh, member), key("neo"))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := note.Sign(&note.Note{Text: n.Text}, signer)
	if err != nil {
		t.Fatal(err)
	}
	back, err := checkpoint.Parse(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := back.CosignedBy(member, pub("neo")); !ok {
		t.Error("their cosignature")
	}
}

// Every pair of sizes: proofs of the reference implementation are accepted, forks are
// never taken for consistent, and where the proof can show the fork it does.
func TestCompareAgainstReference(t *testing.T) {
	const most = 33
	honest := grow(t, leaves(most, most, "")...)
	for old := 1; old <= most; old++ {
		forked := grow(t, leaves(most, old-1, " rewritten")...) // differs in the last old leaf
		for size := old; size <= most; size++ {
			was := bare(old, honest.root(t, old))
			if c := checkpoint.Compare(was, bare(size, honest.root(t, size)), honest.proof(t, old, size)); c != checkpoint.Consistent {
				t.Fatalf("%d to %d: %v", old, size, c)
			}
			c := checkpoint.Compare(was, bare(size, forked.root(t, size)), forked.proof(t, old, size))
			want := checkpoint.Forked
			if old&(old-1) == 0 && old != size {
				want = checkpoint.Unproven
			}
			if c != want {
				t.Fatalf("fork %d to %d: %v, want %v", old, size, c, want)
			}
		}
	}
}

// Whatever is done to a proof, an honest journal is never accused.
func TestNoProofAccusesTheHonest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	honest := grow(t, leaves(64, 64, "")...)
	for range 10_000 {
		size := 1 + r.IntN(64)
		old := 1 + r.IntN(size)
		proof := honest.proof(t, old, size)
		switch r.IntN(5) {
		case 0:
			proof = proof[:r.IntN(len(proof)+1)]
		case 1:
			proof = append(proof, checkpoint.Hash{byte(r.Int())})
		case 2:
			if len(proof) > 0 {
				proof[r.IntN(len(proof))][r.IntN(32)] ^= 1 << r.IntN(8)
			}
		case 3:
			proof = honest.proof(t, 1+r.IntN(size), size)
		case 4:
			r.Shuffle(len(proof), func(i, j int) { proof[i], proof[j] = proof[j], proof[i] })
		}
		if c := checkpoint.Compare(bare(old, honest.root(t, old)), bare(size, honest.root(t, size)), proof); c == checkpoint.Forked {
			t.Fatalf("%d to %d: the honest is accused", old, size)
		}
	}
}

func TestAddRequest(t *testing.T) {
	tr := grow(t, leaves(9, 9, "")...)
	r := &checkpoint.AddRequest{Old: 5, Proof: tr.proof(t, 5, 9), Note: signed(t, 9, tr.root(t, 9)).Bytes()}
	got, err := checkpoint.ParseAddRequest(r.Bytes())
	if err != nil || !bytes.Equal(got.Bytes(), r.Bytes()) || len(got.Proof) != len(r.Proof) {
		t.Fatal(got, err)
	}
	for _, bad := range []string{"", "old 5", "old 05\n\nx", "old -1\n\nx", "old 5\nAA==\n\nx", "old 5\n\n", "new 5\n\nx",
		"old 1\n" + strings.Repeat(strings.Repeat("A", 43)+"=\n", 64) + "\nx"} {
		if _, err := checkpoint.ParseAddRequest([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestTampered(t *testing.T) {
	n := signed(t, 4, checkpoint.Hash{9})
	line, _ := n.Cosign(member, time.Unix(1_780_000_000, 0), key("neo"))
	_ = n.Add(line)
	raw := n.Bytes()
	for i := range raw {
		for _, bit := range []byte{1, 4, 32} {
			b := bytes.Clone(raw)
			b[i] ^= bit
			m, err := checkpoint.Parse(b)
			if err != nil {
				continue
			}
			if _, ok := m.CosignedBy(member, pub("neo")); ok && m.SignedBy(pub("nsso")) {
				t.Fatalf("byte %d: both signatures hold", i)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	n := signed(f, 4, checkpoint.Hash{9})
	f.Add(n.Bytes())
	f.Add([]byte("a/journal/b/c\n0\n\n\n— x y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := checkpoint.Parse(b)
		if err == nil && !bytes.Equal(n.Bytes(), b) {
			t.Fatalf("read and written: %q", n.Bytes())
		}
	})
}

func FuzzParseAddRequest(f *testing.F) {
	f.Add([]byte("old 0\n\nnote"))
	f.Add([]byte("old 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nnote"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := checkpoint.ParseAddRequest(b)
		if err == nil && !bytes.Equal(r.Bytes(), b) {
			t.Fatalf("read and written: %q", r.Bytes())
		}
	})
}
