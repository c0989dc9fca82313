package submission

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
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const relation = `{"type":"object","properties":{"start":{"type":"string"},"kind":{"type":"string"}},"required":["start"],"additionalProperties":false}`

var (
	worker = recordtest.Person(1)
	other  = recordtest.Person(2)
	anew   = recordtest.Person(3) // worker's later number
	bounds = genesis.DefaultBounds()
)

// world is a mesh in one process and in virtual time: members alpha, beta and gamma, one
// of which clears; a firm that declares employment relations, a second one that may too,
// an office that is their source, and pension, which is told. Registry, signatures,
// clearing, checks, queues and inboxes are real, on disks that can lose power.
type world struct {
	t     testing.TB
	w     *recordtest.World
	began time.Time

	mu    sync.RWMutex // guards the registry
	state record.MapState
	index uint64

	nodes map[string]*testNode
}

func (w *world) Now() time.Time { return time.UnixMilli(1_780_000_000_000).Add(time.Since(w.began)) }

func newWorld(t testing.TB) *world {
	w := &world{t: t, w: recordtest.New(t, "alpha", "beta", "gamma"), began: time.Now(), nodes: map[string]*testNode{}}
	if err := record.Bootstrap(&w.state, w.w.Rules); err != nil {
		t.Fatal(err)
	}
	for id, kind := range map[string]string{"firm": "employer", "rival": "employer", "office": "wage-office", "pension": "pension-office", "register": "register"} {
		i := &registrypb.Institution{Id: id, Type: kind}
		if id == "register" {
			i.NumberSchemes = []string{"ssin"}
		}
		w.do(w.w.Admit(i))
		w.put(id, &registrypb.Command_SetNode{SetNode: recordtest.Node(id, "n1")})
	}
	w.put(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{Id: "relation/v1", Title: "Relations", Schema: relation, Scheme: "ssin"}})
	w.offer(false)
	w.authorize("z-declare", "employer", "staff", "dimona", "submission")
	w.authorize("z-pension", "pension-office", "pensioner", "pension", "notification")
	w.put("pension", &registrypb.Command_SetSubscription{SetSubscription: &registrypb.Subscription{
		Institution: "pension", Dataset: "relation/v1", Purpose: "pension", Qualities: []string{"pensioner"}, Period: recordtest.Since()}})
	for id, quality := range map[string]string{"firm": "staff", "rival": "staff", "office": "employee", "pension": "pensioner"} {
		w.do(w.w.Declare(id, recordtest.Reference(worker, quality), recordtest.Reference(other, quality)))
	}
	for _, id := range []string{"alpha", "beta", "gamma", "firm", "rival", "office", "pension"} {
		w.nodes[id] = &testNode{w: w, id: names.NodeID{Institution: names.InstitutionID(id), Node: "n1"}, fs: disktest.New()}
		w.nodes[id].boot()
	}
	return w
}

func (w *world) offer(withdrawn bool) {
	w.put("office", &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
		Institution: "office", Dataset: "relation/v1", Qualities: []string{"employee"}, Period: recordtest.Since(), Withdrawn: withdrawn}})
}

func (w *world) authorize(id, kind, quality, purpose, mode string) {
	w.put(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: id, Deliberation: "DEMO-2024/018", RequesterType: kind, RequesterQualities: []string{quality}, Dataset: "relation/v1",
		Fields: []string{"start", "kind"}, Purpose: purpose, Modes: []string{mode}, Period: recordtest.Since(),
	}})
}

func (w *world) put(author string, body any) { w.do(w.w.Command(author, body)) }

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

func (w *world) close() {
	for _, n := range w.nodes {
		n.halt()
	}
}

// testNode is one node. Its disk and what its journal holds outlive it.
type testNode struct {
	w  *world
	id names.NodeID
	fs *disktest.FS

	mu      sync.Mutex
	entries []*nodepb.Entry
	left    int  // writes of queue and journal until the node dies; 0: never
	happens bool // the one that it dies at takes effect
	dead    bool

	swap sync.Mutex // guards parts where calls read them
	parts
	stop    context.CancelFunc
	stopped chan struct{}
}

// parts are what is made anew when a node is booted.
type parts struct {
	queue     *outbox.Outbox
	inbox     *inbox.Inbox
	publisher *notify.Publisher
	recipient *notify.Recipient
	clearing  *clearing.NotificationService
	source    *Source
	declarant *Declarant
}

var errDead = errors.New("the node is dead")

// step says whether a write takes effect, and whether its caller learns of it.
func (n *testNode) step(do func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		return errDead
	}
	if n.left--; n.left == 0 {
		n.dead = true
		if n.happens {
			_ = do()
		}
		return errDead
	}
	return do()
}

// dieAt has the node die at a write from now on.
func (n *testNode) dieAt(write int, happens bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left, n.happens = write, happens
}

func (n *testNode) died() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

func (n *testNode) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	return 0, n.step(func() error { n.entries = append(n.entries, proto.CloneOf(e)); return nil })
}

func (n *testNode) AppendAll(ctx context.Context, entries []*nodepb.Entry) error {
	for _, e := range entries {
		if _, err := n.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (n *testNode) count(event nodepb.Event, ticket names.Ticket) (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.entries {
		if e.Event == event && (ticket == "" || e.Ticket == string(ticket)) {
			sum++
		}
	}
	return sum
}

func (n *testNode) Get(k outbox.Key) ([]byte, error) { return n.now().queue.Get(k) }

func (n *testNode) IDs(t outbox.Table, prefix string) ([]string, error) {
	return n.now().queue.IDs(t, prefix)
}

func (n *testNode) Write(changes ...outbox.Change) error {
	return n.step(func() error { return n.now().queue.Write(changes...) })
}

// now gives the parts that answer calls, which come while the node is booted anew.
func (n *testNode) now() parts {
	n.swap.Lock()
	defer n.swap.Unlock()
	return n.parts
}

func (n *testNode) set(change func()) {
	n.swap.Lock()
	defer n.swap.Unlock()
	change()
}

func (n *testNode) boot() {
	w := n.w
	queue, err := outbox.Open(outbox.Config{FS: n.fs, StorageKey: bytes.Repeat([]byte{1}, 32), Now: w.Now, ChunkSize: 64 << 10, SegmentSize: 256 << 10})
	if err != nil {
		w.t.Fatal(err)
	}
	n.set(func() { n.queue = queue })
	p := parts{queue: queue}
	if p.inbox, err = inbox.Open(inbox.Config{Self: n.id, Store: n, Journal: n, Consumers: []inbox.Consumer{{Name: "office"}}, Now: w.Now}); err != nil {
		w.t.Fatal(err)
	}
	signer := recordtest.Key(string(n.id.Institution))
	cfg := Config{Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Journal: n, Queue: n, Inbox: p.inbox, Ask: n.ask, Now: w.Now}
	p.publisher, err = notify.NewPublisher(notify.PublisherConfig{Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Peers: n, Journal: n, Queue: n, Bounds: bounds, Now: w.Now,
		Received: func(t *clearing.Told, from names.NodeID, receipt []byte) []outbox.Change {
			return n.now().declarant.Received(t, from, receipt)
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Publisher = p.publisher
	p.source, p.declarant = NewSource(cfg), NewDeclarant(cfg)
	p.recipient = notify.NewRecipient(notify.RecipientConfig{Mesh: recordtest.Mesh, Self: n.id, Signer: signer, Registry: n, Journal: n, Queue: n,
		Inbox: p.inbox, Peers: n, Bounds: bounds, Now: w.Now, Declared: p.source.Declared})
	p.clearing = clearing.NewNotificationService(clearing.NotificationConfig{Self: n.id, Mesh: recordtest.Mesh, Signer: signer, Registry: n,
		Journal: notify.Rulings{Journal: n}, Bounds: bounds, Schemes: subject.Belgian(), Now: w.Now})
	n.set(func() { n.parts = p })
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.stopped = stop, make(chan struct{})
	go func() {
		defer close(n.stopped)
		_ = p.publisher.Run(ctx)
	}()
}

func (n *testNode) halt() {
	n.stop()
	<-n.stopped
	_ = n.queue.Close()
}

// powerLoss keeps of what was not synced nothing, and starts the node again.
func (n *testNode) powerLoss() {
	n.fs.FailAfter(0)
	n.halt()
	n.fs.Crash(disktest.Nothing)
	n.mu.Lock()
	n.left, n.dead = 0, false
	n.mu.Unlock()
	n.boot()
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
	payload, err := proto.Marshal(&registrypb.Grant{Mesh: string(recordtest.Mesh), Nonce: make([]byte, 32), Holder: nodeRef(n.id),
		Leader: &registrypb.NodeRef{Institution: "alpha", Node: "n1"}, Term: 1, CommitIndex: n.w.index, LeaderTimeUnixMs: n.w.Now().UnixMilli()})
	if err != nil {
		return lease.Standing{}, err
	}
	grant, err := envelope.Sign(envelope.Grant, payload, recordtest.Key("alpha"))
	return lease.Standing{Grant: grant, Index: n.w.index, Until: time.Now().Add(bounds.Lease)}, err
}

// reach gives the node at the other end of a call: a dead one answers nobody.
func (n *testNode) reach(to names.NodeID) (*testNode, error) {
	if other := n.w.nodes[string(to.Institution)]; other != nil && !other.died() && !n.died() {
		return other, nil
	}
	return nil, errDead
}

// answered loses the reply of a node that died meanwhile.
func answered[R any](n *testNode, r R, err error) (R, error) {
	if err == nil && n.died() {
		err = errDead
	}
	return r, err
}

func (n *testNode) ClearNotifications(ctx context.Context, to names.NodeID, req *registrypb.ClearNotificationsRequest) (*registrypb.ClearNotificationsResponse, error) {
	other, err := n.reach(to)
	if err != nil {
		return nil, err
	}
	return other.now().clearing.Clear(ctx, n.id, proto.CloneOf(req))
}

func (n *testNode) RecipientReady(ctx context.Context, to names.NodeID, req *nodepb.ReadyRequest) (*nodepb.ReadyResponse, error) {
	other, err := n.reach(to)
	if err != nil {
		return nil, err
	}
	return other.now().recipient.Ready(ctx, n.id, req)
}

func (n *testNode) DeliverNotices(ctx context.Context, to names.NodeID, req *nodepb.DeliverRequest) (*nodepb.DeliverResponse, error) {
	other, err := n.reach(to)
	if err != nil {
		return nil, err
	}
	r, err := other.now().recipient.Deliver(ctx, n.id, proto.CloneOf(req))
	return answered(other, r, err)
}

func (n *testNode) ReplayNotices(ctx context.Context, to names.NodeID, req *nodepb.ReplayRequest) (*nodepb.ReplayResponse, error) {
	return nil, errDead // nobody asks for one
}

func (n *testNode) Order(candidates []names.NodeID) []names.NodeID { return candidates }

func (n *testNode) ask(ctx context.Context, to names.NodeID, req *nodepb.SubmissionStatusRequest) (*nodepb.SubmissionStatusResponse, error) {
	other, err := n.reach(to)
	if err != nil {
		return nil, err
	}
	r, err := other.now().source.Serve(ctx, n.id, proto.CloneOf(req))
	return answered(other, r, err)
}

// take empties the inbox in order, and gives what was in it.
func (n *testNode) take() (items []inbox.Taken) {
	n.w.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		got, err := n.inbox.Take(ctx, "office", inbox.Want{Max: 100, Visibility: time.Minute})
		cancel()
		if err != nil {
			n.w.t.Fatal(err)
		}
		if len(got) == 0 {
			return items
		}
		items = append(items, got...)
		var rs []inbox.Receipt
		for _, i := range got {
			rs = append(rs, inbox.Receipt{ID: i.ID, Lease: i.Lease})
		}
		if err := n.inbox.Acknowledge(context.Background(), inbox.Taker{Consumer: "office"}, rs); err != nil {
			n.w.t.Fatal(err)
		}
	}
}

var clerk = exchange.Caller{Application: "hr", User: "clerk-7", AuthLevel: 3, Channel: "api"}

// change is a declaration under a number of the firm's own.
func change(number int, about string) notify.Change {
	return notify.Change{Caller: clerk, ClientTicket: names.ClientTicket(fmt.Sprintf("d-%d", number)), Dataset: "relation/v1", Purpose: "dimona",
		Scheme: subject.SSIN, Number: about, Period: names.Period{From: 20600, Until: names.Forever}, Record: []byte(`{"start":"2026-01-04"}`)}
}

// declare makes a declaration, and waits until its source has it, if it can be.
func (n *testNode) declare(c notify.Change) names.Ticket {
	n.w.t.Helper()
	a, err := n.publisher.Publish(context.Background(), c)
	if err != nil || a.Reason != 0 {
		n.w.t.Fatalf("declare: %v %+v", err, a)
	}
	time.Sleep(time.Second)
	return a.Ticket
}

// follow asks what became of everything, and gives it of one.
func (n *testNode) follow(t names.Ticket) *Status {
	n.w.t.Helper()
	if err := n.declarant.Poll(context.Background()); err != nil {
		n.w.t.Fatal(err)
	}
	s, err := n.declarant.Status(t)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return s
}
