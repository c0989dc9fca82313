// Package envelope signs and opens the messages that must be provable later:
// registry commands, requests, clearances, answers, grants.
//
// What is signed is the DSSE pre-authentication encoding of a type and the
// payload bytes exactly as sent (github.com/secure-systems-lab/dsse, protocol.md):
//
//	"DSSEv1" SP len(type) SP type SP len(payload) SP payload
//
// There is one type for each kind of message, so no message can be replayed as
// another kind, and a payload is never re-encoded to check it. For example, the
// type "application/vnd.crossroads.grant.v1+protobuf" and the payload "hi" sign
//
//	DSSEv1 44 application/vnd.crossroads.grant.v1+protobuf 2 hi
//
// Signatures are Ed25519 and verified under the ZIP-215 rule, a named rule whose
// verdict does not differ between libraries or versions: replicas that judge the
// same bytes must agree for ever. Keys of small order verify nothing: see CheckKey.
//
// # Signing many at once
//
// Requests, clearances and answers that wait at the same time may share one
// signature (Group): each is then a leaf of a Merkle tree, and carries the path to
// its root. What is signed is the pre-authentication encoding of the type
// application/vnd.crossroads.signature-group.v1 and
//
//	size of type (4) ‖ type ‖ size of key id (4) ‖ key id ‖ leaves in the tree (8) ‖ root (32), big-endian
//	leaf  SHA-256(0x00 ‖ 32 random bytes ‖ PAE(type, payload))
//	node  SHA-256(0x01 ‖ left ‖ right), shaped as in RFC 6962
//
// The random bytes keep a path from telling anything about its neighbours. A tree has
// 2 to 4096 leaves: a lone message is signed alone. Commands, grants and node
// metadata never verify in a group. Whoever sees many messages of few signers keeps
// a Verifier.
//
// Everything here is safe for concurrent use.
package envelope

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Type names one kind of signed message.
type Type string

// The kinds of signed message.
const (
	Command   Type = "application/vnd.crossroads.command.v1+protobuf"
	Grant     Type = "application/vnd.crossroads.grant.v1+protobuf"
	Request   Type = "application/vnd.crossroads.request.v1+protobuf"
	Clearance Type = "application/vnd.crossroads.clearance.v1+protobuf"
	Decision  Type = "application/vnd.crossroads.decision.v1+protobuf"
	Answer    Type = "application/vnd.crossroads.answer.v1+protobuf"
	NodeMeta  Type = "application/vnd.crossroads.node-meta.v2"
	Tombstone Type = "application/vnd.crossroads.tombstone.v1+protobuf"
	Epoch     Type = "application/vnd.crossroads.epoch.v1+protobuf"
	// EpochDeclaration tells the registry's members of an Epoch.
	EpochDeclaration Type = "application/vnd.crossroads.epoch-declaration.v1+protobuf"
	Archive          Type = "application/vnd.crossroads.archive.v1+protobuf"
	StateHash        Type = "application/vnd.crossroads.state-hash.v1+protobuf"

	// Of lots.
	LotOrder     Type = "application/vnd.crossroads.lot-order.v1+protobuf"
	LotChunk     Type = "application/vnd.crossroads.lot-chunk.v1+protobuf"
	LotClearance Type = "application/vnd.crossroads.lot-clearance.v1+protobuf"
	LotDecision  Type = "application/vnd.crossroads.lot-decision.v1+protobuf"
	LotDemand    Type = "application/vnd.crossroads.lot-demand.v1+protobuf"
	LotAnswer    Type = "application/vnd.crossroads.lot-answer.v1+protobuf"
	LotOutline   Type = "application/vnd.crossroads.lot-outline.v1+protobuf"

	// Within a sector, between its managing body and the institutions behind it.
	SectorPermission Type = "application/vnd.crossroads.sector-permission.v1+protobuf"
	SectorAnswer     Type = "application/vnd.crossroads.sector-answer.v1+protobuf"
	SectorQuestion   Type = "application/vnd.crossroads.sector-question.v1+protobuf"
	SectorOutcome    Type = "application/vnd.crossroads.sector-outcome.v1+protobuf"
	SectorDelivery   Type = "application/vnd.crossroads.sector-delivery.v1+protobuf"
	SectorReceipt    Type = "application/vnd.crossroads.sector-receipt.v1+protobuf"

	SectorLotPermission Type = "application/vnd.crossroads.sector-lot-permission.v1+protobuf"
	SectorLotAnswer     Type = "application/vnd.crossroads.sector-lot-answer.v1+protobuf"

	// Of automatic communications, and of declarations.
	Publication           Type = "application/vnd.crossroads.publication.v1+protobuf"
	NotificationClearance Type = "application/vnd.crossroads.notification-clearance.v1+protobuf"
	NotificationDecision  Type = "application/vnd.crossroads.notification-decision.v1+protobuf"
	Notice                Type = "application/vnd.crossroads.notice.v1+protobuf"
	NoticeReceipt         Type = "application/vnd.crossroads.notice-receipt.v1+protobuf"
	SubmissionReceipt     Type = "application/vnd.crossroads.submission-receipt.v1+protobuf"
	SubmissionStatus      Type = "application/vnd.crossroads.submission-status.v1+protobuf"

	IdentityToken   Type = "application/vnd.crossroads.identity-token.v1+protobuf"
	InspectionOrder Type = "application/vnd.crossroads.inspection-order.v1+protobuf"
)

// MaxSize is the largest envelope that is read, in bytes. A bulk command of
// 10,000 references fits several times.
const MaxSize = 4 << 20

// maxSignatures bounds the work that one envelope can ask for.
const maxSignatures = 32

var (
	// ErrMalformed means the bytes are no envelope, or too large.
	ErrMalformed = errors.New("malformed envelope")
	// ErrWrongType means the envelope is of another kind than was asked for.
	ErrWrongType = errors.New("envelope of another type")
	// ErrBadSignature means a signature that counts is missing or does not verify.
	ErrBadSignature = errors.New("bad signature")
)

// PAE gives the bytes that are signed.
func PAE(t Type, payload []byte) []byte {
	return appendPAE(make([]byte, 0, 32+len(t)+len(payload)), t, payload)
}

func appendPAE(b []byte, t Type, payload []byte) []byte {
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(t)), 10)
	b = append(b, ' ')
	b = append(b, t...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

var keyEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// KeyID derives the name of a public key: "ed25519-" and 26 characters of the
// base32 of its SHA-256, in lower case.
func KeyID(pub ed25519.PublicKey) names.KeyID {
	sum := sha256.Sum256(pub)
	return names.KeyID("ed25519-" + strings.ToLower(keyEncoding.EncodeToString(sum[:16])))
}

// Sign makes an envelope over payload with one signature for each signer. The
// signers must hold Ed25519 keys. It fails only if a signer does.
func Sign(t Type, payload []byte, signers ...crypto.Signer) ([]byte, error) {
	env := &certspb.Envelope{Type: string(t), Payload: payload}
	for _, s := range signers {
		if err := add(env, s); err != nil {
			return nil, err
		}
	}
	return proto.Marshal(env)
}

// AddSignature adds a signature to an envelope that others may have signed
// before; it is how several people sign one command, one after another. A signer
// that has signed already changes nothing.
func AddSignature(raw []byte, s crypto.Signer) ([]byte, error) {
	env, err := decode(raw)
	if err != nil {
		return nil, err
	}
	pub, err := publicKey(s)
	if err != nil {
		return nil, err
	}
	for _, sig := range env.Signatures {
		if sig.KeyId == string(KeyID(pub)) {
			return raw, nil
		}
	}
	if err := add(env, s); err != nil {
		return nil, err
	}
	return proto.Marshal(env)
}

func add(env *certspb.Envelope, s crypto.Signer) error {
	pub, err := publicKey(s)
	if err != nil {
		return err
	}
	sig, err := SignDetached(Type(env.Type), env.Payload, s)
	if err != nil {
		return err
	}
	env.Signatures = append(env.Signatures, &certspb.Signature{KeyId: string(KeyID(pub)), Signature: sig})
	return nil
}

// SignDetached gives the signature alone, of 64 bytes, for where every byte counts and the
// verifier knows type, payload and key. The signer must hold an Ed25519 key.
func SignDetached(t Type, payload []byte, s crypto.Signer) ([]byte, error) {
	pub, err := publicKey(s)
	if err != nil {
		return nil, err
	}
	sig, err := s.Sign(rand.Reader, PAE(t, payload), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", KeyID(pub), err)
	}
	return sig, nil
}

// VerifyDetached reports whether pub made the signature, as VerifiedBy does.
func VerifyDetached(t Type, payload, sig []byte, pub ed25519.PublicKey) bool {
	o := &Opened{Type: t, Payload: payload, env: &certspb.Envelope{
		Type: string(t), Payload: payload,
		Signatures: []*certspb.Signature{{KeyId: string(KeyID(pub)), Signature: sig}},
	}}
	return o.VerifiedBy(pub)
}

func publicKey(s crypto.Signer) (ed25519.PublicKey, error) {
	pub, ok := s.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("signing key is %T, want Ed25519", s.Public())
	}
	return pub, nil
}

// Opened is an envelope whose form and type were checked and whose signatures
// were not: call VerifiedBy before believing anything of it.
//
// Its bytes, which may be those that were opened, must not be changed: which keys signed
// them is remembered.
type Opened struct {
	Type    Type
	Payload []byte
	env     *certspb.Envelope

	mu       sync.Mutex
	verified []string // public keys whose signature verified
}

// Open reads an envelope of the wanted type. It verifies no signature.
// The error wraps ErrMalformed or ErrWrongType.
func Open(want Type, raw []byte) (*Opened, error) {
	env := (*certspb.Envelope)(nil)
	if len(raw) <= MaxSize {
		env = quickly(raw)
	}
	if env == nil || env.Type == "" {
		var err error
		if env, err = decode(raw); err != nil {
			return nil, err
		}
	}
	if env.Type != string(want) {
		return nil, fmt.Errorf("%w: want %s", ErrWrongType, want)
	}
	return &Opened{Type: want, Payload: env.Payload, env: env}, nil
}

func decode(raw []byte) (*certspb.Envelope, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrMalformed, len(raw), MaxSize)
	}
	env := new(certspb.Envelope)
	if err := proto.Unmarshal(raw, env); err != nil {
		return nil, fmt.Errorf("%w: not protobuf", ErrMalformed)
	}
	if env.Type == "" || len(env.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%w: no type, or more than %d signatures", ErrMalformed, maxSignatures)
	}
	return env, nil
}

// KeyIDs gives the keys that claim to have signed, in order; nothing is verified.
func (o *Opened) KeyIDs() []names.KeyID {
	ids := make([]names.KeyID, len(o.env.Signatures))
	for i, s := range o.env.Signatures {
		ids[i] = names.KeyID(s.KeyId)
	}
	return ids
}

// VerifiedBy reports whether pub signed the envelope. A key that did is remembered,
// so that asking again costs nothing.
func (o *Opened) VerifiedBy(pub ed25519.PublicKey) bool { return (*Verifier)(nil).VerifiedBy(o, pub) }

func (o *Opened) remembers(pub ed25519.PublicKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Contains(o.verified, string(pub))
}

func (o *Opened) remember(pub ed25519.PublicKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.verified = append(o.verified, string(pub))
}

// CountVerified gives how many different keys of pubs signed the envelope: the M
// of an M-of-N threshold. A key counts once, however often it signed or stands
// in pubs.
func (o *Opened) CountVerified(pubs []ed25519.PublicKey) int {
	seen := make(map[string]bool, len(pubs))
	for _, pub := range pubs {
		if !seen[string(pub)] && o.VerifiedBy(pub) {
			seen[string(pub)] = true
		}
	}
	return len(seen)
}
