package journal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

// TestCommitmentIsHMAC holds the commitment against the library's HMAC.
func TestCommitmentIsHMAC(t *testing.T) {
	for size := range 300 {
		var salt [SaltSize]byte
		entry := make([]byte, size)
		rand.Read(salt[:])
		rand.Read(entry)
		m := hmac.New(sha256.New, salt[:])
		m.Write(entry)
		if got := EntryCommitment(salt, entry); !hmac.Equal(got[:], m.Sum(nil)) {
			t.Fatalf("of %d bytes: %x", size, got)
		}
	}
}

func BenchmarkCommitment(b *testing.B) {
	var salt [SaltSize]byte
	entry := make([]byte, 400)
	b.ReportAllocs()
	for b.Loop() {
		EntryCommitment(salt, entry)
	}
}
