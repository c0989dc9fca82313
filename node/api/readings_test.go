package api

import (
	"context"
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// fakeReadings answers with everything that an answer can hold. An empty token or
// order, and whoever is no officer, has no right.
type fakeReadings struct {
	who    []reading.Reader
	search reading.Search
	err    error
}

var someDay = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func (f *fakeReadings) Nonce(who reading.Reader, from, until time.Time) (*reading.Challenge, error) {
	f.who = append(f.who, who)
	return &reading.Challenge{
		Mesh: "demo.example", Node: "pcsa/n1", Purpose: "subject-view", Nonce: make([]byte, 32), PayloadHash: make([]byte, 32),
		From: from, Until: until, Expires: someDay,
	}, f.err
}

func (f *fakeReadings) allowed(who reading.Reader, shown []byte) error {
	f.who = append(f.who, who)
	if f.err == nil && len(shown) == 0 {
		return reading.ErrNoRight
	}
	return f.err
}

func (f *fakeReadings) Subject(_ context.Context, who reading.Reader, token []byte) (*reading.SubjectView, error) {
	if err := f.allowed(who, token); err != nil {
		return nil, err
	}
	pcsa := reading.Institution{ID: "pcsa", Name: "Office"}
	return &reading.SubjectView{
		Mandates: []reading.GivenMandate{{ID: "pcsa/m-1", Holder: reading.Institution{ID: "nsso"}, OnBehalf: "cbe 0412345614", Purpose: "inquiry", Datasets: []names.DatasetID{"wages/v1"}, Provider: "portal", Revoked: true}},

		From: someDay, Until: someDay, Complete: true, Files: []reading.Institution{pcsa}, Journals: []string{"pcsa/n1"},
		Uses: []reading.Use{{
			Kind: reading.Consultation, Time: someDay, Ticket: aTicket, Institution: pcsa, User: "alice", Application: "file", Channel: "api", AuthLevel: 3,
			Purpose: "inquiry", LegalBasis: "Demo act", Authorization: "a-1", Deliberation: "DEMO-2026/001", Mode: "consultation", Dataset: "wages/v1",
			Title: "Wages", Fields: []string{"gross"}, Withheld: []string{"quarter"}, Period: &names.Period{From: 1, Until: 2},
			Outcome: reading.Denied, Reason: "NOT_INTEGRATED", ToldBy: []string{"pcsa/n1"}, Disputed: true,
			Suppliers: []reading.UseSupplier{{Institution: pcsa, Status: "DATA_FOUND", Reason: "SUPPLIER_ERROR"}},
		}},
		NotReached: []reading.Unreached{{Node: "neo/n1", Why: "it did not answer in time"}}, Shortened: []string{"nsso/n1"},
	}, nil
}

func (f *fakeReadings) officer(who reading.Reader) error {
	if !who.Officer {
		return f.allowed(who, nil)
	}
	return f.allowed(who, []byte{1})
}

func (f *fakeReadings) Search(_ context.Context, who reading.Reader, q reading.Search) (*reading.Found, error) {
	f.search = q
	formula := ownEntry()
	formula.User, formula.ClientTicket = "=cmd()", "a,b"
	return &reading.Found{Entries: []journal.Stored{{Entry: ownEntry()}, {Sequence: 1, Entry: formula}}, More: true}, f.officer(who)
}

func (f *fakeReadings) Report(_ context.Context, who reading.Reader, q reading.ReportQuery) (*reading.Report, error) {
	return &reading.Report{
		From: someDay, Until: someDay, Zone: q.Zone, Begins: "07:00", Ends: "19:00", Uses: 9, Users: 2, Median: 4.5, Partial: true,
		OffHours: []reading.OffHours{{User: "alice", Uses: 1, First: someDay, Last: someDay}},
		Volume:   []reading.Volume{{User: "alice", Uses: 8, Times: 3.5}},
		Repeated: []reading.Repeated{{User: "alice", Subject: reading.RepeatedPerson{Scheme: "ssin", Number: person}, Uses: 6, Days: 2, First: someDay, Last: someDay, Tickets: []names.Ticket{aTicket}}},
	}, f.officer(who)
}

func (f *fakeReadings) Inspect(_ context.Context, who reading.Reader, order []byte) (*reading.Inspection, error) {
	return &reading.Inspection{
		Order: "order-1", Reason: "a complaint", Stories: []*trace.Story{{Ticket: aTicket, Verdict: trace.Consistent, Summary: "All agree."}},
		Entries:  []reading.InspectedEntry{{Time: someDay, Node: "neo/n1", Role: "READER", Event: "READ", By: "pcsa/n1", User: "alice", Application: "file", Purpose: "p", Outcome: "PERMIT", Detail: "d"}},
		Altered:  []reading.AlteredEntry{{Node: "neo/n1", Sequence: 4, Says: "it is not what its node committed to"}},
		Complete: true, Journals: []string{"neo/n1"}, NotReached: []reading.Unreached{{Node: "nsso/n1", Why: "w"}}, Shortened: []string{"x/n1"},
	}, f.allowed(who, order)
}

// Package reading judges; what it needs to know of the caller is what the API knows.
func TestReadersAreTold(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	ask(s, "POST", "/v1/officer/search", `{"user":"alice","from":"2026-01-01T00:00:00Z","dataset":"wages/v1","purpose":"inquiry","outcome":"DENY"}`, asUser("guard-token", "sam")...)
	want := reading.Search{User: "alice", From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Dataset: "wages/v1", Purpose: "inquiry", Outcome: "DENY", Limit: 1000}
	if f.readings.search != want {
		t.Errorf("searched %+v", f.readings.search)
	}
	who := f.readings.who[0]
	if who.Application != "guard" || who.User != "sam" || !who.Officer || len(who.Oversees) != 1 {
		t.Errorf("reader %+v", who)
	}
	wantProblem(t, ask(s, "POST", "/v1/officer/search", `{}`, bearer("ops-token")...), CodeForbidden, "")
	wantProblem(t, ask(s, "POST", "/v1/officer/report", `{}`, bearer("file-token")...), CodeForbidden, "")
	wantProblem(t, ask(s, "POST", "/v1/officer/search", `{"limit":10001}`, bearer("guard-token")...), CodeMalformed, "limit")
	wantProblem(t, ask(s, "GET", "/v1/officer/search?user=alice", "", bearer("guard-token")...), CodeMalformed, "query")
	wantProblem(t, ask(s, "GET", "/v1/officer/search?from=x", "", bearer("guard-token")...), CodeMalformed, "from")
	wantProblem(t, ask(s, "POST", "/v1/inspection", `{"order":""}`, bearer("ops-token")...), CodeForbidden, "")
	for err, code := range map[error]Code{reading.ErrBusy: CodeTooMany, reading.ErrJournal: CodeUnavailable, reading.ErrNoRight: CodeForbidden} {
		f.readings.err = err
		wantProblem(t, ask(s, "POST", "/v1/subject/view", `{"token":"AAAA"}`, bearer("file-token")...), code, "")
	}
}

func TestOfficerCSV(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	for _, c := range []struct{ method, path, body string }{{"GET", "/v1/officer/search", ""}, {"POST", "/v1/officer/search", "{}"}} {
		w := ask(s, c.method, c.path, c.body, append(bearer("guard-token"), "Accept", "text/csv;q=0.9, */*")...)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != mediaCSV {
			t.Fatalf("%d %s", w.Code, w.Header())
		}
		rows, err := csv.NewReader(w.Body).ReadAll()
		if err != nil || len(rows) != 3 || rows[0][1] != "user" || rows[1][1] != "alice" {
			t.Fatalf("%v %v", rows, err)
		}
		// What a spreadsheet would run is not run.
		if rows[2][1] != "'=cmd()" || rows[2][7] != "a,b" {
			t.Errorf("%q", rows[2])
		}
	}
	w := ask(s, "POST", "/v1/officer/search", "{}", append(bearer("file-token"), "Accept", "text/csv")...)
	wantProblem(t, w, CodeForbidden, "")
}

// A refusal says the same whatever lies behind it.
func TestNoRightTellsNothing(t *testing.T) {
	var bodies []string
	for _, entries := range [][]*nodepb.Entry{nil, {ownEntry()}} {
		f := &fakes{entries: entries}
		f.readings.err = reading.ErrNoRight
		s, _ := newServer(t, f)
		w := ask(s, "POST", "/v1/subject/view", `{"token":"AAAA"}`, append(bearer("file-token"), "X-Request-Id", "r")...)
		bodies = append(bodies, w.Body.String())
	}
	if bodies[0] != bodies[1] || strings.Contains(bodies[0], "pcsa") {
		t.Errorf("%v", bodies)
	}
}
