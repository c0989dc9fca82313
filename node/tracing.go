package node

import (
	"context"
	"crypto/ed25519"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// tracer collects the segments of a ticket from whoever took part in it.
type tracer struct{ n *Node }

// Trace asks every node that this node's own entries name, and joins what they
// show. A node that cannot be reached is a finding, not an error. A ticket that
// this node knows nothing of has an empty story; that of an inquiry, those of its parts.
func (t tracer) Trace(ctx context.Context, ticket names.Ticket) (*trace.Story, error) {
	story, err := t.alone(ctx, ticket)
	if err != nil || len(story.Parts) == 0 {
		return story, err
	}
	tickets, err := t.parts(ctx, story)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	stories := make(map[names.ClientTicket]*trace.Story)
	var g errgroup.Group
	g.SetLimit(partsAtOnce)
	for own, part := range tickets {
		g.Go(func() error {
			s, err := t.alone(ctx, part)
			mu.Lock()
			defer mu.Unlock()
			stories[own] = s
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	story.Join(stories)
	return story, nil
}

// partsAtOnce is how many parts of an inquiry are traced at the same time.
const partsAtOnce = 8

// parts gives the tickets of an inquiry's parts by their client tickets. An inquiry that
// was not concluded does not name them: they stand in the journal under its subject.
func (t tracer) parts(ctx context.Context, s *trace.Story) (map[names.ClientTicket]names.Ticket, error) {
	tickets := make(map[names.ClientTicket]names.Ticket)
	complete := true
	for _, p := range s.Parts {
		if p.Ticket.Validate() == nil {
			tickets[p.ClientTicket] = p.Ticket
		} else {
			complete = false
		}
	}
	if complete || s.Subject == nil {
		return tickets, nil
	}
	began := s.Steps[0].Time
	found, err := t.n.journal.Find(ctx, journal.Query{
		Subject: subject.Raw(subject.Scheme(s.Subject.Scheme), s.Subject.Number), From: began, Until: began.Add(2 * t.n.cfg.Outbox.Life), Limit: trace.MaxEntries,
	})
	for _, e := range found {
		if e.Entry.GetInquiry() == string(s.Ticket) {
			tickets[names.ClientTicket(e.Entry.GetClientTicket())] = names.Ticket(e.Entry.GetTicket())
		}
	}
	return tickets, err
}

// alone gives the story of one ticket by itself.
func (t tracer) alone(ctx context.Context, ticket names.Ticket) (*trace.Story, error) {
	found, err := t.n.journal.Find(ctx, journal.Query{Ticket: ticket, Limit: trace.MaxEntries})
	if err != nil {
		return nil, err
	}
	if ofLot(found) {
		return t.lot(ctx, ticket)
	}
	own := trace.Own(found)
	own.Proofs = t.n.prove(found)
	segments := map[names.NodeID]trace.Segment{t.n.self: own}
	parties, err := t.parties(found)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var mu sync.Mutex
	var g errgroup.Group
	for _, p := range parties {
		g.Go(func() error {
			resp := new(nodepb.TraceResponse)
			err := t.n.peers.Call(ctx, p, methodTrace, &nodepb.TraceRequest{Ticket: string(ticket)}, resp)
			mu.Lock()
			defer mu.Unlock()
			segments[p] = trace.Segment{Entries: resp.Entries, Proofs: resp.Proofs, Err: err}
			return nil
		})
	}
	_ = g.Wait()
	var examined []trace.Finding
	g.Go(func() error {
		examined = t.n.examine(ctx, trace.Rulings(segments))
		return nil
	})
	story := trace.Build(ticket, segments, t.means(t.known(ctx, trace.Unproved(segments))))
	_ = g.Wait()
	story.Add(examined...)
	return story, nil
}

// keysOf gives all keys that an institution ever had.
func (t tracer) keysOf(i names.InstitutionID) (keys []ed25519.PublicKey, err error) {
	err = t.n.registry.View(func(v record.View) error {
		all, err := v.KeysOf(i)
		for _, k := range all {
			keys = append(keys, k.GetPublicKey())
		}
		return err
	})
	return keys, err
}

// parties names the other nodes that should know of these entries. Where only the
// institution is known, all its nodes are asked.
func (t tracer) parties(found []journal.Stored) ([]names.NodeID, error) {
	named := trace.Parties(t.n.self, trace.Own(found).Entries)
	var parties []names.NodeID
	seen := map[names.NodeID]bool{t.n.self: true}
	add := func(id names.NodeID) {
		if !seen[id] {
			seen[id] = true
			parties = append(parties, id)
		}
	}
	return parties, t.n.registry.View(func(v record.View) error {
		for _, id := range named {
			if id.Node != "" {
				add(id)
				continue
			}
			nodes, err := v.NodesOf(id.Institution)
			if err != nil {
				return err
			}
			for _, rec := range nodes {
				if !rec.Removed {
					add(record.NodeID(rec.Ref))
				}
			}
		}
		return nil
	})
}

// shareTrace shows a party its ticket. To anybody else the ticket looks like one
// that does not exist. The reading is journaled first, also when it is refused.
func (n *Node) shareTrace(ctx context.Context, from names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	ticket := names.Ticket(req.GetTicket())
	if err := ticket.Validate(); err != nil {
		return nil, mesh.Errorf(mesh.InvalidArgument, "%v", err)
	}
	found, err := n.journal.Find(ctx, journal.Query{Ticket: ticket, Limit: trace.MaxEntries})
	if err != nil {
		return nil, err
	}
	more := false
	if ofLot(found) {
		if found, more, err = n.lotPage(ctx, ticket, from.Institution, req.GetFrom()); err != nil {
			return nil, err
		}
	}
	resp := &nodepb.TraceResponse{More: more}
	var shown []journal.Stored
	isParty := slices.ContainsFunc(found, func(e journal.Stored) bool { return concerns(e.Entry, from.Institution) })
	for _, e := range found {
		// What names nobody but the requester is the question itself, which every party saw.
		// Not so a chunk of a lot, which names subjects on whom a supplier has no file.
		question := e.Entry.GetEvent() == nodepb.Event_REQUESTED && e.Entry.GetLot() == nil || e.Entry.GetEvent() == nodepb.Event_PUBLISHED ||
			e.Entry.GetEvent() == nodepb.Event_LOT_SUBMITTED
		if concerns(e.Entry, from.Institution) || isParty && question {
			resp.Entries = append(resp.Entries, e.Proto())
			shown = append(shown, e)
		}
	}
	resp.Proofs = n.prove(shown)
	detail := "trace shown to " + from.String()
	if len(resp.Entries) == 0 {
		detail = "trace refused to " + from.String()
	}
	// Filed under no ticket, so that reading a trace does not lengthen it.
	_, err = n.journal.Append(ctx, &nodepb.Entry{
		TimeUnixMs: n.deps.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ,
		Requester: &registrypb.NodeRef{Institution: string(from.Institution), Node: string(from.Node)},
		Detail:    detail + ": " + string(ticket),
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// concerns reports whether an institution is a party to an entry: it asked, or it
// supplied or cleared this very part. One supplier does not read of another.
func concerns(e *nodepb.Entry, who names.InstitutionID) bool {
	if e.GetRole() == nodepb.Role_READER {
		return false
	}
	for _, ref := range []*registrypb.NodeRef{e.GetRequester(), e.GetSupplier(), e.GetClearer(), e.GetSecondClearance().GetClearer()} {
		if ref.GetInstitution() == string(who) {
			return true
		}
	}
	return false
}
