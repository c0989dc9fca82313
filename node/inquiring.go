package node

import (
	"context"

	"github.com/crossroads-mesh/crossroads/node/inquiry"
	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// inquirer asks many sources at once, through the consultant that asks one.
func (n *Node) inquirer() *inquiry.Inquirer {
	return inquiry.New(inquiry.Config{
		Self: n.self, Consultations: n.metrics.Consultations(n.consulting()), Journal: n.askingJournal(), Outbox: n.outbox, Registry: n.registry,
		Schemes: subject.Belgian(), Life: n.cfg.Outbox.Life, Now: n.deps.Now, Log: n.log,
	})
}

func (n *Node) openMandates() error {
	n.mandates = mandate.New(mandate.Config{
		Mesh: n.cfg.Mesh, Self: n.self, Registry: n.registry, Author: n.author, Journal: n.journal, Peers: n.peers,
		Schemes: subject.Belgian(), Skew: n.keys.genesis.Bounds.Skew, Now: n.deps.Now, Log: n.log,
	})
	return nil
}

// Mandates asks a registry member which mandates this institution may use.
func (p *peers) Mandates(ctx context.Context, to names.NodeID, req *nodepb.MandatesRequest) (*nodepb.MandatesResponse, error) {
	resp := new(nodepb.MandatesResponse)
	return resp, p.Call(ctx, to, methodMandates, req, resp)
}
