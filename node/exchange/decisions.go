package exchange

import (
	"context"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Decisions writes what this node decides as clearing peer into its journal: an
// entry for each clearance, or one for a decision without any.
type Decisions struct{ Journal Journal }

var _ clearing.Journal = Decisions{}

// RecordDecision returns when the decision is durable.
func (d Decisions) RecordDecision(ctx context.Context, what clearing.Decided) error {
	return appendAll(ctx, d.Journal, decisionEntries(what)...)
}

func decisionEntries(d clearing.Decided) []*nodepb.Entry {
	if len(d.Clearances) == 0 {
		e := decisionEntry(d)
		e.Withheld, e.Evidence = d.Withheld, append(e.Evidence, d.Signed)
		return []*nodepb.Entry{e}
	}
	entries := make([]*nodepb.Entry, len(d.Clearances))
	for i, c := range d.Clearances {
		e := decisionEntry(d)
		e.Fields, e.Withheld = d.Fields, d.Withheld
		e.Supplier = &registrypb.NodeRef{Institution: string(c.Supplier)}
		e.ClearanceId, e.ClearanceHash = c.ID, c.Hash
		e.Evidence = append(e.Evidence, c.Envelope)
		e.PresentByUnixMs = c.PresentBy.UnixMilli()
		if d.Mandate != nil {
			e.Mandate = d.Mandate.Use()
		}
		entries[i] = e
	}
	return entries
}

func decisionEntry(d clearing.Decided) *nodepb.Entry {
	e := requestEntry(d.Time, nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, string(d.Ticket), d.Request, d.RequestHash)
	e.Evidence = [][]byte{d.RequestEnvelope}
	e.Clearer = &registrypb.NodeRef{Institution: string(d.Clearer.Institution), Node: string(d.Clearer.Node)}
	e.Outcome, e.Reason, e.RegistryIndex = d.Outcome, d.Reason, d.RegistryIndex
	e.Authorization, e.Deliberation = d.Authorization.GetId(), d.Authorization.GetDeliberation()
	if d.Recused {
		e.Detail = "party to it, or to some of it: another clearing peer was to be asked"
	}
	return e
}
