package exchange

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func (w *world) consult(q Question) (*Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return w.node("pcsa").consultant.Consult(ctx, q)
}

func (w *world) mustConsult(q Question) *Result {
	w.t.Helper()
	r, err := w.consult(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func wantStatus(t *testing.T, r *Result, status nodepb.Status, reason registrypb.Reason) {
	t.Helper()
	if r.Status != status || r.Reason != reason {
		t.Fatalf("%s/%s, want %s/%s: %+v", r.Status, r.Reason, status, reason, r.Suppliers)
	}
}

const none = registrypb.Reason_REASON_UNSPECIFIED

func TestConsult(t *testing.T) {
	w := newWorld(t)
	q := question()
	q.Fields = []names.FieldName{"wage", "note", "employer"}
	r := w.mustConsult(q)
	wantStatus(t, r, nodepb.Status_DATA_FOUND, none)
	if len(r.Suppliers) != 2 || r.Suppliers[0].Supplier != "fund" || r.Suppliers[1].Supplier != "office" {
		t.Fatalf("%+v", r.Suppliers)
	}
	for _, s := range r.Suppliers {
		if string(s.Records) != `[{"employer":"0412345614","wage":1500.50}]` || s.Status != nodepb.Status_DATA_FOUND {
			t.Fatalf("%s %s", s.Status, s.Records)
		}
		if fmt.Sprint(s.Withheld) != "[note]" {
			t.Fatalf("withheld %v", s.Withheld)
		}
	}
	if fmt.Sprint(r.Withheld) != "[note]" || r.Authorization != "demo-1" || r.ClientTicket != "T-1" || r.Ticket.Validate() != nil {
		t.Fatalf("%+v", r)
	}

	// Everything is written down before the next step, at all three.
	order := []string{"pcsa journal REQUESTED", "office journal SUPPLIED", "pcsa journal ANSWERED"}
	for i := 1; i < len(order); i++ {
		if a, b := w.log.place(order[i-1]), w.log.place(order[i]); a < 0 || b < a {
			t.Errorf("%q at %d, %q at %d", order[i-1], a, order[i], b)
		}
	}
	supplied := w.node("office").journal.of(nodepb.Event_SUPPLIED)[0]
	var answered, decided *nodepb.Entry
	for _, e := range w.node("pcsa").journal.of(nodepb.Event_ANSWERED) {
		if e.GetSupplier().GetInstitution() == "office" {
			answered = e
		}
	}
	for _, m := range members {
		for _, e := range w.node(m).journal.of(nodepb.Event_DECIDED) {
			if e.GetSupplier().GetInstitution() == "office" {
				decided = e
			}
		}
	}
	for _, e := range []*nodepb.Entry{supplied, answered, decided} {
		if e == nil {
			t.Fatal("an entry is missing")
		}
		if e.GetTicket() != string(r.Ticket) || !bytes.Equal(e.GetClearanceHash(), supplied.GetClearanceHash()) ||
			!bytes.Equal(e.GetRequestHash(), supplied.GetRequestHash()) || e.GetUser() != "clerk-7" || e.GetDeliberation() != "DEMO-2024/1" ||
			fmt.Sprint(e.GetFields()) != "[employer wage]" || fmt.Sprint(e.GetWithheld()) != "[note]" || e.GetAuthLevel() != 3 {
			t.Errorf("entry does not agree: %v", e)
		}
	}
	if len(answered.GetAnswerCommitment()) != 32 || !bytes.Equal(answered.GetAnswerCommitment(), supplied.GetAnswerCommitment()) {
		t.Error("commitments differ")
	}
	for _, n := range w.nodes {
		for _, e := range n.journal.entries {
			if b, _ := proto.Marshal(e); bytes.Contains(b, []byte("1500.50")) || bytes.Contains(b, []byte("0412345614")) {
				t.Errorf("%s journals content: %v", n.id, e)
			}
		}
	}
	if got := w.node("office").source.last; fmt.Sprint(got.Qualities) != "[employee]" || got.Subject.Number() != person || got.Period != q.Period {
		t.Errorf("source was asked %+v", got)
	}
}

func TestSameTicketSameAnswerOneEffect(t *testing.T) {
	w := newDiskWorld(t)
	first := w.mustConsult(question())
	calls := len(w.log.events)
	w.node("office").source.set([]Record{Record(`{"employer":"changed","wage":1}`)}, nil, nil)
	for range 2 {
		if again := w.mustConsult(question()); !reflect.DeepEqual(first, again) {
			t.Fatalf("got %+v, first %+v", again, first)
		}
		if len(w.log.events) != calls {
			t.Fatalf("asking again did %v", w.log.events[calls:])
		}
		w.node("pcsa").restart()
	}
	for name, change := range map[string]func(*Question){
		"user":      func(q *Question) { q.User = "clerk-8" },
		"level":     func(q *Question) { q.AuthLevel = 4 },
		"purpose":   func(q *Question) { q.Purpose = "other" },
		"dataset":   func(q *Question) { q.Dataset = "wages/v2" },
		"fields":    func(q *Question) { q.Fields = []names.FieldName{"wage"} },
		"subject":   func(q *Question) { q.Number = absent },
		"malformed": func(q *Question) { q.Number = "1" },
		"period":    func(q *Question) { q.Period.From++ },
		"suppliers": func(q *Question) { q.Suppliers = []names.InstitutionID{"office"} },
	} {
		q := question()
		change(&q)
		if _, err := w.consult(q); !errors.Is(err, ErrTicketReused) {
			t.Errorf("another %s under the same ticket: %v", name, err)
		}
	}
	spaced := question()
	spaced.Number = "74.07.12-381.86" // the same question
	if again := w.mustConsult(spaced); again.Ticket != first.Ticket {
		t.Error("separators make another question")
	}
	other := question()
	other.Application = "portal" // tickets are each application's own
	if r := w.mustConsult(other); r.Ticket == first.Ticket {
		t.Error("two applications share a ticket")
	}
	empty := question()
	empty.ClientTicket = ""
	if r := w.mustConsult(empty); r.ClientTicket.Validate() != nil {
		t.Errorf("generated %q", r.ClientTicket)
	}
	w.clock.Add(11 * time.Minute)
	if r := w.mustConsult(question()); r.Ticket == first.Ticket {
		t.Error("kept beyond its life")
	}
}

func TestConcurrentDuplicates(t *testing.T) {
	w := newWorld(t)
	const n = 8
	results := make([]*Result, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r, err := w.consult(question())
			if err != nil {
				t.Error(err)
			}
			results[i] = r
		})
	}
	all.Wait()
	for _, r := range results {
		if !reflect.DeepEqual(r, results[0]) {
			t.Fatalf("%+v differs from %+v", r, results[0])
		}
	}
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}

// TestWaiterLeaves gives up on a duplicate that runs; it must not disturb it.
func TestWaiterLeaves(t *testing.T) {
	w := newWorld(t)
	fetching, goOn := make(chan struct{}), make(chan struct{})
	w.node("office").source.set([]Record{Record(`{"employer":"x","wage":1}`)}, nil, func(context.Context, Query) { close(fetching); <-goOn })
	done := make(chan *Result)
	go func() { done <- w.mustConsult(question()) }()
	<-fetching
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.node("pcsa").consultant.Consult(ctx, question()); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(goOn)
	wantStatus(t, <-done, nodepb.Status_DATA_FOUND, none)
}

func TestBadQuestions(t *testing.T) {
	w := newWorld(t)
	for field, change := range map[string]func(*Question){
		"application":   func(q *Question) { q.Application = "a b" },
		"user":          func(q *Question) { q.User = "" },
		"channel":       func(q *Question) { q.Channel = "\x00" },
		"purpose":       func(q *Question) { q.Purpose = "Social" },
		"dataset":       func(q *Question) { q.Dataset = "wages" },
		"period":        func(q *Question) { q.Period.Until = q.Period.From - 1 },
		"fields":        func(q *Question) { q.Fields = []names.FieldName{"a", "a b"} },
		"suppliers":     func(q *Question) { q.Suppliers = make([]names.InstitutionID, 65) },
		"number":        func(q *Question) { q.Number = strings.Repeat("7", 65) },
		"scheme":        func(q *Question) { q.Scheme = "bsn" },
		"client_ticket": func(q *Question) { q.ClientTicket = names.ClientTicket(strings.Repeat("x", 37)) },
	} {
		q := question()
		change(&q)
		_, err := w.consult(q)
		var bad *QuestionError
		if !errors.Is(err, ErrBadQuestion) || !errors.As(err, &bad) || bad.Field != field || bad.Remedy == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	if len(w.log.events) != 0 {
		t.Errorf("bad questions did %v", w.log.events)
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *Question)
		reason registrypb.Reason
	}{
		"malformed number": {func(_ *world, q *Question) { q.Number = "74071238187" }, registrypb.Reason_MALFORMED_NUMBER},
		"purpose":          {func(_ *world, q *Question) { q.Purpose = "curiosity" }, registrypb.Reason_NOT_ALLOWED},
		"dataset":          {func(_ *world, q *Question) { q.Dataset = "health/v1" }, registrypb.Reason_NOT_ALLOWED},
		"field":            {func(_ *world, q *Question) { q.Fields = []names.FieldName{"note"} }, registrypb.Reason_NO_PERMITTED_FIELD},
		"not integrated":   {func(_ *world, q *Question) { q.Number = absent }, registrypb.Reason_NOT_INTEGRATED},
		"revoked":          {func(w *world, _ *Question) { w.revoke() }, registrypb.Reason_NOT_ALLOWED},
		"withdrawn":        {func(w *world, _ *Question) { w.declare("pcsa", "living-wage", true) }, registrypb.Reason_NOT_INTEGRATED},
		"no supplier": {func(w *world, _ *Question) {
			w.declare("office", "employee", true)
			w.declare("fund", "employee", true)
		}, registrypb.Reason_UNKNOWN_SUBJECT},
		"suspended": {func(w *world, _ *Question) { w.suspend("pcsa") }, registrypb.Reason_REQUESTER_NOT_ADMITTED},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			q := question()
			c.change(w, &q)
			r := w.mustConsult(q)
			wantStatus(t, r, nodepb.Status_NO_RESULT, c.reason)
			if len(r.Suppliers) != 0 || r.Ticket.Validate() != nil {
				t.Fatalf("%+v", r)
			}
			answered := w.node("pcsa").journal.of(nodepb.Event_ANSWERED)
			if len(answered) != 1 || answered[0].GetReason() != r.Reason || answered[0].GetTicket() != string(r.Ticket) {
				t.Fatalf("journal: %v", answered)
			}
			if again := w.mustConsult(q); !reflect.DeepEqual(r, again) {
				t.Fatalf("again: %+v", again)
			}
			if w.log.count("office fetch")+w.log.count("fund fetch") != 0 {
				t.Fatal("something was fetched")
			}
			for _, e := range w.node("pcsa").journal.entries {
				if name == "malformed number" && strings.Contains(e.String(), "7407") {
					t.Fatalf("a malformed number is journaled: %v", e)
				}
			}
		})
	}
}

func TestMalformedNumberNeverLeaves(t *testing.T) {
	w := newWorld(t)
	q := question()
	q.Number = "not a number"
	w.mustConsult(q)
	for _, e := range w.log.events {
		if !strings.HasPrefix(e, "pcsa journal") {
			t.Fatalf("it left: %v", w.log.events)
		}
	}
}

func TestNoDataFound(t *testing.T) {
	w := newWorld(t)
	w.node("office").source.set(nil, nil, nil)
	r := w.mustConsult(question())
	wantStatus(t, r, nodepb.Status_DATA_FOUND, none)
	if s := r.Suppliers[1]; s.Status != nodepb.Status_NO_DATA_FOUND || string(s.Records) != "[]" {
		t.Fatalf("%s %s", s.Status, s.Records)
	}
	w.node("fund").source.set([]Record{}, nil, nil)
	q := question()
	q.ClientTicket = "T-2"
	wantStatus(t, w.mustConsult(q), nodepb.Status_NO_DATA_FOUND, none)
}

func TestAcknowledge(t *testing.T) {
	w := newDiskWorld(t)
	c := w.node("pcsa").consultant
	ctx := context.Background()
	if err := c.Acknowledge(ctx, "inquiry", "T-1"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	w.mustConsult(question())
	if err := c.Acknowledge(ctx, "portal", "T-1"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("another application: %v", err)
	}
	for range 2 {
		if err := c.Acknowledge(ctx, "inquiry", "T-1"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.consult(question()); !errors.Is(err, ErrAcknowledged) {
			t.Fatal(err)
		}
		w.node("pcsa").restart()
		c = w.node("pcsa").consultant
	}
	raw, err := w.node("pcsa").outbox.Get(consultationKey("inquiry", "T-1"))
	if err != nil || bytes.Contains(raw, []byte("1500.50")) {
		t.Fatalf("content is still kept (%v)", err)
	}
	other := question()
	other.User = "clerk-8"
	if _, err := w.consult(other); !errors.Is(err, ErrTicketReused) {
		t.Fatal(err)
	}
}

// TestErrorsHideTheNumber looks at every error and every printed result.
func TestErrorsHideTheNumber(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.node("office").supplier.cfg.Log = slog.New(slog.NewJSONHandler(&log, nil))
	w.node("office").source.set(nil, errors.New("no row for 74071238186"), nil)
	r := w.mustConsult(question())
	if log.Len() == 0 || strings.Contains(log.String(), person) {
		t.Fatal(log.String())
	}
	js, _ := json.Marshal(r)
	if s := fmt.Sprintf("%+v %#v %s", r, r, js); strings.Contains(s, person) {
		t.Fatal(s)
	}
	for _, e := range w.node("office").journal.entries {
		if strings.Contains(e.GetDetail(), person) {
			t.Fatal(e.GetDetail())
		}
	}
}
