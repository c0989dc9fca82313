package gossip

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"testing"

	"filippo.io/edwards25519"
)

// BenchmarkPacket measures what a node does for each full packet it sends and gets.
func BenchmarkPacket(b *testing.B) {
	onePub, oneKey, err := NewKey()
	if err != nil {
		b.Fatal(err)
	}
	twoPub, twoKey, err := NewKey()
	if err != nil {
		b.Fatal(err)
	}
	published := map[string]*[32]byte{"inst-0001.n1": onePub, "inst-0002.n1": twoPub}
	keys := func(name string) (*[32]byte, bool) {
		k, ok := published[name]
		return k, ok
	}
	one, two := newSealer("inst-0001.n1", agreeWith(oneKey), keys), newSealer("inst-0002.n1", agreeWith(twoKey), keys)
	payload := bytes.Repeat([]byte{7}, maxPacket-overhead(one.self))
	packet, err := one.seal(two.self, payload)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := one.seal(two.self, payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := two.open(packet); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStranger measures what a node does once for each other: it verifies what that one
// says of itself, and agrees on a key with it. TestScale counts both, and does not repeat
// the first and shortens the second.
func BenchmarkStranger(b *testing.B) {
	b.Run("verify", func(b *testing.B) {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			b.Fatal(err)
		}
		said := statement("inst-0001.n1", netip.MustParseAddrPort("10.0.0.1:7000"), 1)
		signature := ed25519.Sign(private, said)
		for b.Loop() {
			if !ed25519.Verify(public, said, signature) {
				b.Fatal("not verified")
			}
		}
	})
	public, private, err := NewKey()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("agree", func(b *testing.B) {
		agree := agreeWith(private)
		for b.Loop() {
			agree(public)
		}
	})
	c := &secrets{scalars: make(map[[32]byte]*edwards25519.Scalar)}
	c.add(private)
	b.Run("agree shortened", func(b *testing.B) {
		agree := c.agreement(private)
		for b.Loop() {
			agree(public)
		}
	})
}
