package trace

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// What was ruled on a publication is found with it, whoever shows either, each once; what
// stood aside, or was never believed, is not.
func TestRulingsOnPublications(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(kind envelope.Type, payload string) []byte {
		raw, err := envelope.Sign(kind, []byte(payload), key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	publication := sign(envelope.Publication, "publication")
	clearance, silent := sign(envelope.NotificationClearance, "clearance"), sign(envelope.NotificationDecision, "nobody")
	aside, invalid, disbelieved := sign(envelope.NotificationDecision, "aside"), sign(envelope.NotificationDecision, "invalid"), sign(envelope.NotificationClearance, "x")
	hash := sha256.Sum256(publication)
	entry := func(event nodepb.Event, outcome registrypb.Outcome, reason registrypb.Reason, evidence ...[]byte) journal.Stored {
		e := &nodepb.Entry{TimeUnixMs: 1, Event: event, Outcome: outcome, Reason: reason, RequestHash: hash[:], Evidence: evidence}
		raw, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		s := journal.Stored{Entry: e, Raw: raw}
		s.Commitment = journal.EntryCommitment(s.Salt, raw)
		return s
	}
	const none, permit, deny = registrypb.Outcome_OUTCOME_UNSPECIFIED, registrypb.Outcome_PERMIT, registrypb.Outcome_DENY
	publisher := Own([]journal.Stored{
		entry(nodepb.Event_PUBLISHED, none, 0, publication), entry(nodepb.Event_ADDRESSED, permit, 0, silent), entry(nodepb.Event_ADDRESSED, none, 0, aside),
		entry(nodepb.Event_ADDRESSED, deny, registrypb.Reason_PUBLICATION_INVALID, invalid), entry(nodepb.Event_NOTICE_SENT, none, 0, clearance, []byte("notice")),
	})
	recipient := Own([]journal.Stored{
		entry(nodepb.Event_NOTICE_RECEIVED, none, 0, publication, clearance, []byte("notice")), entry(nodepb.Event_NOTICE_REFUSED, none, 0, publication, disbelieved),
	})
	got := Rulings(map[names.NodeID]Segment{{Institution: "a", Node: "n1"}: publisher, {Institution: "b", Node: "n1"}: recipient})
	if len(got) != 2 || !bytes.Equal(got[0].Ruling, silent) || !bytes.Equal(got[1].Ruling, clearance) {
		t.Fatalf("%d rulings: %q", len(got), got)
	}
	for _, r := range got {
		if !bytes.Equal(r.Request, publication) {
			t.Errorf("%q", r)
		}
	}
}
