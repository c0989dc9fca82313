package reading

import (
	"context"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The most that a node gives for one inspection.
const (
	maxInspected      = 2000
	maxInspectedBytes = 5 << 19 // proofs may take as much as is left of a message
)

// ServeInspect gives another node what this node's journal holds of what an order
// that it may execute speaks of. The reading is journaled before. The error wraps
// ErrNoRight or ErrJournal.
func (s *Service) ServeInspect(ctx context.Context, node names.NodeID, req *nodepb.InspectRequest) (*nodepb.InspectResponse, error) {
	e := from(s.reading(purposeInspection), node)
	o, err := s.order(ctx, e, req.GetOrder(), node)
	if err != nil {
		return nil, err
	}
	return s.inspected(ctx, o)
}

// order checks an order that executor shows, and journals it in e.
func (s *Service) order(ctx context.Context, e *nodepb.Entry, raw []byte, executor names.NodeID) (*nodepb.InspectionOrder, error) {
	committee, err := s.cfg.Committee()
	if err != nil {
		return nil, err
	}
	o, refused := valid(raw, s.cfg.Mesh, committee, executor, s.cfg.Now(), s.cfg.Skew, s.cfg.Schemes)
	e.RequestHash = sum(raw)
	if o != nil && refused == nil {
		// Filed under no ticket: reading a ticket does not lengthen it.
		e.Subject = o.GetSubject()
		e.Detail = "inspection order " + o.Id
		if t := o.GetTicket(); t != "" {
			e.Detail += " of ticket " + t
		}
		if i := o.GetInstitution(); i != nil {
			e.Detail = clip(e.Detail+" of institution "+i.Id, journal.MaxDetail)
		}
	}
	return o, s.note(ctx, e, refused)
}

// inspected gives this node's own entries of what an order speaks of, the newest
// first where there are too many.
func (s *Service) inspected(ctx context.Context, o *nodepb.InspectionOrder) (resp *nodepb.InspectResponse, err error) {
	resp = new(nodepb.InspectResponse)
	var queries []journal.Query
	wanted := func(*nodepb.Entry) bool { return true }
	switch scope := o.Scope.(type) {
	case *nodepb.InspectionOrder_Ticket:
		queries = []journal.Query{{Ticket: names.Ticket(scope.Ticket)}}
	case *nodepb.InspectionOrder_Subject:
		var family []subject.ID
		if family, resp.Holders, err = s.files(subject.Raw(subject.Scheme(scope.Subject.Scheme), scope.Subject.Number)); err != nil {
			return nil, err
		}
		for _, id := range family {
			queries = append(queries, journal.Query{Subject: id})
		}
	case *nodepb.InspectionOrder_Institution:
		i := scope.Institution
		queries = []journal.Query{{From: at(i.FromUnixMs), Until: at(i.UntilUnixMs)}}
		wanted = func(e *nodepb.Entry) bool { return speaksOf(e, i.Id) }
	}
	var given []journal.Stored
	size, seen := 0, make(map[uint64]bool) // an entry may be about several numbers of one family
	for _, q := range queries {
		more, err := s.pages(ctx, q, func(f journal.Stored) bool {
			if seen[f.Sequence] || !wanted(f.Entry) {
				return true
			}
			seen[f.Sequence] = true
			if size += len(f.Raw); len(resp.Entries) >= maxInspected || size > maxInspectedBytes {
				return false
			}
			resp.Entries = append(resp.Entries, f.Proto())
			given = append(given, f)
			return true
		})
		if err != nil {
			return nil, err
		}
		resp.More = resp.More || more
	}
	if s.cfg.Prove != nil {
		resp.Proofs = s.cfg.Prove(given)
	}
	return resp, nil
}

// speaksOf reports whether an entry names an institution.
func speaksOf(e *nodepb.Entry, id string) bool {
	for _, r := range []*registrypb.NodeRef{e.GetRequester(), e.GetSupplier(), e.GetClearer()} {
		if r.GetInstitution() == id {
			return true
		}
	}
	return false
}
