package inquiry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const person = "74071238186" // invented

var self = names.NodeID{Institution: "pcsa", Node: "n1"}

// consultant answers as exchange.Consultant does: once for each client ticket, and by
// the time that a question gives. The test network plays with the real one.
type consultant struct {
	mu    sync.Mutex
	asked []exchange.Question
	kept  map[names.ClientTicket]*exchange.Result
	acked []names.ClientTicket
	// answer says what comes of a dataset; nil: one record of it.
	answer func(ctx context.Context, q exchange.Question) (*exchange.Result, error)
}

func (c *consultant) Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
	c.mu.Lock()
	c.asked = append(c.asked, q)
	kept := c.kept[q.ClientTicket]
	c.mu.Unlock()
	if kept != nil {
		return kept, nil
	}
	r := &exchange.Result{
		Ticket: names.TicketOf([]byte(q.ClientTicket)), ClientTicket: q.ClientTicket, Status: nodepb.Status_DATA_FOUND,
		Suppliers: []exchange.SupplierResult{{Supplier: "nsso", Status: nodepb.Status_DATA_FOUND, Records: []byte(`[{"a":1}]`)}},
	}
	if c.answer != nil {
		var err error
		if r, err = c.answer(ctx, q); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[q.ClientTicket] = r
	return r, nil
}

func (c *consultant) Acknowledge(_ context.Context, _ string, t names.ClientTicket) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept[t] == nil {
		return exchange.ErrNotFound
	}
	c.acked = append(c.acked, t)
	return nil
}

// silent is a source that answers never, so that its consultation ends by the time given.
func silent(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
	select {
	case <-time.After(time.Until(q.By)):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return none(q, registrypb.Reason_SUPPLIER_UNAVAILABLE), nil
}

func none(q exchange.Question, reason registrypb.Reason) *exchange.Result {
	return &exchange.Result{Ticket: names.TicketOf([]byte(q.ClientTicket)), ClientTicket: q.ClientTicket, Status: nodepb.Status_NO_RESULT, Reason: reason}
}

// world is an Inquirer and what it stands on. steps counts writes of journal and outbox.
type world struct {
	t          *testing.T
	consultant *consultant
	outbox     *outbox.Outbox
	entries    []*nodepb.Entry
	state      record.MapState
	inquirer   *Inquirer

	mu      sync.Mutex
	left    int  // steps until the node dies; 0: never
	happens bool // the step it dies at takes effect
	dead    bool
}

var errDead = errors.New("the node is dead")

// step says whether a write takes effect and whether its caller learns of it.
func (w *world) step(do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errDead
	}
	if w.left--; w.left == 0 {
		w.dead = true
		if w.happens {
			_ = do()
		}
		return errDead
	}
	return do()
}

func (w *world) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	return 0, w.step(func() error { w.entries = append(w.entries, e); return nil })
}

func (w *world) Get(k outbox.Key) ([]byte, error) { return w.outbox.Get(k) }

func (w *world) Write(changes ...outbox.Change) error {
	return w.step(func() error { return w.outbox.Write(changes...) })
}

func (w *world) View(fn func(record.View) error) error { return fn(record.NewView(&w.state)) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, consultant: &consultant{kept: map[names.ClientTicket]*exchange.Result{}}}
	var err error
	if w.outbox, err = outbox.Open(outbox.Config{StorageKey: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.outbox.Close() })
	w.boot()
	return w
}

// boot starts the node again on the same disk, in whole health.
func (w *world) boot() {
	w.left, w.dead = 0, false
	w.inquirer = New(Config{Self: self, Consultations: w.consultant, Journal: w, Outbox: w, Registry: w, Schemes: subject.Belgian()})
}

func (w *world) of(event nodepb.Event) (found []*nodepb.Entry) {
	for _, e := range w.entries {
		if e.Event == event {
			found = append(found, e)
		}
	}
	return found
}

func question(datasets ...names.DatasetID) Question {
	q := Question{
		Caller: exchange.Caller{Application: "desk", User: "clerk-7", AuthLevel: 2, Channel: "api"}, ClientTicket: "file-1",
		Purpose: "social-inquiry", Scheme: "ssin", Number: person, Period: names.Period{From: 20000, Until: 20100},
	}
	for _, d := range datasets {
		q.Parts = append(q.Parts, Part{Dataset: d})
	}
	return q
}

func (w *world) inquire(q Question) *Result {
	w.t.Helper()
	r, err := w.inquirer.Inquire(w.t.Context(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestInquire(t *testing.T) {
	w := newWorld(t)
	q := question("wages/v1", "pensions/v1")
	q.Parts[0].Fields, q.Parts[1].Suppliers = []names.FieldName{"gross"}, []names.InstitutionID{"fpd"}
	r := w.inquire(q)
	if r.Status != nodepb.Status_DATA_FOUND || len(r.Parts) != 2 || r.Parts[0].Dataset != "wages/v1" || r.Ticket.Validate() != nil {
		t.Fatalf("%+v", r)
	}
	seen := map[names.ClientTicket]bool{q.ClientTicket: true}
	for _, asked := range w.consultant.asked {
		if seen[asked.ClientTicket] || asked.Inquiry != r.Ticket || asked.User != "clerk-7" || asked.By.IsZero() || asked.ClientTicket.Validate() != nil {
			t.Errorf("asked %+v", asked)
		}
		seen[asked.ClientTicket] = true
	}
	begun, ended := w.of(nodepb.Event_INQUIRED), w.of(nodepb.Event_CONCLUDED)
	if len(begun) != 1 || len(ended) != 1 || len(w.entries) != 2 {
		t.Fatalf("journal: %v", w.entries)
	}
	for _, e := range w.entries {
		if e.Ticket != string(r.Ticket) || e.ClientTicket != "file-1" || e.Subject.GetNumber() != person || len(e.Parts) != 2 {
			t.Errorf("entry %v", e)
		}
	}
	if p := ended[0].Parts[1]; p.Ticket != string(r.Parts[1].Ticket) || p.Status != nodepb.Status_DATA_FOUND || begun[0].Parts[1].Ticket != "" {
		t.Errorf("concluded: %v", ended[0].Parts)
	}
}

// TestOutcome: the status of the whole says neither more nor less than those of its parts.
func TestOutcome(t *testing.T) {
	const (
		found   = nodepb.Status_DATA_FOUND
		nothing = nodepb.Status_NO_DATA_FOUND
		partly  = nodepb.Status_INCOMPLETE_DATA
		no      = nodepb.Status_NO_RESULT
	)
	r := func(s nodepb.Status, reason registrypb.Reason) *exchange.Result {
		return &exchange.Result{Status: s, Reason: reason}
	}
	unknown, down := r(no, registrypb.Reason_UNKNOWN_SUBJECT), r(no, registrypb.Reason_SUPPLIER_UNAVAILABLE)
	for _, c := range []struct {
		parts  []*exchange.Result
		status nodepb.Status
		reason registrypb.Reason
	}{
		{[]*exchange.Result{r(found, 0), r(nothing, 0)}, found, 0},
		{[]*exchange.Result{r(nothing, 0), r(nothing, 0)}, nothing, 0},
		{[]*exchange.Result{r(found, 0), unknown}, found, 0},
		{[]*exchange.Result{r(nothing, 0), unknown}, nothing, 0},
		{[]*exchange.Result{unknown, unknown}, no, registrypb.Reason_UNKNOWN_SUBJECT},
		{[]*exchange.Result{r(found, 0), down}, partly, registrypb.Reason_SUPPLIER_UNAVAILABLE},
		{[]*exchange.Result{r(partly, registrypb.Reason_SUPPLIER_ERROR), r(found, 0)}, partly, registrypb.Reason_SUPPLIER_ERROR},
		{[]*exchange.Result{down, unknown}, no, registrypb.Reason_SUPPLIER_UNAVAILABLE},
		{[]*exchange.Result{r(no, registrypb.Reason_LOCAL_POLICY), r(found, 0)}, partly, registrypb.Reason_LOCAL_POLICY},
		{[]*exchange.Result{r(no, registrypb.Reason_NOT_INTEGRATED), r(no, registrypb.Reason_NOT_ALLOWED)}, no, registrypb.Reason_NOT_INTEGRATED},
	} {
		x := &inquiry{kept: &nodepb.KeptInquiry{}}
		for range c.parts {
			x.kept.Parts = append(x.kept.Parts, &nodepb.InquiryPart{Dataset: "any/v1"})
		}
		if got := x.result(c.parts); got.Status != c.status || got.Reason != c.reason {
			t.Errorf("%v: %s %s, want %s %s", c.parts, got.Status, got.Reason, c.status, c.reason)
		}
	}
}

// TestSlowSource: one source that never answers is waited for until shortly before the
// caller's deadline and no longer, and every other one answers.
func TestSlowSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var quick []time.Duration
		begun := time.Now()
		w.consultant.answer = func(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
			if q.Dataset == "slow/v1" {
				return silent(ctx, q)
			}
			time.Sleep(200 * time.Millisecond)
			w.consultant.mu.Lock()
			defer w.consultant.mu.Unlock()
			quick = append(quick, time.Since(begun))
			return &exchange.Result{Ticket: names.TicketOf([]byte(q.ClientTicket)), Status: nodepb.Status_DATA_FOUND}, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r, err := w.inquirer.Inquire(ctx, question("a/v1", "slow/v1", "b/v1", "c/v1"))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 2*time.Second || took >= 3*time.Second {
			t.Errorf("it took %s of 3 s", took)
		}
		if r.Status != nodepb.Status_INCOMPLETE_DATA || r.Reason != registrypb.Reason_SUPPLIER_UNAVAILABLE || len(quick) != 3 {
			t.Errorf("%s %s, %d answered", r.Status, r.Reason, len(quick))
		}
		for _, d := range quick {
			if d != 200*time.Millisecond {
				t.Errorf("a source that is quick was asked so that it answered after %s", d)
			}
		}
	})
}

// TestCutShort: a caller that goes away concludes nothing; the same question goes on.
func TestCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.consultant.answer = func(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
			if q.Dataset == "slow/v1" {
				return silent(ctx, q)
			}
			return &exchange.Result{Ticket: names.TicketOf([]byte(q.ClientTicket)), Status: nodepb.Status_DATA_FOUND}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.inquirer.Inquire(ctx, question("a/v1", "slow/v1")); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
		if len(w.of(nodepb.Event_CONCLUDED)) > 0 {
			t.Fatal("it was concluded although nobody waited")
		}
		w.consultant.answer = nil // the source is well again
		if r := w.inquire(question("a/v1", "slow/v1")); r.Status != nodepb.Status_DATA_FOUND {
			t.Errorf("%s %s", r.Status, r.Reason)
		}
		if e := w.of(nodepb.Event_INQUIRED); len(e) != 2 || e[1].Detail != "resumed" {
			t.Errorf("journal: %v", e)
		}
	})
}

// TestCrash kills the node at every step, before it happens and after, and asks again:
// no part is ever asked under a second ticket, nothing is asked before it is journaled
// and nothing answered before it is.
func TestCrash(t *testing.T) {
	for _, happens := range []bool{false, true} {
		for n := 1; ; n++ {
			w := newWorld(t)
			w.left, w.happens = n, happens
			q := question("a/v1", "b/v1", "forbidden/v1")
			q.Permits = func(d names.DatasetID) bool { return d != "forbidden/v1" }
			r, err := w.inquirer.Inquire(t.Context(), q)
			if !w.dead {
				if err != nil || n < 5 {
					t.Fatalf("after %d steps: %v", n, err)
				}
				break
			}
			if err == nil {
				t.Fatalf("step %d failed, and it answered %+v", n, r)
			}
			if len(w.consultant.asked) > 0 && len(w.of(nodepb.Event_INQUIRED)) == 0 {
				t.Errorf("step %d: asked before it was journaled", n)
			}
			w.boot()
			r = w.inquire(q)
			if r.Status != nodepb.Status_INCOMPLETE_DATA || r.Reason != registrypb.Reason_LOCAL_POLICY || len(w.of(nodepb.Event_CONCLUDED)) == 0 {
				t.Errorf("step %d: %s %s", n, r.Status, r.Reason)
			}
			tickets := map[names.DatasetID][]names.ClientTicket{}
			for _, asked := range w.consultant.asked {
				if !slices.Contains(tickets[asked.Dataset], asked.ClientTicket) {
					tickets[asked.Dataset] = append(tickets[asked.Dataset], asked.ClientTicket)
				}
			}
			for d, all := range tickets {
				if len(all) != 1 || d == "forbidden/v1" {
					t.Errorf("step %d, happened %t: %s was asked under %d tickets", n, happens, d, len(all))
				}
			}
			if again := w.inquire(q); !reflect.DeepEqual(r, again) {
				t.Errorf("step %d: another answer the second time", n)
			}
		}
	}
}

func TestSameTicket(t *testing.T) {
	w := newWorld(t)
	first := w.inquire(question("a/v1", "b/v1"))
	entries := len(w.entries)
	spelt := question("a/v1", "b/v1")
	spelt.Number = "74.07.12-381.86"
	if again := w.inquire(spelt); !reflect.DeepEqual(first, again) || len(w.entries) != entries {
		t.Errorf("the same question, written otherwise: %+v", again)
	}
	others := map[string]func(*Question){
		"user":    func(q *Question) { q.User = "clerk-8" },
		"level":   func(q *Question) { q.AuthLevel = 3 },
		"purpose": func(q *Question) { q.Purpose = "other" },
		"subject": func(q *Question) { q.Number = "03022814690" },
		"period":  func(q *Question) { q.Period.Until++ },
		"parts":   func(q *Question) { q.Parts = q.Parts[:1] },
		"order":   func(q *Question) { q.Parts[0], q.Parts[1] = q.Parts[1], q.Parts[0] },
		"fields":  func(q *Question) { q.Parts[1].Fields = []names.FieldName{"x"} },
		"sources": func(q *Question) { q.Parts[1].Suppliers = []names.InstitutionID{"x"} },
		"all":     func(q *Question) { q.Parts = nil },
	}
	for what, change := range others {
		q := question("a/v1", "b/v1")
		change(&q)
		if _, err := w.inquirer.Inquire(t.Context(), q); !errors.Is(err, exchange.ErrTicketReused) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	q := question("a/v1", "b/v1")
	q.Application = "other" // whose tickets are its own
	if r := w.inquire(q); r.Ticket == first.Ticket {
		t.Error("two applications share an inquiry")
	}
}

// TestBadQuestion: one part that cannot be asked, and none is.
func TestBadQuestion(t *testing.T) {
	many := make([]names.DatasetID, MaxParts+1)
	for i := range many {
		many[i] = names.DatasetID(fmt.Sprintf("d%d/v1", i))
	}
	bad := map[string]Question{"too many": question(many...), "twice": question("a/v1", "a/v1"), "dataset": question("a/v1", "nonsense")}
	field := question("a/v1", "b/v1")
	field.Parts[1].Fields = []names.FieldName{"no field!"}
	scheme := question("a/v1")
	scheme.Scheme = "unheard-of"
	bad["field"], bad["scheme"] = field, scheme
	for what, q := range bad {
		w := newWorld(t)
		if _, err := w.inquirer.Inquire(t.Context(), q); !errors.Is(err, exchange.ErrBadQuestion) {
			t.Errorf("%s: %v", what, err)
		}
		if len(w.consultant.asked)+len(w.entries) > 0 {
			t.Errorf("%s: something was done", what)
		}
	}
}

// TestPartFails: an error of one part is no outcome of it. Nothing is concluded.
func TestPartFails(t *testing.T) {
	w := newWorld(t)
	w.consultant.answer = func(_ context.Context, q exchange.Question) (*exchange.Result, error) {
		if q.Dataset == "b/v1" {
			return nil, exchange.ErrRegistryStale
		}
		return none(q, registrypb.Reason_UNKNOWN_SUBJECT), nil
	}
	if _, err := w.inquirer.Inquire(t.Context(), question("a/v1", "b/v1")); !errors.Is(err, exchange.ErrRegistryStale) {
		t.Fatalf("error %v", err)
	}
	w.consultant.answer = nil
	if r := w.inquire(question("a/v1", "b/v1")); r.Parts[0].Reason != registrypb.Reason_UNKNOWN_SUBJECT || r.Parts[1].Status != nodepb.Status_DATA_FOUND {
		t.Errorf("%+v", r)
	}
}

func TestAcknowledge(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := w.inquirer.Acknowledge(ctx, "desk", "file-1"); !errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("before it was asked: %v", err)
	}
	q := question("a/v1", "forbidden/v1")
	q.Permits = func(d names.DatasetID) bool { return d == "a/v1" }
	w.inquire(q)
	if err := w.inquirer.Acknowledge(ctx, "other", "file-1"); !errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("by another application: %v", err)
	}
	for range 2 {
		if err := w.inquirer.Acknowledge(ctx, "desk", "file-1"); err != nil {
			t.Error(err)
		}
	}
	if len(w.consultant.acked) != 1 {
		t.Errorf("acknowledged %v", w.consultant.acked)
	}
	if _, err := w.inquirer.Inquire(ctx, q); !errors.Is(err, exchange.ErrAcknowledged) {
		t.Errorf("asked again: %v", err)
	}
}

// TestEverythingAllowed: without parts, it is what authorizations in force give; and
// what they gave when it was asked stays what is asked.
func TestEverythingAllowed(t *testing.T) {
	w := newWorld(t)
	reg := recordtest.New(t, "pcsa", "nsso")
	if err := record.Bootstrap(&w.state, reg.Rules); err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	apply := func(raw []byte) {
		t.Helper()
		index++
		if res, err := record.Apply(&w.state, reg.Rules, index, raw); err != nil || !res.Accepted {
			t.Fatalf("%v %s", err, res.Refusal)
		}
	}
	for _, d := range []string{"wages/v1", "pensions/v1", "other/v1", "ended/v1", "batch/v1"} {
		apply(reg.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
			Id: d, Title: d, Scheme: "ssin", Schema: `{"type":"object","properties":{"gross":{"type":"number"}}}`}}))
	}
	grant := func(id, dataset, purpose, mode string, until names.Date) {
		apply(reg.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: id, Deliberation: "DEMO-2026/001", LegalBasis: "Demo act", RequesterType: "member", RequesterQualities: []string{"client"},
			Dataset: dataset, Fields: []string{"gross"}, Purpose: purpose, Modes: []string{mode},
			Period: &registrypb.Period{From: int32(names.Always), Until: int32(until)}}}))
	}
	grant("a-1", "wages/v1", "social-inquiry", "consultation", names.Forever)
	grant("a-2", "pensions/v1", "social-inquiry", "consultation", names.Forever)
	grant("a-3", "other/v1", "other", "consultation", names.Forever)
	grant("a-4", "ended/v1", "social-inquiry", "consultation", 1000)
	grant("a-5", "batch/v1", "social-inquiry", "batch", names.Forever)
	r := w.inquire(question())
	if len(r.Parts) != 2 || r.Parts[0].Dataset != "pensions/v1" || r.Parts[1].Dataset != "wages/v1" {
		t.Fatalf("%+v", r.Parts)
	}
	apply(reg.Command(record.Committee, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "a-1"}}))
	if again := w.inquire(question()); !reflect.DeepEqual(r, again) {
		t.Errorf("asked again: %+v", again)
	}
	q := question()
	q.Purpose, q.ClientTicket = "unheard-of", "file-2"
	if _, err := w.inquirer.Inquire(t.Context(), q); !errors.Is(err, ErrNothingAllowed) {
		t.Errorf("for a purpose that nothing is allowed for: %v", err)
	}
}
