package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	nodejournal "github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const addressSchema = `{"type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"},"secret":{"type":"string"}},"required":["street","city"],"additionalProperties":false}`

var (
	ann  = recordtest.Person(1) // at register, pension and health
	bob  = recordtest.Person(2) // at register and pension
	cleo = recordtest.Person(3) // at register alone
	anew = recordtest.Person(4) // ann's later number
)

var bounds = genesis.DefaultBounds()

// world is a mesh in one process and in virtual time: members alpha, beta and gamma; a
// register that publishes addresses; pension, which may know street and city, and
// health, which may know the city; stranger has a file on ann and no right. Registry,
// signatures, clearing, queues and inboxes are real, on disks that can lose power;
// network and journals are the test's.
type world struct {
	t     testing.TB
	w     *recordtest.World
	began time.Time

	mu    sync.RWMutex // guards the registry
	state record.MapState
	index uint64

	net   network
	nodes map[string]*testNode
	batch int // deliveries in one call
}

// network carries calls, and spoils them when told.
type network struct {
	mu     sync.Mutex
	down   map[string]bool // institutions that nobody reaches
	before func(method, from, to string, msg proto.Message) error
	after  func(method, from, to string, reply proto.Message) error
	calls  map[string]int
}

var errLost = errors.New("lost")

func (w *world) Now() time.Time {
	return time.UnixMilli(1_780_000_000_000).Add(time.Since(w.began))
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, w: recordtest.New(t, "alpha", "beta", "gamma"), began: time.Now(), nodes: map[string]*testNode{}, batch: 16}
	w.net.down, w.net.calls = map[string]bool{}, map[string]int{}
	if err := record.Bootstrap(&w.state, w.w.Rules); err != nil {
		t.Fatal(err)
	}
	for id, kind := range map[string]string{"register": "register", "pension": "pension-office", "health": "health-fund", "stranger": "bank"} {
		i := &registrypb.Institution{Id: id, Type: kind}
		if id == "register" {
			i.NumberSchemes = []string{"ssin"}
		}
		w.do(w.w.Admit(i))
		w.put(id, &registrypb.Command_SetNode{SetNode: recordtest.Node(id, "n1")})
	}
	w.put(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{Id: "address/v1", Title: "Address", Schema: addressSchema, Scheme: "ssin"}})
	w.put("register", &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{Institution: "register", Dataset: "address/v1", Qualities: []string{"registered"}, Period: recordtest.Since()}})
	w.authorize("z-pension", "pension-office", "pensioner", "pension", "street", "city")
	w.authorize("z-health", "health-fund", "insured", "insurance", "city")
	w.subscribe("pension", "pension", "pensioner", false)
	w.subscribe("health", "insurance", "insured", false)
	w.subscribe("stranger", "pension", "client", false)
	w.declare("register", "registered", false, ann, bob, cleo)
	w.declare("pension", "pensioner", false, ann, bob)
	w.declare("health", "insured", false, ann)
	w.declare("stranger", "client", false, ann)
	for _, id := range []string{"alpha", "beta", "gamma", "register", "pension", "health", "stranger"} {
		w.nodes[id] = &testNode{w: w, id: names.NodeID{Institution: names.InstitutionID(id), Node: "n1"}, fs: disktest.New(), journal: &journal{}}
		w.nodes[id].boot()
	}
	return w
}

func (w *world) do(raw []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	res, err := record.Apply(&w.state, w.w.Rules, w.index, raw)
	if err != nil || !res.Accepted {
		w.t.Fatalf("%s, %v", res.Refusal, err)
	}
	if err := record.SetAppliedIndex(&w.state, w.index); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(author string, body any) { w.do(w.w.Command(author, body)) }

func (w *world) authorize(id, kind, quality, purpose string, fields ...string) {
	w.put(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: id, Deliberation: "DEMO-2024/017", RequesterType: kind, RequesterQualities: []string{quality}, Dataset: "address/v1",
		Fields: fields, Purpose: purpose, Modes: []string{"notification"}, Period: recordtest.Since(),
	}})
}

func (w *world) revoke(id string) {
	w.put(record.Committee, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: id}})
}

func (w *world) subscribe(inst, purpose, quality string, withdrawn bool) {
	w.put(inst, &registrypb.Command_SetSubscription{SetSubscription: &registrypb.Subscription{
		Institution: inst, Dataset: "address/v1", Purpose: purpose, Qualities: []string{quality}, Period: recordtest.Since(), Withdrawn: withdrawn,
	}})
}

func (w *world) declare(inst, quality string, withdrawn bool, persons ...string) {
	var refs []*registrypb.Reference
	for _, p := range persons {
		r := recordtest.Reference(p, quality)
		r.Withdrawn = withdrawn
		refs = append(refs, r)
	}
	w.do(w.w.Declare(inst, refs...))
}

func (w *world) replace(old, new string) { w.succeeds(registrypb.NumberEvent_REPLACED, old, new) }

func (w *world) succeeds(how registrypb.NumberEvent_Kind, old, new string) {
	w.put("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		{Subject: recordtest.SSIN(old), Kind: how, Date: 19000, Successor: recordtest.SSIN(new)},
	}}})
}

// testNode is one node; boot makes its parts from what is on its disk.
type testNode struct {
	w       *world
	id      names.NodeID
	fs      *disktest.FS
	dir     string // of the queue, instead of fs, when it is to be measured
	journal *journal
	stale   bool // guarded by w.mu

	parts     sync.Mutex // calls come while the node is booted anew
	queue     *outbox.Outbox
	inbox     *inbox.Inbox
	publisher *Publisher
	recipient *Recipient
	clearing  *clearing.NotificationService

	stop    context.CancelFunc
	stopped chan struct{}
}

// called gives what answers calls.
func (n *testNode) called() (*Publisher, *Recipient, *clearing.NotificationService) {
	n.parts.Lock()
	defer n.parts.Unlock()
	return n.publisher, n.recipient, n.clearing
}

func (n *testNode) boot() {
	n.parts.Lock()
	defer n.parts.Unlock()
	w, key := n.w, bytes.Repeat([]byte{1}, 32)
	var err error
	cfg := outbox.Config{FS: n.fs, StorageKey: key, Now: w.Now, ChunkSize: 64 << 10, SegmentSize: 256 << 10}
	if n.dir != "" {
		cfg = outbox.Config{Dir: n.dir, StorageKey: key, Now: w.Now}
	}
	if n.queue, err = outbox.Open(cfg); err != nil {
		w.t.Fatal(err)
	}
	if n.inbox, err = inbox.Open(inbox.Config{Self: n.id, Store: n.queue, Journal: n.journal, Consumers: []inbox.Consumer{{Name: "office"}}, Now: w.Now}); err != nil {
		w.t.Fatal(err)
	}
	signer := recordtest.Key(string(n.id.Institution))
	peers := &peers{w, n.id}
	n.publisher, err = NewPublisher(PublisherConfig{Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Peers: peers, Journal: n.journal,
		Queue: n.queue, Bounds: bounds, Now: w.Now, Batch: w.batch})
	if err != nil {
		w.t.Fatal(err)
	}
	n.recipient = NewRecipient(RecipientConfig{Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Journal: n.journal, Queue: n.queue,
		Inbox: n.inbox, Peers: peers, Bounds: bounds, Now: w.Now})
	n.clearing = clearing.NewNotificationService(clearing.NotificationConfig{Self: n.id, Mesh: recordtest.Mesh, Signer: signer, Registry: n,
		Journal: Rulings{n.journal}, Bounds: bounds, Schemes: subject.Belgian(), Now: w.Now})
}

func (n *testNode) run() {
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.stopped = stop, make(chan struct{})
	go func() {
		defer close(n.stopped)
		_ = n.publisher.Run(ctx)
	}()
}

// halt ends what runs, in order.
func (n *testNode) halt() {
	if n.stop != nil {
		n.stop()
		<-n.stopped
		n.stop = nil
	}
	_ = n.queue.Close()
}

// powerLoss keeps of what was not synced what the seed says.
func (n *testNode) powerLoss(seed uint64) {
	n.fs.FailAfter(0)
	n.halt()
	n.fs.Crash(disktest.Random(seed))
	n.boot()
}

func (w *world) close() {
	for _, n := range w.nodes {
		n.halt()
	}
}

// View and Standing make a node its own Registry.
func (n *testNode) View(fn func(record.View) error) error {
	n.w.mu.RLock()
	defer n.w.mu.RUnlock()
	return fn(record.NewView(&n.w.state))
}

func (n *testNode) Standing() (lease.Standing, error) {
	n.w.mu.RLock()
	defer n.w.mu.RUnlock()
	if n.stale {
		return lease.Standing{}, lease.ErrStale
	}
	return lease.Standing{Grant: n.w.grant(n.id), Index: n.w.index, Until: time.Now().Add(bounds.Lease)}, nil
}

func (w *world) grant(holder names.NodeID) []byte {
	return w.sign(envelope.Grant, &registrypb.Grant{Mesh: string(recordtest.Mesh), Nonce: make([]byte, 32), Holder: nodeRef(holder),
		Leader: &registrypb.NodeRef{Institution: "alpha", Node: "n1"}, Term: 1, CommitIndex: w.index, LeaderTimeUnixMs: w.Now().UnixMilli()}, "alpha")
}

func (w *world) sign(t envelope.Type, m proto.Message, by string) []byte {
	payload, err := proto.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := envelope.Sign(t, payload, recordtest.Key(by))
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// journal keeps entries in memory, and fails when told; it outlives its node, as a disk.
type journal struct {
	mu      sync.Mutex
	entries []*nodepb.Entry
	fail    func(*nodepb.Entry) error
	real    *nodejournal.Journal // if there is one, it takes every entry instead
}

func (j *journal) Append(ctx context.Context, e *nodepb.Entry) (uint64, error) {
	if j.real != nil {
		return j.real.Append(ctx, e)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail != nil {
		if err := j.fail(e); err != nil {
			return 0, err
		}
	}
	j.entries = append(j.entries, proto.Clone(e).(*nodepb.Entry))
	return uint64(len(j.entries) - 1), nil
}

// AppendAll writes what it can: where one fails, others may stand.
func (j *journal) AppendAll(ctx context.Context, entries []*nodepb.Entry) error {
	if j.real != nil {
		return j.real.AppendAll(ctx, entries)
	}
	var failed error
	for _, e := range entries {
		_, err := j.Append(ctx, e)
		failed = errors.Join(failed, err)
	}
	return failed
}

func (j *journal) count(events ...nodepb.Event) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		for _, ev := range events {
			if e.Event == ev {
				n++
			}
		}
	}
	return n
}

func (j *journal) last(event nodepb.Event) *nodepb.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.entries) - 1; i >= 0; i-- {
		if j.entries[i].Event == event {
			return j.entries[i]
		}
	}
	return nil
}

type peers struct {
	w    *world
	self names.NodeID
}

func carry[Req, Resp proto.Message](p *peers, ctx context.Context, method string, to names.NodeID, req Req, handle func(*testNode, Req) (Resp, error)) (resp Resp, err error) {
	net := &p.w.net
	from, target := string(p.self.Institution), string(to.Institution)
	net.mu.Lock()
	before, after := net.before, net.after
	lost := net.down[from] || net.down[target]
	net.calls[method+" "+target]++
	net.mu.Unlock()
	if lost {
		return resp, errLost
	}
	if before != nil {
		if err := before(method, from, target, req); err != nil {
			return resp, err
		}
	}
	if resp, err = handle(p.w.nodes[target], proto.Clone(req).(Req)); err != nil {
		return resp, err
	}
	if after != nil {
		if err := after(method, from, target, resp); err != nil {
			var none Resp
			return none, err
		}
	}
	return resp, ctx.Err()
}

func (p *peers) ClearNotifications(ctx context.Context, to names.NodeID, req *registrypb.ClearNotificationsRequest) (*registrypb.ClearNotificationsResponse, error) {
	return carry(p, ctx, "clear", to, req, func(n *testNode, req *registrypb.ClearNotificationsRequest) (*registrypb.ClearNotificationsResponse, error) {
		_, _, clearing := n.called()
		return clearing.Clear(ctx, p.self, req)
	})
}

func (p *peers) RecipientReady(ctx context.Context, to names.NodeID, req *nodepb.ReadyRequest) (*nodepb.ReadyResponse, error) {
	return carry(p, ctx, "ready", to, req, func(n *testNode, req *nodepb.ReadyRequest) (*nodepb.ReadyResponse, error) {
		_, recipient, _ := n.called()
		return recipient.Ready(ctx, p.self, req)
	})
}

func (p *peers) DeliverNotices(ctx context.Context, to names.NodeID, req *nodepb.DeliverRequest) (*nodepb.DeliverResponse, error) {
	return carry(p, ctx, "deliver", to, req, func(n *testNode, req *nodepb.DeliverRequest) (*nodepb.DeliverResponse, error) {
		_, recipient, _ := n.called()
		return recipient.Deliver(ctx, p.self, req)
	})
}

func (p *peers) ReplayNotices(ctx context.Context, to names.NodeID, req *nodepb.ReplayRequest) (*nodepb.ReplayResponse, error) {
	return carry(p, ctx, "replay", to, req, func(n *testNode, req *nodepb.ReplayRequest) (*nodepb.ReplayResponse, error) {
		publisher, _, _ := n.called()
		return publisher.ServeReplay(ctx, p.self, req)
	})
}

func (p *peers) Order(candidates []names.NodeID) []names.NodeID { return candidates }

func (w *world) set(before func(method, from, to string, msg proto.Message) error, after func(method, from, to string, reply proto.Message) error) {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	w.net.before, w.net.after = before, after
}

func (w *world) cut(down bool, institutions ...string) {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	for _, i := range institutions {
		w.net.down[i] = down
	}
}

var caller = exchange.Caller{Application: "civil-state", User: "clerk-7", AuthLevel: 3, Channel: "api"}

// moved is the n-th move of a person.
func moved(person string, n int) Change {
	return Change{Caller: caller, ClientTicket: names.ClientTicket(fmt.Sprintf("%s-%d", person[:4], n)), Dataset: "address/v1", Scheme: subject.SSIN, Number: person,
		Period: names.Period{From: 20600, Until: names.Forever}, Record: []byte(fmt.Sprintf(`{"street":"Street %d","city":"City %d","secret":"s"}`, n, n))}
}

func (w *world) publish(person string, n int) *Accepted {
	w.t.Helper()
	a, err := w.nodes["register"].publisher.Publish(context.Background(), moved(person, n))
	if err != nil || a.Reason != 0 {
		w.t.Fatalf("publish: %v %+v", err, a)
	}
	return a
}

// take empties an institution's inbox in order, and gives what was in it.
func (w *world) take(inst string) (items []inbox.Taken) {
	w.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		got, err := w.nodes[inst].inbox.Take(ctx, "office", inbox.Want{Max: 100, Visibility: time.Minute})
		cancel()
		if err != nil {
			w.t.Fatal(err)
		}
		if len(got) == 0 {
			return items
		}
		items = append(items, got...)
		var rs []inbox.Receipt
		for _, i := range got {
			rs = append(rs, inbox.Receipt{ID: i.ID, Lease: i.Lease})
		}
		if err := w.nodes[inst].inbox.Acknowledge(context.Background(), inbox.Taker{Consumer: "office"}, rs); err != nil {
			w.t.Fatal(err)
		}
	}
}

// contents gives what each item says, shortened.
func contents(items []inbox.Taken) (all []string) {
	for _, i := range items {
		all = append(all, string(i.Content))
	}
	return all
}
