package envelope

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// sameAsProto holds the quick reader to package proto: what it reads is the same.
func sameAsProto(t *testing.T, raw []byte) (quick bool) {
	t.Helper()
	got := quickly(bytes.Clone(raw))
	if got == nil {
		return false
	}
	want := new(certspb.Envelope)
	if err := proto.Unmarshal(raw, want); err != nil {
		t.Fatalf("%x is read, and is none: %v", raw, err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%x\ngot  %v\nwant %v", raw, got, want)
	}
	return true
}

func envelopes(t testing.TB) (all [][]byte) {
	k := newKey(t, 1)
	lone, err := Sign(Grant, []byte("payload"), k)
	if err != nil {
		t.Fatal(err)
	}
	grouped, err := SignAll(Request, [][]byte{[]byte("a"), []byte("b"), []byte("c")}, k)
	if err != nil {
		t.Fatal(err)
	}
	return append(grouped, lone)
}

// TestQuick: what is written here is read quickly, and what is unusual is left to proto.
func TestQuick(t *testing.T) {
	for _, raw := range envelopes(t) {
		if !sameAsProto(t, raw) {
			t.Errorf("not read quickly: %x", raw)
		}
		for i := range raw { // cut off, and changed
			sameAsProto(t, raw[:i])
			for _, bit := range []byte{1, 0x80} {
				changed := bytes.Clone(raw)
				changed[i] ^= bit
				sameAsProto(t, changed)
			}
		}
	}
	lone := envelopes(t)[3]
	two, err := AddSignature(lone, newKey(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	for what, raw := range map[string][]byte{
		"two signatures":     two,
		"a type twice":       append([]byte("\x0a\x01x"), lone...),
		"a payload twice":    append([]byte("\x12\x01x"), lone...),
		"an unknown field":   append([]byte("\x22\x01x"), lone...),
		"a type of no UTF-8": []byte("\x0a\x01\xff"),
		"a number for bytes": []byte("\x10\x01"),
	} {
		if quickly(raw) != nil {
			t.Errorf("%s: read quickly", what)
		}
	}
	if o, err := Open(Grant, two); err != nil || len(o.KeyIDs()) != 2 {
		t.Errorf("two signatures: %v", err)
	}
}

func FuzzQuick(f *testing.F) {
	for _, raw := range envelopes(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { sameAsProto(t, raw) })
}

func BenchmarkOpen(b *testing.B) {
	all := envelopes(b)
	for name, raw := range map[string][]byte{"lone": all[3], "grouped": all[0]} {
		want := Grant
		if name == "grouped" {
			want = Request
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(want, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
