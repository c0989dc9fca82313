package node

import (
	"context"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/receipt"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// receipts makes receipts from this node's own journal.
type receipts struct{ n *Node }

// Receipt gives what shows, away from this node, what happened under a ticket.
func (r receipts) Receipt(ctx context.Context, ticket names.Ticket) (made *receipt.Receipt, err error) {
	found, err := r.n.journal.Find(ctx, journal.Query{Ticket: ticket, Limit: trace.MaxEntries})
	if err != nil {
		return nil, err
	}
	proofs := r.n.prove(found)
	err = r.n.registry.View(func(v record.View) error {
		made, err = receipt.Make(v, r.n.cfg.Mesh, r.n.self, ticket, trace.Own(found).Entries, proofs)
		return err
	})
	return made, err
}
