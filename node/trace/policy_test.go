package trace

import (
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// policy is what a node notes when its own policy refuses a question.
func policy() *nodepb.Entry {
	return entry(nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED, 0, func(e *nodepb.Entry) {
		e.RequestHash = nil
		e.Outcome, e.Reason, e.Status = registrypb.Outcome_DENY, registrypb.Reason_LOCAL_POLICY, nodepb.Status_NO_RESULT
	})
}

// TestOwnPolicy: a question that never left the node has no request to show.
func TestOwnPolicy(t *testing.T) {
	story := build(scene{pcsa: {policy()}}.segments())
	if story.Verdict != Consistent || story.Refusal == nil || story.Refusal.Reason != "LOCAL_POLICY" {
		t.Fatal(text(t, story))
	}
}

// TestOwnPolicyIsNoCover: who says so of a ticket that others know too is contradicted.
func TestOwnPolicyIsNoCover(t *testing.T) {
	s := permitted()
	s[pcsa] = []*nodepb.Entry{policy()}
	if story := build(s.segments()); story.Verdict != Contradicted {
		t.Fatal(text(t, story))
	}
	for name, spoil := range map[string]func(*nodepb.Entry){
		"data":      func(e *nodepb.Entry) { e.Status = nodepb.Status_DATA_FOUND },
		"clearer":   func(e *nodepb.Entry) { e.Clearer = node(rrn) },
		"clearance": func(e *nodepb.Entry) { e.ClearanceId = hash("id")[:16] },
		"supplier":  func(e *nodepb.Entry) { e.Role = nodepb.Role_SUPPLIER },
	} {
		e := policy()
		spoil(e)
		if story := build(scene{pcsa: {e}}.segments()); story.Verdict == Consistent {
			t.Errorf("%s: %s", name, text(t, story))
		}
	}
}
