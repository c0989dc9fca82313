// Package identity is what nodes and identity providers say to each other about who
// a person is.
//
// A provider is a registry record under the operators' keys (record.View's
// IdentityProvider). Its token says: this person was here, is this subject, and
// wants this one thing of this one node, now. It is bound to
//
//	mesh, subject        whose right is exercised
//	node                 the one that may use it, and show it to others
//	nonce                which that node gave out, for one use
//	purpose, payload     what is asked, by its hash
//	issued, expires      at most MaxLife apart
//
// so that neither the person's node nor any other that sees the token can make it
// serve for anything else. A token is an envelope of the type
// "application/vnd.crossroads.identity-token.v1+protobuf" over a
// registrypb.IdentityToken, signed with one of the provider's keys.
//
// Check verifies everything but the nonce: only the node that gave it out knows
// whether it did, and whether it was used. Everybody else who is shown the token
// checks that the node that shows it is the node it names.
//
// Everything here is pure, and safe for concurrent use.
package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	// MaxToken is the largest token that is read, in bytes of its envelope.
	MaxToken = 4 << 10
	// MaxLife is the longest that a token may hold.
	MaxLife = 10 * time.Minute
	// NonceSize is the size of a nonce in bytes.
	NonceSize = 32
)

// Purpose is what a token is for.
type Purpose string

// The purposes.
const (
	// SubjectView is that of a subject who reads what the journals hold on it.
	SubjectView Purpose = "subject-view"
	// MandateGive and MandateRevoke are those of who gives a mandate, or takes one back;
	// the payload is registrypb's MandateTerms or RevocationTerms.
	MandateGive   Purpose = record.MandateGive
	MandateRevoke Purpose = record.MandateRevoke
)

// Errors of Check. They say nothing of what any journal or directory holds.
var (
	// ErrMalformed means that the bytes are no token.
	ErrMalformed = errors.New("malformed identity token")
	// ErrUntrusted means that no provider in force, with a key and a level that it
	// may attest, stands behind the token.
	ErrUntrusted = errors.New("identity token of nobody who is believed")
	// ErrElsewhere means that the token is good, and for something else: another
	// mesh, node, purpose or payload.
	ErrElsewhere = errors.New("identity token for something else")
	// ErrExpired means that the token's time is over, or has not come.
	ErrExpired = errors.New("identity token out of its time")
	// ErrLevel means that the person was authenticated too weakly.
	ErrLevel = errors.New("identity token of too low a level")
)

// Want is what a token must be for.
type Want struct {
	Mesh        names.MeshID
	Node        names.NodeID // the node that shows or uses it
	Purpose     Purpose
	PayloadHash []byte // SHA-256; nil: the caller compares it itself
	MinLevel    uint32
	Now         time.Time
	Skew        time.Duration // by which clocks may differ
	Schemes     subject.Schemes
}

// Token is a token that was verified, but for its nonce.
type Token struct {
	Subject     subject.ID
	Provider    names.ProviderID
	Level       uint32
	Nonce       []byte
	PayloadHash []byte
}

// Check verifies a token against the registry. The error wraps one of those above,
// or is the view's. With ErrElsewhere, ErrExpired and ErrLevel the token is given
// too: who it is about is then certain, and the attempt can be filed there.
func Check(v record.View, want Want, raw []byte) (*Token, error) {
	opened, t, err := open(raw)
	if err != nil {
		return nil, err
	}
	about, err := want.Schemes.Parse(subject.Scheme(t.GetSubject().GetScheme()), t.GetSubject().GetNumber())
	if err != nil || about.Number() != t.GetSubject().GetNumber() {
		return nil, fmt.Errorf("%w: its subject", ErrMalformed)
	}
	if err := trusted(v, opened, t); err != nil {
		return nil, err
	}
	token := &Token{
		Subject: about, Provider: names.ProviderID(t.Provider), Level: t.AuthLevel,
		Nonce: bytes.Clone(t.Nonce), PayloadHash: bytes.Clone(t.PayloadHash),
	}
	return token, want.met(t)
}

// Refuses reports whether an error of Check says something of the token, and not of this
// node.
func Refuses(err error) bool {
	return slices.ContainsFunc([]error{ErrMalformed, ErrUntrusted, ErrElsewhere, ErrExpired, ErrLevel}, func(known error) bool { return errors.Is(err, known) })
}

func open(raw []byte) (*envelope.Opened, *registrypb.IdentityToken, error) {
	if len(raw) == 0 || len(raw) > MaxToken {
		return nil, nil, fmt.Errorf("%w: %d bytes, want 1 to %d", ErrMalformed, len(raw), MaxToken)
	}
	opened, err := envelope.Open(envelope.IdentityToken, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	t := new(registrypb.IdentityToken)
	if err := proto.Unmarshal(opened.Payload, t); err != nil {
		return nil, nil, fmt.Errorf("%w: not protobuf", ErrMalformed)
	}
	// What a later version adds may narrow the token: it is not for us to ignore.
	if len(t.ProtoReflect().GetUnknown()) > 0 || len(t.Nonce) != NonceSize || len(t.PayloadHash) != 32 {
		return nil, nil, fmt.Errorf("%w: a nonce or hash of another size, or fields not known here", ErrMalformed)
	}
	return opened, t, nil
}

// trusted asks who signed, and whether that is to be believed.
func trusted(v record.View, opened *envelope.Opened, t *registrypb.IdentityToken) error {
	id := names.ProviderID(t.Provider)
	if id.Validate() != nil {
		return fmt.Errorf("%w: its provider", ErrMalformed)
	}
	p, err := v.IdentityProvider(id)
	switch {
	case err != nil:
		return err
	case p == nil:
		return fmt.Errorf("%w: the provider is not in the registry", ErrUntrusted)
	case p.Retired:
		return fmt.Errorf("%w: %s is retired", ErrUntrusted, id)
	case !slices.ContainsFunc(p.PublicKeys, func(k []byte) bool { return opened.VerifiedBy(k) }):
		return fmt.Errorf("%w: no key of %s signed it", ErrUntrusted, id)
	case !slices.Contains(p.Levels, t.AuthLevel):
		return fmt.Errorf("%w: %s may not attest level %d", ErrUntrusted, id, t.AuthLevel)
	}
	return nil
}

func (w Want) met(t *registrypb.IdentityToken) error {
	issued, expires := time.UnixMilli(t.IssuedUnixMs), time.UnixMilli(t.ExpiresUnixMs)
	switch {
	case t.Mesh != string(w.Mesh):
		return fmt.Errorf("%w: another mesh", ErrElsewhere)
	case record.NodeID(t.Node) != w.Node:
		return fmt.Errorf("%w: another node", ErrElsewhere)
	case t.Purpose != string(w.Purpose):
		return fmt.Errorf("%w: another purpose", ErrElsewhere)
	case w.PayloadHash != nil && !bytes.Equal(w.PayloadHash, t.PayloadHash):
		return fmt.Errorf("%w: something else was asked", ErrElsewhere)
	case expires.Before(issued) || expires.Sub(issued) > MaxLife:
		return fmt.Errorf("%w: it would hold longer than %v", ErrExpired, MaxLife)
	case w.Now.Add(w.Skew).Before(issued):
		return fmt.Errorf("%w: it is from the future; compare this node's clock with the provider's", ErrExpired)
	case !w.Now.Before(expires.Add(w.Skew)):
		return fmt.Errorf("%w: it has expired", ErrExpired)
	case t.AuthLevel < w.MinLevel:
		return fmt.Errorf("%w: %d, want at least %d", ErrLevel, t.AuthLevel, w.MinLevel)
	}
	return nil
}

// Issue makes a token with a provider's key. Providers have their own systems for
// this; it is here for test providers, and as the form written out.
func Issue(t *registrypb.IdentityToken, provider crypto.Signer) ([]byte, error) {
	if _, ok := provider.Public().(ed25519.PublicKey); !ok {
		return nil, errors.New("identity: the provider's key is not Ed25519")
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return nil, err
	}
	return envelope.Sign(envelope.IdentityToken, payload, provider)
}
