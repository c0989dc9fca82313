package exchange

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var errLost = errors.New("lost")

// network carries calls inside the process, and spoils them when told.
type network struct {
	w  *world
	mu sync.Mutex
	// before sees a call before it arrives, after sees the reply before it is
	// delivered; their error is what the caller gets instead.
	before func(c call) error
	after  func(c call, reply proto.Message) error
	down   map[names.NodeID]bool
}

// call is one call: method is clear, present or acknowledge.
type call struct {
	method   string
	from, to names.NodeID
	msg      proto.Message
}

func (n *network) of(self names.NodeID) Peers { return &peers{n, self} }

func (n *network) set(before func(call) error, after func(call, proto.Message) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.before, n.after = before, after
}

func (n *network) kill(institutions ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = map[names.NodeID]bool{}
	for _, i := range institutions {
		n.down[node(i)] = true
	}
}

type peers struct {
	net  *network
	self names.NodeID
}

func carry[Req, Resp proto.Message](p *peers, ctx context.Context, method string, to names.NodeID, req Req,
	handle func(n *testNode, req Req) (Resp, error)) (resp Resp, err error) {
	p.net.mu.Lock()
	before, after, down := p.net.before, p.net.after, p.net.down[to]
	p.net.mu.Unlock()
	c := call{method, p.self, to, req}
	if before != nil {
		if err := before(c); err != nil {
			return resp, err
		}
	}
	target := p.net.w.nodes[to]
	if err := ctx.Err(); err != nil {
		return resp, err
	}
	if down || target == nil {
		return resp, errLost
	}
	p.net.w.log.add("%s %s %s", p.self.Institution, method, to.Institution)
	if resp, err = handle(target, proto.Clone(req).(Req)); err != nil {
		return resp, err
	}
	if after != nil {
		if err := after(c, resp); err != nil {
			var none Resp
			return none, err
		}
	}
	return resp, ctx.Err()
}

func (p *peers) Clear(ctx context.Context, to names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
	return carry(p, ctx, "clear", to, req, func(n *testNode, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
		return n.clear(ctx, p.self, req)
	})
}

func (p *peers) Present(ctx context.Context, to names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	return carry(p, ctx, "present", to, req, func(n *testNode, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
		return n.supplier.Present(ctx, p.self, req)
	})
}

func (p *peers) Acknowledge(ctx context.Context, to names.NodeID, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
	return carry(p, ctx, "acknowledge", to, req, func(n *testNode, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
		return n.supplier.Acknowledge(ctx, p.self, req)
	})
}

// Order keeps the order: nothing here knows who is alive.
func (p *peers) Order(candidates []names.NodeID) []names.NodeID { return candidates }
