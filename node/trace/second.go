package trace

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// ofSecond are what the entries of one exchange must agree on about its second clearance.
var ofSecond = []attribute{
	{"the second clearance (by its id)", func(e *nodepb.Entry) string { return short(e.GetSecondClearance().GetId()) }, false},
	{"the second clearance (by its hash)", func(e *nodepb.Entry) string { return short(e.GetSecondClearance().GetHash()) }, false},
	{"the second clearing peer", func(e *nodepb.Entry) string { return ref(e.GetSecondClearance().GetClearer()) }, false},
}

// seconds gives the ids of clearances that stand second beside another one. One under
// which anything was presented stands by itself, whoever calls it second: so nothing that
// happened can be hidden behind another exchange.
func (b *builder) seconds() map[string]bool {
	ids := map[string]bool{}
	for _, e := range b.entries {
		if s := e.SecondClearance; len(s.GetId()) > 0 && !bytes.Equal(s.Id, e.ClearanceId) {
			ids[string(s.Id)] = true
		}
	}
	for _, e := range b.entries {
		if e.Event != nodepb.Event_DECIDED && e.Event != nodepb.Event_EXPIRED_UNUSED {
			delete(ids, string(e.ClearanceId))
		}
	}
	return ids
}

// secondPart is the envelope of an entry's second clearance, the last of its evidence.
func secondPart(e *nodepb.Entry, s *shownEvidence) []part {
	if e.SecondClearance == nil || e.Event == nodepb.Event_DECIDED {
		return nil
	}
	s.second = new(registrypb.Clearance)
	return []part{{envelope.Clearance, secondWord, e.SecondClearance.Hash, s.second, func() string { return s.second.GetClearer().GetInstitution() }}}
}

const secondWord = "second clearance"

// ofSecondGranted holds an entry to what its second clearance says.
func ofSecondGranted(e *nodepb.Entry, c *registrypb.Clearance) []said {
	return []said{
		{"the second clearance", bytes.Equal(e.SecondClearance.Id, c.Id)},
		{"the second clearing peer", proto.Equal(e.SecondClearance.Clearer, c.Clearer)},
		{"the ticket", e.Ticket == c.Ticket},
		{"the request (by its hash)", bytes.Equal(e.RequestHash, c.RequestHash)},
		{"the requester", proto.Equal(e.Requester, c.Requester)},
		{"the supplier", e.Supplier.GetInstitution() == c.Supplier},
		{"the subject", proto.Equal(e.Subject, c.Subject)},
		{"the dataset", e.Dataset == c.Dataset},
		{"the period", proto.Equal(e.Period, c.Period)},
		{"the purpose", e.Purpose == c.Purpose && e.Mode == c.Mode},
		{"the permitted fields", slices.Equal(e.Fields, c.Fields)},
		{"the withheld fields", slices.Equal(e.Withheld, c.Withheld)},
		{"the authorization", e.Authorization == c.Authorization},
		{"the mandate", proto.Equal(e.Mandate, c.Mandate)},
	}
}

// checkSecond checks what two peers cleared together, beside what checkClearance does.
func (b *builder) checkSecond(g []held) {
	at := slices.IndexFunc(g, func(e held) bool { return e.SecondClearance != nil })
	if at < 0 {
		return
	}
	scope := " of clearance " + short(g[0].ClearanceId)
	b.agree(scope, g, ofSecond)
	w := g[at]
	second := nodeID(w.SecondClearance.Clearer)
	for _, e := range g {
		told := e.Role == nodepb.Role_SUPPLIER || e.Role == nodepb.Role_CONSULTANT
		if told && e.SecondClearance == nil && hasData(e.Entry) {
			b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s tells of data under one clearance, where others tell of two.", e.sequence, show(e.node))
		}
	}
	for _, i := range []string{w.Clearer.GetInstitution(), w.Requester.GetInstitution(), w.Supplier.GetInstitution()} {
		if i == string(second.Institution) {
			b.find(Disagreement, []names.NodeID{second}, "%s cleared second what it had already a part in.", second.Institution)
			break
		}
	}
	var decided *held
	for i, e := range b.entries {
		if e.Event == nodepb.Event_DECIDED && bytes.Equal(e.ClearanceId, w.SecondClearance.Id) {
			decided = &b.entries[i]
		}
	}
	switch {
	case decided == nil && b.shown(second):
		b.find(Disagreement, []names.NodeID{second}, "%s shows no decision for the second clearance %s.", show(second), short(w.SecondClearance.Id))
	case decided != nil && decided.Outcome != registrypb.Outcome_PERMIT:
		b.find(Disagreement, []names.NodeID{decided.node}, "%s did not permit what its clearance %s was used for.", show(decided.node), short(w.SecondClearance.Id))
	case decided != nil:
		for _, a := range []attribute{ofClearance[2], ofClearance[3]} { // supplier and authorization
			if x, y := a.of(w.Entry), a.of(decided.Entry); x != y {
				b.find(Disagreement, []names.NodeID{decided.node}, "The two clearing peers disagree about %s.", a.name)
			}
		}
		if list(w.Fields) != list(decided.Fields) {
			b.find(Disagreement, []names.NodeID{decided.node}, "The two clearing peers permitted different fields.")
		}
	}
}
