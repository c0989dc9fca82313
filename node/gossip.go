package node

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/mesh/gossip"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

func (n *Node) openGossip() (err error) {
	if !n.cfg.Gossip.Enabled {
		return nil
	}
	n.gossip, err = gossip.Open(gossip.Config{
		Name: n.self.String(), Addr: n.advertised(), Key: n.keys.box.Private(), Endpoint: n.endpoint,
		ID: n.gossipID, Keys: n.gossipKey, SignMeta: n.signMeta, VerifyMeta: n.verifyMeta,
		Seeds: n.gossipSeeds, Log: n.log,
	})
	return err
}

// runGossip takes part until ctx ends. What gossip does after it is of no use to
// anybody, so it may begin to end before the rest.
func (n *Node) runGossip(ctx context.Context) error {
	if n.gossip == nil {
		return nil
	}
	return n.gossip.Run(ctx)
}

func (n *Node) gossipID(name string) (spiffeid.ID, error) {
	id, err := names.ParseNodeID(name)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return certs.NodeSPIFFE(n.cfg.Mesh, id)
}

// gossipKey gives the key that a node's institution has published for it.
func (n *Node) gossipKey(name string) (*[32]byte, bool) {
	id, err := names.ParseNodeID(name)
	if err != nil {
		return nil, false
	}
	var key *[32]byte
	_ = n.registry.View(func(v record.View) error {
		inst, err := v.Institution(id.Institution)
		if err != nil || inst == nil || inst.Suspended {
			return err
		}
		rec, err := v.Node(id)
		if err == nil && rec != nil && !rec.Removed && len(rec.GossipKey) == 32 {
			key = (*[32]byte)(rec.GossipKey)
		}
		return err
	})
	return key, key != nil
}

func (n *Node) signMeta(statement []byte) ([]byte, error) {
	return envelope.SignDetached(envelope.NodeMeta, statement, n.keys.signer)
}

var errUnsignedMeta = errors.New("not signed by the node's institution")

func (n *Node) verifyMeta(name string, statement, signature []byte) error {
	id, err := names.ParseNodeID(name)
	if err != nil {
		return err
	}
	return n.registry.View(func(v record.View) error {
		keys, err := v.KeysOf(id.Institution)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if !k.Retired && envelope.VerifyDetached(envelope.NodeMeta, statement, signature, k.PublicKey) {
				return nil
			}
		}
		return errUnsignedMeta
	})
}

// gossipSeeds are the registry's members: everybody knows them.
func (n *Node) gossipSeeds() (seeds []gossip.Seed) {
	_ = n.registry.View(func(v record.View) error {
		members, err := v.Members()
		if err != nil {
			return err
		}
		for _, id := range members {
			rec, err := v.Node(id)
			if err != nil {
				return err
			}
			if rec != nil && !rec.Removed && id != n.self {
				seeds = append(seeds, gossip.Seed{Name: id.String(), Addr: rec.Address})
			}
		}
		return nil
	})
	return seeds
}
