package node

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The largest messages of each kind, in bytes. A request, a clearance and a grant
// are each at most a few kilobytes; an answer holds content.
const (
	maxSmall   = 64 << 10
	maxAnswer  = 2 << 20
	maxTrace   = 4 << 20
	maxCommand = envelope.MaxSize
)

// handle wires what other nodes may call to the rooms that answer.
func (n *Node) handle() {
	who := n.admission
	// Whoever is admitted may reach the registry, also before its node is listed.
	serve(n, registry.MethodSubmit, mesh.Limits{Request: maxCommand, Response: maxSmall}, n.anyNode, n.registry.HandleSubmit)
	serve(n, registry.MethodHead, mesh.Limits{Request: maxSmall, Response: maxSmall}, n.anyNode, n.registry.HandleHead)
	serve(n, registry.MethodGrant, mesh.Limits{Request: maxSmall, Response: maxSmall}, n.anyNode, n.registry.HandleGrant)
	serve(n, registry.MethodRemovals, mesh.Limits{Request: maxSmall, Response: 2 * maxCommand}, n.anyNode, n.registry.HandleRemovals)
	serve(n, registry.MethodStatus, mesh.Limits{Request: maxSmall, Response: maxSmall}, n.anyNode, n.registry.HandleStatus)
	serve(n, registry.MethodStateRows, mesh.Limits{Request: maxSmall, Response: maxCommand}, n.anyNode, n.registry.HandleStateRows)
	serve(n, registry.MethodState, mesh.Limits{Request: maxSmall, Response: maxSmall}, n.anyNode, n.registry.HandleState)
	mesh.HandleStream(n.endpoint, registry.MethodWatch, mesh.Limits{Request: maxSmall, Response: maxCommand},
		func(ctx context.Context, id spiffeid.ID, req *registrypb.WatchRequest, send func(*registrypb.WatchEvent) error) error {
			from, err := n.anyNode(id)
			if err != nil {
				return err
			}
			return toWire(n.registry.HandleWatch(ctx, from, req, send))
		})

	// Exchanges are for the nodes that the registry lists.
	serve(n, methodPresent, mesh.Limits{Request: 2 * maxSmall, Response: maxAnswer}, who.listed, first(&n.lots.gate, n.presented()))
	serve(n, methodAcknowledge, mesh.Limits{Request: maxSmall, Response: maxSmall}, who.listed, n.supply.Acknowledge)
	serve(n, methodTrace, mesh.Limits{Request: maxSmall, Response: maxTrace}, who.listed, n.shareTrace)
	serve(n, methodSubject, mesh.Limits{Request: maxSmall, Response: maxTrace}, who.listed, n.reading.ServeSubject)
	serve(n, methodInspect, mesh.Limits{Request: maxSmall, Response: maxTrace}, who.listed, n.reading.ServeInspect)
	if n.clearing != nil {
		serve(n, methodMandates, mesh.Limits{Request: maxSmall, Response: maxTrace}, who.listed, n.mandates.Serve)
		serve(n, methodRedecide, mesh.Limits{Request: 3 * maxSmall, Response: maxSmall}, who.listed, n.audit.Serve)
		serve(n, methodClear, mesh.Limits{Request: maxSmall, Response: 16 * maxSmall}, who.listed, first(&n.lots.gate, n.metrics.Clearings(n.clearing.Clear)))
	}
}

// serve wires one method: name the caller, ask the room, translate its error.
func serve[Req, Resp any, PReq mesh.Message[Req], PResp mesh.Message[Resp]](
	n *Node, method string, limits mesh.Limits,
	who func(spiffeid.ID) (names.NodeID, error),
	room func(context.Context, names.NodeID, *Req) (*Resp, error),
) {
	mesh.Handle[Req, Resp, PReq, PResp](n.endpoint, method, limits, func(ctx context.Context, id spiffeid.ID, req *Req) (*Resp, error) {
		from, err := who(id)
		if err != nil {
			return nil, err
		}
		resp, err := room(ctx, from, req)
		if wire := toWire(err); wire != nil {
			n.unexpected(ctx, method, from, wire)
			return nil, wire
		}
		return resp, nil
	})
}

func (n *Node) anyNode(id spiffeid.ID) (names.NodeID, error) { return n.admission.identities.node(id) }

// unexpected logs what the caller is not told.
func (n *Node) unexpected(ctx context.Context, method string, from names.NodeID, err error) {
	var known *mesh.Error
	if ctx.Err() == nil && !errors.As(err, &known) {
		n.log.Error("call failed", "method", method, "from", from.String(), "err", err)
	}
}
