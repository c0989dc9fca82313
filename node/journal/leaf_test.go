package journal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// vectors is testdata/vectors.json: what an entry is proven by. It is not changed
// any more: entries that others hold proofs of depend on it.
type vectors struct {
	Entries []struct {
		Note       string `json:"note"`
		Salt       string `json:"salt"`
		Entry      string `json:"entry"`
		Commitment string `json:"commitment"`
		LeafHash   string `json:"leaf_hash"`
	} `json:"entries"`
	Answers []struct {
		Note       string `json:"note"`
		Blinding   string `json:"blinding"`
		Content    string `json:"content"`
		Commitment string `json:"commitment"`
	} `json:"answers"`
	// Record is one whole record of the log under the given period key.
	Record struct {
		PeriodKey string `json:"period_key"`
		Sequence  uint64 `json:"sequence"`
		Place     uint32 `json:"place"`
		Period    string `json:"period"`
		Entry     string `json:"entry"`
		Salt      string `json:"salt"`
		Bytes     string `json:"bytes"`
	} `json:"record"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadVectors(t testing.TB) *vectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectors(t *testing.T) {
	v := loadVectors(t)
	if len(v.Entries) < 3 || len(v.Answers) < 3 {
		t.Fatal("vectors are missing")
	}
	for _, e := range v.Entries {
		raw := unhex(t, e.Entry)
		c := EntryCommitment([SaltSize]byte(unhex(t, e.Salt)), raw)
		if hex.EncodeToString(c[:]) != e.Commitment {
			t.Errorf("%s: commitment %x, want %s", e.Note, c, e.Commitment)
		}
		if l := LeafHash(c); hex.EncodeToString(l[:]) != e.LeafHash {
			t.Errorf("%s: leaf %x, want %s", e.Note, l, e.LeafHash)
		}
		if err := proto.Unmarshal(raw, new(nodepb.Entry)); err != nil {
			t.Errorf("%s: %v", e.Note, err)
		}
	}
	for _, a := range v.Answers {
		c, err := Commit(unhex(t, a.Blinding), []byte(a.Content))
		if err != nil || hex.EncodeToString(c) != a.Commitment {
			t.Errorf("%s: %x (%v), want %s", a.Note, c, err, a.Commitment)
		}
	}
}

func TestRecordVector(t *testing.T) {
	r := loadVectors(t).Record
	ring := &keyRing{keys: map[period]*periodKey{}}
	if err := ring.add(2026*12+10, unhex(t, r.PeriodKey)); err != nil {
		t.Fatal(err)
	}
	salt, entry := [SaltSize]byte(unhex(t, r.Salt)), unhex(t, r.Entry)
	h := header{place: r.Place, period: 2026*12 + 10, sequence: r.Sequence, commitment: EntryCommitment(salt, entry)}
	if h.period.String() != r.Period {
		t.Errorf("period %s, want %s", h.period, r.Period)
	}
	got := appendRecord(nil, h, ring.get(h.period).aead, salt, entry)
	if hex.EncodeToString(got) != r.Bytes {
		t.Errorf("record\n%x\nwant\n%s", got, r.Bytes)
	}
	back, err := parseRecord(unhex(t, r.Bytes))
	if err != nil {
		t.Fatal(err)
	}
	salt2, entry2, err := openRecord(unhex(t, r.Bytes), back, ring.get(h.period).aead)
	if err != nil || salt2 != salt || !bytes.Equal(entry2, entry) {
		t.Errorf("it opens as %x %x %v", salt2, entry2, err)
	}
}

// TestBlindingLength: bytes must not wander between blinding and content.
func TestBlindingLength(t *testing.T) {
	for _, n := range []int{0, 31, 33, 64} {
		if _, err := Commit(make([]byte, n), []byte("[]")); err == nil {
			t.Errorf("a blinding of %d bytes passed", n)
		}
	}
}
