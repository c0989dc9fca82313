package trace

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var update = flag.Bool("update", false, "write the golden files anew")

const secret = "74071238186"

var (
	pcsa  = names.NodeID{Institution: "pcsa-ghent", Node: "n1"}
	rrn   = names.NodeID{Institution: "national-register", Node: "n1"}
	nsso  = names.NodeID{Institution: "nsso", Node: "n2"}
	start = time.Date(2026, 11, 23, 9, 41, 7, 120e6, time.UTC)
)

// What the parties signed in a consultation that went well.
var (
	signedRequest   = sign(envelope.Request, pcsa, theRequest())
	signedClearance = sign(envelope.Clearance, rrn, theClearance())
	signedAnswer    = sign(envelope.Answer, nsso, theAnswer())
	ticket          = names.TicketOf(signedRequest)
)

func keyOf(i names.InstitutionID) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(hash(string(i))) }

func keysOf(i names.InstitutionID) ([]ed25519.PublicKey, error) {
	return []ed25519.PublicKey{keyOf("retired " + i).Public().(ed25519.PublicKey), keyOf(i).Public().(ed25519.PublicKey)}, nil
}

func sign(t envelope.Type, by names.NodeID, m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	signed, err := envelope.Sign(t, raw, keyOf(by.Institution))
	if err != nil {
		panic(err)
	}
	return signed
}

func theRequest() *registrypb.Request {
	return &registrypb.Request{
		Mesh: "test.example", Nonce: hash("nonce")[:16], Requester: node(pcsa), ClientTicket: "inquiry-2026-0042", User: "u-017",
		AuthLevel: 3, Application: "social-inquiry", Channel: "api", Purpose: "living-wage-inquiry", Mode: "consultation",
		Dataset: "wages-quarterly/v1", Fields: []string{"employer", "gross", "quarter"},
		Subject: &registrypb.Subject{Scheme: "ssin", Number: secret},
		Period:  &registrypb.Period{From: 20454, Until: 20543}, TimeUnixMs: start.UnixMilli(),
	}
}

func theClearance() *registrypb.Clearance {
	r := theRequest()
	return &registrypb.Clearance{
		Mesh: r.Mesh, Id: hash("id")[:16], Ticket: string(names.TicketOf(signedRequest)), Clearer: node(rrn), Requester: r.Requester,
		Supplier: "nsso", RequestHash: sum(signedRequest), Subject: r.Subject, Dataset: r.Dataset, Fields: []string{"gross", "quarter"},
		Withheld: []string{"employer"}, Period: r.Period, Purpose: r.Purpose, Mode: r.Mode, Authorization: "auth-pcsa-wages",
		RegistryIndex: 4711, PresentByUnixMs: start.Add(2 * time.Second).UnixMilli(),
	}
}

func theAnswer() *nodepb.Answer {
	return &nodepb.Answer{
		Mesh: "test.example", Ticket: string(names.TicketOf(signedRequest)), Supplier: node(nsso), RequestHash: sum(signedRequest),
		ClearanceHash: sum(signedClearance), Status: nodepb.Status_DATA_FOUND, Commitment: hash("answer"),
	}
}

func sum(b []byte) []byte { h := sha256.Sum256(b); return h[:] }

func hash(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

func node(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

// scene is a consultation that went well; tests spoil it.
type scene map[names.NodeID][]*nodepb.Entry

func (s scene) at(n names.NodeID, e nodepb.Event) *nodepb.Entry {
	for _, x := range s[n] {
		if x.Event == e {
			return x
		}
	}
	return nil
}

func asked() *nodepb.Entry {
	return &nodepb.Entry{
		Ticket: string(ticket), ClientTicket: "inquiry-2026-0042", Requester: node(pcsa), User: "u-017", AuthLevel: 3,
		Application: "social-inquiry", Channel: "api", Purpose: "living-wage-inquiry", Mode: "consultation",
		Dataset: "wages-quarterly/v1", Fields: []string{"employer", "gross", "quarter"},
		Subject:     &registrypb.Subject{Scheme: "ssin", Number: secret},
		Period:      &registrypb.Period{From: 20454, Until: 20543},
		RequestHash: sum(signedRequest),
	}
}

func entry(role nodepb.Role, event nodepb.Event, after time.Duration, set func(*nodepb.Entry)) *nodepb.Entry {
	e := asked()
	e.Role, e.Event, e.TimeUnixMs = role, event, start.Add(after).UnixMilli()
	if set != nil {
		set(e)
	}
	return evident(e)
}

// evident puts the signed messages beside an entry, as a node does.
func evident(e *nodepb.Entry) *nodepb.Entry {
	var s shownEvidence
	e.Evidence = nil
	if e.Event == nodepb.Event_REFUSED {
		e.Evidence = [][]byte{signedRequest, signedClearance}
	}
	for _, p := range expected(e, &s)[len(e.Evidence):] {
		e.Evidence = append(e.Evidence, map[envelope.Type][]byte{
			envelope.Request: signedRequest, envelope.Clearance: signedClearance, envelope.Answer: signedAnswer}[p.kind])
	}
	return e
}

func build(m map[names.NodeID]Segment) *Story { return Build(ticket, m, Means{Keys: keysOf}) }

func cleared(e *nodepb.Entry) {
	e.Outcome = registrypb.Outcome_PERMIT
	e.Clearer, e.Supplier = node(rrn), &registrypb.NodeRef{Institution: "nsso"}
	e.Fields, e.Withheld = []string{"gross", "quarter"}, []string{"employer"}
	e.Authorization, e.Deliberation = "auth-pcsa-wages", "DEMO-2024/017"
	e.ClearanceId, e.ClearanceHash = hash("id")[:16], sum(signedClearance)
	e.RegistryIndex, e.PresentByUnixMs = 4711, start.Add(2*time.Second).UnixMilli()
}

func answered(e *nodepb.Entry) {
	cleared(e)
	e.Supplier = node(nsso)
	e.Status, e.AnswerCommitment = nodepb.Status_DATA_FOUND, hash("answer")
}

func permitted() scene {
	return scene{
		pcsa: {entry(nodepb.Role_CONSULTANT, nodepb.Event_REQUESTED, 0, nil),
			entry(nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED, 31*time.Millisecond, answered)},
		rrn:  {entry(nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, 6*time.Millisecond, cleared)},
		nsso: {entry(nodepb.Role_SUPPLIER, nodepb.Event_SUPPLIED, 24*time.Millisecond, answered)},
	}
}

func refused() scene {
	no := func(e *nodepb.Entry) {
		e.Outcome, e.Reason, e.Clearer = registrypb.Outcome_DENY, registrypb.Reason_NOT_INTEGRATED, node(rrn)
	}
	return scene{
		pcsa: {entry(nodepb.Role_CONSULTANT, nodepb.Event_REQUESTED, 0, nil),
			entry(nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED, 9*time.Millisecond, func(e *nodepb.Entry) {
				no(e)
				e.Status = nodepb.Status_NO_RESULT
			})},
		rrn: {entry(nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, 5*time.Millisecond, no)},
	}
}

// store seals entries as a journal would.
func store(sequence uint64, e *nodepb.Entry) *nodepb.StoredEntry {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		panic(err)
	}
	salt := sha256.Sum256(raw)
	c := journal.EntryCommitment(salt, raw)
	return &nodepb.StoredEntry{Sequence: sequence, Entry: raw, Salt: salt[:], Commitment: c[:]}
}

func (s scene) segments() map[names.NodeID]Segment {
	m := map[names.NodeID]Segment{}
	for n, es := range s {
		var seg Segment
		for i, e := range es {
			seg.Entries = append(seg.Entries, store(uint64(100+i), e))
		}
		m[n] = seg
	}
	return m
}

func text(t *testing.T, s *Story) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (k Kind) in(s *Story) *Finding {
	for i := range s.Findings {
		if s.Findings[i].Kind == k {
			return &s.Findings[i]
		}
	}
	return nil
}

// TestGolden shows whole stories as people read them.
func TestGolden(t *testing.T) {
	for name, segments := range map[string]func() map[names.NodeID]Segment{
		"permitted": func() map[names.NodeID]Segment { return permitted().segments() },
		"refused":   func() map[names.NodeID]Segment { return refused().segments() },
		"missing": func() map[names.NodeID]Segment {
			m := permitted().segments()
			m[nsso] = Segment{Err: errors.New("no answer within 2 s")}
			return m
		},
		"contradicted": func() map[names.NodeID]Segment {
			s := permitted()
			s.at(nsso, nodepb.Event_SUPPLIED).Dataset = "pensions/v1"
			s.at(nsso, nodepb.Event_SUPPLIED).Subject.Number = "03022814690"
			s.at(nsso, nodepb.Event_SUPPLIED).AnswerCommitment = hash("another")
			return s.segments()
		},
		"altered": func() map[names.NodeID]Segment {
			m := permitted().segments()
			m[rrn].Entries[0].Entry[20] ^= 1
			return m
		},
		"expired": func() map[names.NodeID]Segment {
			s := permitted()
			s[pcsa][1] = entry(nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED, 4*time.Second, func(e *nodepb.Entry) {
				cleared(e)
				e.Status, e.Reason = nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_UNAVAILABLE
			})
			s[pcsa] = append(s[pcsa], entry(nodepb.Role_CONSULTANT, nodepb.Event_EXPIRED_UNUSED, 5*time.Second, cleared))
			s[nsso] = nil
			return s.segments()
		},
		"nothing": func() map[names.NodeID]Segment { return map[names.NodeID]Segment{pcsa: {}} },
	} {
		t.Run(name, func(t *testing.T) {
			got := text(t, build(segments()))
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			for _, line := range strings.Split(got, "\n") {
				if utf8.RuneCountInString(line) > width {
					t.Errorf("longer than %d columns: %q", width, line)
				}
			}
		})
	}
}

// TestStoryAsJSON sends a story through JSON and back.
func TestStoryAsJSON(t *testing.T) {
	s := build(permitted().segments())
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Story
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if text(t, s) != text(t, &back) {
		t.Fatalf("the story changed on its way:\n%s", text(t, &back))
	}
}
