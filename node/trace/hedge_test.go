package trace

import (
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestTwoNodesReleased: a second node of the supplier answered as well, which the
// consultant asked because the first was slow. That contradicts nothing; and it hides
// nothing that the node which was believed did otherwise.
func TestTwoNodesReleased(t *testing.T) {
	other := names.NodeID{Institution: "nsso", Node: "n1"} // before n2 in every order
	s := permitted()
	theirs := theAnswer()
	theirs.Supplier, theirs.Commitment = node(other), hash("blinded otherwise")
	s[other] = []*nodepb.Entry{entry(nodepb.Role_SUPPLIER, nodepb.Event_SUPPLIED, 25*time.Millisecond, func(e *nodepb.Entry) {
		answered(e)
		e.Supplier, e.AnswerCommitment = node(other), theirs.Commitment
	})}
	s[other][0].Evidence[2] = sign(envelope.Answer, other, theirs)
	story := build(s.segments())
	if f := Hedged.in(story); story.Verdict != Consistent || f == nil {
		t.Fatalf("%s\n%s", story.Verdict, text(t, story))
	}

	s[nsso] = nil // whose answer the consultant says it took
	if story := build(s.segments()); story.Verdict != Contradicted {
		t.Errorf("the answer that was taken stands in no journal: %s\n%s", story.Verdict, text(t, story))
	}
}
