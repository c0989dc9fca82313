package trace

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// held is an entry that was read and is what its node committed to.
type held struct {
	node     names.NodeID
	sequence uint64
	*nodepb.Entry
}

// builder is one Build under way.
type builder struct {
	ticket    names.Ticket
	segments  map[names.NodeID]Segment
	means     Means
	entries   []held                // in order of node and sequence
	spoilt    map[names.NodeID]bool // whose segment has entries that cannot be read
	unchecked bool                  // there were signatures and no keys
	most      int                   // entries of one node that are looked at
	findings  []Finding
}

// Build makes the story of a ticket from the segments of the nodes that were
// asked. It believes none of them: what does not fit becomes a finding.
func Build(ticket names.Ticket, segments map[names.NodeID]Segment, means Means) *Story {
	b := &builder{ticket: ticket, segments: segments, means: means, spoilt: map[names.NodeID]bool{}, most: MaxEntries}
	if lotSegments(segments) {
		b.most = MaxLotEntries
	}
	s := &Story{Ticket: ticket}
	for _, n := range sorted(segments) {
		s.Journals = append(s.Journals, b.read(n, segments[n]))
	}
	switch {
	case len(b.entries) == 0:
	case b.isNotification():
		b.published(s)
	case b.isLot():
		b.lot(s)
	default:
		b.facts(s)
		b.inquiry(s)
		groups := b.clearances()
		for _, g := range groups {
			s.Exchanges = append(s.Exchanges, b.exchange(g))
		}
		s.Refusal = b.refusal()
		s.Steps = b.steps()
		b.check(groups)
	}
	s.Add(b.findings...)
	return s
}

func (b *builder) find(k Kind, by []names.NodeID, format string, args ...any) {
	f := Finding{Kind: k, Says: fmt.Sprintf(format, args...)}
	for _, n := range by {
		f.By = append(f.By, show(n))
	}
	b.findings = append(b.findings, f)
}

// read takes up the entries of one segment that can be believed to be its node's.
func (b *builder) read(n names.NodeID, seg Segment) Journal {
	j := Journal{Node: show(n), Entries: len(seg.Entries)}
	if seg.Err != nil {
		j.Says = oneLine(seg.Err.Error())
		b.find(Missing, []names.NodeID{n}, "The journal of %s could not be read: %s.", show(n), j.Says)
		return j
	}
	if len(seg.Entries) > b.most {
		b.find(Altered, []names.NodeID{n}, "%s showed %d entries; the first %d were looked at.", show(n), len(seg.Entries), b.most)
		seg.Entries = seg.Entries[:b.most]
	}
	seen := map[uint64]bool{}
	var log logged
	for i, stored := range seg.Entries {
		e, err := Decode(stored)
		switch {
		case err != nil:
			b.find(Altered, []names.NodeID{n}, "Entry %d of %s was altered: %s.", stored.GetSequence(), show(n), err)
			b.spoilt[n] = true
			continue
		case seen[stored.Sequence]:
			b.find(Altered, []names.NodeID{n}, "%s shows two entries in the same place, %d.", show(n), stored.Sequence)
			continue
		case e.Role == nodepb.Role_READER || e.Role == nodepb.Role_DECLARER: // of no exchange
			continue
		case e.Ticket != string(b.ticket):
			b.find(Altered, []names.NodeID{n}, "Entry %d of %s belongs to another ticket.", stored.Sequence, show(n))
			continue
		}
		seen[stored.Sequence] = true
		b.entries = append(b.entries, held{n, stored.Sequence, e})
		var proof []byte
		if i < len(seg.Proofs) {
			proof = seg.Proofs[i]
		}
		b.logs(n, stored, proof, &log)
	}
	b.concludeLog(n, &j, &log)
	slices.SortStableFunc(b.entries, func(x, y held) int {
		return cmp.Or(compareNodes(x.node, y.node), cmp.Compare(x.sequence, y.sequence))
	})
	return j
}

// facts takes what was asked from the best witness there is: the consultant's
// first entry, else the clearing peer's, else the supplier's.
func (b *builder) facts(s *Story) {
	e := slices.MinFunc(b.entries, func(x, y held) int {
		return cmp.Or(cmp.Compare(x.Role, y.Role), cmp.Compare(x.Event, y.Event))
	})
	s.ClientTicket = names.ClientTicket(e.ClientTicket)
	s.Requester = show(nodeID(e.Requester))
	s.User = names.UserID(e.User)
	s.AuthLevel = e.AuthLevel
	s.Application = e.Application
	s.Channel = e.Channel
	s.Purpose = names.Purpose(e.Purpose)
	s.Mode = names.Mode(e.Mode)
	s.Dataset = names.DatasetID(e.Dataset)
	if e.Subject != nil {
		s.Subject = &Subject{Scheme: e.Subject.Scheme, Number: e.Subject.Number}
	}
	if e.Period != nil {
		s.Period = &names.Period{From: names.Date(e.Period.From), Until: names.Date(e.Period.Until)}
	}
	if e.Event == nodepb.Event_REQUESTED {
		s.Asked = fields(e.Fields)
	}
}

// clearances groups the entries by the clearance they speak of, in order of first
// appearance in time.
func (b *builder) clearances() [][]held {
	byID := map[string][]held{}
	seconds := b.seconds() // these belong to the exchange of the first
	for _, e := range b.entries {
		if len(e.ClearanceId) > 0 && !seconds[string(e.ClearanceId)] {
			byID[string(e.ClearanceId)] = append(byID[string(e.ClearanceId)], e)
		}
	}
	groups := make([][]held, 0, len(byID))
	for _, g := range byID {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(x, y []held) int {
		return cmp.Or(cmp.Compare(first(x), first(y)), cmp.Compare(string(x[0].ClearanceId), string(y[0].ClearanceId)))
	})
	return groups
}

func first(g []held) int64 {
	return slices.MinFunc(g, func(x, y held) int { return cmp.Compare(x.TimeUnixMs, y.TimeUnixMs) }).TimeUnixMs
}

// pick gives the group's first entry of one of the events, in order of preference.
func pick(g []held, events ...nodepb.Event) *held {
	for _, ev := range events {
		for i := range g {
			if g[i].Event == ev {
				return &g[i]
			}
		}
	}
	return nil
}

func (b *builder) exchange(g []held) Exchange {
	// The consultant's word for the facts, as in the rest of the story.
	w := pick(g, nodepb.Event_ANSWERED, nodepb.Event_EXPIRED_UNUSED, nodepb.Event_SUPPLIED, nodepb.Event_REFUSED, nodepb.Event_DECIDED)
	if w == nil {
		w = &g[0]
	}
	x := Exchange{
		ClearanceID: hex.EncodeToString(w.ClearanceId), Supplier: show(nodeID(w.Supplier)), Clearer: show(nodeID(w.Clearer)),
		Authorization: names.AuthorizationID(w.Authorization), Deliberation: names.Deliberation(w.Deliberation),
		RegistryIndex: w.RegistryIndex, Fields: fields(w.Fields), Withheld: fields(w.Withheld), Reason: reasonName(w.Reason),
	}
	if w.Status != nodepb.Status_STATUS_UNSPECIFIED {
		x.Status = w.Status.String()
	}
	if s := w.SecondClearance; s != nil {
		x.SecondClearer = show(nodeID(s.Clearer))
	}
	if m := w.Mandate; m != nil {
		x.Mandate = &Mandate{ID: names.MandateID(m.Id), Provider: names.ProviderID(m.Provider), AuthLevel: m.AuthLevel}
		if m.OnBehalf != nil {
			x.Mandate.OnBehalf = &Subject{Scheme: m.OnBehalf.Scheme, Number: m.OnBehalf.Number}
		}
	}
	if x.Deliberation == "" {
		for _, e := range g {
			x.Deliberation = cmp.Or(x.Deliberation, names.Deliberation(e.Deliberation))
		}
	}
	requested := pick(b.entries, nodepb.Event_REQUESTED)
	decided := pick(g, nodepb.Event_DECIDED)
	supplied := pick(g, nodepb.Event_SUPPLIED, nodepb.Event_RESENT, nodepb.Event_REFUSED)
	answered := pick(g, nodepb.Event_ANSWERED)
	x.Clearing = span(requested, decided)
	x.Supplying = span(decided, supplied)
	x.Receiving = span(supplied, answered)
	x.Total = span(requested, answered)
	return x
}

func span(from, to *held) *Millis {
	if from == nil || to == nil {
		return nil
	}
	m := Millis(to.TimeUnixMs - from.TimeUnixMs)
	return &m
}

// refusal gives the decision not to permit, from the clearing peer or else from
// what the consultant was told.
func (b *builder) refusal() *Refusal {
	for _, event := range []nodepb.Event{nodepb.Event_DECIDED, nodepb.Event_ANSWERED} {
		for _, e := range b.entries {
			if e.Event != event || len(e.ClearanceId) > 0 || e.Outcome == registrypb.Outcome_PERMIT ||
				e.Event == nodepb.Event_DECIDED && e.Outcome == registrypb.Outcome_OUTCOME_UNSPECIFIED { // it stepped aside
				continue
			}
			r := &Refusal{Reason: reasonName(e.Reason), Authorization: names.AuthorizationID(e.Authorization)}
			if e.Outcome != registrypb.Outcome_OUTCOME_UNSPECIFIED {
				r.Outcome = e.Outcome.String()
			}
			if e.Clearer != nil {
				r.Clearer = show(nodeID(e.Clearer))
			}
			return r
		}
	}
	return nil
}

func (b *builder) steps() []Step {
	es := slices.Clone(b.entries)
	slices.SortStableFunc(es, func(x, y held) int {
		return cmp.Or(cmp.Compare(x.TimeUnixMs, y.TimeUnixMs), cmp.Compare(x.Event, y.Event))
	})
	steps := make([]Step, len(es))
	for i, e := range es {
		steps[i] = Step{
			Time: time.UnixMilli(e.TimeUnixMs).UTC(), After: Millis(e.TimeUnixMs - es[0].TimeUnixMs),
			Node: show(e.node), Sequence: e.sequence, Role: e.Role.String(), Event: e.Event.String(), Says: says(e.Entry),
		}
	}
	return steps
}

// Add adds findings that were made elsewhere, and sums the story up anew.
func (s *Story) Add(findings ...Finding) {
	rank := func(k Kind) int {
		return slices.Index([]Verdict{Contradicted, Incomplete, Consistent}, k.verdict())
	}
	s.Findings = append(s.Findings, findings...)
	slices.SortStableFunc(s.Findings, func(x, y Finding) int { return cmp.Compare(rank(x.Kind), rank(y.Kind)) })
	s.Verdict = Consistent
	if len(s.Findings) > 0 {
		s.Verdict = s.Findings[0].Kind.verdict()
	}
	if len(s.Steps) == 0 && s.Verdict != Contradicted {
		s.Verdict = Unknown
	}
	s.Summary = summary(s)
}

func compareNodes(x, y names.NodeID) int {
	return cmp.Or(cmp.Compare(x.Institution, y.Institution), cmp.Compare(x.Node, y.Node))
}

func fields(ss []string) []names.FieldName {
	var fs []names.FieldName
	for _, s := range ss {
		fs = append(fs, names.FieldName(s))
	}
	return fs
}
