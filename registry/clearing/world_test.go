package clearing

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The persons of the test mesh.
var (
	known    = recordtest.Person(1) // at office, at wages and at fund
	foreign  = recordtest.Person(2) // at wages, not at office
	nobody   = recordtest.Person(3) // nowhere
	alone    = recordtest.Person(4) // at office only
	replaced = recordtest.Person(5) // by renewed; office knows the old number
	renewed  = recordtest.Person(6) // wages knows the new one
	gone     = recordtest.Person(7) // cancelled; at office
	dead     = recordtest.Person(8) // at office and wages; died on day 19000
	other    = recordtest.Person(9) // replaced, cancelled and dead; not at office
)

const wagesSchema = `{"properties":{"gross":{},"net":{},"employer":{}}}`

// mesh is a registry: members alpha, beta and gamma (of no sector), delta (of the
// health sector) and epsilon (of welfare); office, a pcsa of the welfare sector;
// suppliers wages, and fund of the health sector; register, which keeps numbers.
type mesh struct {
	t     testing.TB
	w     *recordtest.World
	state *record.MapState
	index uint64
	now   time.Time

	mu       sync.Mutex
	standing error
	lapse    func() // called by each Standing
	journal  []Decided
	broken   error // of the journal
}

var bounds = genesis.DefaultBounds()

func newMesh(t testing.TB) *mesh {
	m := &mesh{t: t, w: recordtest.New(t, "alpha", "beta", "gamma", "delta", "epsilon"), state: new(record.MapState), now: time.UnixMilli(1_700_000_000_000)}
	m.w.Rules.Members[3].Institution.Sector = "health"
	m.w.Rules.Members[4].Institution.Sector = "welfare"
	if err := record.Bootstrap(m.state, m.w.Rules); err != nil {
		t.Fatal(err)
	}
	for _, i := range []*registrypb.Institution{
		{Id: "office", Type: "pcsa", Sector: "welfare"}, {Id: "wages", Type: "wage-office"},
		{Id: "fund", Type: "health-fund", Sector: "health"}, {Id: "register", Type: "register", NumberSchemes: []string{"ssin"}},
	} {
		m.do(m.w.Admit(i))
		m.put(i.Id, &registrypb.Command_SetNode{SetNode: recordtest.Node(i.Id, "n1")})
	}
	m.put(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{Id: "wages/v1", Title: "Wages", Schema: wagesSchema, Scheme: "ssin"}})
	for _, i := range []string{"wages", "fund"} {
		m.offer(i, func(*registrypb.Offering) {})
	}
	m.authorize("a-1", func(*registrypb.Authorization) {})
	m.declare("office", "living-wage", known, alone, replaced, gone, dead)
	m.declare("wages", "employee", known, foreign, renewed, gone, dead, other)
	m.declare("fund", "employee", known)
	event := func(k registrypb.NumberEvent_Kind, n string, to *registrypb.Subject) *registrypb.NumberEvent {
		return &registrypb.NumberEvent{Subject: recordtest.SSIN(n), Kind: k, Date: 19000, Successor: to}
	}
	m.put("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		event(registrypb.NumberEvent_REPLACED, replaced, recordtest.SSIN(renewed)),
		event(registrypb.NumberEvent_CANCELLED, gone, nil),
		event(registrypb.NumberEvent_DECEASED, dead, nil),
		event(registrypb.NumberEvent_CANCELLED, other, nil),
		event(registrypb.NumberEvent_DECEASED, other, nil),
		event(registrypb.NumberEvent_REPLACED, other, recordtest.SSIN(foreign)),
	}}})
	return m
}

func (m *mesh) do(raw []byte) {
	m.t.Helper()
	m.index++
	res, err := record.Apply(m.state, m.w.Rules, m.index, raw)
	if err != nil || !res.Accepted {
		m.t.Fatalf("%s, %v", res.Refusal, err)
	}
	if err := record.SetAppliedIndex(m.state, m.index); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) put(author string, body any) { m.t.Helper(); m.do(m.w.Command(author, body)) }

func (m *mesh) offer(inst string, change func(*registrypb.Offering)) {
	o := &registrypb.Offering{Institution: inst, Dataset: "wages/v1", Qualities: []string{"employee"}, Period: recordtest.Since()}
	change(o)
	m.put(inst, &registrypb.Command_SetOffering{SetOffering: o})
}

func (m *mesh) authorize(id string, change func(*registrypb.Authorization)) {
	z := &registrypb.Authorization{
		Id: id, Deliberation: "DEMO-2024/017", RequesterType: "pcsa", RequesterQualities: []string{"living-wage"}, Dataset: "wages/v1",
		Fields: []string{"gross", "net"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: recordtest.Since(),
	}
	change(z)
	m.put(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: z})
}

func (m *mesh) revoke(id string) {
	m.put(record.Committee, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: id}})
}

func (m *mesh) declare(inst, quality string, persons ...string) {
	var refs []*registrypb.Reference
	for _, p := range persons {
		refs = append(refs, recordtest.Reference(p, quality))
	}
	m.do(m.w.Declare(inst, refs...))
}

func (m *mesh) suspend(inst string) {
	m.put(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: inst, Suspended: true}})
}

func (m *mesh) retire(inst string) {
	k := recordtest.KeyRecord(inst, inst)
	k.Retired = true
	m.put(record.Operators, &registrypb.Command_SetKey{SetKey: k})
}

func (m *mesh) remove(inst string) {
	n := recordtest.Node(inst, "n1")
	n.Removed = true
	m.put(inst, &registrypb.Command_SetNode{SetNode: n})
}

func (m *mesh) view() record.View { return record.NewView(m.state) }

// View, Standing and RecordDecision make the mesh the ports of a Service.
func (m *mesh) View(fn func(record.View) error) error { return fn(m.view()) }

func (m *mesh) Standing() (lease.Standing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lapse != nil {
		m.lapse()
	}
	return lease.Standing{Grant: m.grant(func(*registrypb.Grant) {}, "beta"), Index: m.index, Until: time.Now().Add(time.Hour)}, m.standing
}

func (m *mesh) RecordDecision(_ context.Context, d Decided) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken == nil {
		m.journal = append(m.journal, d)
	}
	return m.broken
}

// grant is one for alpha/n1, changed, signed by a key of the given name.
func (m *mesh) grant(change func(*registrypb.Grant), signer string) []byte {
	g := &registrypb.Grant{
		Mesh: string(recordtest.Mesh), Nonce: make([]byte, 32), Holder: ref("alpha"), Leader: ref("beta"),
		Term: 1, CommitIndex: m.index, LeaderTimeUnixMs: m.now.UnixMilli(),
	}
	change(g)
	return sign(m.t, envelope.Grant, g, signer)
}

func ref(inst string) *registrypb.NodeRef { return &registrypb.NodeRef{Institution: inst, Node: "n1"} }

func node(inst string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(inst), Node: "n1"}
}

func sign(t testing.TB, typ envelope.Type, msg proto.Message, signer string) []byte {
	t.Helper()
	payload, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := envelope.Sign(typ, payload, recordtest.Key(signer))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (m *mesh) request(person string, change ...func(*registrypb.Request)) *registrypb.Request {
	r := &registrypb.Request{
		Mesh: string(recordtest.Mesh), Nonce: make([]byte, 16), Requester: ref("office"), ClientTicket: "dossier 12", User: "u-17",
		Application: "desk", AuthLevel: 400, Purpose: "inquiry", Mode: "consultation", Dataset: "wages/v1", Fields: []string{"gross"},
		Subject: recordtest.SSIN(person), Period: &registrypb.Period{From: 18900, Until: 19100}, TimeUnixMs: m.now.UnixMilli(), Channel: "api",
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func (m *mesh) signed(r *registrypb.Request) []byte { return sign(m.t, envelope.Request, r, "office") }

func (m *mesh) service(self string) *Service {
	return New(Config{
		Self: node(self), Mesh: recordtest.Mesh, Signer: recordtest.Key(self), Registry: m, Journal: m,
		Bounds: bounds, Schemes: subject.Belgian(), Now: func() time.Time { return m.now },
	})
}

func (m *mesh) clear(self string, r *registrypb.Request, cleared ...string) *registrypb.ClearResponse {
	m.t.Helper()
	resp, err := m.service(self).Clear(m.t.Context(), node("office"), &registrypb.ClearRequest{Request: m.signed(r), Cleared: cleared})
	if err != nil {
		m.t.Fatal(err)
	}
	return resp
}

func (m *mesh) open(raw []byte) *registrypb.Clearance {
	m.t.Helper()
	c := new(registrypb.Clearance)
	if _, err := open(envelope.Clearance, raw, c); err != nil {
		m.t.Fatal(err)
	}
	return c
}

func hashOf(b []byte) []byte { h := sha256.Sum256(b); return h[:] }

var errDisk = errors.New("disk full")

func recordSubject(number string) subject.ID { return subject.Raw(subject.SSIN, number) }
