package envelope

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"

	"github.com/hdevalence/ed25519consensus"
	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// maxKeys bounds the keys that a Verifier keeps ready.
const maxKeys = 4096

// maxRoots bounds what a Verifier remembers: twice as many at most, 32 bytes each.
const maxRoots = 4096

// Verifier verifies signatures and remembers the roots of groups whose signature
// verified, so that the messages of one group cost one verification, and keys, whose
// multiples and names it keeps ready. It gives the same verdicts as Opened.VerifiedBy.
// The zero value is ready, nil remembers nothing, and both are safe for concurrent use.
//
// The two verify by different code under the same rule (ZIP-215): what replicas must
// judge alike for ever is left to one library, what concerns a single exchange to a
// quicker one. TestVerifiersAgree holds them together.
type Verifier struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]struct{}
	keys       map[[ed25519.PublicKeySize]byte]*ready
}

// ready is a key that a Verifier has met.
type ready struct {
	id       string
	multiple *voi.ExpandedPublicKey // nil: the key can prove nothing
}

var zip215 = &voi.Options{Verify: voi.VerifyOptionsZIP_215}

// key gives what is ready of pub, which has the right size.
func (v *Verifier) key(pub ed25519.PublicKey) *ready {
	name := [ed25519.PublicKeySize]byte(pub)
	v.mu.Lock()
	k := v.keys[name]
	v.mu.Unlock()
	if k != nil {
		return k
	}
	k = &ready{id: string(KeyID(pub))}
	if CheckKey(pub) == nil {
		if m, err := voi.NewExpandedPublicKey(voi.PublicKey(pub)); err == nil {
			k.multiple = m
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys == nil || len(v.keys) >= maxKeys {
		v.keys = make(map[[ed25519.PublicKeySize]byte]*ready)
	}
	v.keys[name] = k
	return k
}

// VerifiedBy reports whether pub signed the envelope.
func (v *Verifier) VerifiedBy(o *Opened, pub ed25519.PublicKey) bool {
	if len(pub) != ed25519.PublicKeySize {
		return false
	}
	if o.remembers(pub) {
		return true
	}
	k := v.ready(pub)
	for _, s := range o.env.Signatures {
		if s.KeyId == k.id && len(s.Signature) == ed25519.SignatureSize {
			ok := v.verify(o, pub, k, s)
			if ok {
				o.remember(pub)
			}
			return ok
		}
	}
	return false
}

func (v *Verifier) verify(o *Opened, pub ed25519.PublicKey, k *ready, s *certspb.Signature) bool {
	if s.Group == nil {
		return k.verify(pub, PAE(o.Type, o.Payload), s.Signature)
	}
	if !mayGroup(o.Type) || len(s.Group.Salt) != saltSize {
		return false
	}
	root, ok := rootOf(leafOf(s.Group.Salt, o.Type, o.Payload), s.Group)
	if !ok {
		return false
	}
	signed := rootPAE(o.Type, k.id, s.Group.Size, root)
	// The signature is part of what is remembered: whoever keeps this message as
	// evidence must find in it the signature that verifies, not just any.
	key := sha256.Sum256(append(append(append(make([]byte, 0, 512), signed...), pub...), s.Signature...))
	if v.knows(key) {
		return true
	}
	if !k.verify(pub, signed, s.Signature) {
		return false
	}
	v.learn(key)
	return true
}

// ready gives what is known of pub: much, if there is a Verifier.
func (v *Verifier) ready(pub ed25519.PublicKey) *ready {
	if v == nil {
		return &ready{id: string(KeyID(pub))}
	}
	return v.key(pub)
}

// verify reports whether pub, of which k is known, signed.
func (k *ready) verify(pub ed25519.PublicKey, signed, sig []byte) bool {
	if k.multiple != nil {
		return voi.VerifyExpandedWithOptions(k.multiple, signed, sig, zip215)
	}
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
