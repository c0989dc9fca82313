package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/anchor"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/sector"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The methods that nodes call on each other, beside those of package registry.
const (
	methodClear       = "clearing.clear"
	methodPresent     = "exchange.present"
	methodAcknowledge = "exchange.acknowledge"
	methodTrace       = "journal.trace"
	methodRedecide    = "clearing.redecide"
	methodMandates    = "registry.mandates"
	methodSubject     = "journal.subject"
	methodInspect     = "journal.inspect"
)

// peers carries calls to other nodes by name. It implements registry.Peers and
// exchange.Peers.
type peers struct {
	identities *identities
	endpoint   *mesh.Endpoint
	locate     func(names.NodeID) (addr string, err error)
	alive      func(names.NodeID) bool
}

var (
	_ registry.Peers = (*peers)(nil)
	_ exchange.Peers = (*peers)(nil)
)

func (p *peers) peer(to names.NodeID) (mesh.Peer, error) {
	id, err := p.identities.of(to)
	if err != nil {
		return mesh.Peer{}, err
	}
	addr, err := p.locate(to)
	if err != nil {
		return mesh.Peer{}, err
	}
	return mesh.Peer{ID: id, Addr: addr}, nil
}

// Call is a request and its response. Every method of ours may be repeated (commands,
// requests and presentations are known by their bytes), so a peer that came back is
// asked again.
func (p *peers) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error {
	peer, err := p.peer(to)
	if err != nil {
		return err
	}
	err = p.endpoint.Call(ctx, peer, method, req, resp)
	if errors.Is(err, mesh.ErrRestarted) {
		err = p.endpoint.Call(ctx, peer, method, req, resp)
	}
	return fromWire(err)
}

// Watch follows a member's commands.
func (p *peers) Watch(ctx context.Context, to names.NodeID, req *registrypb.WatchRequest) (registry.WatchStream, error) {
	peer, err := p.peer(to)
	if err != nil {
		return nil, err
	}
	r, err := p.endpoint.OpenStream(ctx, peer, registry.MethodWatch, req)
	if err != nil {
		return nil, fromWire(err)
	}
	return watchStream{r}, nil
}

type watchStream struct{ r *mesh.Receiver }

func (w watchStream) Receive() (*registrypb.WatchEvent, error) {
	e := new(registrypb.WatchEvent)
	if err := w.r.Receive(e); err != nil {
		return nil, fromWire(err)
	}
	return e, nil
}

func (w watchStream) Close() { w.r.Close() }

// Clear asks a clearing peer.
func (p *peers) Clear(ctx context.Context, to names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
	resp := new(registrypb.ClearResponse)
	return resp, p.Call(ctx, to, methodClear, req, resp)
}

// Present shows a clearance to a supplier.
func (p *peers) Present(ctx context.Context, to names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	resp := new(nodepb.PresentResponse)
	return resp, p.Call(ctx, to, methodPresent, req, resp)
}

// Acknowledge tells a supplier that its answer is held durably.
func (p *peers) Acknowledge(ctx context.Context, to names.NodeID, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
	resp := new(nodepb.AcknowledgeResponse)
	return resp, p.Call(ctx, to, methodAcknowledge, req, resp)
}

// Order puts the seemingly dead last. Gossip may be wrong, so none is left out.
func (p *peers) Order(candidates []names.NodeID) []names.NodeID {
	ordered := slices.Clone(candidates)
	slices.SortStableFunc(ordered, func(a, b names.NodeID) int {
		switch aliveA, aliveB := p.alive(a), p.alive(b); {
		case aliveA == aliveB:
			return 0
		case aliveA:
			return -1
		default:
			return 1
		}
	})
	return ordered
}

// spoken says which errors of the rooms a peer may hear of, and as what. Whatever
// is not here is a fault of this node, and stays here.
var spoken = []struct {
	err     error
	code    mesh.Code
	message string
	reason  registrypb.Reason
}{
	{registry.ErrStale, mesh.Unavailable, "this node's view of the registry is not confirmed", registrypb.Reason_REGISTRY_STALE},
	{exchange.ErrRegistryStale, mesh.Unavailable, "this node's view of the registry is not confirmed", registrypb.Reason_REGISTRY_STALE},
	{exchange.ErrJournalUnavailable, mesh.Unavailable, "the journal cannot be written", registrypb.Reason_JOURNAL_UNAVAILABLE},
	{exchange.ErrTurnedAway, mesh.ResourceExhausted, "too many of your presentations were refused: slow down", 0},
	{clearing.ErrJournal, mesh.Unavailable, "the journal cannot be written", registrypb.Reason_JOURNAL_UNAVAILABLE},
	{clearing.ErrNotMember, mesh.Unavailable, "this node is no registry member", 0},
	{clearing.ErrNotRequester, mesh.PermissionDenied, "the request is another node's", 0},
	{clearing.ErrBadSignature, mesh.PermissionDenied, "the request is not signed by its requester", 0},
	{clearing.ErrNotParty, mesh.PermissionDenied, "neither a member nor a party", 0},
	{record.ErrNotReached, mesh.Unavailable, "this replica has not reached that index", 0},
	{clearing.ErrMalformed, mesh.InvalidArgument, "malformed request", 0},
	{sector.ErrNotOfSector, mesh.PermissionDenied, "not for you", 0},
	{sector.ErrMalformed, mesh.InvalidArgument, "malformed message within the sector", 0},
	{sector.ErrJournal, mesh.Unavailable, "the journal cannot be written", registrypb.Reason_JOURNAL_UNAVAILABLE},
	{notify.ErrMalformed, mesh.InvalidArgument, "malformed delivery", 0},
	{notify.ErrUnavailable, mesh.Unavailable, "the journal cannot be written", registrypb.Reason_JOURNAL_UNAVAILABLE},
	{inbox.ErrUnavailable, mesh.Unavailable, "the inbox cannot be written", registrypb.Reason_JOURNAL_UNAVAILABLE},
	{inbox.ErrFull, mesh.ResourceExhausted, "the inbox is full", registrypb.Reason_INBOX_FULL},
	{reading.ErrNoRight, mesh.PermissionDenied, "no right to read this", 0},
	{reading.ErrJournal, mesh.Unavailable, "the journal is unavailable", registrypb.Reason_JOURNAL_UNAVAILABLE},
	{checkpoint.ErrMalformed, mesh.InvalidArgument, "malformed checkpoint", 0},
	{anchor.ErrNoProof, mesh.NotFound, "no consistency proof between those sizes", 0},
	{registry.ErrMalformed, mesh.InvalidArgument, "malformed registry request", 0},
	{registry.ErrBusy, mesh.ResourceExhausted, "too many bytes of commands from this institution; try again later", 0},
	{registry.ErrNotMember, mesh.Unavailable, "this node is no registry member", 0},
	{registry.ErrNotLeader, mesh.Unavailable, "this node does not lead the registry", 0},
	{registry.ErrNoLeader, mesh.Unavailable, "the registry has no leader", 0},
	{registry.ErrClosed, mesh.Unavailable, "this node is starting or ending", 0},
}

// toWire turns what the rooms say into errors that survive the wire: a refusal
// keeps its reason, everything else only its kind.
func toWire(err error) error {
	var refusal *exchange.Refusal
	if errors.As(err, &refusal) {
		return &mesh.Error{Code: mesh.PermissionDenied, Message: "refused", Reason: refusal.Reason.String()}
	}
	var wait *batch.Busy
	if errors.As(err, &wait) {
		return &mesh.Error{Code: mesh.ResourceExhausted, Message: "no chunk of a lot is taken now; come back later", RetryAfter: wait.After}
	}
	for _, s := range spoken {
		if !errors.Is(err, s.err) {
			continue
		}
		e := &mesh.Error{Code: s.code, Message: s.message}
		if s.reason != 0 {
			e.Reason = s.reason.String()
		}
		return e
	}
	return err
}

// fromWire is the inverse: a reason that came over the wire is a refusal again.
func fromWire(err error) error {
	var e *mesh.Error
	if !errors.As(err, &e) {
		return err
	}
	if reason, ok := registrypb.Reason_value[e.Reason]; ok && e.Code == mesh.PermissionDenied {
		return fmt.Errorf("%w (%w)", &exchange.Refusal{Reason: registrypb.Reason(reason)}, e)
	}
	return err
}
