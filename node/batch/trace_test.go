package batch

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The story of a lot is consistent, sums up and names nobody; a consultant that drops or
// turns lines in its own account, and a supplier that tells otherwise, are found out.
func TestTraceOfLot(t *testing.T) {
	const n = 120
	w := newWorld(t, n)
	l := w.submit(question("inquiry"), file(0, n))
	w.nodes["pcsa"].run(l.Voucher)
	all := map[names.NodeID][]journal.Stored{}
	for _, node := range w.nodes {
		found, err := node.journal.Find(t.Context(), journal.Query{Ticket: l.Voucher, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			all[node.id] = found
		}
	}
	keys := func(i names.InstitutionID) ([]ed25519.PublicKey, error) {
		return []ed25519.PublicKey{recordtest.Public(string(i))}, nil
	}
	build := func(who string, change func(*nodepb.Entry)) *trace.Story {
		segments := map[names.NodeID]trace.Segment{}
		for id, found := range all {
			seg := trace.Own(found)
			for i, f := range found {
				if string(id.Institution) == who {
					e := proto.Clone(f.Entry).(*nodepb.Entry)
					change(e) // and commits to it: it is the node's own journal
					raw := marshalled(e)
					c := journal.EntryCommitment(f.Salt, raw)
					seg.Entries[i] = &nodepb.StoredEntry{Sequence: f.Sequence, Entry: raw, Salt: f.Salt[:], Commitment: c[:]}
				}
			}
			segments[id] = seg
		}
		return trace.Build(l.Voucher, segments, trace.Means{Keys: keys})
	}
	story := build("", nil)
	var text strings.Builder
	if err := story.Write(&text); err != nil {
		t.Fatal(err)
	}
	if story.Verdict != trace.Consistent || story.Lot.Asked != n || len(story.Lot.Suppliers) != 2 {
		t.Fatalf("%s: %+v\n%s", story.Verdict, story.Lot, text.String())
	}
	for i := range n {
		if strings.Contains(text.String(), recordtest.Person(i)) {
			t.Fatal("it names a subject")
		}
	}
	for name, lie := range map[string]struct {
		who    string
		event  nodepb.Event
		change func(*nodepb.Entry)
	}{
		"drops subjects it asked about":  {"pcsa", nodepb.Event_REQUESTED, func(e *nodepb.Entry) { dropOne(e) }},
		"drops subjects it was answered": {"pcsa", nodepb.Event_ANSWERED, func(e *nodepb.Entry) { dropOne(e) }},
		"tells another result":           {"pcsa", nodepb.Event_ANSWERED, func(e *nodepb.Entry) { e.Lot.Groups[0].Status = nodepb.Status_NO_DATA_FOUND }},
		"tells another answer":           {"office", nodepb.Event_SUPPLIED, func(e *nodepb.Entry) { e.AnswerCommitment[0] ^= 1 }},
		"hides whom it was asked about":  {"office", nodepb.Event_SUPPLIED, func(e *nodepb.Entry) { dropOne(e) }},
	} {
		done := false
		story := build(lie.who, func(e *nodepb.Entry) {
			if e.Event == lie.event && !done && len(e.Lot.GetGroups()) > 0 && (lie.event != nodepb.Event_ANSWERED || len(e.AnswerCommitment) > 0) {
				done = true
				lie.change(e)
			}
		})
		if !done || story.Verdict != trace.Contradicted {
			t.Errorf("%s %s: %s", lie.who, name, story.Verdict)
		}
	}
}

func dropOne(e *nodepb.Entry) {
	g := e.Lot.Groups[0]
	g.Subjects = proto.Clone(g.Subjects).(*registrypb.Subjects)
	g.Subjects.Numbers = g.Subjects.Numbers[5:]
}
