package envelope

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

// ErrWeakKey means that a public key proves nothing.
var ErrWeakKey = errors.New("weak public key")

// CheckKey reports whether pub can prove anything: it is 32 bytes, a point of the
// curve, and not one of the few points of small order. With such a point there
// are signatures under the ZIP-215 rule that hold for every message, so whoever
// registered one could say of anything that somebody else signed it. VerifiedBy
// never accepts one; check keys here before writing them down. The error wraps
// ErrWeakKey.
func CheckKey(pub ed25519.PublicKey) error {
	if len(pub) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: %d bytes, want %d", ErrWeakKey, len(pub), ed25519.PublicKeySize)
	}
	p, err := new(edwards25519.Point).SetBytes(pub)
	if err != nil {
		return fmt.Errorf("%w: not a point of the curve", ErrWeakKey)
	}
	if p.MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("%w: a point of small order", ErrWeakKey)
	}
	return nil
}
