package envelope

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"

	"github.com/hdevalence/ed25519consensus"
)

// maxRemembered bounds the envelopes that a Memory remembers, twice as many at most, and
// maxSigners the keys: a mesh has some thousands of institutions.
const (
	maxRemembered = 1024
	maxSigners    = 8192
)

// Memory remembers whose signatures on which envelopes verified, so that one that is judged
// twice, as by a leader before it proposes a command and when it is decided, is verified
// once. An envelope is known by its bytes, all of them. The zero value is ready, nil
// remembers nothing, and both are safe for concurrent use.
type Memory struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]ed25519.PublicKey
	keys       map[string]ed25519.PublicKey // by their id, of those remembered
}

// Note remembers that pub signed the envelope in raw, which the caller found with
// Opened.VerifiedBy.
func (m *Memory) Note(raw []byte, pub ed25519.PublicKey) {
	if m == nil {
		return
	}
	hash := sha256.Sum256(raw)
	id := string(KeyID(pub))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(hash, pub)
	if m.keys == nil || len(m.keys) >= maxSigners {
		m.keys = make(map[string]ed25519.PublicKey)
	}
	m.keys[id] = pub
}

func (m *Memory) note(hash [sha256.Size]byte, pub ed25519.PublicKey) {
	if m.young == nil || len(m.young) >= maxRemembered {
		m.young, m.old = make(map[[sha256.Size]byte]ed25519.PublicKey), m.young
	}
	m.young[hash] = pub
}

// Recall tells o, which was opened from raw, whose signature is remembered, and reports
// whether one is.
func (m *Memory) Recall(raw []byte, o *Opened) bool {
	if m == nil {
		return false
	}
	hash := sha256.Sum256(raw)
	m.mu.Lock()
	pub := m.young[hash]
	if pub == nil {
		pub = m.old[hash]
	}
	m.mu.Unlock()
	if pub == nil {
		return false
	}
	o.remember(pub)
	return true
}

// Ahead verifies the first signatures of several envelopes together, where their keys are
// remembered, and remembers them if all verify: for a batch that takes some two thirds of
// what it takes one by one. The rule is the same for many signatures as for one (ZIP-215),
// and so is the library; if any does not verify, nothing is remembered, and whoever judges
// them one by one finds which.
func (m *Memory) Ahead(want Type, raws [][]byte) {
	if m == nil || len(raws) < 2 {
		return
	}
	batch := ed25519consensus.NewBatchVerifier()
	var found []known
	for _, raw := range raws {
		if s, ok := m.single(want, raw); ok {
			batch.Add(s.pub, PAE(want, s.payload), s.signature)
			found = append(found, s)
		}
	}
	if len(found) < 2 || !batch.Verify() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range found {
		m.note(s.hash, s.pub)
	}
}

type known struct {
	hash               [sha256.Size]byte
	pub                ed25519.PublicKey
	payload, signature []byte
}

// single gives the first signature of an envelope that is not remembered, if its key is.
func (m *Memory) single(want Type, raw []byte) (s known, ok bool) {
	o, err := Open(want, raw)
	if err != nil || len(o.env.Signatures) != 1 || m.Recall(raw, o) {
		return s, false
	}
	first := o.env.Signatures[0]
	if first.Group != nil || len(first.Signature) != ed25519.SignatureSize {
		return s, false
	}
	m.mu.Lock()
	s.pub = m.keys[first.KeyId]
	m.mu.Unlock()
	s.hash, s.payload, s.signature = sha256.Sum256(raw), o.Payload, first.Signature
	return s, s.pub != nil
}
