package envelope

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"

	"github.com/hdevalence/ed25519consensus"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// maxRoots bounds what a Verifier remembers: twice as many at most, 32 bytes each.
const maxRoots = 4096

// Verifier verifies signatures and remembers the roots of groups whose signature
// verified, so that the messages of one group cost one verification. It gives the
// same verdicts as Opened.VerifiedBy. The zero value is ready, nil remembers
// nothing, and both are safe for concurrent use.
type Verifier struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]struct{}
}

// VerifiedBy reports whether pub signed the envelope.
func (v *Verifier) VerifiedBy(o *Opened, pub ed25519.PublicKey) bool {
	if len(pub) != ed25519.PublicKeySize {
		return false
	}
	if o.remembers(pub) {
		return true
	}
	id := string(KeyID(pub))
	for _, s := range o.env.Signatures {
		if s.KeyId == id && len(s.Signature) == ed25519.SignatureSize {
			ok := v.verify(o, pub, s)
			if ok {
				o.remember(pub)
			}
			return ok
		}
	}
	return false
}

func (v *Verifier) verify(o *Opened, pub ed25519.PublicKey, s *certspb.Signature) bool {
	if s.Group == nil {
		return verify(pub, PAE(o.Type, o.Payload), s.Signature)
	}
	if !mayGroup(o.Type) || len(s.Group.Salt) != saltSize {
		return false
	}
	root, ok := rootOf(leafOf(s.Group.Salt, o.Type, o.Payload), s.Group)
	if !ok {
		return false
	}
	signed := rootPAE(o.Type, pub, s.Group.Size, root)
	// The signature is part of what is remembered: whoever keeps this message as
	// evidence must find in it the signature that verifies, not just any.
	key := sha256.Sum256(append(append(signed[:len(signed):len(signed)], pub...), s.Signature...))
	if v.knows(key) {
		return true
	}
	if !verify(pub, signed, s.Signature) {
		return false
	}
	v.learn(key)
	return true
}

func verify(pub ed25519.PublicKey, signed, sig []byte) bool {
	return ed25519consensus.Verify(pub, signed, sig) && CheckKey(pub) == nil
}

func (v *Verifier) knows(key [sha256.Size]byte) bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.young[key]; ok {
		return true
	}
	_, ok := v.old[key]
	return ok
}

func (v *Verifier) learn(key [sha256.Size]byte) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.young == nil || len(v.young) >= maxRoots {
		v.young, v.old = make(map[[sha256.Size]byte]struct{}), v.young
	}
	v.young[key] = struct{}{}
}
