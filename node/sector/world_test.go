package sector

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
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	mesh   = names.MeshID("demo.test")
	schema = `{"type":"object","properties":{"entitled":{"type":"boolean"},"ground":{"type":"string"}},"required":["entitled","ground"],"additionalProperties":false}`
)

var (
	bounds = genesis.DefaultBounds()
	always = names.Period{From: names.Always, Until: names.Forever}
	secret = bytes.Repeat([]byte{3}, 32)
)

// world is a mesh in one process: three registry members, a consultant (pcsa), a
// managing body (nic) with three funds behind it, and a source of wages (nsso).
// Registry, clearing, exchange and sector are real; network, clock and disks are not.
type world struct {
	t     testing.TB
	rules *record.Rules

	mu      sync.RWMutex // guards the registry
	state   record.MapState
	index   uint64
	heads   map[string]*head
	signers map[string]crypto.Signer

	dir   *directory.Directory
	nodes map[names.NodeID]*testNode

	netMu sync.Mutex
	// disturb sees each call; its error is what the caller gets.
	disturb func(ctx context.Context, method string, from, to names.NodeID, arrived bool) error
	calls   []string
	// outside is what an observer sees between a consultant and the managing body.
	outside []observed
	shares  func(*nodepb.ForwardLot)                            // sees each that sets out
	shown   *nodepb.Presentation                                // the last presentation that set out
	lie     func(to names.NodeID, resp *nodepb.NumbersResponse) // spoils what a member says of numbers
}

// observed is one reply that travelled outside the sector.
type observed struct {
	size  int           // of the message
	after time.Duration // from the arrival of what it answers
	raw   []byte
}

type head struct {
	sequence uint64
	hash     []byte
}

var funds = []string{"fund-a", "fund-b", "fund-c"}

// ssin makes the n-th of some invented numbers.
func ssin(n int) subject.ID {
	nine := 740712001 + n
	return subject.Raw(subject.SSIN, fmt.Sprintf("%09d%02d", nine, 97-nine%97))
}

func nid(institution string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(institution), Node: "n1"}
}

func public(s crypto.Signer) ed25519.PublicKey { return s.Public().(ed25519.PublicKey) }

func newSigner() crypto.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, heads: map[string]*head{}, nodes: map[names.NodeID]*testNode{},
		signers: map[string]crypto.Signer{record.Operators: newSigner(), record.Committee: newSigner(), record.Recovery: newSigner()}}
	group := func(name string) record.Threshold {
		return record.Threshold{M: 1, Keys: []ed25519.PublicKey{public(w.signers[name])}}
	}
	w.rules = &record.Rules{Mesh: mesh, Operators: group(record.Operators), Committee: group(record.Committee),
		Recovery: group(record.Recovery), Schemes: subject.Belgian()}
	for _, m := range []string{"alpha", "bravo", "delta"} {
		w.signers[m] = newSigner()
		w.rules.Members = append(w.rules.Members, record.FirstMember{
			Institution: &registrypb.Institution{Id: m, Name: m, Type: "registry-keeper", NumberSchemes: []string{"ssin"}}, Key: public(w.signers[m]),
			Node: &registrypb.Node{Ref: nodeRef(nid(m)), Address: "127.0.0.1:1", GossipKey: make([]byte, 32)}})
	}
	w.must(record.Bootstrap(&w.state, w.rules))
	w.admit(&registrypb.Institution{Id: "pcsa", Type: "pcsa"})
	w.admit(&registrypb.Institution{Id: "nsso", Type: "social-security-office"})
	w.admit(&registrypb.Institution{Id: "nic", Type: "health-insurance", Sector: "health-insurance", ManagingBody: true})
	for _, f := range funds {
		w.admit(&registrypb.Institution{Id: f, Type: "health-insurance-fund", Sector: "health-insurance"})
	}
	w.dataset("reimbursement/v1", "nic", "insured")
	w.dataset("wages/v1", "nsso", "employee")
	w.authorize("pcsa", "living-wage", "reimbursement/v1", "social-inquiry")
	w.authorize("health-insurance", "insured", "wages/v1", "contribution-check")
	var err error
	w.dir, err = directory.Open(directory.Config{Key: secret, Schemes: subject.Belgian()})
	w.must(err)
	t.Cleanup(func() { _ = w.dir.Close() })
	for _, f := range funds {
		w.must(w.dir.SetMember(directory.Member{Institution: names.InstitutionID(f), Period: always}))
	}
	for id := range w.signers {
		if id[0] != '@' {
			w.start(id)
		}
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) admit(i *registrypb.Institution) {
	w.t.Helper()
	w.signers[i.Id] = newSigner()
	pub := public(w.signers[i.Id])
	i.Name, i.FirstKey = i.Id, &registrypb.Key{Institution: i.Id, Id: string(envelope.KeyID(pub)), PublicKey: pub}
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: i}})
	w.submit(i.Id, &registrypb.Command{Body: &registrypb.Command_SetNode{SetNode: &registrypb.Node{
		Ref: nodeRef(nid(i.Id)), Address: "127.0.0.1:1", GossipKey: make([]byte, 32)}}})
}

func (w *world) dataset(id, supplier, quality string) {
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
		Id: id, Title: id, Schema: schema, Scheme: "ssin", Qualities: []string{quality}}}})
	w.submit(supplier, &registrypb.Command{Body: &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
		Institution: supplier, Dataset: id, Qualities: []string{quality}, Period: protoPeriod(always)}}})
}

func (w *world) authorize(kind, quality, dataset, purpose string) {
	w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "demo-" + kind, Deliberation: "DEMO-2024/1", LegalBasis: "DEMO law, article 1", RequesterType: kind, RequesterQualities: []string{quality},
		Dataset: dataset, Fields: []string{"entitled"}, Purpose: purpose, Modes: []string{"consultation", "batch"}, Period: protoPeriod(always)}}})
}

// file declares that institutions of the mesh have a file on a subject.
func (w *world) file(id subject.ID, who, quality string) {
	w.t.Helper()
	w.submit(who, &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_DeclareReferences{
		DeclareReferences: &registrypb.References{References: []*registrypb.Reference{{
			Subject: protoSubject(id), Quality: quality, Period: protoPeriod(always)}}}}})
}

// person gives a subject files at pcsa, nsso and the sector, and with a fund; none if
// it is empty.
func (w *world) person(n int, fund string) subject.ID {
	w.t.Helper()
	id := ssin(n)
	w.file(id, "pcsa", "living-wage")
	w.file(id, "nic", "insured")
	w.file(id, "nsso", "employee")
	if fund != "" {
		w.affiliate(id, fund, always)
	}
	return id
}

func (w *world) affiliate(id subject.ID, fund string, p names.Period) {
	w.t.Helper()
	w.must(w.dir.Change([]directory.Change{{Reference: directory.Reference{
		Subject: id, Member: names.InstitutionID(fund), Quality: "insured", Period: p}}}))
}

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
	c.Mesh, c.Author, c.Sequence, c.Previous, c.TimeUnixMs = string(mesh), author, h.sequence+1, h.hash, 1_700_000_000_000
	if c.Chain == registrypb.Chain_DIRECTORY {
		c.Nonce = make([]byte, 32)
	}
	payload, err := proto.Marshal(c)
	w.must(err)
	raw, err := envelope.Sign(envelope.Command, payload, w.signers[author])
	w.must(err)
	w.index++
	res, err := record.Apply(&w.state, w.rules, w.index, raw)
	if err != nil || !res.Accepted {
		w.t.Fatalf("command of %s: %v, %s", author, err, res.Refusal)
	}
	w.must(record.SetAppliedIndex(&w.state, w.index))
	hash := sha256.Sum256(payload)
	h.sequence, h.hash = c.Sequence, hash[:]
}

// testNode is one node, with whatever parts its institution has.
type testNode struct {
	w          *world
	id         names.NodeID
	outbox     *outbox.Outbox
	journal    *memory // the node's
	inner      *memory // of the sector
	source     *source
	consultant *exchange.Consultant
	supplier   *exchange.Supplier
	present    Presented
	clear      func(context.Context, names.NodeID, *registrypb.ClearRequest) (*registrypb.ClearResponse, error)
	decisions  *batch.Decisions
	chunks     PresentedChunk
	manager    *Manager
	member     *Member
	asker      *Asker
	stale      bool // guarded by w.mu
}

func (w *world) start(institution string) {
	w.t.Helper()
	n := &testNode{w: w, id: nid(institution), journal: &memory{}, inner: &memory{}}
	w.nodes[n.id] = n
	n.source = &source{records: map[subject.ID][]exchange.Record{}}
	n.boot(w.t.TempDir())
}

// boot makes the parts anew, as after a crash: outbox and journals stay.
func (n *testNode) boot(dir string) {
	w := n.w
	w.t.Helper()
	var err error
	if n.outbox == nil {
		n.outbox, err = outbox.Open(outbox.Config{StorageKey: secret})
		w.must(err)
	}
	signer := w.signers[string(n.id.Institution)]
	peers := &peers{w, n.id}
	n.consultant = exchange.NewConsultant(exchange.ConsultantConfig{Mesh: mesh, Self: n.id, Signer: signer, Registry: n, Peers: peers,
		Journal: n.journal, Outbox: n.outbox, Bounds: bounds})
	cfg := Config{Mesh: mesh, Self: n.id, Signer: signer, Registry: n, Peers: peers, Journal: n.inner, Outbox: n.outbox, Bounds: bounds}
	supply := exchange.SupplierConfig{Mesh: mesh, Self: n.id, Signer: signer, Registry: n, Journal: n.journal, Outbox: n.outbox,
		Sources: map[names.DatasetID]exchange.Source{"wages/v1": n.source}, Bounds: bounds}
	if n.id.Institution == "nic" {
		n.manager, err = NewManager(ManagerConfig{Config: cfg, Directory: w.dir, Datasets: []names.DatasetID{"reimbursement/v1"},
			Consult: n.consultant, Secret: secret})
		w.must(err)
		supply.Sector = n.manager
	}
	if slices.Contains(funds, string(n.id.Institution)) {
		n.member = NewMember(MemberConfig{Config: cfg, Manager: "nic", Sources: map[names.DatasetID]exchange.Source{"reimbursement/v1": n.source}, Inbox: &inbox{}})
		n.asker = NewAsker(AskerConfig{Config: cfg, Manager: "nic"})
	}
	n.supplier = exchange.NewSupplier(supply)
	n.present = n.supplier.Present
	if n.manager != nil {
		n.present = n.manager.Veil(n.supplier.Present)
	}
	lots := batch.SupplierConfig{Mesh: mesh, Self: n.id, Signer: signer, Registry: n, Journal: n.journal, Outbox: n.outbox, Bounds: bounds}
	if n.manager != nil {
		lots.Sector = n.manager
		n.chunks = n.manager.VeilChunk(batch.NewSupplier(lots).Present)
	}
	n.decisions = &batch.Decisions{Journal: n.journal, Outbox: n.outbox, Now: time.Now}
	n.decisions.Decide = chunk.New(chunk.Config{Self: n.id, Mesh: mesh, Signer: signer, Registry: n, Journal: n.decisions, Bounds: bounds, Schemes: subject.Belgian()}).Clear
	n.clear = clearing.New(clearing.Config{Self: n.id, Mesh: mesh, Signer: signer, Registry: n, Journal: exchange.Decisions{Journal: n.journal},
		Bounds: bounds, Schemes: subject.Belgian(), Now: time.Now}).Clear
}

func (w *world) node(institution string) *testNode { return w.nodes[nid(institution)] }

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
	payload, err := proto.Marshal(&registrypb.Grant{Mesh: string(mesh), Nonce: make([]byte, 32), Holder: nodeRef(n.id), Leader: nodeRef(nid("alpha")),
		Term: 1, CommitIndex: n.w.index, LeaderTimeUnixMs: time.Now().UnixMilli()})
	if err != nil {
		return lease.Standing{}, err
	}
	grant, err := envelope.Sign(envelope.Grant, payload, n.w.signers["alpha"])
	return lease.Standing{Grant: grant, Index: n.w.index, Until: time.Now().Add(bounds.Lease)}, err
}

func question(id subject.ID, ticket string) exchange.Question {
	return exchange.Question{Caller: exchange.Caller{Application: "inquiry", User: "clerk-7", AuthLevel: 3, Channel: "api"},
		ClientTicket: names.ClientTicket(ticket), Purpose: "social-inquiry", Dataset: "reimbursement/v1", Scheme: id.Scheme(), Number: id.Number(),
		Period: names.Period{From: 9000, Until: 10000}}
}

// bubble runs a test in virtual time. The directory lies outside the bubble, so what was
// written to it must have settled before.
func (w *world) bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	_, err := w.dir.Members()
	w.must(err)
	synctest.Test(t, fn)
}
