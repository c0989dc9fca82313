package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// An application reads its own tickets; another's look like none.
func TestEvidenceIsOnesOwn(t *testing.T) {
	own := &nodepb.Entry{TimeUnixMs: 1, Role: nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED, Ticket: aTicket, Application: "file",
		Requester: &registrypb.NodeRef{Institution: "pcsa", Node: "n1"}, User: "alice", Subject: &registrypb.Subject{Scheme: "ssin", Number: person}}
	// Another institution has an application of the same name.
	foreign := &nodepb.Entry{TimeUnixMs: 2, Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Ticket: elsewise, Application: "file",
		Requester: &registrypb.NodeRef{Institution: "neo", Node: "n1"}, User: "bob"}
	for name, tt := range map[string]struct {
		token, ticket string
		found         bool
	}{
		"own":              {"file-token", aTicket, true},
		"other's":          {"robot-token", aTicket, false},
		"admin":            {"ops-token", aTicket, true},
		"foreign namesake": {"file-token", elsewise, false},
		"admin, foreign":   {"ops-token", elsewise, true},
		"nobody's":         {"ops-token", strings.Repeat("2", 26), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakes{entries: []*nodepb.Entry{own, foreign}}
			s, _ := newServer(t, f)
			for _, w := range []interface {
				Result() *http.Response
			}{
				ask(s, "GET", "/v1/trace/"+tt.ticket, "", bearer(tt.token)...),
				ask(s, "GET", "/v1/receipts/"+tt.ticket, "", bearer(tt.token)...),
				ask(s, "GET", "/v1/journal?ticket="+tt.ticket, "", bearer(tt.token)...),
				ask(s, "POST", "/v1/journal/search", `{"ticket":"`+tt.ticket+`"}`, bearer(tt.token)...),
			} {
				if got := w.Result().StatusCode; tt.found != (got == http.StatusOK) || !tt.found && got != http.StatusNotFound {
					t.Errorf("status %d", got)
				}
			}
			reads := 0
			for _, e := range f.entries[2:] {
				if e.Role == nodepb.Role_READER && e.Event == nodepb.Event_READ && e.Ticket == tt.ticket && e.Application != "" {
					reads++
					if tt.ticket == aTicket && e.GetSubject().GetNumber() != person {
						t.Error("whom it is about cannot see that it was read")
					}
				}
			}
			if tt.found && reads != 4 {
				t.Errorf("%d readings journaled, want 4", reads)
			}
		})
	}
}

// Having tried to read a ticket is no part in it.
func TestReadingGivesNoRight(t *testing.T) {
	f := &fakes{entries: []*nodepb.Entry{{Role: nodepb.Role_READER, Event: nodepb.Event_READ, Ticket: aTicket, Application: "robot", Requester: &registrypb.NodeRef{Institution: "pcsa"}}}}
	s, _ := newServer(t, f)
	wantProblem(t, ask(s, "GET", "/v1/trace/"+aTicket, "", bearer("robot-token")...), CodeNotFound, "ticket")
}

// No reading without its journal entry.
func TestReadingFailsClosed(t *testing.T) {
	f := &fakes{journaled: errDisk}
	s, _ := newServer(t, f)
	for _, w := range []struct{ method, path, body string }{
		{"GET", "/v1/trace/" + aTicket, ""},
		{"POST", "/v1/journal/search", `{"user":"alice"}`},
		{"POST", "/v1/references/search", `{"subject":{"scheme":"ssin","number":"` + person + `"}}`},
		{"POST", "/v1/references", `{"references":[{"subject":{"scheme":"ssin","number":"` + person + `"},"quality":"q","period":{"from":"2026-01-01","until":"2026-01-02"}}]}`},
	} {
		wantProblem(t, ask(s, w.method, w.path, w.body, bearer("ops-token")...), CodeUnavailable, "")
	}
	if len(f.done) != 0 {
		t.Error("a reference was declared without its journal entry")
	}
}

func TestJournalSearch(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	wantProblem(t, ask(s, "POST", "/v1/journal/search", `{"user":"alice"}`, bearer("file-token")...), CodeForbidden, "ticket")
	wantProblem(t, ask(s, "POST", "/v1/journal/search", `{"limit":1001}`, bearer("ops-token")...), CodeMalformed, "limit")
	wantProblem(t, ask(s, "POST", "/v1/journal/search", `{"subject":{"scheme":"ssin","number":"`+person[:10]+`0"}}`, bearer("ops-token")...), CodeMalformed, "subject")
	wantProblem(t, ask(s, "GET", "/v1/journal?limit=x", "", bearer("ops-token")...), CodeMalformed, "limit")
	wantProblem(t, ask(s, "GET", "/v1/journal?from=yesterday", "", bearer("ops-token")...), CodeMalformed, "from")
	// A number has no place in a URL.
	wantProblem(t, ask(s, "GET", "/v1/journal?subject="+person, "", bearer("ops-token")...), CodeMalformed, "query")
	wantProblem(t, ask(s, "GET", "/v1/journal?ticket=a&ticket=b", "", bearer("ops-token")...), CodeMalformed, "ticket")
	w := ask(s, "POST", "/v1/journal/search", `{"subject":{"scheme":"ssin","number":"74.07.12-381.86"}}`, bearer("ops-token")...)
	if w.Code != http.StatusOK || f.entries[0].Subject.Number != person {
		t.Errorf("%d %s; journaled %v", w.Code, w.Body, f.entries)
	}
}

func TestReferences(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	ref := func(change ...string) string {
		return strings.NewReplacer(change...).Replace(`{"references":[{"subject":{"scheme":"ssin","number":"` + person + `"},"quality":"employee","period":{"from":"2026-01-01","until":"2026-12-31"}}]}`)
	}
	for path, event := range map[string]nodepb.Event{"/v1/references": nodepb.Event_DECLARED, "/v1/references/withdraw": nodepb.Event_WITHDRAWN} {
		f.entries, f.done = nil, nil
		if w := ask(s, "POST", path, ref(), bearer("ops-token")...); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"accepted":true`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		row := f.done[0].GetDeclareReferences().References[0]
		if row.Subject.Number != person || row.Withdrawn != (event == nodepb.Event_WITHDRAWN) || f.done[0].Chain != registrypb.Chain_DIRECTORY {
			t.Error("another command was made")
		}
		if len(f.waited) == 0 {
			t.Error("whoever asks next would not find it")
		}
		if len(f.entries) != 2 {
			t.Fatalf("journaled %v", f.entries)
		}
		for _, e := range f.entries {
			if e.Event != event || e.Subject.Number != person || e.User != "ops" || e.Ticket == "" || e.Ticket != f.entries[0].Ticket {
				t.Errorf("journaled %v", e)
			}
		}
		if f.entries[0].Outcome != 0 || f.entries[1].Outcome != registrypb.Outcome_PERMIT || f.entries[1].RegistryIndex != 8 {
			t.Errorf("journaled %v", f.entries)
		}
	}
	// What the registry does not take is not left standing as if it had.
	f.entries, f.done, f.refuses = nil, nil, "of "+person
	if w := ask(s, "POST", "/v1/references", ref(), bearer("ops-token")...); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"accepted":false`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(f.entries) != 2 || f.entries[1].Outcome != registrypb.Outcome_DENY || strings.Contains(f.entries[1].Detail, person) {
		t.Errorf("journaled %v", f.entries)
	}
	f.entries, f.done, f.refuses, f.lost = nil, nil, "", errors.New("no leader")
	if w := ask(s, "POST", "/v1/references", ref(), bearer("ops-token")...); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(f.entries) != 2 || f.entries[1].Outcome != 0 || f.entries[1].Detail == "" {
		t.Errorf("journaled %v", f.entries)
	}
	f.lost = nil
	f.entries, f.done = nil, nil
	for body, where := range map[string]string{
		`{"references":[]}`:             "references",
		ref(person, "74071238187"):      "references[0].subject",
		ref("employee", "Em ployee"):    "references[0].quality",
		ref("2026-12-31", "2025-12-31"): "references[0].period",
	} {
		wantProblem(t, ask(s, "POST", "/v1/references", body, bearer("ops-token")...), CodeMalformed, where)
	}
	if len(f.entries)+len(f.done) != 0 {
		t.Error("a malformed declaration did something")
	}
}

// What the registry refuses is a result, and nobody's signature is added on the way.
func TestSubmit(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	w := ask(s, "POST", "/v1/registry/commands", "envelope", append(bearer("ops-token"), "Content-Type", mediaBytes)...)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "not signed by its author") || string(f.submitted[0]) != "envelope" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantProblem(t, ask(s, "POST", "/v1/registry/commands", "{}", bearer("ops-token")...), CodeMediaType, "Content-Type")
}
