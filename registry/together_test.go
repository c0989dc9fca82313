package registry

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"testing"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
)

// TestTogether: whoever comes to the door with others finds the signature remembered if all of
// them verify, and nothing remembered if one does not; nobody waits for ever.
func TestTogether(t *testing.T) {
	signer := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	pub := signer.Public().(ed25519.PublicKey)
	memory := new(envelope.Memory)
	memory.Note([]byte("met before"), pub)
	door := together{memory: memory}
	signed := func(text string) []byte {
		raw, err := envelope.Sign(envelope.Command, []byte(text), signer)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	knows := func(raw []byte) bool {
		opened, err := envelope.Open(envelope.Command, raw)
		if err != nil {
			t.Fatal(err)
		}
		return memory.Recall(raw, opened)
	}
	// come lets all of them be at the door while another batch is verified.
	come := func(all [][]byte) {
		door.turn.Lock()
		var wg sync.WaitGroup
		for _, raw := range all {
			wg.Go(func() { door.ahead(raw) })
		}
		for gathered := 0; gathered < len(all); {
			door.mu.Lock()
			if door.next != nil {
				gathered = len(door.next.commands)
			}
			door.mu.Unlock()
		}
		door.turn.Unlock()
		wg.Wait()
	}
	var good [][]byte
	for n := range 20 {
		good = append(good, signed(fmt.Sprint("command ", n)))
	}
	come(good)
	for n, raw := range good {
		if !knows(raw) {
			t.Errorf("%d was not verified with the others", n)
		}
	}
	bad := signed("forged")
	bad[len(bad)-1] ^= 1
	beside := signed("beside it")
	come([][]byte{bad, beside})
	if knows(bad) || knows(beside) {
		t.Error("remembered, though one of them does not verify")
	}
	door.ahead(signed("alone"))
	door.ahead(make([]byte, smallCommand+1))
	door.ahead(nil)
}
