package exchange

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	mesh   = names.MeshID("demo.test")
	person = "74071238186" // of the domain page: invented
	absent = "03022814690" // valid, and nobody has a file
	schema = `{"type":"object","properties":{"employer":{"type":"string"},"wage":{"type":"number"},"note":{"type":"string"}},"required":["employer","wage"],"additionalProperties":false}`
)

// world is a mesh in one process: three registry members, a consultant (pcsa),
// two suppliers (office, fund) and an institution with no right to anything
// (stranger). The registry's tables, its commands, all signatures, clearing and
// the outboxes are real; network, clock and journals are the test's.
type world struct {
	t      *testing.T
	onDisk bool
	clock  *clock
	rules  *record.Rules

	mu      sync.RWMutex // guards the registry
	state   record.MapState
	index   uint64
	heads   map[string]*head
	signers map[string]crypto.Signer // by institution or group

	nodes map[names.NodeID]*testNode
	log   eventLog
	net   *network
}

type head struct {
	sequence uint64
	hash     []byte
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// eventLog records in which order things happened, over all nodes.
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

func (l *eventLog) count(event string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e == event {
			n++
		}
	}
	return n
}

// place gives where an event first stands, or -1.
func (l *eventLog) place(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Index(l.events, event)
}

func signer() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func public(s crypto.Signer) ed25519.PublicKey { return s.Public().(ed25519.PublicKey) }

func ref(institution string) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: institution, Node: "n1"}
}

func node(institution string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(institution), Node: "n1"}
}

var bounds = genesis.DefaultBounds()

var members = []string{"alpha", "beta", "gamma"}

// newWorld keeps outboxes in memory; newDiskWorld is for tests that restart nodes.
func newWorld(t *testing.T) *world     { t.Helper(); return build(t, false) }
func newDiskWorld(t *testing.T) *world { t.Helper(); return build(t, true) }

func build(t *testing.T, onDisk bool) *world {
	t.Helper()
	w := &world{t: t, onDisk: onDisk, clock: &clock{t: time.UnixMilli(1_800_000_000_000)}, heads: map[string]*head{},
		signers: map[string]crypto.Signer{record.Operators: signer(), record.Committee: signer(), record.Recovery: signer()},
		nodes:   map[names.NodeID]*testNode{}}
	w.net = &network{w: w}
	group := func(name string) record.Threshold {
		return record.Threshold{M: 1, Keys: []ed25519.PublicKey{public(w.signers[name])}}
	}
	w.rules = &record.Rules{Mesh: mesh, Level: record.Level, Operators: group(record.Operators), Committee: group(record.Committee),
		Recovery: group(record.Recovery), Schemes: subject.Belgian()}
	for _, m := range members {
		w.signers[m] = signer()
		w.rules.Members = append(w.rules.Members, record.FirstMember{
			Institution: &registrypb.Institution{Id: m, Name: m, Type: "registry-keeper"},
			Key:         public(w.signers[m]),
			Node:        &registrypb.Node{Ref: ref(m), Address: "127.0.0.1:1", GossipKey: make([]byte, 32)},
		})
	}
	if err := record.Bootstrap(&w.state, w.rules); err != nil {
		t.Fatal(err)
	}
	w.admit("pcsa", "pcsa", "")
	w.admit("office", "wage-office", "")
	w.admit("fund", "fund", "")
	w.admit("stranger", "bank", "")
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
		Id: "wages/v1", Title: "Wages", Schema: schema, Scheme: "ssin", Qualities: []string{"employee"}}}})
	always := &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}
	for _, s := range []string{"office", "fund"} {
		w.submit(s, &registrypb.Command{Body: &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
			Institution: s, Dataset: "wages/v1", Qualities: []string{"employee"}, Period: always}}})
		w.declare(s, "employee", false)
	}
	w.declare("pcsa", "living-wage", false)
	w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "demo-1", Deliberation: "DEMO-2024/1", LegalBasis: "DEMO law, article 1", RequesterType: "pcsa", RequesterQualities: []string{"living-wage"},
		Dataset: "wages/v1", Fields: []string{"employer", "wage"}, Purpose: "social-inquiry", Modes: []string{"consultation"}, Period: always}}})
	for id := range w.signers {
		if id[0] != '@' {
			w.start(id)
		}
	}
	return w
}

func (w *world) admit(id, kind, sector string, schemes ...string) {
	w.t.Helper()
	w.signers[id] = signer()
	key := &registrypb.Key{Institution: id, Id: string(envelope.KeyID(public(w.signers[id]))), PublicKey: public(w.signers[id])}
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{
		Id: id, Name: id, Type: kind, Sector: sector, FirstKey: key, NumberSchemes: schemes}}})
	w.addNode(id, "n1")
}

func (w *world) addNode(id, name string) {
	w.t.Helper()
	w.submit(id, &registrypb.Command{Body: &registrypb.Command_SetNode{SetNode: &registrypb.Node{
		Ref: &registrypb.NodeRef{Institution: id, Node: name}, Address: "127.0.0.1:1", GossipKey: make([]byte, 32)}}})
}

func (w *world) declare(institution, quality string, withdrawn bool) {
	w.t.Helper()
	w.submit(institution, &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_DeclareReferences{
		DeclareReferences: &registrypb.References{References: []*registrypb.Reference{{
			Subject: &registrypb.Subject{Scheme: "ssin", Number: person}, Quality: quality, Withdrawn: withdrawn,
			Period: &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}}}}}})
}

func (w *world) revoke() {
	w.t.Helper()
	w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_RevokeAuthorization{
		RevokeAuthorization: &registrypb.AuthorizationID{Id: "demo-1"}}})
}

func (w *world) suspend(id string) {
	w.t.Helper()
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetSuspended{
		SetSuspended: &registrypb.Suspension{Institution: id, Suspended: true}}})
}

// submit signs the command and applies it, as every replica does.
func (w *world) submit(author string, c *registrypb.Command) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	chain := fmt.Sprint(author, c.Chain)
	h := w.heads[chain]
	if h == nil {
		h = new(head)
		w.heads[chain] = h
	}
	c.Mesh, c.Author, c.Sequence, c.Previous, c.TimeUnixMs = string(mesh), author, h.sequence+1, h.hash, w.clock.Now().UnixMilli()
	if c.Chain == registrypb.Chain_DIRECTORY {
		c.Nonce = make([]byte, 32)
	}
	payload, err := proto.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.Command, payload, w.signers[author])
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	res, err := record.Apply(&w.state, w.rules, w.index, raw)
	if err != nil || !res.Accepted {
		w.t.Fatalf("command of %s: %v, %s", author, err, res.Refusal)
	}
	if err := record.SetAppliedIndex(&w.state, w.index); err != nil {
		w.t.Fatal(err)
	}
	hash := sha256.Sum256(payload)
	h.sequence, h.hash = c.Sequence, hash[:]
}

// testNode is one node. Its parts are replaced by restart.
type testNode struct {
	w   *world
	id  names.NodeID
	dir string

	stale      bool // guarded by w.mu
	follower   bool // its view has no history of numbers
	journal    *journal
	source     *source
	outbox     *outbox.Outbox
	faulty     *faultyOutbox
	consultant *Consultant
	supplier   *Supplier
	clear      func(ctx context.Context, from names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error)
}

func (w *world) start(institution string) *testNode { return w.startNode(node(institution)) }

func (w *world) startNode(id names.NodeID) *testNode {
	w.t.Helper()
	n := &testNode{w: w, id: id}
	if w.onDisk {
		n.dir = w.t.TempDir()
	}
	n.journal = &journal{n: n}
	n.source = &source{n: n, records: []Record{Record(`{"employer":"0412345614","wage":1500.50,"note":"must not leave"}`)}}
	w.nodes[id] = n
	n.boot()
	w.t.Cleanup(func() { _ = n.outbox.Close() })
	return n
}

func (n *testNode) boot() {
	n.w.t.Helper()
	var err error
	n.outbox, err = outbox.Open(outbox.Config{Dir: n.dir, StorageKey: bytes.Repeat([]byte{1}, 32), Now: n.w.clock.Now})
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.faulty = &faultyOutbox{Outbox: n.outbox}
	sgn := n.w.signers[string(n.id.Institution)]
	n.consultant = NewConsultant(ConsultantConfig{Mesh: mesh, Self: n.id, Signer: sgn, Schemes: subject.Belgian(), Registry: n,
		Peers: n.w.net.of(n.id), Journal: n.journal, Outbox: n.faulty, Bounds: bounds, Now: n.w.clock.Now,
		ClearTimeout: 10 * time.Second, ClearFor: 10 * time.Second, PresentTimeout: 10 * time.Second})
	n.supplier = NewSupplier(SupplierConfig{Mesh: mesh, Self: n.id, Signer: sgn, Schemes: subject.Belgian(), Registry: n, Journal: n.journal,
		Outbox: n.faulty, Sources: map[names.DatasetID]Source{"wages/v1": n.source}, Bounds: bounds, Now: n.w.clock.Now})
	n.clear = clearing.New(clearing.Config{Self: n.id, Mesh: mesh, Signer: sgn, Registry: n, Journal: Decisions{n.journal},
		Bounds: bounds, Schemes: subject.Belgian(), Now: n.w.clock.Now}).Clear
}

// restart is what a crash leaves: the disk.
func (n *testNode) restart() {
	n.w.t.Helper()
	if n.dir == "" {
		n.w.t.Fatal("nothing survives in memory: use newDiskWorld")
	}
	if err := n.outbox.Close(); err != nil {
		n.w.t.Fatal(err)
	}
	n.boot()
}

// View and Standing make a node its own Registry.
func (n *testNode) View(fn func(record.View) error) error {
	n.w.mu.RLock()
	defer n.w.mu.RUnlock()
	if n.follower {
		return fn(record.NewView(withoutNumbers{&n.w.state}).At(-int64(n.w.index)))
	}
	return fn(record.NewView(&n.w.state).At(int64(n.w.index)))
}

func (n *testNode) Standing() (lease.Standing, error) {
	n.w.mu.RLock()
	defer n.w.mu.RUnlock()
	if n.stale {
		return lease.Standing{}, lease.ErrStale
	}
	return lease.Standing{Grant: n.w.grant(n.id, n.w.leader()), Index: n.w.index, Until: time.Now().Add(bounds.Lease)}, nil
}

// leader gives the first of the members that stand. The caller holds mu.
func (w *world) leader() string {
	v := record.NewView(&w.state)
	all, err := v.Members()
	if err != nil {
		panic(err)
	}
	for _, m := range all {
		if ok, err := v.IsMember(m); ok && err == nil {
			return string(m.Institution)
		}
	}
	panic("no member stands")
}

func (n *testNode) setStale(stale bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.stale = stale
}

// grant is what the leader signs for a holder.
func (w *world) grant(holder names.NodeID, leader string) []byte {
	payload, err := proto.Marshal(&registrypb.Grant{Mesh: string(mesh), Nonce: make([]byte, 32), Holder: nodeRef(holder), Leader: ref(leader),
		Term: 1, CommitIndex: w.index, LeaderTimeUnixMs: w.clock.Now().UnixMilli()})
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.Grant, payload, w.signers[leader])
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// hurry lets the consultant give up soon, where it must.
func (w *world) hurry() { w.node("pcsa").consultant.cfg.ClearFor = 150 * time.Millisecond }

func (w *world) node(institution string) *testNode { return w.nodes[node(institution)] }

func question() Question {
	return Question{Caller: Caller{Application: "inquiry", User: "clerk-7", AuthLevel: 3, Channel: "api"}, ClientTicket: "T-1",
		Purpose: "social-inquiry", Dataset: "wages/v1", Scheme: "ssin", Number: person, Period: names.Period{From: 19000, Until: 20000}}
}

// staleRegistry knows nothing.
type staleRegistry struct{}

func (staleRegistry) View(fn func(record.View) error) error {
	return fn(record.NewView(new(record.MapState)))
}
func (staleRegistry) Standing() (lease.Standing, error) {
	return lease.Standing{}, lease.ErrStale
}
