package trace

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxLotEntries is how many entries of one node are looked at for a lot.
const MaxLotEntries = 100_000

// Lot is what the journals tell of a lot, summed up. It names no subject.
type Lot struct {
	Lines     uint64         `json:"lines,omitempty"`
	Subjects  uint64         `json:"subjects,omitempty"`  // to be asked about
	Asked     int            `json:"asked"`               // subjects in requests
	Requests  int            `json:"requests"`            // chunks, or parts of one
	Ended     bool           `json:"ended"`               // and not under way any more
	Cancelled bool           `json:"cancelled,omitempty"` // before all were asked
	Suppliers []LotSupplier  `json:"suppliers,omitempty"`
	Refused   map[string]int `json:"refused,omitempty"` // subjects, by reason, by clearing peers
}

// LotSupplier is what one supplier answered: subjects by status, or by reason.
type LotSupplier struct {
	Supplier string         `json:"supplier"`
	Chunks   int            `json:"chunks"`
	Subjects map[string]int `json:"subjects"`
}

// isLot reports whether the entries are of a lot.
func (b *builder) isLot() bool {
	return slices.ContainsFunc(b.entries, func(e held) bool { return e.Lot != nil })
}

// lotSegments reports whether segments are of a lot, before they are read.
func lotSegments(segments map[names.NodeID]Segment) bool {
	for _, s := range segments {
		for _, stored := range s.Entries[:min(len(s.Entries), 1)] {
			if e, err := Decode(stored); err == nil && e.Lot != nil {
				return true
			}
		}
	}
	return false
}

// lot judges the entries of a lot and sums them up.
func (b *builder) lot(s *Story) {
	b.facts(s)
	s.Asked, s.Subject = nil, nil
	l := &Lot{Refused: map[string]int{}}
	s.Lot = l
	for _, e := range b.entries {
		b.checkWriter(e)
		b.checkLotEvidence(e)
		switch e.Event {
		case nodepb.Event_LOT_SUBMITTED:
			l.Lines, l.Subjects = e.Lot.GetLines(), e.Lot.GetSubjects()
		case nodepb.Event_LOT_ENDED:
			l.Ended, l.Cancelled = true, e.Reason == registrypb.Reason_LOT_CANCELLED
		case nodepb.Event_REQUESTED:
			l.Requests++
			l.Asked += countIn(e)
		}
	}
	b.concludeEvidence()
	suppliers := map[string]*LotSupplier{}
	for _, g := range b.byRequest() {
		b.checkLotRequest(g, l, suppliers)
	}
	for _, id := range slices.Sorted(maps.Keys(suppliers)) {
		l.Suppliers = append(l.Suppliers, *suppliers[id])
	}
	b.checkParties()
	b.lotEnd(s, l)
	b.assertions()
	s.Steps = b.lotSteps()
}

func countIn(e held) (n int) {
	for _, g := range e.Lot.GetGroups() {
		n += packed.Len(g.GetSubjects())
	}
	return n
}

// byRequest groups entries by the request of a chunk that they are about.
func (b *builder) byRequest() (groups [][]held) {
	by := map[string][]held{}
	var order []string
	for _, e := range b.entries {
		k := string(e.RequestHash)
		if k == "" {
			continue
		}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], e)
	}
	for _, k := range order {
		groups = append(groups, by[k])
	}
	return groups
}

// checkLotEvidence verifies the signed messages that an entry of a lot rests on.
func (b *builder) checkLotEvidence(e held) {
	var parts []part
	order, request, clearance := new(registrypb.LotOrder), new(registrypb.ChunkRequest), new(registrypb.ChunkClearance)
	dec, demand, answer := new(registrypb.ChunkDecision), new(registrypb.ChunkDemand), new(nodepb.ChunkAnswer)
	own := func() string { return e.Requester.GetInstitution() }
	ofOrder := part{envelope.LotOrder, "order", nil, order, own}
	ofRequest := part{envelope.LotChunk, "request", e.RequestHash, request, own}
	ofClearance := part{envelope.LotClearance, "clearance", e.ClearanceHash, clearance, func() string { return clearance.GetClearer().GetInstitution() }}
	ofDecision := part{envelope.LotDecision, "decision", nil, dec, func() string { return dec.GetClearer().GetInstitution() }}
	ofDemand := part{envelope.LotDemand, "demand", nil, demand, own}
	ofAnswer := part{envelope.LotAnswer, "answer", nil, answer, func() string { return answer.GetSupplier().GetInstitution() }}
	cleared := len(e.ClearanceId) > 0
	switch e.Event {
	case nodepb.Event_LOT_SUBMITTED:
		parts = []part{ofOrder}
	case nodepb.Event_REQUESTED:
		parts = []part{ofRequest}
	case nodepb.Event_DECIDED:
		if parts = []part{ofRequest}; cleared {
			parts = []part{ofClearance}
		} else if len(e.Lot.Groups) > 0 {
			parts = append(parts, ofDecision)
		}
	case nodepb.Event_SUPPLIED, nodepb.Event_RESENT:
		parts = []part{ofDemand, ofClearance, ofAnswer}
	case nodepb.Event_REFUSED:
		if len(e.Evidence) > 0 {
			parts = []part{ofDemand, ofClearance}
		}
	case nodepb.Event_ANSWERED:
		switch {
		case cleared && len(e.AnswerCommitment) > 0:
			parts = []part{ofClearance, ofAnswer}
		case cleared:
			parts = []part{ofClearance}
		case e.Clearer != nil:
			parts = []part{ofDecision}
		}
	}
	if len(e.Evidence) != len(parts) {
		b.find(Altered, []names.NodeID{e.node}, "Entry %d of %s shows %d signed messages, and rests on %d.", e.sequence, show(e.node), len(e.Evidence), len(parts))
		return
	}
	for i, p := range parts {
		if !b.openPart(e, p, e.Evidence[i]) {
			return
		}
	}
	b.compareLot(e, parts, clearance, dec, answer, request)
	if e.Event == nodepb.Event_LOT_SUBMITTED && string(names.TicketOf(e.Evidence[0])) != string(b.ticket) {
		b.find(Altered, []names.NodeID{e.node}, "Entry %d of %s shows the order of another lot.", e.sequence, show(e.node))
	}
}

// compareLot checks that an entry says what its signed messages say, of every subject.
func (b *builder) compareLot(e held, parts []part, c *registrypb.ChunkClearance, d *registrypb.ChunkDecision, a *nodepb.ChunkAnswer, r *registrypb.ChunkRequest) {
	wrong := func(what string) {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s says otherwise than the signed %s that it shows.", e.sequence, show(e.node), what)
	}
	var signed []*registrypb.Subjects
	for _, p := range parts {
		switch p.kind {
		case envelope.LotClearance:
			if !bytes.Equal(c.RequestHash, e.RequestHash) || c.Ticket != string(b.ticket) || c.Supplier != e.Supplier.GetInstitution() || !bytes.Equal(c.Id, e.ClearanceId) {
				wrong(p.what)
			}
			for _, g := range c.Groups {
				signed = append(signed, g.Subjects)
			}
		case envelope.LotDecision:
			if !bytes.Equal(d.RequestHash, e.RequestHash) || d.Ticket != string(b.ticket) {
				wrong(p.what)
			}
			for _, g := range d.Groups {
				signed = append(signed, g.Subjects)
			}
		case envelope.LotChunk:
			if e.Event == nodepb.Event_REQUESTED {
				signed = append(signed, r.Subjects)
			}
		case envelope.LotAnswer:
			if !bytes.Equal(a.RequestHash, e.RequestHash) || !bytes.Equal(a.Root, e.AnswerCommitment) ||
				e.Event != nodepb.Event_ANSWERED && !bytes.Equal(a.ClearanceHash, e.ClearanceHash) {
				wrong(p.what)
			}
		}
	}
	if len(signed) > 0 && len(e.Lot.Groups) > 0 && !sameSubjects(signed, listsOf(e)) {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s is about other subjects than what was signed.", e.sequence, show(e.node))
	}
}

func listsOf(e held) (all []*registrypb.Subjects) {
	for _, g := range e.Lot.GetGroups() {
		all = append(all, g.GetSubjects())
	}
	return all
}

// sameSubjects compares two lists, in whatever order.
func sameSubjects(a, b []*registrypb.Subjects) bool {
	count := map[string]int{}
	for _, s := range a {
		for _, n := range packed.All(s) {
			count[n]++
		}
	}
	for _, s := range b {
		for _, n := range packed.All(s) {
			if count[n]--; count[n] < 0 {
				return false
			}
		}
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// checkLotRequest joins what the journals tell of one request, and counts.
func (b *builder) checkLotRequest(g []held, l *Lot, suppliers map[string]*LotSupplier) {
	asked := pick(g, nodepb.Event_REQUESTED)
	requester := nodeID(g[0].Requester)
	if asked == nil {
		if b.shown(requester) && l.Requests > 0 { // a supplier is shown none of them
			b.find(Disagreement, []names.NodeID{requester}, "Others tell of a request by %s; its own journal does not.", show(requester))
			return
		}
		b.checkLotParts(g, suppliers, requester)
		return
	}
	told := map[string]bool{} // subjects whose end the consultant tells
	for i := range g {
		e := &g[i]
		if e.Event != nodepb.Event_ANSWERED {
			continue
		}
		for _, gr := range e.Lot.Groups {
			for _, n := range packed.All(gr.Subjects) {
				told[n] = true
			}
			if len(e.ClearanceId) == 0 {
				l.Refused[cmp.Or(reasonName(gr.Reason), "STOOD_ASIDE")] += packed.Len(gr.Subjects)
			}
		}
		if id := e.Supplier.GetInstitution(); id != "" {
			count(suppliers, id, e)
		}
	}
	missing := 0
	for _, gr := range asked.Lot.Groups {
		for _, n := range packed.All(gr.Subjects) {
			if !told[n] {
				missing++
			}
		}
	}
	if missing > 0 {
		kind, by := Unfinished, "%s asked about %d subjects and has not noted what came of it."
		if l.Ended {
			kind = Disagreement // its lot has ended
		}
		b.find(kind, []names.NodeID{asked.node}, by, show(asked.node), missing)
	}
	b.checkLotParts(g, nil, requester)
}

// checkLotParts holds what suppliers and clearing peers tell of a request against what the
// consultant does. What a supplier is shown of it is this alone, and counted here.
func (b *builder) checkLotParts(g []held, suppliers map[string]*LotSupplier, requester names.NodeID) {
	answered := map[string]*held{}
	for i := range g {
		if id := g[i].Supplier.GetInstitution(); g[i].Event == nodepb.Event_ANSWERED && id != "" {
			answered[id] = &g[i]
			if suppliers != nil {
				count(suppliers, id, &g[i])
			}
		}
	}
	for i := range g {
		e := &g[i]
		id := e.Supplier.GetInstitution()
		switch e.Event {
		case nodepb.Event_SUPPLIED:
			b.checkLotSupplied(e, answered[id], requester)
		case nodepb.Event_ANSWERED:
			if len(e.AnswerCommitment) > 0 && b.shown(names.NodeID{Institution: names.InstitutionID(id)}) && !slices.ContainsFunc(g, func(o held) bool {
				return o.Event == nodepb.Event_SUPPLIED && o.Supplier.GetInstitution() == id
			}) {
				b.find(Disagreement, []names.NodeID{e.node, nodeID(e.Supplier)}, "%s received an answer; the journal of %s does not hold it.", show(e.node), id)
			}
		case nodepb.Event_EXPIRED_UNUSED:
			b.find(ExpiredUnused, []names.NodeID{e.node}, "A clearance for %s expired unused.", id)
		}
	}
	decided := slices.ContainsFunc(g, func(e held) bool { return e.Event == nodepb.Event_DECIDED })
	for _, e := range answered {
		if clearer := nodeID(e.Clearer); !decided && b.shown(clearer) {
			b.find(Disagreement, []names.NodeID{clearer, e.node}, "%s shows no decision on a request that %s used a clearance for.", show(clearer), show(e.node))
		}
	}
}

// checkLotSupplied holds a supplier's account against the consultant's, subject by subject.
func (b *builder) checkLotSupplied(s, a *held, requester names.NodeID) {
	switch {
	case a == nil && b.shown(requester):
		b.find(Undelivered, []names.NodeID{requester}, "%s released an answer to a chunk; the journal of %s does not tell what became of it.", show(s.node), show(requester))
	case a == nil:
	case len(a.AnswerCommitment) == 0:
		b.find(Undelivered, []names.NodeID{s.node, a.node}, "%s released an answer to a chunk; %s says that it received none.", show(s.node), show(a.node))
	case !bytes.Equal(a.AnswerCommitment, s.AnswerCommitment) || !sameFates(a, s):
		b.find(Disagreement, []names.NodeID{s.node, a.node}, "%s and %s tell of different answers to a chunk.", show(s.node), show(a.node))
	}
}

// sameFates reports whether both entries say the same of every subject.
func sameFates(a, b *held) bool {
	fates := func(e *held) map[string]string {
		m := map[string]string{}
		for _, g := range e.Lot.Groups {
			k := fmt.Sprint(g.Status, g.Reason, g.Authorization, g.Fields, g.Withheld)
			for _, n := range packed.All(g.Subjects) {
				m[n] = k
			}
		}
		return m
	}
	return maps.Equal(fates(a), fates(b))
}

func count(suppliers map[string]*LotSupplier, id string, e *held) {
	s := suppliers[id]
	if s == nil {
		s = &LotSupplier{Supplier: id, Subjects: map[string]int{}}
		suppliers[id] = s
	}
	s.Chunks++
	for _, g := range e.Lot.Groups {
		key := g.Status.String()
		if g.Reason != 0 {
			key = reasonName(g.Reason)
		}
		s.Subjects[key] += packed.Len(g.Subjects)
	}
}

// lotEnd says whether everybody was asked about who had to be.
func (b *builder) lotEnd(s *Story, l *Lot) {
	submitted := pick(b.entries, nodepb.Event_LOT_SUBMITTED)
	n := nodeID(b.entries[0].Requester)
	switch {
	case submitted == nil && b.shown(n):
		b.find(Disagreement, []names.NodeID{n}, "The journal of %s does not tell of the lot being handed in.", show(n))
	case submitted == nil || !b.shown(n) || l.Requests == 0:
	case !l.Ended:
		b.find(Unfinished, []names.NodeID{n}, "The lot has not ended: %d of %d subjects were asked about.", min(l.Asked, int(l.Subjects)), l.Subjects)
	case !l.Cancelled && uint64(l.Asked) < l.Subjects:
		b.find(Disagreement, []names.NodeID{n}, "The lot has ended, and only %d of its %d subjects were asked about.", l.Asked, l.Subjects)
	}
}

// lotSteps gives the steps of the lot as a whole; those of its chunks are counted.
func (b *builder) lotSteps() (steps []Step) {
	first := slices.MinFunc(b.entries, func(x, y held) int { return cmp.Compare(x.TimeUnixMs, y.TimeUnixMs) }).TimeUnixMs
	add := func(e held, says string) {
		steps = append(steps, Step{Time: time.UnixMilli(e.TimeUnixMs).UTC(), After: Millis(e.TimeUnixMs - first), Node: show(e.node), Sequence: e.sequence,
			Role: e.Role.String(), Event: e.Event.String(), Says: says})
	}
	kinds := map[string][]held{}
	for _, e := range b.entries {
		if e.Event == nodepb.Event_LOT_SUBMITTED || e.Event == nodepb.Event_LOT_ENDED {
			add(e, lotWords[e.Event]+oneLine(e.Detail))
			continue
		}
		k := show(e.node) + e.Event.String()
		kinds[k] = append(kinds[k], e)
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		g := kinds[k]
		slices.SortFunc(g, func(x, y held) int { return cmp.Compare(x.TimeUnixMs, y.TimeUnixMs) })
		subjects := 0
		for _, e := range g {
			subjects += countIn(e)
		}
		last := Millis(g[len(g)-1].TimeUnixMs - first)
		add(g[0], fmt.Sprintf("%s: the first of %d entries, on %d subjects, the last after %s", lotWords[g[0].Event], len(g), subjects, last))
	}
	slices.SortStableFunc(steps, func(x, y Step) int { return x.Time.Compare(y.Time) })
	return steps
}

var lotWords = map[nodepb.Event]string{
	nodepb.Event_LOT_SUBMITTED: "the lot is handed in", nodepb.Event_LOT_ENDED: "the lot has ended: ", nodepb.Event_REQUESTED: "asks, chunk by chunk",
	nodepb.Event_DECIDED: "decides on each subject", nodepb.Event_SUPPLIED: "supplies", nodepb.Event_REFUSED: "refuses chunks", nodepb.Event_ANSWERED: "notes what came",
	nodepb.Event_EXPIRED_UNUSED: "clearances expired unused", nodepb.Event_RESENT: "sends answers again",
}

// LotRulings gives what clearing peers signed on chunks, as these segments show it, once
// each, to be decided again.
func LotRulings(segments map[names.NodeID]Segment) (all []*registrypb.RedecideChunkRequest) {
	var order []byte
	seen := map[string]bool{}
	for _, n := range sorted(segments) {
		for _, stored := range segments[n].Entries {
			e, err := Decode(stored)
			if err != nil || e.Lot == nil {
				continue
			}
			if e.Event == nodepb.Event_LOT_SUBMITTED && len(e.Evidence) > 0 {
				order = e.Evidence[0]
			}
			if e.Event != nodepb.Event_ANSWERED || len(e.Evidence) == 0 || seen[string(e.Evidence[0])] {
				continue
			}
			seen[string(e.Evidence[0])] = true
			rr := &registrypb.RedecideChunkRequest{Clearance: e.Evidence[0]}
			if len(e.ClearanceId) == 0 {
				rr = &registrypb.RedecideChunkRequest{Decision: e.Evidence[0]}
			}
			all = append(all, rr)
		}
	}
	for _, rr := range all {
		rr.Order = order
	}
	return all
}

// write renders the sum of a lot.
func (l *Lot) write(p *page) {
	p.row("lot", fmt.Sprintf("%d lines, %d subjects; asked about %d in %d requests", l.Lines, l.Subjects, l.Asked, l.Requests))
	for _, s := range l.Suppliers {
		p.row(s.Supplier, fmt.Sprintf("%d chunks: %s", s.Chunks, tally(s.Subjects)))
	}
	if len(l.Refused) > 0 {
		p.row("refused", tally(l.Refused))
	}
}

func tally(m map[string]int) (out string) {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	for i, k := range keys {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%s %d", k, m[k])
	}
	return out
}
