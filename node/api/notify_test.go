package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/node/submission"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const publication = `{"client_ticket":"t-1","subject":{"scheme":"ssin","number":"` + person + `"},"dataset":"wages/v1",` +
	`"period":{"from":"2026-01-01","until":"2026-03-31"},"record":{"gross":1.50},"fields":["gross"],"change":"CHANGED"}`

// fakeNotify stands for the rooms of automatic communications.
type fakeNotify struct {
	published []notify.Change
	err       error
	want      inbox.Want
	declared  fakeDeclarations
	dead      bool // what waits was given up
}

// fakeDeclarations stands for both sides of declarations.
type fakeDeclarations struct{ unreceived bool }

func (f fakeDeclarations) Status(names.Ticket) (*submission.Status, error) {
	if f.unreceived {
		return nil, submission.ErrNotFound
	}
	return &submission.Status{Ticket: aTicket, Source: "nsso", State: nodepb.DeclarationState_DECLINED, Published: aTicket, SupersededBy: aTicket,
		Reasons: []*nodepb.FieldReason{{Field: "gross", Code: "too-low", Text: "below the minimum"}}, Receipt: []byte("r"), Signed: []byte("s")}, nil
}

func (f fakeDeclarations) Decide(_ context.Context, _ exchange.Caller, t names.Ticket, accept bool, _ []*nodepb.FieldReason) (*submission.Status, error) {
	if !accept {
		return nil, submission.ErrDecided
	}
	return f.Status(t)
}

func (f *fakeNotify) Publish(_ context.Context, c notify.Change) (*notify.Accepted, error) {
	f.published = append(f.published, c)
	return &notify.Accepted{Ticket: aTicket, ClientTicket: c.ClientTicket, Time: time.Unix(1_780_000_000, 0)}, f.err
}

func (f *fakeNotify) PublishAll(ctx context.Context, all []notify.Change) (out []notify.Published) {
	for _, c := range all {
		a, err := f.Publish(ctx, c)
		out = append(out, notify.Published{Accepted: a, Err: err})
	}
	return out
}

func (f *fakeNotify) Status(app string, t names.ClientTicket) (*notify.Status, error) {
	if app != "file" || t != "t-1" {
		return nil, notify.ErrNotFound
	}
	if f.dead {
		return &notify.Status{Ticket: aTicket, Decided: true, Recipients: []notify.RecipientState{
			{Recipient: "nsso", Purpose: "inquiry", State: notify.Dead, Reason: registrypb.Reason_SUPPLIER_ERROR}}}, f.err
	}
	return &notify.Status{Ticket: aTicket, Decided: true, Reason: registrypb.Reason_NO_ELIGIBLE_CLEARER, Incomplete: true,
		Recipients: []notify.RecipientState{{Recipient: "nsso", Purpose: "inquiry", State: notify.InTransit}}}, f.err
}

func (f *fakeNotify) Deliveries(s notify.Select) ([]notify.Waiting, error) {
	return []notify.Waiting{{Ticket: aTicket, Recipient: s.Recipient, Purpose: "inquiry", Dataset: "wages/v1", Queued: time.Unix(1_780_000_000, 0), Refused: 5,
		Reason: registrypb.Reason_CLEARANCE_INVALID, Dead: s.Dead, Replayed: true, HeldBack: true}}, nil
}

func (f *fakeNotify) Lags() []notify.Lag {
	at := time.Unix(1_780_000_000, 0)
	return []notify.Lag{{Recipient: "nsso", Purpose: "inquiry", Waiting: 3, Dead: 1, Oldest: at, Since: at, Why: "not ready"}, {Recipient: "neo", Purpose: "inquiry"}}
}

func (f *fakeNotify) Pending() int { return 2 }

func (f *fakeNotify) Redrive(context.Context, exchange.Caller, notify.Select) (int, error) {
	return 3, f.err
}
func (f *fakeNotify) Drop(context.Context, exchange.Caller, notify.Select) (int, error) {
	return 3, f.err
}
func (f *fakeNotify) Replay(context.Context, exchange.Caller, names.InstitutionID, time.Time) (int, error) {
	return 3, f.err
}

func (f *fakeNotify) Take(_ context.Context, _ string, w inbox.Want) ([]inbox.Taken, error) {
	f.want = w
	id := subject.Raw(subject.SSIN, person)
	return []inbox.Taken{{Item: inbox.Item{
		ID: 7, Kind: inbox.Notification, Ticket: aTicket, From: "nsso", Dataset: "wages/v1", Purpose: "inquiry", Fields: []names.FieldName{"gross"},
		Subject: id, Current: subject.Raw(subject.SSIN, "03022814690"), FiledUnder: []subject.ID{id}, Period: names.Period{From: 20000, Until: 20010},
		Change: registrypb.Change_CORRECTED, RefersTo: aTicket, CausedBy: aTicket, Content: json.RawMessage(`[{"gross":1.50}]`),
		Received: time.Unix(1_780_000_000, 0), Replayed: true, Status: "ACCEPTED", ClientTicket: "t-9",
	}, Lease: "L", Expires: time.Unix(1_780_000_030, 0)}}, f.err
}

func (f *fakeNotify) Acknowledge(_ context.Context, _ inbox.Taker, rs []inbox.Receipt) error {
	if rs[0].ID != 7 {
		return inbox.ErrNotTaken
	}
	return f.err
}
func (f *fakeNotify) Release(string, ...inbox.Receipt) error { return f.err }
func (f *fakeNotify) Waiting(string) (int, time.Time, error) {
	return 1, time.Unix(1_780_000_000, 0), f.err
}

// What is wrong with a publication is said where it is; the record is never repeated.
func TestPublicationProblems(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	for name, tt := range map[string]struct {
		body  string
		err   error
		code  Code
		where string
	}{
		"no period":  {`{"subject":{"scheme":"ssin","number":"` + person + `"},"dataset":"wages/v1","record":{}}`, nil, CodeMalformed, "period"},
		"change":     {`{"change":"NEW","period":{"from":"2026-01-01","until":"2026-01-01"},"subject":{"scheme":"ssin","number":"1"},"dataset":"wages/v1","record":{}}`, nil, CodeMalformed, "change"},
		"the record": {publication, &exchange.QuestionError{Field: "record", Remedy: "it fails #/required"}, CodeMalformed, "record"},
		"its places": {publication, &exchange.QuestionError{Field: "record", Remedy: "mend it", Faults: []exchange.Fault{{Path: "/city", Code: "required", Wrong: "It is missing.", Mend: "Add it."}}},
			CodeMalformed, "record"},
		"reused":        {publication, notify.ErrTicketReused, CodeTicketReused, "client_ticket"},
		"no journal":    {publication, notify.ErrUnavailable, CodeUnavailable, ""},
		"took too long": {publication, context.DeadlineExceeded, CodeDeadline, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f.notify.err = tt.err
			p := wantProblem(t, ask(s, http.MethodPost, "/v1/publications", tt.body, asUser("file-token", "alice")...), tt.code, tt.where)
			if want := map[string]int{"its places": 1}[name]; len(p.Faults) != want {
				t.Errorf("%d places are told, want %d", len(p.Faults), want)
			}
			if tt.err != nil && p.ClientTicket != "t-1" {
				t.Errorf("the client ticket to publish again under is not told: %+v", p)
			}
		})
	}
}

// Each change of a batch has its own outcome in its place; only when the node cannot say what
// became of them has the whole batch a problem, and it is safe to publish it again.
func TestPublicationBatch(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	post := func(body string) *httptest.ResponseRecorder {
		return ask(s, http.MethodPost, "/v1/publications/batch", body, asUser("file-token", "alice")...)
	}
	noPeriod := `{"client_ticket":"t-2","subject":{"scheme":"ssin","number":"` + person + `"},"dataset":"wages/v1","record":{}}`
	r := post(`{"items":[` + publication + `,` + noPeriod + `]}`)
	var out PublicationOutcomes
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil || r.Code != 200 || len(out.Items) != 2 {
		t.Fatalf("%d, %+v, %v", r.Code, out, err)
	}
	if p := out.Items[0].Publication; p == nil || p.Status != "ACCEPTED" || p.ClientTicket != "t-1" || out.Items[0].Problem != nil {
		t.Errorf("first: %+v", out.Items[0])
	}
	if p := out.Items[1].Problem; p == nil || p.Where != "period" || p.ClientTicket != "t-2" || p.RequestID == "" || out.Items[1].Publication != nil {
		t.Errorf("second: %+v", out.Items[1])
	}
	f.notify.err = notify.ErrTicketReused
	r = post(`{"items":[` + publication + `]}`)
	out = PublicationOutcomes{}
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil || r.Code != 200 || out.Items[0].Problem == nil || out.Items[0].Problem.Code != CodeTicketReused {
		t.Errorf("reused: %d, %+v, %v", r.Code, out, err)
	}
	f.notify.err = notify.ErrUnavailable
	wantProblem(t, post(`{"items":[`+publication+`]}`), CodeUnavailable, "")
	wantProblem(t, post(`{"items":[]}`), CodeMalformed, "items")
	wantProblem(t, post(`{"items":[`+strings.Replace(publication, `"client_ticket":"t-1",`, "", 1)+`]}`), CodeMalformed, "items[0].client_ticket")
}

// A declaration that its source refused until it was given up, as one that its newer schema
// does not know, is not on its way any more, and its declarant is told why.
func TestDeclarationGivenUp(t *testing.T) {
	f := new(fakes)
	f.notify.declared.unreceived, f.notify.dead = true, true
	s, _ := newServer(t, f)
	var out Declaration
	r := ask(s, http.MethodGet, "/v1/declarations/t-1", "", asUser("file-token", "alice")...)
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil || out.State != "REFUSED" || out.Reason != "SUPPLIER_ERROR" || out.Explanation == "" {
		t.Errorf("%d, %+v, %v", r.Code, out, err)
	}
}
