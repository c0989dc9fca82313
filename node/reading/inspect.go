package reading

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// How many stories one inspection tells, and judges at the same time.
const (
	maxStories    = 1000
	storiesAtOnce = 16
)

// Inspection is what an order brought to light.
type Inspection struct {
	Order  string `json:"order"`
	Reason string `json:"reason"`
	// Stories are the tickets that the order speaks of, the newest first.
	Stories []*trace.Story `json:"stories"`
	// Entries belong to no ticket: declarations, and readings of journals.
	Entries []InspectedEntry `json:"entries,omitempty"`
	// Altered are entries that are not what their node committed to, or no entries.
	Altered []AlteredEntry `json:"altered,omitempty"`
	// Complete: every node that should know was asked, answered, and left nothing out.
	Complete   bool        `json:"complete"`
	Journals   []string    `json:"journals"`
	NotReached []Unreached `json:"not_reached,omitempty"`
	Shortened  []string    `json:"shortened,omitempty"` // nodes that hold more than one answer takes
}

// InspectedEntry is an entry under no ticket.
type InspectedEntry struct {
	Time        time.Time `json:"time"`
	Node        string    `json:"node"`
	Sequence    uint64    `json:"sequence"`
	Role        string    `json:"role"`
	Event       string    `json:"event"`
	By          string    `json:"by,omitempty"` // institution/node
	User        string    `json:"user,omitempty"`
	Application string    `json:"application,omitempty"`
	Purpose     string    `json:"purpose,omitempty"`
	Outcome     string    `json:"outcome,omitempty"`
	Detail      string    `json:"detail,omitempty"`
}

// AlteredEntry is an entry that cannot be believed.
type AlteredEntry struct {
	Node     string `json:"node"`
	Sequence uint64 `json:"sequence"`
	Says     string `json:"says"`
}

// proved is an entry with its proof.
type proved struct {
	*nodepb.StoredEntry
	proof []byte
}

// segments are what nodes showed.
type segments struct {
	answers  map[names.NodeID]*nodepb.InspectResponse
	tickets  map[names.Ticket]map[names.NodeID][]proved
	newest   map[names.Ticket]int64
	failures map[names.NodeID]error
}

// Inspect executes an inspection order. The error wraps ErrNoRight or ErrJournal.
func (s *Service) Inspect(ctx context.Context, who Reader, raw []byte) (*Inspection, error) {
	o, err := s.order(ctx, s.by(s.reading(purposeInspection), who), raw, s.cfg.Self)
	if err != nil {
		return nil, err
	}
	own, err := s.inspected(ctx, o)
	if err != nil {
		return nil, err
	}
	in := &Inspection{Order: o.Id, Reason: o.Reason, Stories: []*trace.Story{}}
	seg := &segments{
		answers: map[names.NodeID]*nodepb.InspectResponse{}, tickets: map[names.Ticket]map[names.NodeID][]proved{},
		newest: map[names.Ticket]int64{}, failures: map[names.NodeID]error{},
	}
	var next []*registrypb.NodeRef
	if i := o.GetInstitution(); i != nil {
		next = append(next, &registrypb.NodeRef{Institution: i.Id})
	}
	take := func(n names.NodeID, resp *nodepb.InspectResponse) {
		seg.answers[n] = resp
		if resp.More {
			in.Shortened = append(in.Shortened, n.String())
		}
		for _, h := range resp.Holders {
			next = append(next, &registrypb.NodeRef{Institution: h})
		}
		for _, p := range trace.Parties(n, resp.Entries) {
			next = append(next, ref(p))
		}
	}
	take(s.cfg.Self, own)
	f := s.fan()
	ask := func(ctx context.Context, n names.NodeID) (func(), error) {
		resp, err := s.cfg.Peers.Inspect(ctx, n, &nodepb.InspectRequest{Order: raw})
		if err != nil {
			f.mu.Lock()
			seg.failures[n] = err
			f.mu.Unlock()
		}
		return func() { take(n, resp) }, err
	}
	members, err := s.members()
	if err != nil {
		return nil, err
	}
	f.each(ctx, members, ask)
	for range 2 { // as for a subject's view
		nodes, err := s.nodes(next)
		if err != nil {
			return nil, err
		}
		f.each(ctx, nodes, ask)
	}
	in.Journals, in.NotReached = f.done()
	slices.Sort(in.Shortened)
	if err := s.tell(ctx, in, seg, names.Ticket(o.GetTicket())); err != nil {
		return nil, err
	}
	in.Complete = len(in.NotReached)+len(in.Shortened) == 0
	return in, nil
}

// tell sorts what the nodes showed into stories and what belongs to none.
func (s *Service) tell(ctx context.Context, in *Inspection, seg *segments, only names.Ticket) error {
	for n, answer := range seg.answers {
		for i, raw := range answer.Entries {
			stored := proved{StoredEntry: raw}
			if i < len(answer.Proofs) {
				stored.proof = answer.Proofs[i]
			}
			e, err := trace.Decode(raw)
			switch {
			case err != nil:
				in.Altered = append(in.Altered, AlteredEntry{Node: n.String(), Sequence: stored.GetSequence(), Says: err.Error()})
				if only != "" { // the story judges it too
					seg.add(only, n, stored, 0)
				}
			case e.Role == nodepb.Role_READER || e.Ticket == "":
				in.Entries = append(in.Entries, inspectedEntry(n, stored.GetSequence(), e))
			default:
				seg.add(names.Ticket(e.Ticket), n, stored, e.TimeUnixMs)
			}
		}
	}
	slices.SortFunc(in.Entries, func(a, b InspectedEntry) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Sequence, b.Sequence))
	})
	slices.SortFunc(in.Altered, func(a, b AlteredEntry) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Sequence, b.Sequence))
	})
	tickets := make([]names.Ticket, 0, len(seg.tickets))
	for t := range seg.tickets {
		tickets = append(tickets, t)
	}
	slices.SortFunc(tickets, func(a, b names.Ticket) int {
		return cmp.Or(cmp.Compare(seg.newest[b], seg.newest[a]), cmp.Compare(a, b))
	})
	if len(tickets) > maxStories {
		tickets = tickets[:maxStories]
		in.Shortened = append(in.Shortened, s.cfg.Self.String())
	}
	in.Stories = make([]*trace.Story, len(tickets))
	var g errgroup.Group
	g.SetLimit(storiesAtOnce) // each may ask members what they know
	for i, t := range tickets {
		g.Go(func() (err error) {
			in.Stories[i], err = s.story(ctx, t, seg)
			return err
		})
	}
	return g.Wait()
}

func (seg *segments) add(t names.Ticket, n names.NodeID, e proved, ms int64) {
	if seg.tickets[t] == nil {
		seg.tickets[t] = map[names.NodeID][]proved{}
	}
	seg.tickets[t][n] = append(seg.tickets[t][n], e)
	seg.newest[t] = max(seg.newest[t], ms)
}

// story joins the segments of one ticket. A party that showed nothing of it, or did
// not answer, is part of the story too.
func (s *Service) story(ctx context.Context, t names.Ticket, seg *segments) (*trace.Story, error) {
	all := map[names.NodeID]trace.Segment{}
	var parties []*registrypb.NodeRef
	for n, entries := range seg.tickets[t] {
		slices.SortFunc(entries, func(a, b proved) int { return cmp.Compare(a.GetSequence(), b.GetSequence()) })
		var shown trace.Segment
		for _, e := range entries {
			shown.Entries, shown.Proofs = append(shown.Entries, e.StoredEntry), append(shown.Proofs, e.proof)
		}
		all[n] = shown
		for _, p := range trace.Parties(n, shown.Entries) {
			parties = append(parties, ref(p))
		}
	}
	nodes, err := s.nodes(parties)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if _, has := all[n]; !has {
			all[n] = trace.Segment{Err: seg.failures[n]}
		}
	}
	return s.cfg.Story(ctx, t, all), nil
}

func inspectedEntry(n names.NodeID, sequence uint64, e *nodepb.Entry) InspectedEntry {
	x := InspectedEntry{
		Time: at(e.TimeUnixMs), Node: n.String(), Sequence: sequence, Role: e.Role.String(), Event: e.Event.String(),
		User: e.User, Application: e.Application, Purpose: e.Purpose, Detail: e.Detail,
	}
	if e.Requester != nil {
		x.By = record.NodeID(e.Requester).String()
	}
	if e.Outcome != registrypb.Outcome_OUTCOME_UNSPECIFIED {
		x.Outcome = e.Outcome.String()
	}
	return x
}
