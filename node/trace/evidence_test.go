package trace

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var everyEntry = []struct {
	node  names.NodeID
	event nodepb.Event
}{
	{pcsa, nodepb.Event_REQUESTED}, {rrn, nodepb.Event_DECIDED}, {nsso, nodepb.Event_SUPPLIED}, {pcsa, nodepb.Event_ANSWERED},
}

// TestSpoiltEvidence takes away, alters and puts in another's place each signed
// message of each entry, one at a time: the node in whose journal it stands is named,
// and nobody else.
func TestSpoiltEvidence(t *testing.T) {
	thief := names.NodeID{Institution: "fisc", Node: "n1"}
	for _, at := range everyEntry {
		for i := range permitted().at(at.node, at.event).Evidence {
			for what, spoil := range map[string]func(*nodepb.Entry){
				"missing": func(e *nodepb.Entry) { e.Evidence = e.Evidence[:i] },
				"altered": func(e *nodepb.Entry) {
					e.Evidence[i] = bytes.Clone(e.Evidence[i])
					e.Evidence[i][len(e.Evidence[i])/2] ^= 1
				},
				"garbage": func(e *nodepb.Entry) { e.Evidence[i] = []byte("\xff\xff") },
				"of another kind": func(e *nodepb.Entry) {
					e.Evidence[i] = sign(envelope.Grant, rrn, &registrypb.Grant{Mesh: "test.example"})
				},
				"signed by another": func(e *nodepb.Entry) {
					opened := e.Evidence[i]
					for kind, m := range map[envelope.Type]func() []byte{
						envelope.Request:   func() []byte { return sign(envelope.Request, thief, theRequest()) },
						envelope.Clearance: func() []byte { return sign(envelope.Clearance, thief, theClearance()) },
						envelope.Answer:    func() []byte { return sign(envelope.Answer, thief, theAnswer()) },
					} {
						if _, err := envelope.Open(kind, opened); err == nil {
							e.Evidence[i] = m()
						}
					}
				},
			} {
				s := permitted()
				spoil(s.at(at.node, at.event))
				story := build(s.segments())
				if story.Verdict != Contradicted {
					t.Errorf("%d of %s at %s %s: %s", i, at.event, at.node, what, story.Verdict)
				}
				for _, f := range story.Findings {
					if f.Kind.verdict() == Contradicted && !slices.Equal(f.By, []string{at.node.String()}) {
						t.Errorf("%d of %s at %s %s: %v is accused: %s", i, at.event, at.node, what, f.By, f.Says)
					}
				}
			}
		}
	}
}

// TestEntryAgainstItsEvidence lets all nodes tell the same lie: the journals agree,
// and still nobody gets away with it.
func TestEntryAgainstItsEvidence(t *testing.T) {
	for what, lie := range map[string]func(*nodepb.Entry){
		"user":    func(e *nodepb.Entry) { e.User = "u-018" },
		"level":   func(e *nodepb.Entry) { e.AuthLevel = 4 },
		"purpose": func(e *nodepb.Entry) { e.Purpose = "curiosity" },
		"subject": func(e *nodepb.Entry) { e.Subject = &registrypb.Subject{Scheme: "ssin", Number: "03022814690"} },
		"period":  func(e *nodepb.Entry) { e.Period = &registrypb.Period{From: 1, Until: 2} },
		"fields": func(e *nodepb.Entry) {
			if len(e.ClearanceId) > 0 {
				e.Fields = []string{"gross"}
			}
		},
		"authorization": func(e *nodepb.Entry) {
			if len(e.ClearanceId) > 0 {
				e.Authorization = "auth-other"
			}
		},
		"commitment": func(e *nodepb.Entry) {
			if len(e.AnswerCommitment) > 0 {
				e.AnswerCommitment = hash("another")
			}
		},
	} {
		s := permitted()
		for _, es := range s {
			for _, e := range es {
				lie(e)
			}
		}
		if story := build(s.segments()); story.Verdict != Contradicted {
			t.Errorf("all lie about the %s: %s", what, text(t, story))
		}
	}
}

// TestClearingMoreThanAsked: what a clearing peer signed convicts it, whatever the
// others wrote, and although the requester's journal cannot be read.
func TestClearingMoreThanAsked(t *testing.T) {
	c := theClearance()
	c.Fields = append(c.Fields, "partner")
	signed := sign(envelope.Clearance, rrn, c)
	s := permitted()
	e := s.at(rrn, nodepb.Event_DECIDED)
	e.Fields, e.ClearanceHash, e.Evidence[1] = c.Fields, sum(signed), signed
	story := build(map[names.NodeID]Segment{rrn: s.segments()[rrn], pcsa: {Err: errors.New("down")}})
	if f := Disagreement.in(story); f == nil || !slices.Equal(f.By, []string{rrn.String()}) || !strings.Contains(f.Says, "partner") {
		t.Fatal(text(t, story))
	}
}

// TestWithoutKeys: what cannot be verified is said to be so.
func TestWithoutKeys(t *testing.T) {
	for name, means := range map[string]Means{
		"no keys at hand": {},
		"unknown":         {Keys: func(names.InstitutionID) ([]ed25519.PublicKey, error) { return nil, nil }},
		"failing":         {Keys: func(names.InstitutionID) ([]ed25519.PublicKey, error) { return nil, errors.New("disk") }},
	} {
		story := Build(ticket, permitted().segments(), means)
		if story.Verdict != Incomplete || Unverified.in(story) == nil {
			t.Errorf("%s: %s", name, text(t, story))
		}
	}
}

// TestRefusedForgery: a supplier that refused a forged clearance did right, and what
// it was shown is labelled as nobody's word.
func TestRefusedForgery(t *testing.T) {
	forged := sign(envelope.Clearance, pcsa, theClearance())
	s := permitted()
	e := entry(nodepb.Role_SUPPLIER, nodepb.Event_REFUSED, 24*time.Millisecond, nil)
	e.Supplier, e.ClearanceId, e.ClearanceHash, e.Fields = node(nsso), hash("id")[:16], sum(forged), nil
	e.Evidence[1] = forged
	e.Status, e.Reason = nodepb.Status_NO_RESULT, registrypb.Reason_CLEARANCE_INVALID
	s[nsso] = []*nodepb.Entry{e}
	story := build(s.segments())
	for _, f := range story.Findings {
		if f.Kind == Altered {
			t.Errorf("%v: %s", f.By, f.Says)
		}
	}
	if !slices.ContainsFunc(story.Findings, func(f Finding) bool {
		return f.Kind == Asserted && slices.Contains(f.By, nsso.String())
	}) {
		t.Fatal(text(t, story))
	}
}

// TestSignedRefusal: a refusal that its clearing peer signed is no longer only the
// consultant's word, and one that the peer's journal does not show is held against it.
func TestSignedRefusal(t *testing.T) {
	signed := func(spoil func(*registrypb.Decision), by names.NodeID) scene {
		s := refused()
		d := &registrypb.Decision{Mesh: "test.example", Ticket: string(ticket), Clearer: node(rrn), Requester: node(pcsa), RequestHash: sum(signedRequest),
			Outcome: registrypb.Outcome_DENY, Reason: registrypb.Reason_NOT_INTEGRATED}
		spoil(d)
		raw := sign(envelope.Decision, by, d)
		s.at(pcsa, nodepb.Event_ANSWERED).Evidence = [][]byte{raw}
		s.at(rrn, nodepb.Event_DECIDED).Evidence = [][]byte{signedRequest, raw}
		return s
	}
	as := func(*registrypb.Decision) {}
	good := signed(as, rrn)
	if story := build(good.segments()); story.Verdict != Consistent {
		t.Error(text(t, story))
	}
	good[rrn] = nil
	if f := Disagreement.in(build(good.segments())); f == nil || !slices.Equal(f.By, []string{rrn.String()}) {
		t.Errorf("%+v", f)
	}
	for what, s := range map[string]scene{
		"by another":  signed(as, nsso),
		"other":       signed(func(d *registrypb.Decision) { d.Reason = registrypb.Reason_NOT_ALLOWED }, rrn),
		"of another":  signed(func(d *registrypb.Decision) { d.RequestHash = hash("x") }, rrn),
		"other index": signed(func(d *registrypb.Decision) { d.RegistryIndex = 1 }, rrn),
	} {
		if story := build(s.segments()); story.Verdict != Contradicted {
			t.Errorf("%s: %s", what, text(t, story))
		}
	}
}

// TestToldRefusal: a refusal that its clearing peer did not write down.
func TestToldRefusal(t *testing.T) {
	s := refused()
	s[rrn] = nil
	if f := Disagreement.in(build(s.segments())); f == nil || !slices.Contains(f.By, rrn.String()) {
		t.Errorf("%+v", f)
	}
	delete(s, rrn)
	if story := build(s.segments()); story.Verdict != Incomplete || !strings.Contains(text(t, story), "Only pcsa-ghent/n1 says") {
		t.Error(text(t, story))
	}
}
