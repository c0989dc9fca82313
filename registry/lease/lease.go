// Package lease keeps a node's right to rely on its own copy of the registry,
// and keeps it short: the grants of docs/architecture.md.
//
// A holder draws a nonce and notes its monotonic time t0. The leader, which has
// applied an entry of its own term, notes its wall clock, reads its commit index
// and only then makes sure with a majority that it still leads; it signs
//
//	{mesh, nonce, holder, leader, term, commit index, public history, leader's wall time}
//
// The holder may rely on its copy until t0 + Lease, from the moment it has applied
// that commit index. Why that is enough: whatever was committed before the nonce
// was drawn is within the commit index, so a right that was taken away at time C
// can be relied on until C + Lease by nobody, whoever was cut off, frozen or
// deposed in between. Nothing here asks how long ago a leader was heard: that says
// nothing about what was applied.
//
// To have applied an index is to have been told so, by whichever member is followed. So
// the leader also says what the public history up to its commit index is, as a hash, and
// a holder compares its own. And it refuses a grant whose commit index is below what it
// had applied before it asked: the commit index is read after the nonce was drawn, so an
// honest follower is never ahead of it. Either is ErrDiverged, and no standing.
//
// A machine that is suspended may stop its monotonic clock with it. So a standing
// ends too when the wall clock has moved on by more than Lease + Skew, or was set
// back by more than Skew, since times in clearances are compared with it. And a holder
// whose wall clock differs from the leader's by more than Skew gets no standing at
// all, since the times in clearances mean nothing to it.
//
// The package knows nothing of consensus: what it needs of it are the functions in
// GranterConfig and HolderConfig. Everything is safe for concurrent use.
package lease

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// NonceSize is the size of a nonce in bytes.
const NonceSize = 32

// MaxGrantSize is the largest grant that is read, in bytes.
const MaxGrantSize = 4 << 10

var (
	// ErrStale means that this node cannot be sure of what the registry says now.
	// It must decide nothing until a grant arrives again.
	ErrStale = errors.New("registry view is stale")
	// ErrInvalidGrant means a grant that is malformed, not signed by a member that
	// this node knows, or meant for another holder or nonce.
	ErrInvalidGrant = errors.New("invalid grant")
	// ErrClockSkew means that this node's clock and the leader's differ by more
	// than the bound of the mesh. Set the clock of the node that is wrong.
	ErrClockSkew = errors.New("clocks differ by more than the bound")
	// ErrDiverged means that what this node holds is not what the leader vouches for:
	// somebody lied to it, or left something out, or its leader lies. It must not rely
	// on its view, however fresh the grant.
	ErrDiverged = errors.New("this node's registry is not the leader's")
	// ErrBehind means that what the leader had committed was not applied here within a
	// lease: whoever this node follows may be cut off, or keep news back.
	ErrBehind = errors.New("this node's registry is behind the leader's")
	// ErrBusy means that the leader has too many nonces waiting; ask again later.
	ErrBusy = errors.New("too many grants waiting")
)

// Standing is the right to rely on one's own view of the registry.
type Standing struct {
	// Grant is the envelope of the grant, to be embedded in clearances.
	Grant []byte
	// Index was committed when the grant was asked for, and is applied here.
	Index uint64
	// Until ends the standing; monotonic.
	Until time.Time
}

// Trust gives the signing keys that count for a member: those of its institution
// that are not retired. It gives an error if leader is no member, or suspended.
type Trust func(leader names.NodeID) ([]ed25519.PublicKey, error)

// Open reads a grant and checks that it belongs to this mesh and was signed by the
// institution of the member it names as leader. Holder, nonce and times are for the
// caller to judge. The error wraps ErrInvalidGrant.
func Open(mesh names.MeshID, raw []byte, trust Trust) (*registrypb.Grant, error) {
	s, err := Read(mesh, raw)
	if err != nil {
		return nil, err
	}
	if err := s.Check(trust); err != nil {
		return nil, err
	}
	return s.Grant, nil
}

// Signed is a grant whose form was checked. Whether it counts is for Check to say,
// as often as somebody wants to know: a signature that verified is remembered.
type Signed struct {
	Grant  *registrypb.Grant // not to be changed
	leader names.NodeID
	env    *envelope.Opened
}

// Read reads a grant of this mesh. It verifies no signature. The error wraps
// ErrInvalidGrant.
func Read(mesh names.MeshID, raw []byte) (*Signed, error) {
	if len(raw) > MaxGrantSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrInvalidGrant, len(raw), MaxGrantSize)
	}
	env, err := envelope.Open(envelope.Grant, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidGrant, err)
	}
	g := new(registrypb.Grant)
	if err := proto.Unmarshal(env.Payload, g); err != nil {
		return nil, fmt.Errorf("%w: not protobuf", ErrInvalidGrant)
	}
	if g.Mesh != string(mesh) {
		return nil, fmt.Errorf("%w: of another mesh", ErrInvalidGrant)
	}
	leader := nodeOf(g.Leader)
	if err := leader.Validate(); err != nil {
		return nil, fmt.Errorf("%w: leader: %w", ErrInvalidGrant, err)
	}
	return &Signed{g, leader, env}, nil
}

// Check reports whether the institution of the leader signed, under the keys that
// trust gives now. The error wraps ErrInvalidGrant.
func (s *Signed) Check(trust Trust) error {
	keys, err := trust(s.leader)
	if err != nil {
		return fmt.Errorf("%w: leader %s: %w", ErrInvalidGrant, s.leader, err)
	}
	for _, k := range keys {
		if s.env.VerifiedBy(k) {
			return nil
		}
	}
	return fmt.Errorf("%w: not signed by %s", ErrInvalidGrant, s.leader.Institution)
}

// meant reports whether g answers this nonce of this holder.
func meant(g *registrypb.Grant, holder names.NodeID, nonce []byte) error {
	if nodeOf(g.Holder) != holder {
		return fmt.Errorf("%w: it is for another holder", ErrInvalidGrant)
	}
	if !bytes.Equal(g.Nonce, nonce) {
		return fmt.Errorf("%w: it answers another nonce", ErrInvalidGrant)
	}
	return nil
}

func nodeOf(r *registrypb.NodeRef) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(r.GetInstitution()), Node: names.NodeName(r.GetNode())}
}

func refOf(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}
