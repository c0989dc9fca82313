package node

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// locate says where a node is reached: where it says itself through gossip, else
// where the registry lists it, else where the genesis file saw it first.
func (n *Node) locate(to names.NodeID) (addr string, err error) {
	if n.gossip != nil {
		if addr, alive := n.gossip.Alive(to.String()); alive && addr != "" {
			return addr, nil
		}
	}
	err = n.registry.PublicView(func(v record.View) error {
		rec, err := v.Remembering().Node(to)
		if err == nil && rec != nil && !rec.Removed {
			addr = rec.Address
		}
		return err
	})
	if err != nil || addr != "" {
		return addr, err
	}
	for _, m := range n.keys.genesis.Members {
		if m.ID() == to {
			return m.Address, nil
		}
	}
	return "", fmt.Errorf("no address is known of node %s", to)
}

// alive reports whether a node seems alive. Without gossip all do.
func (n *Node) alive(id names.NodeID) bool {
	if n.gossip == nil {
		return true
	}
	_, alive := n.gossip.Alive(id.String())
	return alive || id == n.self
}

// advertised is the address that others are told.
func (n *Node) advertised() string {
	if n.cfg.Advertise != "" {
		return n.cfg.Advertise
	}
	return n.endpoint.Addr().String()
}

// register has this node listed in the registry as it is now, if it is not yet:
// its institution signs the record.
func (n *Node) register(ctx context.Context) error {
	want := &registrypb.Node{
		Ref:     &registrypb.NodeRef{Institution: string(n.self.Institution), Node: string(n.self.Node)},
		Address: n.advertised(),
	}
	if n.keys.box != nil {
		pub := n.keys.box.Public()
		want.GossipKey = pub[:]
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if listed, err := n.listedAs(want); listed || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		n.tryRegister(ctx, want)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (n *Node) tryRegister(ctx context.Context, want *registrypb.Node) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := n.author.Do(ctx, &registrypb.Command{Body: &registrypb.Command_SetNode{SetNode: want}})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		n.log.Debug("not registered yet", "err", err)
	case !resp.Accepted:
		n.log.Warn("the registry refuses to list this node", "why", resp.Refusal)
	default:
		_ = n.registry.WaitApplied(ctx, resp.Index)
	}
}

func (n *Node) listedAs(want *registrypb.Node) (listed bool, err error) {
	err = n.registry.View(func(v record.View) error {
		rec, err := v.Node(n.self)
		listed = err == nil && rec != nil && proto.Equal(rec, want)
		return err
	})
	return listed, err
}

// followChanges closes the connections of whoever loses admission, as soon as this
// node learns of it.
func (n *Node) followChanges(ctx context.Context) error {
	changed, end := n.registry.Changes()
	defer end()
	for {
		select {
		case <-changed:
			n.endpoint.Drop(func(id spiffeid.ID) bool { return n.admission.institution(id) != nil })
		case <-ctx.Done():
			return nil
		}
	}
}
