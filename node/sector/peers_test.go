package sector

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// peers carries calls within the process.
type peers struct {
	w    *world
	self names.NodeID
}

func (p *peers) Order(c []names.NodeID) []names.NodeID { return c }

func carry[Req, Resp proto.Message](ctx context.Context, p *peers, method string, to names.NodeID, req Req,
	handle func(*testNode, Req) (Resp, error)) (resp Resp, err error) {
	p.w.netMu.Lock()
	disturb := p.w.disturb
	p.w.calls = append(p.w.calls, fmt.Sprintf("%s %s %s", p.self.Institution, method, to.Institution))
	p.w.netMu.Unlock()
	if disturb != nil {
		if err := disturb(ctx, method, p.self, to, false); err != nil {
			return resp, err
		}
	}
	if err := ctx.Err(); err != nil {
		return resp, err
	}
	resp, err = handle(p.w.nodes[to], proto.Clone(req).(Req))
	if err == nil && disturb != nil {
		err = disturb(ctx, method, p.self, to, true)
	}
	return resp, cmpErr(err, ctx.Err())
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (p *peers) Clear(ctx context.Context, to names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
	return carry(ctx, p, "clear", to, req, func(n *testNode, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
		return n.clear(ctx, p.self, req)
	})
}

func (p *peers) Present(ctx context.Context, to names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	p.w.netMu.Lock()
	p.w.shown = req
	p.w.netMu.Unlock()
	return carry(ctx, p, "present", to, req, func(n *testNode, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
		arrived := time.Now()
		resp, err := n.present(ctx, p.self, req)
		after := time.Since(arrived)
		raw, _ := proto.Marshal(resp)
		p.w.netMu.Lock()
		defer p.w.netMu.Unlock()
		p.w.outside = append(p.w.outside, observed{len(raw), after, raw})
		return resp, err
	})
}

func (p *peers) Acknowledge(ctx context.Context, to names.NodeID, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
	return carry(ctx, p, "acknowledge", to, req, func(n *testNode, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
		return n.supplier.Acknowledge(ctx, p.self, req)
	})
}

func (p *peers) Forward(ctx context.Context, to names.NodeID, req *nodepb.Forward) (*nodepb.ForwardResponse, error) {
	return carry(ctx, p, "forward", to, req, func(n *testNode, req *nodepb.Forward) (*nodepb.ForwardResponse, error) {
		return n.member.ServeForward(ctx, p.self, req)
	})
}

func (p *peers) ForwardLot(ctx context.Context, to names.NodeID, req *nodepb.ForwardLot) (*nodepb.ForwardResponse, error) {
	p.w.netMu.Lock()
	if p.w.shares != nil {
		p.w.shares(req)
	}
	p.w.netMu.Unlock()
	return carry(ctx, p, "forward-lot", to, req, func(n *testNode, req *nodepb.ForwardLot) (*nodepb.ForwardResponse, error) {
		return n.member.ServeForwardLot(ctx, p.self, req)
	})
}

func (p *peers) Numbers(ctx context.Context, to names.NodeID, req *nodepb.NumbersRequest) (*nodepb.NumbersResponse, error) {
	return carry(ctx, p, "numbers", to, req, func(n *testNode, req *nodepb.NumbersRequest) (*nodepb.NumbersResponse, error) {
		resp, err := (&Numbers{Registry: n, Journal: n.journal, Schemes: subject.Belgian(), Now: time.Now}).Serve(ctx, p.self, req)
		if err == nil && p.w.lie != nil {
			p.w.lie(to, resp)
		}
		return resp, err
	})
}

func (p *peers) Ask(ctx context.Context, to names.NodeID, req *nodepb.SectorAsk) (*nodepb.SectorAskResponse, error) {
	return carry(ctx, p, "ask", to, req, func(n *testNode, req *nodepb.SectorAsk) (*nodepb.SectorAskResponse, error) {
		return n.manager.ServeAsk(ctx, p.self, req)
	})
}

func (p *peers) Deliver(ctx context.Context, to names.NodeID, req *nodepb.SectorDeliver) (*nodepb.SectorDelivered, error) {
	return carry(ctx, p, "deliver", to, req, func(n *testNode, req *nodepb.SectorDeliver) (*nodepb.SectorDelivered, error) {
		return n.member.ServeDelivery(ctx, p.self, req)
	})
}

func (p *peers) SectorTrace(ctx context.Context, to names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	return carry(ctx, p, "trace", to, req, func(n *testNode, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
		return n.serveTrace(ctx, p.self, req)
	})
}

func (w *world) disturbing(fn func(ctx context.Context, method string, from, to names.NodeID, arrived bool) error) {
	w.netMu.Lock()
	defer w.netMu.Unlock()
	w.disturb = fn
}

func (n *testNode) serveTrace(ctx context.Context, from names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	if n.manager != nil {
		return n.manager.ServeTrace(ctx, from, req)
	}
	return n.member.ServeTrace(ctx, from, req)
}
