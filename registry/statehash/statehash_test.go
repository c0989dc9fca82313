package statehash

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestVector pins the definition: a replica of another version must agree for ever.
func TestVector(t *testing.T) {
	var s State
	var h Hasher
	h.Add(&s[0], []byte("key"), []byte("value"))
	h.Add(&s[17], []byte("row"), make([]byte, 5000))
	d := s.Digests()
	const root = "44d4d920604bdcd9e3a0ceab9b028f3d26d284dfc5cef7791af12aad55b7559c"
	const public = "38ada3a7355b316bd5e9af3be8e1d6715b720150d7920f0d53e1ef469e7feb28"
	if got := RootOf(d); hex.EncodeToString(got[:]) != root {
		t.Errorf("root %x", got)
	}
	if got := RootOf(d[:PublicBuckets]); hex.EncodeToString(got[:]) != public {
		t.Errorf("public root %x", got)
	}
	if b, p := Bucket([]byte("key"), false); b != 135 || p != 217 {
		t.Errorf("bucket %d, part %d", b, p)
	}
}

// TestSumIsOfTheSet: whatever rows came, changed and went, in whatever order, the sum is
// that of the rows that stand, and of no other rows.
func TestSumIsOfTheSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := map[string]string{}
		var s Sum
		var h Hasher
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			k := rapid.StringN(0, 3, -1).Draw(t, "key")
			if v, ok := rows[k]; ok {
				h.Remove(&s, []byte(k), []byte(v))
				delete(rows, k)
			}
			if rapid.Bool().Draw(t, "set") {
				v := rapid.String().Draw(t, "value")
				h.Add(&s, []byte(k), []byte(v))
				rows[k] = v
			}
		}
		var anew Sum
		for k, v := range rows {
			h.Add(&anew, []byte(k), []byte(v))
		}
		if s != anew {
			t.Fatalf("the sum is not that of %q", rows)
		}
		back, err := SumOf(s.Bytes())
		if err != nil || back != s {
			t.Fatal("bytes", err)
		}
		for k, v := range rows { // where key and value meet counts
			if len(v) > 0 && (k+v[:1] != k) {
				h.Remove(&anew, []byte(k), []byte(v))
				h.Add(&anew, []byte(k+v[:1]), []byte(v[1:]))
				if anew == s {
					t.Fatal("a row with another end of its key has the same element")
				}
				break
			}
		}
	})
}

// TestBucketsAreEven: 61,000 keys of subjects spread over the buckets.
func TestBucketsAreEven(t *testing.T) {
	var n [Buckets]int
	var parts [256]int
	for i := range 61_000 {
		b, p := Bucket(fmt.Appendf(nil, "Rssin\x00%011d", i*97), false)
		n[b]++
		parts[p]++
	}
	for b, c := range n {
		if b < PublicBuckets && c != 0 || b >= PublicBuckets && (c < 150 || c > 380) {
			t.Errorf("bucket %d: %d rows", b, c)
		}
	}
	for p, c := range parts {
		if c < 130 || c > 360 {
			t.Errorf("part %d: %d rows", p, c)
		}
	}
}

// BenchmarkRow is what one changed row costs: the old element away, the new one in.
func BenchmarkRow(b *testing.B) {
	for _, size := range []int{8, 66, 200} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			key, v := []byte("Rssin\x0074071238186"), make([]byte, size)
			r := rand.New(rand.NewPCG(1, 2))
			binary.LittleEndian.PutUint64(v, r.Uint64())
			var s Sum
			var h Hasher
			b.ReportAllocs()
			for b.Loop() {
				h.Remove(&s, key, v)
				v[0]++
				h.Add(&s, key, v)
			}
		})
	}
}
