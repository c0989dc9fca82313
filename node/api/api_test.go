package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Whoever has no token, or another's, learns nothing and does nothing.
func TestNoTokenNoEntry(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	for _, rt := range s.routes {
		path := strings.NewReplacer("{id}", "x", "{ticket}", aTicket, "{client_ticket}", "t-1").Replace(rt.path)
		body := ""
		if rt.media != "" {
			body = question()
		}
		for name, h := range map[string][]string{
			"none": nil, "empty": bearer(""), "wrong": bearer("nobody"), "hash": bearer(hashOf("ops-token")),
			"basic": {"Authorization", "Basic b3BzLXRva2Vu"}, "bare": {"Authorization", "ops-token"},
			"prefix": bearer("ops-toke"), "suffix": bearer("ops-token2"),
		} {
			w := ask(s, rt.method, path, body, h...)
			if rt.access == open {
				if w.Code == http.StatusUnauthorized {
					t.Errorf("%s %s asks for a token", rt.method, path)
				}
				continue
			}
			p := wantProblem(t, w, CodeUnauthenticated, "Authorization")
			if w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", name)
			}
			if strings.Contains(p.Mend, "ops") {
				t.Errorf("%s names an application: %s", name, p.Mend)
			}
		}
		if rt.access == admin {
			wantProblem(t, ask(s, rt.method, path, body, bearer("robot-token")...), CodeForbidden, "Authorization")
		}
	}
	if len(f.asked)+len(f.entries)+len(f.submitted)+len(f.done)+len(f.acked) != 0 {
		t.Error("something was done for somebody unknown")
	}
}

func TestConsult(t *testing.T) {
	f := &fakes{result: &exchange.Result{
		Ticket: aTicket, ClientTicket: "t-1", Status: nodepb.Status_INCOMPLETE_DATA, Reason: registrypb.Reason_SUPPLIER_UNAVAILABLE,
		Authorization: "a-1", Withheld: []names.FieldName{"name"}, Successor: subject.Raw("ssin", "03022814690"),
		Suppliers: []exchange.SupplierResult{
			{Supplier: "nsso", Status: nodepb.Status_DATA_FOUND, Records: json.RawMessage(`[{"gross":3000}]`), Withheld: []names.FieldName{"name"}},
			{Supplier: "neo", Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_SUPPLIER_UNAVAILABLE},
		},
	}}
	s, _ := newServer(t, f)
	w := ask(s, "POST", "/v1/consultations", question(), append(asUser("file-token", "alice"), HeaderAuthLevel, "2", HeaderChannel, "cli")...)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var c Consultation
	if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	if c.Status != "INCOMPLETE_DATA" || c.Reason != "SUPPLIER_UNAVAILABLE" || c.Explanation == "" || c.Successor.Number != "03022814690" ||
		string(c.Suppliers[0].Records) != `[{"gross":3000}]` || c.Suppliers[1].Reason != "SUPPLIER_UNAVAILABLE" {
		t.Errorf("%s", w.Body)
	}
	q := f.asked[0]
	if q.Application != "file" || q.User != "alice" || q.AuthLevel != 2 || q.Channel != "cli" || q.Number != person || q.ClientTicket != "t-1" || q.Period.From.String() != "2026-01-01" {
		t.Errorf("asked %v", q.Caller)
	}
}

// A refusal is a result of the protocol, whatever the reason.
func TestRefusalIsAResult(t *testing.T) {
	for n, word := range registrypb.Reason_name {
		if n == 0 {
			continue
		}
		f := &fakes{result: &exchange.Result{Ticket: aTicket, ClientTicket: "t-1", Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason(n)}}
		s, _ := newServer(t, f)
		w := ask(s, "POST", "/v1/consultations", question(), asUser("file-token", "alice")...)
		var c Consultation
		if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil || w.Code != http.StatusOK || c.Reason != word || c.Explanation == "" {
			t.Errorf("%s: %d %s", word, w.Code, w.Body)
		}
	}
}

// A malformed number is the network's to answer, and journaled like any refusal.
func TestMalformedNumberIsAsked(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	w := ask(s, "POST", "/v1/consultations", question(person, "74071238187"), asUser("file-token", "alice")...)
	if w.Code != http.StatusOK || len(f.asked) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestConsultMalformed(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, tt := range map[string]struct{ body, where string }{
		"no JSON":        {"hello", "body"},
		"truncated":      {question()[:40], "body"},
		"two values":     {question() + question(), "body"},
		"rest":           {question() + "x", "body"},
		"array":          {"[" + question() + "]", "body"},
		"null":           {"null", "period"},
		"unknown field":  {question(`"dataset"`, `"`+person+`":1,"dataset"`), "body"},
		"number as type": {question(`"wages/v1"`, person), "dataset"},
		"number at all":  {question(`"`+person+`"`, person), "subject.number"},
		"subject string": {question(`{"scheme":"ssin","number":"`+person+`"}`, `"`+person+`"`), "subject"},
		"no subject":     {question(`"subject":{"scheme":"ssin","number":"`+person+`"},`, ""), "subject.scheme"},
		"no number":      {question(person, ""), "subject.number"},
		"long number":    {question(person, long), "subject.number"},
		"scheme":         {question(`"ssin"`, `"SSIN!"`), "subject.scheme"},
		"dataset":        {question("wages/v1", person), "dataset"},
		"purpose":        {question(`"inquiry"`, `"In quiry `+person+`"`), "purpose"},
		"no purpose":     {question(`"inquiry"`, `""`), "purpose"},
		"date":           {question("2026-01-01", person), "body"},
		"no period":      {question(`,"period":{"from":"2026-01-01","until":"2026-03-31"}`, ""), "period"},
		"backwards":      {question("2026-01-01", "2026-12-01"), "period"},
		"client ticket":  {question(`"t-1"`, `"`+long+`"`), "client_ticket"},
		"field":          {question(`"dataset"`, `"fields":["a b"],"dataset"`), "fields[0]"},
		"many fields":    {question(`"dataset"`, `"fields":["a"`+strings.Repeat(`,"a"`, 256)+`],"dataset"`), "fields"},
		"supplier":       {question(`"dataset"`, `"suppliers":["nsso","../x"],"dataset"`), "suppliers[1]"},
		"many suppliers": {question(`"dataset"`, `"suppliers":["a"`+strings.Repeat(`,"a"`, 64)+`],"dataset"`), "suppliers"},
		"deep":           {strings.Repeat("[", 15_000), "body"},
		"deep object":    {question(`"ssin"`, strings.Repeat(`{"a":`, 2000)+"1"+strings.Repeat("}", 2000)), "subject.scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(fakes)
			s, _ := newServer(t, f)
			wantProblem(t, ask(s, "POST", "/v1/consultations", tt.body, asUser("file-token", "alice")...), CodeMalformed, tt.where)
			if len(f.asked) != 0 {
				t.Error("it was asked all the same")
			}
		})
	}
}

func TestContentType(t *testing.T) {
	s, _ := newServer(t, new(fakes))
	for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"} {
		w := ask(s, "POST", "/v1/consultations", question(), append(asUser("file-token", "alice"), "Content-Type", ct)...)
		wantProblem(t, w, CodeMediaType, "Content-Type")
	}
	w := ask(s, "POST", "/v1/consultations", question(), append(asUser("file-token", "alice"), "Content-Type", "Application/JSON; charset=utf-8")...)
	if w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An application asserts users, levels and channels only within its configuration.
func TestAssertions(t *testing.T) {
	for name, tt := range map[string]struct {
		headers []string
		code    Code // empty: permitted
		where   string
		user    string
		level   uint32
	}{
		"user":            {asUser("file-token", "alice"), "", "", "alice", 3},
		"lower level":     {append(asUser("file-token", "alice"), HeaderAuthLevel, "0"), "", "", "alice", 0},
		"higher level":    {append(asUser("file-token", "alice"), HeaderAuthLevel, "4"), CodeForbidden, HeaderAuthLevel, "", 0},
		"no level":        {append(asUser("file-token", "alice"), HeaderAuthLevel, "-1"), CodeMalformed, HeaderAuthLevel, "", 0},
		"overflow":        {append(asUser("file-token", "alice"), HeaderAuthLevel, "4294967296"), CodeMalformed, HeaderAuthLevel, "", 0},
		"no user":         {bearer("file-token"), CodeMalformed, HeaderUser, "", 0},
		"control in user": {asUser("file-token", "al\tice"), CodeMalformed, HeaderUser, "", 0},
		"long user":       {asUser("file-token", strings.Repeat("a", 129)), CodeMalformed, HeaderUser, "", 0},
		"itself":          {bearer("robot-token"), "", "", "robot", 1},
		"not allowed":     {asUser("robot-token", "alice"), CodeForbidden, HeaderUser, "", 0},
		"channel":         {append(asUser("file-token", "alice"), HeaderChannel, "A B"), CodeMalformed, HeaderChannel, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(fakes)
			s, _ := newServer(t, f)
			w := ask(s, "POST", "/v1/consultations", question(), tt.headers...)
			if tt.code != "" {
				wantProblem(t, w, tt.code, tt.where)
				if len(f.asked) != 0 {
					t.Error("it was asked all the same")
				}
				return
			}
			if w.Code != http.StatusOK || string(f.asked[0].User) != tt.user || f.asked[0].AuthLevel != tt.level {
				t.Errorf("%d %s: %v", w.Code, w.Body, f.asked)
			}
		})
	}
}

// What the institution's own policy forbids never reaches the network, and is
// journaled before it is refused.
func TestLocalPolicy(t *testing.T) {
	for _, q := range []string{question("inquiry", "curiosity"), question("wages/v1", "health/v1")} {
		f := new(fakes)
		s, _ := newServer(t, f)
		w := ask(s, "POST", "/v1/consultations", q, bearer("robot-token")...)
		var c Consultation
		if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil || w.Code != http.StatusOK || c.Status != "NO_RESULT" || c.Reason != "LOCAL_POLICY" || c.Ticket.Validate() != nil {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if len(f.asked) != 0 || len(f.entries) != 1 {
			t.Fatalf("asked %d, journaled %d", len(f.asked), len(f.entries))
		}
		e := f.entries[0]
		if e.Ticket != string(c.Ticket) || e.Reason != registrypb.Reason_LOCAL_POLICY || e.Subject.Number != person || e.User != "robot" || e.Requester.Institution != "pcsa" {
			t.Errorf("journaled %v", e)
		}
		// The journal cannot be written: not even the refusal is given.
		f.journaled = errDisk
		p := wantProblem(t, ask(s, "POST", "/v1/consultations", q, bearer("robot-token")...), CodeUnavailable, "")
		if strings.Contains(p.Mend, "secret") {
			t.Error("the problem tells of the disk")
		}
	}
}

func TestExchangeErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code Code
	}{
		{exchange.ErrTicketReused, CodeTicketReused},
		{exchange.ErrAcknowledged, CodeAcknowledged},
		{exchange.ErrJournalUnavailable, CodeUnavailable},
		{exchange.ErrRegistryStale, CodeUnavailable},
		{fmt.Errorf("deep: %w", context.DeadlineExceeded), CodeDeadline},
		{errDisk, CodeInternal},
	} {
		f := &fakes{err: tt.err}
		s, log := newServer(t, f)
		w := ask(s, "POST", "/v1/consultations", question(), asUser("file-token", "alice")...)
		p := new(Problem)
		if json.Unmarshal(w.Body.Bytes(), p) != nil || p.Code != tt.code || p.ClientTicket != "t-1" {
			t.Errorf("%v: %d %s", tt.err, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "/secret/path") {
			t.Errorf("the caller is told of the inside: %s", w.Body)
		}
		if tt.code == CodeInternal && !strings.Contains(log.String(), "/secret/path") {
			t.Error("the operator is told nothing")
		}
	}
}

// A question without a ticket gets one, and even an error says which, so that asking
// again is asking once.
func TestClientTicketIsMade(t *testing.T) {
	f := &fakes{err: exchange.ErrRegistryStale}
	s, _ := newServer(t, f)
	w := ask(s, "POST", "/v1/consultations", question(`"client_ticket":"t-1",`, ""), asUser("file-token", "alice")...)
	p := wantProblem(t, w, CodeUnavailable, "")
	if p.ClientTicket.Validate() != nil || p.ClientTicket != f.asked[0].ClientTicket {
		t.Errorf("%s", w.Body)
	}
}

func TestAcknowledge(t *testing.T) {
	f := new(fakes)
	s, _ := newServer(t, f)
	w := ask(s, "POST", "/v1/consultations/a%2Fb%20c/acknowledge", "", bearer("file-token")...)
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 || f.acked[0] != "file a/b c" {
		t.Errorf("%d %s %v", w.Code, w.Body, f.acked)
	}
	f.err = exchange.ErrNotFound
	wantProblem(t, ask(s, "POST", "/v1/consultations/x/acknowledge", "", bearer("file-token")...), CodeNotFound, "client_ticket")
	wantProblem(t, ask(s, "POST", "/v1/consultations/"+strings.Repeat("x", 37)+"/acknowledge", "", bearer("file-token")...), CodeMalformed, "client_ticket")
}

// Alive is not ready, and ready says why not.
func TestHealth(t *testing.T) {
	f := &fakes{journaled: fmt.Errorf("the journal's disk is full; free some space and restart")}
	s, log := newServer(t, f)
	if w := ask(s, "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("healthz %d", w.Code)
	}
	// Anybody may ask: it is told in fixed words, once in the log, and no more.
	for range 3 {
		w := ask(s, "GET", "/readyz", "")
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "The journal takes no entries.") || strings.Contains(w.Body.String(), "disk is full") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if n := strings.Count(log.String(), "disk is full"); n != 1 {
		t.Errorf("the log says why %d times", n)
	}
	f.journaled = fmt.Errorf("%w: block 7", Plain("Put in the newer disk."))
	if w := ask(s, "GET", "/readyz", ""); !strings.Contains(w.Body.String(), `"Put in the newer disk."`) {
		t.Errorf("%s", w.Body)
	}
	f.journaled = nil
	if w := ask(s, "GET", "/readyz", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ready":true`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestUnknownRoutes(t *testing.T) {
	s, _ := newServer(t, new(fakes))
	wantProblem(t, ask(s, "GET", "/"+person, ""), CodeNotFound, "")
	wantProblem(t, ask(s, "GET", "/v1/consultations", ""), CodeMethod, "")
	w := ask(s, "DELETE", "/v1/trace/"+aTicket, "{}")
	if wantProblem(t, w, CodeMethod, ""); w.Header().Get("Allow") != "GET" {
		t.Errorf("Allow: %q", w.Header().Get("Allow"))
	}
	wantProblem(t, ask(s, "POST", "/v2/x?y=z", "{}"), CodeNotFound, "")
	wantProblem(t, ask(s, "GET", "/v1/authorizations/none", ""), CodeNotFound, "id")
	wantProblem(t, ask(s, "GET", "/v1/institutions?x=1", ""), CodeMalformed, "query")
	wantProblem(t, ask(s, "GET", "/v1/institutions", "{}"), CodeMalformed, "body")
}

// What callers write into headers and paths does not reach the log.
func TestLogHoldsNoInput(t *testing.T) {
	s, log := newServer(t, new(fakes))
	ask(s, "GET", "/v1/trace/"+person, "", append(bearer("file-token"), "X-Request-Id", person+" "+person)...)
	ask(s, "GET", "/v1/journal?subject="+person, "", bearer("ops-token")...)
	ask(s, "POST", "/v1/consultations/"+person+"/acknowledge", "", bearer("file-token")...)
	w := ask(s, "GET", "/healthz", "", "X-Request-Id", "abc-1")
	if w.Header().Get("X-Request-Id") != "abc-1" || !strings.Contains(log.String(), "request=abc-1") {
		t.Errorf("the caller's request ID was not taken over:\n%s", log)
	}
}

func TestPanicIsAProblem(t *testing.T) {
	s, log := newServer(t, new(fakes), func(c *Config) {
		c.Checks = append(c.Checks, Check{Name: "bad", Test: func() error { panic("boom") }})
	})
	wantProblem(t, ask(s, "GET", "/readyz", ""), CodeInternal, "")
	if !strings.Contains(log.String(), "boom") {
		t.Error("the operator is told nothing")
	}
	if w := ask(s, "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Error("the server did not go on")
	}
}

func FuzzDecodeConsultation(f *testing.F) {
	f.Add([]byte(question()))
	f.Add([]byte(`{"period":null,"subject":{}}`))
	f.Add([]byte(`{"Subject":{"Number":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeConsultation(b)
		if (c == nil) == (err == nil) {
			t.Fatal("neither a question nor a problem, or both")
		}
		if err == nil {
			if c.Dataset.Validate() != nil || c.Purpose.Validate() != nil || c.Period.Validate() != nil || c.Subject.Number == "" {
				t.Fatalf("let through %+v", c)
			}
			return
		}
		if p := asProblem(err); p.Code != CodeMalformed || p.Mend == "" {
			t.Fatalf("%v", err)
		}
	})
}
