package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/batch/lines"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
	"github.com/crossroads-mesh/crossroads/node/inquiry"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/receipt"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	person   = "74071238186" // an invented one
	aTicket  = "0123456789abcdefghjkmnpqrs"
	elsewise = "zzzzzzzzzzzzzzzzzzzzzzzzzg"
)

// fakes stands for every room behind the interface. mu guards all of it.
type fakes struct {
	mu        sync.Mutex
	refuses   string // what the registry says against commands
	lost      error  // why it answers none
	asked     []exchange.Question
	result    *exchange.Result
	err       error
	hold      chan struct{} // Consult waits until it is closed; nil: not at all
	entered   chan struct{} // Consult says that it has begun
	acked     []string
	entries   []*nodepb.Entry
	journaled error // what Append and Find return
	state     record.MapState
	rules     *record.Rules
	submitted [][]byte
	done      []*registrypb.Command
	waited    []uint64
	readings  fakeReadings
	notify    fakeNotify
}

func (f *fakes) Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
	f.mu.Lock()
	f.asked = append(f.asked, q)
	hold, entered, result, err := f.hold, f.entered, f.result, f.err
	f.mu.Unlock()
	if entered != nil {
		entered <- struct{}{}
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if result == nil && err == nil {
		result = &exchange.Result{Ticket: aTicket, ClientTicket: q.ClientTicket, Status: nodepb.Status_NO_DATA_FOUND}
	}
	return result, err
}

// lots has one, of every application.
type lots struct{ *fakes }

func (f lots) one(voucher names.Ticket) (*batch.Lot, error) {
	if voucher != aTicket {
		return nil, batch.ErrNotFound
	}
	t := time.UnixMilli(1_780_000_000_000).UTC()
	return &batch.Lot{
		Voucher: aTicket, ClientTicket: "t-1", User: "alice", Purpose: "inquiry", Dataset: "wages/v1", State: nodepb.LotState_LOT_DONE, Submitted: t, Ended: t,
		Until: t, Lines: 2, Subjects: 1, Done: 2, Tally: map[string]uint64{"DATA_FOUND": 1, "DUPLICATE_LINE": 1}, Waits: "for nothing",
	}, f.err
}

func (f lots) Submit(_ context.Context, q batch.Question, file io.Reader) (*batch.Lot, error) {
	r, err := lines.NewReader(file, q.Format)
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return f.one(aTicket)
}

func (f lots) Status(_ string, v names.Ticket) (*batch.Lot, error) { return f.one(v) }
func (f lots) List(string) []*batch.Lot                            { l, _ := f.one(aTicket); return []*batch.Lot{l} }
func (f lots) Pause(_ string, v names.Ticket) (*batch.Lot, error)  { return f.one(v) }
func (f lots) Resume(_ string, v names.Ticket) (*batch.Lot, error) { return f.one(v) }
func (f lots) Cancel(_ string, v names.Ticket) (*batch.Lot, error) { return nil, batch.ErrState }
func (f lots) Acknowledge(_ string, v names.Ticket) error          { _, err := f.one(v); return err }

func (f lots) Write(_ context.Context, _ string, _ names.Ticket, form string, w io.Writer) error {
	if _, err := io.WriteString(w, form+" line 1\n"); err != nil {
		return err
	}
	return f.err
}

// inquiries answers every part as Consult would.
type inquiries struct{ *fakes }

func (f inquiries) Inquire(ctx context.Context, q inquiry.Question) (*inquiry.Result, error) {
	r := &inquiry.Result{Ticket: aTicket, ClientTicket: q.ClientTicket, Status: nodepb.Status_INCOMPLETE_DATA,
		Reason: registrypb.Reason_LOCAL_POLICY, Successor: subject.Raw("ssin", "03022814690")}
	for _, p := range q.Parts {
		part, err := f.Consult(ctx, exchange.Question{Caller: q.Caller, ClientTicket: q.ClientTicket, Dataset: p.Dataset, Purpose: q.Purpose})
		if err != nil {
			return nil, err
		}
		if !q.Permits(p.Dataset) {
			part = &exchange.Result{Ticket: aTicket, Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_LOCAL_POLICY}
		}
		r.Parts = append(r.Parts, inquiry.PartResult{Dataset: p.Dataset, Result: part})
	}
	return r, nil
}

func (f *fakes) Acknowledge(_ context.Context, app string, t names.ClientTicket) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked = append(f.acked, app+" "+string(t))
	return f.err
}

func (f *fakes) AppendAll(ctx context.Context, entries []*nodepb.Entry) error {
	for _, e := range entries {
		if _, err := f.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakes) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.journaled != nil {
		return 0, f.journaled
	}
	f.entries = append(f.entries, e)
	return uint64(len(f.entries) - 1), nil
}

func (f *fakes) Find(_ context.Context, q journal.Query) (found []journal.Stored, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, e := range f.entries {
		sub := subject.Raw(subject.Scheme(e.GetSubject().GetScheme()), e.GetSubject().GetNumber())
		if (q.Ticket == "" || string(q.Ticket) == e.Ticket) && (q.User == "" || string(q.User) == e.User) &&
			(q.Subject.IsZero() || q.Subject == sub) && len(found) < q.Limit {
			found = append(found, journal.Stored{Sequence: uint64(i), Entry: e})
		}
	}
	return found, f.journaled
}

func (f *fakes) Trace(_ context.Context, t names.Ticket) (*trace.Story, error) {
	return &trace.Story{Ticket: t, Verdict: trace.Consistent, Summary: "All 3 journals are there, and they agree."}, nil
}

func (f *fakes) Receipt(_ context.Context, t names.Ticket) (*receipt.Receipt, error) {
	return &receipt.Receipt{
		Format: receipt.Format, Mesh: "demo.example", Ticket: t, Journal: "pcsa/n1",
		Entries:  []receipt.Entry{{Sequence: 7, Entry: []byte("entry"), Salt: []byte("salt"), Commitment: []byte("commitment")}},
		Registry: [][]byte{[]byte("command")},
	}, nil
}

func (f *fakes) Checkpoint() []byte {
	return []byte("demo.example/journal/pcsa/n1\n300\nAAAA\n\n— signed\n")
}

func (f *fakes) Tile(path string) ([]byte, error) {
	switch path {
	case "tile/0/000":
		return make([]byte, 256*32), nil
	case "tile/0/x001/000.p/5":
		return make([]byte, 5*32), nil
	case "tile/1/000":
		return nil, errDisk
	}
	return nil, tlog.ErrNotInTree
}

func (f *fakes) Health(context.Context) (*MeshHealth, error) {
	return &MeshHealth{Problems: []string{"x"}, Leader: "pcsa/n1", Nodes: []NodeHealth{{Node: "pcsa/n1", State: "leader", Member: true, Votes: true}}}, nil
}

func (f *fakes) Autopilot() (*Autopilot, error) {
	if f.err != nil {
		return nil, f.err
	}
	return &Autopilot{Leader: "pcsa/n1", Peers: []Peer{{Node: "pcsa/n1", Suffrage: "voter"}}, Proposals: []string{}}, nil
}

func (f *fakes) TransferLeader(context.Context, names.NodeID) error { return f.err }

func (f *fakes) Compact(context.Context) (uint64, error) { return 41, f.err }

func (f *fakes) Write(_ context.Context, archive string, w io.Writer) error {
	_, err := io.WriteString(w, archive)
	return errors.Join(err, f.err)
}

func (f *fakes) Read(_ context.Context, want registry.Reading, fn func(record.View, time.Duration) error) error {
	if want.MaxStale == time.Nanosecond {
		return registry.ErrStale
	}
	return fn(record.NewView(&f.state), time.Second)
}

func (f *fakes) Rules() *record.Rules {
	if f.rules == nil {
		return new(record.Rules)
	}
	return f.rules
}

func (f *fakes) View(fn func(record.View) error) error { return fn(record.NewView(&f.state)) }

func (f *fakes) Submit(_ context.Context, envelope []byte) (*registrypb.SubmitResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.submitted = append(f.submitted, envelope)
	return &registrypb.SubmitResponse{Index: 9, Refusal: "not signed by its author"}, nil
}

func (f *fakes) Status() (*registrypb.StatusResponse, error) {
	return &registrypb.StatusResponse{Node: &registrypb.NodeRef{Institution: "pcsa", Node: "n1"}, State: "watcher", AppliedIndex: 7}, nil
}

func (f *fakes) WaitApplied(_ context.Context, index uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waited = append(f.waited, index)
	return nil
}

func (f *fakes) Head(context.Context, string, registrypb.Chain, uint64) (uint64, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return 3, make([]byte, 32), f.err
}

func (f *fakes) Do(_ context.Context, c *registrypb.Command) (*registrypb.SubmitResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, c)
	if f.lost != nil || f.refuses != "" {
		return &registrypb.SubmitResponse{Index: 8, Refusal: f.refuses}, f.lost
	}
	return &registrypb.SubmitResponse{Index: 8, Accepted: true}, nil
}

func hashOf(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// logged keeps what the server logs, to search it for what must not be there.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newServer(t *testing.T, f *fakes, change ...func(*Config)) (*Server, *logged) {
	t.Helper()
	log := new(logged)
	cfg := Config{
		Self: names.NodeID{Institution: "pcsa", Node: "n1"}, Mesh: "demo.example", Version: "test",
		Applications: []config.Application{
			{Name: "file", TokenSHA256: hashOf("file-token"), UsersAsserted: true, AuthLevel: 3},
			{Name: "robot", TokenSHA256: hashOf("robot-token"), AuthLevel: 1, Purposes: []names.Purpose{"inquiry"}, Datasets: []names.DatasetID{"wages/v1"}},
			{Name: "ops", TokenSHA256: hashOf("ops-token"), Admin: true, Inbox: true},
			{Name: "helm", TokenSHA256: hashOf("helm-token"), Operator: true},
			{Name: "guard", TokenSHA256: hashOf("guard-token"), UsersAsserted: true, Officer: true, Oversees: []string{"alice"}},
		},
		MaxBody: 16 << 10, MaxConcurrent: 4, Drain: time.Second,
		Lots:          lots{f},
		Consultations: f, Inquiries: inquiries{f}, Journal: f, Tree: f, Tracer: f, Readings: &f.readings, Mandates: f, Receipts: f,
		Decisions: func() []WrongDecision {
			return []WrongDecision{{Found: time.Unix(1_700_000_000, 0).UTC(), Clearer: "rrn/n1", Ticket: aTicket, RegistryIndex: 7, Says: "the registry said DENY, NOT_ALLOWED"}}
		}, Registry: f, Reads: f, Operations: f, Author: f, Publisher: &f.notify, Inbox: &f.notify, Pushers: []*push.Pusher{push.New(push.Config{Consumer: "case-system"})}, Replayer: &f.notify, Declarant: &f.notify.declared, Source: &f.notify.declared, Schemes: subject.Belgian(),
		Checks: []Check{{Name: "journal", Says: "The journal takes no entries.", Test: func() error { f.mu.Lock(); defer f.mu.Unlock(); return f.journaled }}},
		Log:    slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if strings.Contains(log.String(), person) {
			t.Errorf("the log holds a subject's number:\n%s", log)
		}
	})
	return s, log
}

// ask sends one request to the handler; headers are pairs.
func ask(s *Server, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, in)
	if body != "" {
		r.Header.Set("Content-Type", mediaJSON)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func asUser(token, user string) []string { return append(bearer(token), HeaderUser, user) }

// wantProblem checks status, code and place of a problem, and that it repeats nothing.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, code Code, where string) *Problem {
	t.Helper()
	p := new(Problem)
	if err := json.Unmarshal(w.Body.Bytes(), p); err != nil || w.Header().Get("Content-Type") != mediaProblem {
		t.Fatalf("no problem (status %d): %s", w.Code, w.Body)
	}
	if p.Code != code || p.Status != w.Code || p.Status != codes[code].status || p.Where != where {
		t.Fatalf("problem %s at %q with status %d, want %s at %q: %s", p.Code, p.Where, w.Code, code, where, w.Body)
	}
	if p.Title == "" || p.Mend == "" || p.RequestID == "" {
		t.Errorf("a problem must say what, how to mend it and which request: %s", w.Body)
	}
	if strings.Contains(w.Body.String(), person) {
		t.Errorf("the problem repeats a subject's number: %s", w.Body)
	}
	return p
}

func question(change ...string) string {
	q := `{"client_ticket":"t-1","subject":{"scheme":"ssin","number":"` + person + `"},"dataset":"wages/v1","purpose":"inquiry","period":{"from":"2026-01-01","until":"2026-03-31"}}`
	return strings.NewReplacer(change...).Replace(q)
}

var errDisk = errors.New("disk full at /secret/path")
