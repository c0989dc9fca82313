package trace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestEveryLieIsNamed lets one node at a time tell one thing otherwise.
func TestEveryLieIsNamed(t *testing.T) {
	lies := map[string]func(*nodepb.Entry){
		"request":       func(e *nodepb.Entry) { e.RequestHash = hash("x") },
		"no request":    func(e *nodepb.Entry) { e.RequestHash = nil },
		"user":          func(e *nodepb.Entry) { e.User = "u-018" },
		"level":         func(e *nodepb.Entry) { e.AuthLevel = 4 },
		"purpose":       func(e *nodepb.Entry) { e.Purpose = "curiosity" },
		"mode":          func(e *nodepb.Entry) { e.Mode = "batch" },
		"dataset":       func(e *nodepb.Entry) { e.Dataset = "pensions/v1" },
		"subject":       func(e *nodepb.Entry) { e.Subject.Number = "03022814690" },
		"period":        func(e *nodepb.Entry) { e.Period.Until++ },
		"requester":     func(e *nodepb.Entry) { e.Requester = node(names.NodeID{Institution: "fisc", Node: "n1"}) },
		"clearance":     func(e *nodepb.Entry) { e.ClearanceHash = hash("x") },
		"clearance id":  func(e *nodepb.Entry) { e.ClearanceId = hash("x")[:16] },
		"clearer":       func(e *nodepb.Entry) { e.Clearer = node(names.NodeID{Institution: "fisc", Node: "n1"}) },
		"self-clearing": func(e *nodepb.Entry) { e.Clearer = node(pcsa) },
		"no clearance":  func(e *nodepb.Entry) { e.ClearanceId, e.ClearanceHash = nil, nil },
		"supplier":      func(e *nodepb.Entry) { e.Supplier = node(names.NodeID{Institution: "fisc", Node: "n1"}) },
		"authorization": func(e *nodepb.Entry) { e.Authorization = "auth-other" },
		"more fields":   func(e *nodepb.Entry) { e.Fields = []string{"gross", "quarter", "employer"} },
		"withheld":      func(e *nodepb.Entry) { e.Withheld = nil; e.Withheld = []string{"gross"} },
		"index":         func(e *nodepb.Entry) { e.RegistryIndex = 1 },
		"answer":        func(e *nodepb.Entry) { e.AnswerCommitment = hash("x") },
		"no answer":     func(e *nodepb.Entry) { e.AnswerCommitment = nil },
		"result":        func(e *nodepb.Entry) { e.Status = nodepb.Status_NO_DATA_FOUND },
		"ticket":        func(e *nodepb.Entry) { e.Ticket = "another" },
	}
	onlyAnswers := []string{"answer", "no answer", "result"}
	for what, lie := range lies {
		for n, event := range map[names.NodeID]nodepb.Event{pcsa: nodepb.Event_ANSWERED, rrn: nodepb.Event_DECIDED, nsso: nodepb.Event_SUPPLIED} {
			if n == rrn && slices.Contains(onlyAnswers, what) {
				continue
			}
			s := permitted()
			lie(s.at(n, event))
			story := build(s.segments())
			if story.Verdict != Contradicted {
				t.Errorf("%s told by %s: %s\n%s", what, n, story.Verdict, text(t, story))
			}
			named := false
			for _, f := range story.Findings {
				named = named || f.Kind.verdict() == Contradicted && slices.Contains(f.By, n.String())
			}
			if !named {
				t.Errorf("%s told by %s: nobody names it\n%s", what, n, text(t, story))
			}
		}
	}
}

// TestEveryOmissionIsNamed takes one entry or one whole segment away.
func TestEveryOmissionIsNamed(t *testing.T) {
	for n, es := range permitted() {
		for i := range es {
			s := permitted()
			s[n] = slices.Delete(s[n], i, i+1)
			if story := build(s.segments()); story.Verdict == Consistent {
				t.Errorf("entry %d of %s is missing and nobody says so\n%s", i, n, text(t, story))
			}
		}
		s := permitted()
		delete(s, n)
		story := build(s.segments())
		if f := Missing.in(story); f == nil || !strings.Contains(f.Says, n.String()) {
			t.Errorf("%s was not asked and nobody says so\n%s", n, text(t, story))
		}
	}
}

// TestUndelivered: the supplier released, the consultant says it got nothing.
func TestUndelivered(t *testing.T) {
	s := permitted()
	e := s.at(pcsa, nodepb.Event_ANSWERED)
	e.Status, e.Reason, e.AnswerCommitment = nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_UNAVAILABLE, nil
	if f := Undelivered.in(build(s.segments())); f == nil || len(f.By) != 2 {
		t.Fatalf("%+v", f)
	}
}

// TestNeverPresented: a second clearing peer's answer was lost on its way.
func TestNeverPresented(t *testing.T) {
	s := permitted()
	other := names.NodeID{Institution: "pension-office", Node: "n1"}
	e := entry(nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, 3*time.Millisecond, cleared)
	lost := theClearance()
	lost.Clearer, lost.Id = node(other), hash("lost")[:16]
	e.Evidence[1] = sign(envelope.Clearance, other, lost)
	e.Clearer, e.ClearanceId, e.ClearanceHash = lost.Clearer, lost.Id, sum(e.Evidence[1])
	s[other] = []*nodepb.Entry{e}
	story := build(s.segments())
	if story.Verdict != Consistent || ExpiredUnused.in(story) == nil || len(story.Exchanges) != 2 {
		t.Fatal(text(t, story))
	}
}

// TestSteppedAside: a clearing peer that was a party and said so did no wrong.
func TestSteppedAside(t *testing.T) {
	for _, party := range []names.NodeID{nsso, pcsa} {
		s := permitted()
		s[party] = append(s[party], entry(nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, 2*time.Millisecond, func(e *nodepb.Entry) {
			e.Clearer = node(party)
		}))
		story := build(s.segments())
		if story.Verdict != Consistent || story.Refusal != nil {
			t.Fatal(text(t, story))
		}
	}
}

// TestClocks: a supplier whose clock is 5 s slow.
func TestClocks(t *testing.T) {
	s := permitted()
	s.at(nsso, nodepb.Event_SUPPLIED).TimeUnixMs -= 5000
	f := Clocks.in(build(s.segments()))
	if f == nil || !strings.Contains(f.Says, rrn.String()) || !strings.Contains(f.Says, nsso.String()) {
		t.Fatalf("%+v", f)
	}
}

// TestSubjectStaysInItsField looks for the number wherever it does not belong.
func TestSubjectStaysInItsField(t *testing.T) {
	s := permitted()
	s.at(nsso, nodepb.Event_SUPPLIED).Subject.Number = "03022814690"
	story := build(s.segments())
	if story.Subject.Number != secret {
		t.Fatalf("the subject is %q", story.Subject.Number)
	}
	story.HideSubject()
	if out := text(t, story); strings.Contains(out, secret) || strings.Contains(out, "0302281469") {
		t.Fatalf("the number shows:\n%s", out)
	}
}

// TestHostileText: control characters of a peer never reach the terminal.
func TestHostileText(t *testing.T) {
	s := permitted()
	for _, es := range s {
		for _, e := range es {
			e.User, e.Application, e.Dataset = "u\x1b[2J\u202e", "a\nFindings\n", strings.Repeat("wide", 100)
		}
	}
	m := s.segments()
	m[nsso] = Segment{Err: errors.New("bad\x1b]0;\x07" + strings.Repeat("long ", 1000))}
	for _, line := range strings.Split(text(t, build(m)), "\n") {
		if len([]rune(line)) > width || strings.ContainsAny(line, "\x1b\x07\u202e") {
			t.Errorf("%q", line)
		}
	}
}

func TestParties(t *testing.T) {
	s := permitted()
	seg := s.segments()
	got := Parties(pcsa, seg[pcsa].Entries)
	if want := []names.NodeID{rrn, nsso}; !slices.Equal(got, want) {
		t.Errorf("parties %v, want %v", got, want)
	}
	got = Parties(rrn, seg[rrn].Entries)
	if want := []names.NodeID{{Institution: "nsso"}, pcsa}; !slices.Equal(got, want) {
		t.Errorf("parties %v, want %v", got, want)
	}
	s.at(pcsa, nodepb.Event_ANSWERED).Supplier = &registrypb.NodeRef{Institution: "../etc", Node: "x y"}
	if got := Parties(pcsa, s.segments()[pcsa].Entries); !slices.Equal(got, []names.NodeID{rrn}) {
		t.Errorf("parties %v", got)
	}
}

func TestTooMany(t *testing.T) {
	m := permitted().segments()
	seg := m[rrn]
	for len(seg.Entries) <= MaxEntries {
		e := proto.CloneOf(seg.Entries[0])
		e.Sequence += uint64(len(seg.Entries))
		seg.Entries = append(seg.Entries, e)
	}
	m[rrn] = seg
	if story := build(m); story.Verdict != Contradicted || len(story.Steps) > MaxEntries+3 {
		t.Fatal(story.Verdict, len(story.Steps))
	}
}

func FuzzDecode(f *testing.F) {
	good := store(1, permitted()[nsso][0])
	f.Add(good.Entry, good.Salt, good.Commitment)
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, raw, salt, commitment []byte) {
		s := &nodepb.StoredEntry{Entry: raw, Salt: salt, Commitment: commitment}
		if e, err := Decode(s); err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrAltered) {
				t.Fatalf("an error of its own kind: %v", err)
			}
		} else if len(e.Detail) > journal.MaxDetail {
			t.Fatal("a long detail passed")
		}
		// Seal what came, so that all behind the commitment is reached too.
		if len(salt) == journal.SaltSize {
			c := journal.EntryCommitment([journal.SaltSize]byte(salt), raw)
			s.Commitment = c[:]
		}
		m := permitted().segments()
		m[nsso] = Segment{Entries: []*nodepb.StoredEntry{s}}
		story := build(m)
		var b strings.Builder
		if err := story.Write(&b); err != nil {
			t.Fatal(err)
		}
		Parties(pcsa, m[nsso].Entries)
		_ = fmt.Sprint(story)
	})
}
