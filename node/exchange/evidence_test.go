package exchange

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// TestEvidence wants the signed messages beside the entries that rest on them, in all
// three places, and no content anywhere.
func TestEvidence(t *testing.T) {
	w := newWorld(t)
	w.mustConsult(question())
	want := map[nodepb.Event][]envelope.Type{
		nodepb.Event_REQUESTED: {envelope.Request},
		nodepb.Event_DECIDED:   {envelope.Request, envelope.Clearance},
		nodepb.Event_SUPPLIED:  {envelope.Request, envelope.Clearance, envelope.Answer},
		nodepb.Event_ANSWERED:  {envelope.Clearance, envelope.Answer},
	}
	seen := make(map[nodepb.Event]bool)
	for id, n := range w.nodes {
		for _, e := range n.journal.all() {
			if types, ok := want[e.GetEvent()]; ok {
				seen[e.GetEvent()] = true
				checkEvidence(t, id.String(), e, types)
			}
			raw, err := proto.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(raw, []byte("1500")) {
				t.Errorf("%s: %s holds content", id, e.GetEvent())
			}
		}
	}
	if len(seen) != len(want) {
		t.Errorf("only %v were journaled", seen)
	}
}

func checkEvidence(t *testing.T, at string, e *nodepb.Entry, types []envelope.Type) {
	t.Helper()
	if len(e.Evidence) != len(types) {
		t.Errorf("%s: %s rests on %d envelopes, want %v", at, e.GetEvent(), len(e.Evidence), types)
		return
	}
	for i, kind := range types {
		if _, err := envelope.Open(kind, e.Evidence[i]); err != nil {
			t.Errorf("%s: %s: %v", at, e.GetEvent(), err)
		}
		if kind == envelope.Request && !bytes.Equal(sum(e.Evidence[i]), e.GetRequestHash()) {
			t.Errorf("%s: %s shows another request", at, e.GetEvent())
		}
		if kind == envelope.Clearance && !bytes.Equal(sum(e.Evidence[i]), e.GetClearanceHash()) {
			t.Errorf("%s: %s shows another clearance", at, e.GetEvent())
		}
	}
}
