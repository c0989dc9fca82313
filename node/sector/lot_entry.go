package sector

import (
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// lotEntry begins an entry with what a chunk's order and clearance, or its outline, say.
func lotEntry(now time.Time, role nodepb.Role, event nodepb.Event, p *chunk.Presented, from names.NodeID) *nodepb.Entry {
	o, c := p.Order, p.Clearance
	return &nodepb.Entry{
		TimeUnixMs: now.UnixMilli(), Role: role, Event: event, Ticket: string(o.Ticket), ClientTicket: o.ClientTicket,
		Requester: nodeRef(from), Clearer: c.Clearer, User: o.User, Application: o.Application, Channel: o.Channel, AuthLevel: o.AuthLevel,
		Purpose: o.Purpose, Mode: string(names.Batch), Dataset: o.Dataset, Period: o.Period, RequestHash: c.RequestHash, ClearanceId: c.Id,
		Fields: c.Groups[0].Fields, Withheld: c.Groups[0].Withheld,
	}
}

// fate is what an item means in the words of the network.
func fate(i content.Item) (nodepb.Status, registrypb.Reason) {
	switch i.Code {
	case content.None:
		return nodepb.Status_NO_DATA_FOUND, 0
	case content.Failed:
		return nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_ERROR
	case content.Unresolved:
		return nodepb.Status_NO_RESULT, registrypb.Reason_SECTOR_FAILED
	}
	return nodepb.Status_DATA_FOUND, 0
}

// summed is the status of an answer with these items.
func summed(items []content.Item) nodepb.Status {
	var good, bad, data bool
	for _, i := range items {
		s, _ := fate(i)
		good, bad, data = good || s != nodepb.Status_NO_RESULT, bad || s == nodepb.Status_NO_RESULT, data || s == nodepb.Status_DATA_FOUND
	}
	switch {
	case !good:
		return nodepb.Status_NO_RESULT
	case bad:
		return nodepb.Status_INCOMPLETE_DATA
	case data:
		return nodepb.Status_DATA_FOUND
	}
	return nodepb.Status_NO_DATA_FOUND
}

// grouping sorts subjects by how they were cleared and fared, as an entry holds them.
type grouping struct {
	scheme subject.Scheme
	groups []*fared
}

type fared struct {
	cleared *clearing.Checked
	entry   *nodepb.LotSubjects
	numbers []string
}

func (g *grouping) add(c *clearing.Checked, number string, status nodepb.Status, reason registrypb.Reason) {
	at := slices.IndexFunc(g.groups, func(f *fared) bool { return f.cleared == c && f.entry.Status == status && f.entry.Reason == reason })
	if at < 0 {
		at = len(g.groups)
		g.groups = append(g.groups, &fared{cleared: c, entry: &nodepb.LotSubjects{
			Outcome: registrypb.Outcome_PERMIT, Status: status, Reason: reason, Authorization: c.Authorization.GetId(),
			Deliberation: c.Authorization.GetDeliberation(), Fields: texts(c.Fields), Withheld: texts(c.Withheld),
		}})
	}
	g.groups[at].numbers = append(g.groups[at].numbers, number)
}

func (g *grouping) all() (out []*nodepb.LotSubjects) {
	for _, f := range g.groups {
		f.entry.Subjects = packed.Of(g.scheme, f.numbers)
		out = append(out, f.entry)
	}
	return out
}

// lotSubjects gives the lists of subjects that an entry holds.
func lotSubjects(e *nodepb.Entry) (lists []*registrypb.Subjects) {
	for _, g := range e.GetLot().GetGroups() {
		lists = append(lists, g.GetSubjects())
	}
	return lists
}

// numbersOf gives the numbers in lists, sorted.
func numbersOf(lists ...*registrypb.Subjects) (all []string) {
	for _, s := range lists {
		for _, n := range packed.All(s) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}
