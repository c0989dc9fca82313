package batch

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/batch/lines"
	"github.com/crossroads-mesh/crossroads/node/batch/pace"
	"github.com/crossroads-mesh/crossroads/node/batch/spool"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const schema = `{"type":"object","properties":{"entitled":{"type":"boolean"},"wage":{"type":"number"},"note":{"type":"string"}},"required":["entitled"],"additionalProperties":false}`

var members = []string{"alpha", "beta", "gamma"}

var bounds = genesis.DefaultBounds()

// world is a mesh in one process: three registry members, a consultant (pcsa), two suppliers
// (office, fund) and a stranger. Tables, signatures, clearing, journals, outboxes and spools
// are real; the network and the systems of the suppliers are the test's.
type world struct {
	t   testing.TB
	rec *recordtest.World

	mu    sync.RWMutex // guards the registry
	state record.MapState
	index uint64

	ahead atomic.Int64 // ns; how far the nodes' clocks are ahead of this machine's
	nodes map[string]*testNode
	net   struct {
		sync.Mutex
		before func(call) error
		after  func(call, proto.Message) error
	}
	persons int
}

// call is one call between nodes: clear, present or acknowledge.
type call struct {
	method, from, to string
	msg              proto.Message
}

type testNode struct {
	w      *world
	id     names.NodeID
	dir    string
	source *source
	// passing is where the deciding of chunks lets others go first; nil: nowhere.
	passing atomic.Pointer[pace.Gate]

	outbox     *faultyOutbox
	journal    *faultyJournal
	consultant *Consultant
	supplier   *Supplier
	decisions  *Decisions
	single     *exchange.Consultant // one by one: the dumb model
	singleSup  *exchange.Supplier
	clear      *clearing.Service
}

type newOption func(*world)

func newWorld(t testing.TB, persons int, options ...newOption) *world {
	t.Helper()
	w := &world{t: t, rec: recordtest.New(t, members...), nodes: map[string]*testNode{}, persons: persons}
	w.rec.Time = time.Now().UnixMilli()
	if err := record.Bootstrap(&w.state, w.rec.Rules); err != nil {
		t.Fatal(err)
	}
	for id, kind := range map[string]string{"pcsa": "pcsa", "office": "office", "fund": "office", "stranger": "bank", "numbers": "register"} {
		i := &registrypb.Institution{Id: id, Type: kind}
		if id == "numbers" {
			i.NumberSchemes = []string{"ssin"}
		}
		if id == "fund" {
			i.Sector = "health"
		}
		w.apply(w.rec.Admit(i))
		w.apply(w.rec.Command(id, &registrypb.Command_SetNode{SetNode: recordtest.Node(id, "n1")}))
	}
	w.apply(w.rec.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
		Id: "status/v1", Title: "Status", Schema: schema, Scheme: "ssin", Qualities: []string{"insured"}}}))
	for _, s := range []string{"office", "fund"} {
		w.apply(w.rec.Command(s, &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
			Institution: s, Dataset: "status/v1", Qualities: []string{"insured"}, Period: recordtest.Since()}}))
	}
	w.authorize("demo-yes", "tariff", "entitled")
	w.authorize("demo-all", "inquiry", "entitled", "wage")
	var asks, office, fund []*registrypb.Reference
	for i := range persons {
		ref := func(q string) *registrypb.Reference { return recordtest.Reference(recordtest.Person(i), q) }
		if i%10 != 9 { // every tenth is nobody the consultant knows
			asks = append(asks, ref("customer"))
		}
		if i%3 != 2 {
			office = append(office, ref("insured"))
		}
		if i%5 == 0 {
			fund = append(fund, ref("insured"))
		}
	}
	w.apply(w.rec.Declare("pcsa", asks...))
	w.apply(w.rec.Declare("office", office...))
	w.apply(w.rec.Declare("fund", fund...))
	for _, o := range options {
		o(w)
	}
	for _, id := range append([]string{"pcsa", "office", "fund", "stranger"}, members...) {
		n := &testNode{w: w, id: names.NodeID{Institution: names.InstitutionID(id), Node: "n1"}, dir: t.TempDir()}
		n.source = &source{institution: id}
		w.nodes[id] = n
		n.boot()
		t.Cleanup(n.shut)
	}
	return w
}

// now is every node's clock.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (w *world) authorize(id, purpose string, fields ...string) {
	w.apply(w.rec.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: id, Deliberation: "DEMO-2024/1", LegalBasis: "DEMO law", RequesterType: "pcsa", RequesterQualities: []string{"customer"},
		Dataset: "status/v1", Fields: fields, Purpose: purpose, Modes: []string{"consultation", "batch"}, Period: recordtest.Since()}}))
}

func (w *world) apply(raw []byte) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	res, err := record.Apply(&w.state, w.rec.Rules, w.index, raw)
	if err == nil {
		err = record.SetAppliedIndex(&w.state, w.index)
	}
	if err != nil || !res.Accepted {
		w.t.Fatalf("command: %v, %s", err, res.Refusal)
	}
}

func (n *testNode) boot() {
	t := n.w.t
	t.Helper()
	key := bytes.Repeat([]byte{1}, 32)
	o, err := outbox.Open(outbox.Config{Dir: filepath.Join(n.dir, "outbox"), StorageKey: key, Now: n.w.now})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(journal.Config{Dir: filepath.Join(n.dir, "journal"), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.OpenDir(filepath.Join(n.dir, "lots"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(d, key)
	if err != nil {
		t.Fatal(err)
	}
	n.outbox, n.journal = &faultyOutbox{Outbox: o}, &faultyJournal{Journal: j}
	signer := recordtest.Key(string(n.id.Institution))
	sources := map[names.DatasetID]exchange.Source{"status/v1": n.source}
	n.consultant, err = NewConsultant(ConsultantConfig{
		Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Peers: peers{n}, Journal: n.journal, Outbox: n.outbox, Spool: s, Bounds: bounds,
		ChunkLines: 50, ClearTimeout: 20 * time.Second, PresentTimeout: 20 * time.Second, Now: n.w.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.supplier = NewSupplier(SupplierConfig{
		Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Journal: n.journal, Outbox: n.outbox, Sources: sources, Bounds: bounds,
		Now: n.w.now,
	})
	n.decisions = &Decisions{Journal: n.journal, Outbox: n.outbox, Now: n.w.now}
	n.decisions.Decide = chunk.New(chunk.Config{
		Self: n.id, Mesh: recordtest.Mesh, Signer: signer, Registry: n, Journal: n.decisions, Bounds: bounds, Schemes: subject.Belgian(),
		Now: n.w.now, Pass: func(ctx context.Context) error {
			if g := n.passing.Load(); g != nil {
				return g.Pass(ctx)
			}
			return ctx.Err()
		},
	}).Clear
	n.clear = clearing.New(clearing.Config{
		Self: n.id, Mesh: recordtest.Mesh, Signer: signer, Registry: n, Journal: exchange.Decisions{Journal: n.journal}, Bounds: bounds, Schemes: subject.Belgian(),
	})
	n.single = exchange.NewConsultant(exchange.ConsultantConfig{
		Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Peers: peers{n}, Journal: n.journal, Outbox: n.outbox, Bounds: bounds,
		ClearTimeout: 20 * time.Second, ClearFor: 20 * time.Second, PresentTimeout: 20 * time.Second,
	})
	n.singleSup = exchange.NewSupplier(exchange.SupplierConfig{
		Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Journal: n.journal, Outbox: n.outbox, Sources: sources, Bounds: bounds,
	})
}

func (n *testNode) shut() { _, _ = n.outbox.Close(), n.journal.Close() }

// restart is what a crash leaves: the disk.
func (n *testNode) restart() {
	n.shut()
	n.boot()
}

func (n *testNode) View(fn func(record.View) error) error {
	n.w.mu.RLock()
	defer n.w.mu.RUnlock()
	return fn(record.NewView(&n.w.state))
}

func (n *testNode) Standing() (lease.Standing, error) {
	n.w.mu.RLock()
	defer n.w.mu.RUnlock()
	payload, err := proto.Marshal(&registrypb.Grant{Mesh: string(recordtest.Mesh), Nonce: make([]byte, 32), Holder: nodeRef(n.id),
		Leader: &registrypb.NodeRef{Institution: "alpha", Node: "n1"}, Term: 1, CommitIndex: n.w.index, LeaderTimeUnixMs: n.w.now().UnixMilli()})
	if err != nil {
		return lease.Standing{}, err
	}
	raw, err := envelope.Sign(envelope.Grant, payload, crypto.Signer(recordtest.Key("alpha")))
	return lease.Standing{Grant: raw, Index: n.w.index, Until: time.Now().Add(bounds.Lease)}, err
}

var errLost = errors.New("lost")

type peers struct{ n *testNode }

func carry[Req, Resp proto.Message](p peers, ctx context.Context, method string, to names.NodeID, req Req, handle func(*testNode, Req) (Resp, error)) (resp Resp, err error) {
	w := p.n.w
	w.net.Lock()
	before, after := w.net.before, w.net.after
	w.net.Unlock()
	c := call{method, string(p.n.id.Institution), string(to.Institution), req}
	if before != nil {
		if err := before(c); err != nil {
			return resp, err
		}
	}
	target := w.nodes[string(to.Institution)]
	if target == nil {
		return resp, errLost
	}
	if resp, err = handle(target, proto.Clone(req).(Req)); err != nil {
		return resp, err
	}
	if after != nil {
		err = after(c, resp)
	}
	return resp, err
}

func (w *world) spoil(before func(call) error, after func(call, proto.Message) error) {
	w.net.Lock()
	defer w.net.Unlock()
	w.net.before, w.net.after = before, after
}

func (p peers) ClearChunk(ctx context.Context, to names.NodeID, req *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error) {
	return carry(p, ctx, "clear", to, req, func(n *testNode, r *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error) {
		return n.decisions.Clear(ctx, p.n.id, r)
	})
}

func (p peers) PresentChunk(ctx context.Context, to names.NodeID, req *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error) {
	return carry(p, ctx, "present", to, req, func(n *testNode, r *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error) {
		return n.supplier.Present(ctx, p.n.id, r)
	})
}

func (p peers) AcknowledgeChunk(ctx context.Context, to names.NodeID, req *nodepb.ChunkAcknowledgement) (*nodepb.ChunkAcknowledgeResponse, error) {
	return carry(p, ctx, "acknowledge", to, req, func(n *testNode, r *nodepb.ChunkAcknowledgement) (*nodepb.ChunkAcknowledgeResponse, error) {
		return n.supplier.Acknowledge(ctx, p.n.id, r)
	})
}

func (p peers) Order(c []names.NodeID) []names.NodeID { return c }

func (p peers) Clear(ctx context.Context, to names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
	return carry(p, ctx, "clear1", to, req, func(n *testNode, r *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
		return n.clear.Clear(ctx, p.n.id, r)
	})
}

func (p peers) Present(ctx context.Context, to names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	return carry(p, ctx, "present1", to, req, func(n *testNode, r *nodepb.Presentation) (*nodepb.PresentResponse, error) {
		return n.singleSup.Present(ctx, p.n.id, r)
	})
}

func (p peers) Acknowledge(ctx context.Context, to names.NodeID, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
	return new(nodepb.AcknowledgeResponse), nil
}

// source is an institution's own system. What it holds on somebody follows from the number.
type source struct {
	institution string
	mu          sync.Mutex
	asked       map[string]int
	hook        func(q exchange.Query) ([]exchange.Record, error, bool)
}

func (s *source) Fetch(_ context.Context, q exchange.Query) ([]exchange.Record, error) {
	n := q.Subject.Number()
	s.mu.Lock()
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[n]++
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		if r, err, ok := hook(q); ok {
			return r, err
		}
	}
	switch n[8] {
	case '0':
		return nil, nil
	case '1':
		return []exchange.Record{exchange.Record(`{"entitled":false,"wage":1.50,"note":"must not leave"}`), exchange.Record(`{"entitled":true,"wage":2}`)}, nil
	case '2': // against the schema
		return []exchange.Record{exchange.Record(`{"entitled":"yes"}`)}, nil
	}
	return []exchange.Record{exchange.Record(fmt.Sprintf(`{"entitled":%v,"wage":1%s.50,"note":"must not leave"}`, n[8]%2 == 0, n[:3]))}, nil
}

func (s *source) most() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.asked {
		n = max(n, k)
	}
	return n
}

var errDisk = errors.New("disk full")

type faultyOutbox struct {
	*outbox.Outbox
	mu            sync.Mutex
	before, after func([]outbox.Change) error
}

func (f *faultyOutbox) Write(changes ...outbox.Change) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(changes); err != nil {
			return err
		}
	}
	if err := f.Outbox.Write(changes...); err != nil || after == nil {
		return err
	}
	return after(changes)
}

type faultyJournal struct {
	*journal.Journal
	mu            sync.Mutex
	before, after func(*nodepb.Entry) error
}

func (f *faultyJournal) Append(ctx context.Context, e *nodepb.Entry) (uint64, error) {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(e); err != nil {
			return 0, err
		}
	}
	n, err := f.Journal.Append(ctx, e)
	if err == nil && after != nil {
		err = after(e)
	}
	return n, err
}

// entries gives what a node's journal holds of a lot.
func (n *testNode) entries(ticket names.Ticket, event nodepb.Event) (found []*nodepb.Entry) {
	n.w.t.Helper()
	all, err := n.journal.Find(context.Background(), journal.Query{Ticket: ticket, Limit: 100_000})
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, e := range all {
		if e.Entry.Event == event {
			found = append(found, e.Entry)
		}
	}
	return found
}

func question(purpose names.Purpose) Question {
	return Question{
		Caller:  exchange.Caller{Application: "billing", User: "clerk-7", AuthLevel: 3, Channel: "api"},
		Purpose: purpose, Dataset: "status/v1", Scheme: "ssin", Period: names.Period{From: 19000, Until: 20000}, Format: lines.Format{Form: lines.CSV, Reference: "ref"},
	}
}

// file is a CSV of the persons from to until, and what else is given.
func file(from, until int, more ...string) string {
	var b strings.Builder
	b.WriteString("number,ref\n")
	for i := from; i < until; i++ {
		fmt.Fprintf(&b, "%s,r%d\n", recordtest.Person(i), i)
	}
	for _, m := range more {
		b.WriteString(m + "\n")
	}
	return b.String()
}

func (w *world) submit(q Question, in string) *Lot {
	w.t.Helper()
	l, err := w.nodes["pcsa"].consultant.Submit(context.Background(), q, strings.NewReader(in))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// run works until the lot has ended, or for ever if it does not.
func (n *testNode) run(voucher names.Ticket) []Line {
	n.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = n.consultant.Run(ctx) })
	defer all.Wait()
	defer cancel()
	deadline := time.Now().Add(time.Minute)
	for {
		l, err := n.consultant.Status("billing", voucher)
		if err != nil {
			n.w.t.Fatal(err)
		}
		if !l.Ended.IsZero() {
			return n.results(voucher)
		}
		if time.Now().After(deadline) {
			n.w.t.Fatalf("the lot does not end: %+v", l)
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *testNode) results(voucher names.Ticket) (all []Line) {
	n.w.t.Helper()
	err := n.consultant.Results(context.Background(), "billing", voucher, func(l Line) error {
		l.ResultLine = proto.Clone(l.ResultLine).(*nodepb.ResultLine)
		all = append(all, l)
		return nil
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
	return all
}

// subjectsIn counts how often each subject stands in entries.
func subjectsIn(entries []*nodepb.Entry, numbers []string) map[string]int {
	count := map[string]int{}
	for _, n := range numbers {
		for _, e := range entries {
			if journal.InLot(e, subject.Raw("ssin", n)) != nil {
				count[n]++
			}
		}
	}
	return count
}

func personsOf(n int) (list []string) {
	for i := range n {
		list = append(list, recordtest.Person(i))
	}
	return slices.Clip(list)
}

func signDemand(key crypto.Signer, d *registrypb.ChunkDemand) ([]byte, error) {
	return envelope.Sign(envelope.LotDemand, marshalled(d), key)
}

// runUntil works until a crash.
func (n *testNode) runUntil(died <-chan string) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = n.consultant.Run(ctx) })
	select {
	case <-died:
	case <-time.After(time.Minute):
		n.w.t.Error("it never died")
	}
	cancel()
	all.Wait()
}
