package trace

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// clockSlack is how far an effect may stand before its cause, by the clocks of
// two nodes, before it is remarked on.
const clockSlack = 2 * time.Second

// attribute is one thing that entries must agree on. An entry that does not have
// it (empty) says nothing of it.
type attribute struct {
	name string
	of   func(*nodepb.Entry) string
	hide bool // the value is not for a finding's text
}

// What all entries of a ticket must agree on, and all entries of a clearance.
var (
	ofTicket = []attribute{
		{"the request (by its hash)", func(e *nodepb.Entry) string { return short(e.RequestHash) }, false},
		{"the requester", func(e *nodepb.Entry) string { return ref(e.Requester) }, false},
		{"the user", func(e *nodepb.Entry) string { return e.User }, false},
		{"the authentication level", func(e *nodepb.Entry) string { return number(uint64(e.AuthLevel)) }, false},
		{"the application", func(e *nodepb.Entry) string { return e.Application }, false},
		{"the requester's own ticket", func(e *nodepb.Entry) string { return e.ClientTicket }, false},
		{"the subject", func(e *nodepb.Entry) string { return e.Subject.GetScheme() + e.Subject.GetNumber() }, true},
		{"the purpose", func(e *nodepb.Entry) string { return e.Purpose }, false},
		{"the mode", func(e *nodepb.Entry) string { return e.Mode }, false},
		{"the dataset", func(e *nodepb.Entry) string { return e.Dataset }, false},
		{"the period", func(e *nodepb.Entry) string { return period(e.Period) }, false},
	}
	ofClearance = []attribute{
		{"the clearance (by its hash)", func(e *nodepb.Entry) string { return short(e.ClearanceHash) }, false},
		{"the clearing peer", func(e *nodepb.Entry) string { return ref(e.Clearer) }, false},
		{"the supplier", func(e *nodepb.Entry) string { return e.Supplier.GetInstitution() }, false},
		{"the authorization", func(e *nodepb.Entry) string { return e.Authorization }, false},
		{"the mandate", func(e *nodepb.Entry) string { return e.Mandate.GetId() }, false},
		{"the deliberation", func(e *nodepb.Entry) string { return e.Deliberation }, false},
		{"the permitted fields", func(e *nodepb.Entry) string { return list(e.Fields) }, false},
		{"the withheld fields", func(e *nodepb.Entry) string { return list(e.Withheld) }, false},
		{"the registry's state", func(e *nodepb.Entry) string { return number(e.RegistryIndex) }, false},
		{"the time to present it by", func(e *nodepb.Entry) string { return number(uint64(e.PresentByUnixMs)) }, false},
	}
	ofAnswer = []attribute{
		{"the answer (by its commitment)", func(e *nodepb.Entry) string { return short(e.AnswerCommitment) }, false},
		{"the result", func(e *nodepb.Entry) string { return statusText(e.Status.String()) }, false},
	}
)

// check adds what the segments have to be reproached with, together and alone.
func (b *builder) check(groups [][]held) {
	for _, e := range b.entries {
		b.checkWriter(e)
		b.checkEvidence(e)
	}
	b.concludeEvidence()
	b.agree("", b.entries, ofTicket)
	for _, g := range groups {
		b.checkClearance(g)
		b.checkSecond(g)
	}
	b.checkParties()
	b.checkEnd(groups)
	b.checkTold()
	b.assertions()
}

// checkWriter checks that an entry stands in the journal of the node that acted,
// and that it says what its event needs.
func (b *builder) checkWriter(e held) {
	actor := map[nodepb.Role]*registrypb.NodeRef{
		nodepb.Role_CONSULTANT: e.Requester, nodepb.Role_CLEARING_PEER: e.Clearer, nodepb.Role_SUPPLIER: e.Supplier,
	}[e.Role]
	// A consultant's outcome may be written by another node of its institution, and
	// the clearing peer of its own entries need not be named in them.
	if actor != nil && actor.Institution != string(e.node.Institution) {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s was written as %s, and names %s in that role.",
			e.sequence, show(e.node), roleName(e.Role), show(nodeID(actor)))
	}
	if len(e.RequestHash) == 0 && !local(e) && e.Event != nodepb.Event_LOT_SUBMITTED && e.Event != nodepb.Event_LOT_ENDED {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s does not say which request it is about.", e.sequence, show(e.node))
	}
	needsClearance := e.Event == nodepb.Event_SUPPLIED || e.Event == nodepb.Event_RESENT || hasData(e.Entry)
	if needsClearance && (len(e.ClearanceId) == 0 || len(e.ClearanceHash) == 0) {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s tells of data and names no clearance.", e.sequence, show(e.node))
	}
	if hasData(e.Entry) && len(e.AnswerCommitment) == 0 {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s tells of data and has no commitment to the answer.", e.sequence, show(e.node))
	}
	if len(e.ClearanceId) > 0 && e.Clearer.GetInstitution() != "" && (e.Clearer.Institution == e.Requester.GetInstitution() || e.Clearer.Institution == e.Supplier.GetInstitution()) {
		b.find(Disagreement, []names.NodeID{e.node}, "By entry %d of %s, %s cleared an exchange that it was itself a party to.",
			e.sequence, show(e.node), e.Clearer.Institution)
	}
}

func hasData(e *nodepb.Entry) bool {
	return (e.Event == nodepb.Event_SUPPLIED || e.Event == nodepb.Event_RESENT || e.Event == nodepb.Event_ANSWERED) &&
		(e.Status == nodepb.Status_DATA_FOUND || e.Status == nodepb.Status_NO_DATA_FOUND)
}

// local reports whether an entry tells of a question that the institution's own policy
// refused, or of an inquiry as a whole: no request was made of it, and nobody else heard
// of it.
func local(e held) bool {
	return ofInquiry(e.Entry) && len(e.RequestHash) == 0 && len(e.ClearanceId) == 0 || e.Role == nodepb.Role_CONSULTANT && e.Event == nodepb.Event_ANSWERED && e.Reason == registrypb.Reason_LOCAL_POLICY &&
		len(e.RequestHash) == 0 && len(e.ClearanceId) == 0 && e.Clearer == nil && !hasData(e.Entry)
}

// agree compares entries attribute by attribute.
func (b *builder) agree(scope string, entries []held, attributes []attribute) {
	for _, a := range attributes {
		by := map[string][]names.NodeID{}
		for _, e := range entries {
			if v := a.of(e.Entry); v != "" && !slices.Contains(by[v], e.node) {
				by[v] = append(by[v], e.node)
			}
		}
		if len(by) < 2 {
			continue
		}
		values := make([]string, 0, len(by))
		for v := range by {
			values = append(values, v)
		}
		// Those who stand alone come first: it is for them to explain.
		slices.SortFunc(values, func(x, y string) int {
			return cmp.Or(cmp.Compare(len(by[x]), len(by[y])), cmp.Compare(x, y))
		})
		var who []names.NodeID
		var parts []string
		for i, v := range values {
			says := by[v]
			if i == 0 || len(says) == len(by[values[0]]) {
				who = append(who, says...)
			}
			if a.hide {
				v = []string{"one", "another", "yet another"}[min(i, 2)]
			}
			parts = append(parts, join(says)+say(says)+oneLine(v))
		}
		slices.SortFunc(who, compareNodes)
		b.find(Disagreement, slices.Compact(who), "The journals disagree about %s%s: %s.", a.name, scope, strings.Join(parts, "; "))
	}
}

// checkClearance checks what became of one clearance.
func (b *builder) checkClearance(g []held) {
	scope := " of clearance " + short(g[0].ClearanceId)
	b.agree(scope, g, ofClearance)
	received := pick(g, nodepb.Event_ANSWERED)
	released := b.released(g, received)
	if released != nil && received != nil && hasData(received.Entry) {
		b.agree(scope, []held{*released, *received}, ofAnswer)
	}
	w := g[0]
	supplier, clearer := nodeID(w.Supplier), names.NodeID{}
	for _, e := range g {
		if e.Clearer != nil {
			clearer = nodeID(e.Clearer)
		}
		if e.Supplier.GetNode() != "" {
			supplier = nodeID(e.Supplier)
		}
	}
	decided := pick(g, nodepb.Event_DECIDED)
	switch {
	case decided == nil && b.shown(clearer):
		users := voices(g)
		b.find(Disagreement, append([]names.NodeID{clearer}, users...), "%s shows no decision for clearance %s, which %s used.",
			show(clearer), short(w.ClearanceId), join(users))
	case decided != nil && decided.Outcome != registrypb.Outcome_PERMIT:
		b.find(Disagreement, []names.NodeID{decided.node}, "%s did not permit what clearance %s was used for.", show(decided.node), short(w.ClearanceId))
	}
	told := pick(g, nodepb.Event_ANSWERED, nodepb.Event_EXPIRED_UNUSED)
	switch {
	case received != nil && hasData(received.Entry) && released == nil && b.shown(supplier):
		b.find(Disagreement, []names.NodeID{received.node, supplier}, "%s received an answer; the journal of %s does not hold it.", show(received.node), show(supplier))
	case released != nil && hasData(released.Entry) && told == nil && b.shown(nodeID(w.Requester)):
		b.find(Undelivered, []names.NodeID{nodeID(w.Requester)}, "%s released an answer under clearance %s; the journal of %s does not tell what became of it.",
			show(released.node), short(w.ClearanceId), show(nodeID(w.Requester)))
	case released != nil && hasData(released.Entry) && told != nil && (received == nil || !hasData(received.Entry)):
		b.find(Undelivered, []names.NodeID{released.node, told.node}, "%s released an answer; %s says that it received none.", show(released.node), show(told.node))
	}
	if e := pick(g, nodepb.Event_EXPIRED_UNUSED); e != nil {
		b.find(ExpiredUnused, []names.NodeID{e.node}, "The clearance for %s expired unused.", cmp.Or(e.Supplier.GetInstitution(), "a supplier"))
	} else if told == nil && released == nil && decided != nil && b.shown(nodeID(w.Requester)) {
		b.find(ExpiredUnused, []names.NodeID{decided.node}, "%s permitted an exchange with %s that nobody tells of: as far as the journals say, never used.",
			show(decided.node), cmp.Or(w.Supplier.GetInstitution(), "a supplier"))
	}
	b.checkOrder(pick(b.entries, nodepb.Event_REQUESTED), decided, pick(g, nodepb.Event_SUPPLIED, nodepb.Event_REFUSED), received)
	if released != nil && released.PresentByUnixMs > 0 && decided != nil && decided.PresentByUnixMs == released.PresentByUnixMs && decided.TimeUnixMs > released.PresentByUnixMs {
		b.find(Clocks, []names.NodeID{decided.node}, "%s decided after the time its own clearance had to be presented by.", show(decided.node))
	}
}

// released gives the entry of the release that was received, if it is known which: a
// consultant that waits in vain asks another node of the supplier beside the first, and
// takes the first answer. A supplier that crashed before it had journaled what it was
// about to release journals that it sends it once more.
func (b *builder) released(g []held, received *held) *held {
	events := []nodepb.Event{nodepb.Event_SUPPLIED, nodepb.Event_RESENT}
	if received == nil || received.Supplier.GetNode() == "" {
		return pick(g, events...)
	}
	var by, others []held
	for _, e := range g {
		if e.node == nodeID(received.Supplier) {
			by = append(by, e)
		} else {
			others = append(others, e)
		}
	}
	if also := pick(others, events...); also != nil {
		if len(by) == 0 || pick(by, events...) == nil {
			return also
		}
		b.find(Hedged, []names.NodeID{also.node}, "%s released an answer too, beside that of %s, which %s took.", show(also.node), show(by[0].node), show(received.node))
	}
	return pick(by, events...)
}

// checkOrder remarks on effects that stand before their causes.
func (b *builder) checkOrder(chain ...*held) {
	var cause *held
	for _, e := range chain {
		if e == nil {
			continue
		}
		if cause != nil && e.TimeUnixMs < cause.TimeUnixMs-clockSlack.Milliseconds() {
			b.find(Clocks, []names.NodeID{cause.node, e.node}, "The clocks of %s and %s differ by at least %s: %q stands before %q.",
				show(cause.node), show(e.node), Millis(cause.TimeUnixMs-e.TimeUnixMs), says(e.Entry), says(cause.Entry))
		}
		cause = e
	}
}

// shown tells whether a node's journal was read, and whole; of an institution,
// whether any of its nodes' was.
func (b *builder) shown(n names.NodeID) bool {
	for id, s := range b.segments {
		if s.Err == nil && !b.spoilt[id] && id.Institution == n.Institution && (n.Node == "" || id.Node == n.Node) {
			return true
		}
	}
	return false
}

// checkParties names the nodes that the entries speak of and that were not asked.
func (b *builder) checkParties() {
	named := map[names.NodeID]bool{}
	for _, e := range b.entries {
		for _, r := range []*registrypb.NodeRef{e.Requester, e.Clearer, e.Supplier, e.GetSecondClearance().GetClearer()} {
			if r.GetInstitution() != "" {
				named[nodeID(r)] = true
			}
		}
	}
	for _, n := range sorted(named) {
		if n.Node == "" && slices.ContainsFunc(sorted(named), func(m names.NodeID) bool { return m.Institution == n.Institution && m.Node != "" }) {
			continue // others say which node it was
		}
		asked := false
		for id := range b.segments {
			asked = asked || id == n || n.Node == "" && id.Institution == n.Institution
		}
		if !asked && !b.means.Alone {
			b.find(Missing, []names.NodeID{n}, "The journal of %s was not read.", show(n))
		}
	}
}

// checkEnd checks that what was asked was brought to an end.
func (b *builder) checkEnd(groups [][]held) {
	asked := pick(b.entries, nodepb.Event_REQUESTED)
	told := pick(b.entries, nodepb.Event_ANSWERED)
	switch {
	case asked != nil && told == nil:
		b.find(Unfinished, []names.NodeID{asked.node}, "%s asked, and has not noted an answer.", show(asked.node))
	case asked == nil && b.shown(nodeID(b.entries[0].Requester)) && slices.ContainsFunc(b.entries, func(e held) bool { return !local(e) }):
		n := nodeID(b.entries[0].Requester)
		b.find(Disagreement, []names.NodeID{n}, "Others tell of a request by %s; its own journal does not.", show(n))
	}
	if asked == nil || len(asked.Fields) == 0 {
		return
	}
	for _, g := range groups {
		for _, e := range g {
			for _, f := range e.Fields {
				if !slices.Contains(asked.Fields, f) {
					b.find(Disagreement, []names.NodeID{e.node}, "By entry %d of %s, field %s was permitted, which nobody asked for.", e.sequence, show(e.node), oneLine(f))
				}
			}
		}
	}
}

// assertions labels what only the requester says.
func (b *builder) assertions() {
	b.mandates()
	e := b.entries[0]
	if asked := pick(b.entries, nodepb.Event_REQUESTED); asked != nil {
		e = *asked
	}
	if e.User == "" && e.AuthLevel == 0 {
		return
	}
	what := "the user"
	if e.AuthLevel > 0 {
		what = fmt.Sprintf("the user and authentication level %d", e.AuthLevel)
	}
	n := nodeID(e.Requester)
	b.find(Asserted, []names.NodeID{n}, "Only %s vouches for %s.", cmp.Or(string(n.Institution), "the requester"), what)
}

// mandates says whose word a mandate is: that it was given, a provider's; for whom it is
// used, the requester's alone.
func (b *builder) mandates() {
	seen := map[string]bool{}
	for _, e := range b.entries {
		m := e.Mandate
		if m == nil || seen[m.Id] {
			continue
		}
		seen[m.Id] = true
		text := fmt.Sprintf("That mandate %s was given is attested by %s, which authenticated its giver at level %d", oneLine(m.Id), oneLine(m.Provider), m.AuthLevel)
		if m.OnBehalf != nil {
			text += "; that it is used for the enterprise it names, only the requester says"
		}
		b.find(Asserted, []names.NodeID{nodeID(e.Clearer)}, "%s.", text)
	}
}

// voices gives the nodes that entries stand at, each once.
func voices(g []held) []names.NodeID {
	seen := map[names.NodeID]bool{}
	for _, e := range g {
		seen[e.node] = true
	}
	return sorted(seen)
}

func short(b []byte) string {
	s := hex.EncodeToString(b)
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}

func ref(r *registrypb.NodeRef) string {
	if r.GetInstitution() == "" {
		return ""
	}
	return show(nodeID(r))
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func list(ss []string) string {
	ss = slices.Clone(ss)
	slices.Sort(ss)
	return strings.Join(ss, ", ")
}

func period(p *registrypb.Period) string {
	if p == nil {
		return ""
	}
	return names.Date(p.From).String() + " to " + names.Date(p.Until).String()
}

func roleName(r nodepb.Role) string { return cmp.Or(roleWords[r.String()], r.String()) }

func join(ns []names.NodeID) string {
	ss := make([]string, len(ns))
	for i, n := range ns {
		ss[i] = show(n)
	}
	if len(ss) < 2 {
		return strings.Join(ss, "")
	}
	return strings.Join(ss[:len(ss)-1], ", ") + " and " + ss[len(ss)-1]
}

func say(ns []names.NodeID) string {
	if len(ns) == 1 {
		return " says "
	}
	return " say "
}
