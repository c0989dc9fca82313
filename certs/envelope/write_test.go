package envelope

import (
	"bytes"
	"crypto/ed25519"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// TestWrite: what is written by hand is what package proto writes.
func TestWrite(t *testing.T) {
	some := rapid.SliceOfN(rapid.Byte(), 0, 300)
	rapid.Check(t, func(t *rapid.T) {
		typ, keyID := Type(rapid.StringMatching("[a-z/+]{0,200}").Draw(t, "type")), rapid.StringMatching("[a-z0-9-]{0,40}").Draw(t, "key")
		payload, sig := some.Draw(t, "payload"), some.Draw(t, "signature")
		s := &certspb.Signature{KeyId: keyID, Signature: sig}
		var g *inGroup
		if rapid.Bool().Draw(t, "in a group") {
			g = &inGroup{salt: some.Draw(t, "salt"), index: rapid.Uint64Range(0, 4095).Draw(t, "index"),
				size: rapid.Uint64Range(2, 4096).Draw(t, "size"), path: rapid.SliceOfN(some, 0, 12).Draw(t, "path")}
			s.Group = &certspb.GroupPath{Salt: g.salt, Index: g.index, Size: g.size, Path: g.path}
		}
		want, err := proto.Marshal(&certspb.Envelope{Type: string(typ), Payload: payload, Signatures: []*certspb.Signature{s}})
		if err != nil {
			t.Fatal(err)
		}
		if got := write(typ, payload, keyID, sig, g); !bytes.Equal(got, want) || cap(got) != len(got) && cap(got) > len(got)+len(got)/4+64 {
			t.Fatalf("%d bytes, capacity %d:\n%x\nwant\n%x", len(got), cap(got), got, want)
		}
	})
}

// BenchmarkSignAll signs messages as exchanges do: alone, and four together.
func BenchmarkSignAll(b *testing.B) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 4} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			g, payload := NewGroup(key), make([]byte, 600)
			b.ReportAllocs()
			for b.Loop() {
				group := make([]*toSign, n)
				for i := range group {
					group[i] = &toSign{t: Answer, payload: payload}
				}
				if g.sign(group); group[0].err != nil {
					b.Fatal(group[0].err)
				}
			}
		})
	}
}
