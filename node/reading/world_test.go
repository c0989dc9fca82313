package reading

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	ticketA = "0123456789abcdefghjkmnpqrs"
	ticketB = "1123456789abcdefghjkmnpqrs"
)

var (
	person  = recordtest.Person(1)
	other   = recordtest.Person(2)
	today   = time.UnixMilli(1_780_000_000_000)
	alpha   = names.NodeID{Institution: "alpha", Node: "n1"} // alpha, beta, gamma: members
	beta    = names.NodeID{Institution: "beta", Node: "n1"}
	gamma   = names.NodeID{Institution: "gamma", Node: "n1"}
	office  = names.NodeID{Institution: "office", Node: "n1"}
	source  = names.NodeID{Institution: "source", Node: "n1"}
	errDown = errors.New("down")
	errDisk = errors.New("disk full")
)

// mesh is a network of services over one registry: every node sees all of it, which
// a node that is no member does not; what only members know is tested in testnet.
type mesh struct {
	t     testing.TB
	w     *recordtest.World
	state record.MapState
	index uint64
	mu    sync.Mutex
	nodes map[names.NodeID]*Service
	logs  map[names.NodeID]*log
	down  map[names.NodeID]bool
	stale bool
	lie   func(to names.NodeID, resp *nodepb.InspectResponse)
}

// log is a journal that is plain to see.
type log struct {
	mu      sync.Mutex
	entries []*nodepb.Entry
	fail    error
}

func (l *log) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	l.entries = append(l.entries, proto.CloneOf(e))
	return uint64(len(l.entries) - 1), nil
}

// Find is what journal.Journal promises, written the dumb way.
func (l *log) Find(_ context.Context, q journal.Query) (found []journal.Stored, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	for i, e := range l.entries {
		t := time.UnixMilli(e.TimeUnixMs)
		about := slices.ContainsFunc(append(e.AlsoSubjects, e.Subject), func(s *registrypb.Subject) bool {
			return q.Subject == subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
		})
		if q.Ticket != "" && string(q.Ticket) != e.Ticket || !q.Subject.IsZero() && !about || q.User != "" && string(q.User) != e.User ||
			q.Requester != "" && string(q.Requester) != e.GetRequester().GetInstitution() ||
			!q.From.IsZero() && t.Before(q.From) || !q.Until.IsZero() && !t.Before(q.Until) {
			continue
		}
		raw, err := proto.Marshal(e)
		if err != nil {
			return nil, err
		}
		s := journal.Stored{Sequence: uint64(i), Entry: e, Raw: raw}
		s.Commitment = journal.EntryCommitment(s.Salt, raw)
		found = append(found, s)
	}
	slices.SortStableFunc(found, func(a, b journal.Stored) int { return cmp.Compare(a.Entry.TimeUnixMs, b.Entry.TimeUnixMs) })
	if q.NewestFirst {
		slices.Reverse(found)
	}
	return found[:min(len(found), q.Limit)], nil
}

func (l *log) reads(outcome registrypb.Outcome) (all []*nodepb.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Role == nodepb.Role_READER && e.Outcome == outcome {
			all = append(all, e)
		}
	}
	return all
}

func (m *mesh) View(fn func(record.View) error) error { return fn(record.NewView(&m.state)) }

func (m *mesh) Standing() (lease.Standing, error) {
	if m.stale {
		return lease.Standing{}, lease.ErrStale
	}
	return lease.Standing{}, nil
}

// wire carries one node's questions.
type wire struct {
	m    *mesh
	from names.NodeID
}

func (w wire) to(n names.NodeID) (*Service, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.down[n] || w.m.nodes[n] == nil {
		return nil, errDown
	}
	return w.m.nodes[n], nil
}

func (w wire) Subject(ctx context.Context, to names.NodeID, req *nodepb.SubjectRequest) (*nodepb.SubjectResponse, error) {
	s, err := w.to(to)
	if err != nil {
		return nil, err
	}
	return s.ServeSubject(ctx, w.from, req)
}

func (w wire) Inspect(ctx context.Context, to names.NodeID, req *nodepb.InspectRequest) (*nodepb.InspectResponse, error) {
	s, err := w.to(to)
	if err != nil {
		return nil, err
	}
	resp, err := s.ServeInspect(ctx, w.from, req)
	if err == nil && w.m.lie != nil {
		w.m.lie(to, resp)
	}
	return resp, err
}

func newMesh(t testing.TB) *mesh {
	m := &mesh{
		t: t, w: recordtest.New(t, "alpha", "beta", "gamma"), nodes: map[names.NodeID]*Service{}, logs: map[names.NodeID]*log{},
		down: map[names.NodeID]bool{},
	}
	if err := record.Bootstrap(&m.state, m.w.Rules); err != nil {
		t.Fatal(err)
	}
	w := m.w
	m.apply(
		w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"}), w.Admit(&registrypb.Institution{Id: "source", Type: "source", NumberSchemes: []string{"ssin"}}),
		w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")}),
		w.Command("source", &registrypb.Command_SetNode{SetNode: recordtest.Node("source", "n1")}),
		w.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
			Id: "wages/v1", Title: "Wages", Scheme: "ssin", Schema: `{"properties":{"gross":{},"net":{}}}`,
		}}),
		w.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: "a-1", Deliberation: "DEMO-2026/001", LegalBasis: "Demo act", RequesterType: "pcsa", RequesterQualities: []string{"client"},
			Dataset: "wages/v1", Fields: []string{"gross"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: recordtest.Since(),
		}}),
		m.provider(false), w.Declare("office", recordtest.Reference(person, "client")), w.Declare("source", recordtest.Reference(person, "employee")),
	)
	committee := genesis.Group{Threshold: 2}
	for _, k := range []string{"c1", "c2", "c3"} {
		committee.Keys = append(committee.Keys, recordtest.Public(k))
	}
	for _, n := range []names.NodeID{alpha, beta, gamma, office, source} {
		m.logs[n] = new(log)
		m.nodes[n] = New(Config{
			Mesh: recordtest.Mesh, Self: n, Registry: m, Journal: m.logs[n], Peers: wire{m, n}, Committee: func() (genesis.Group, error) { return committee, nil }, Schemes: subject.Belgian(),
			Story: build,
			Skew:  time.Second, Now: func() time.Time { return today }, Log: slog.New(slog.DiscardHandler),
		})
	}
	return m
}

func (m *mesh) provider(retired bool) []byte {
	return m.w.Command(record.Operators, &registrypb.Command_SetIdentityProvider{SetIdentityProvider: &registrypb.IdentityProvider{
		Id: "eid", Name: "eID", PublicKeys: [][]byte{recordtest.Public("eid")}, Levels: []uint32{1, 3}, Retired: retired,
	}})
}

func (m *mesh) apply(commands ...[]byte) {
	m.t.Helper()
	for _, raw := range commands {
		m.index++
		if res, err := record.Apply(&m.state, m.w.Rules, m.index, raw); err != nil || !res.Accepted {
			m.t.Fatalf("%v %s", err, res.Refusal)
		}
	}
}

// happened writes a consultation by the office about a person into the journals of
// all who took part.
func (m *mesh) happened(ticket, about string, minutesAgo int) {
	e := &nodepb.Entry{
		TimeUnixMs: today.Add(-time.Duration(minutesAgo) * time.Minute).UnixMilli(), Ticket: ticket, ClientTicket: "internal-7", Requester: ref(office),
		User: "alice", Application: "desk", Channel: "api", Purpose: "inquiry", Mode: "consultation", Dataset: "wages/v1", Fields: []string{"gross", "net"},
		Subject: recordtest.SSIN(about), Period: &registrypb.Period{From: 1, Until: 2}, AuthLevel: 3, RequestHash: make([]byte, 32),
	}
	write := func(n names.NodeID, role nodepb.Role, event nodepb.Event, change func(*nodepb.Entry)) {
		x := proto.CloneOf(e)
		x.Role, x.Event = role, event
		x.TimeUnixMs += int64(event)
		if change != nil {
			x.Clearer, x.Supplier, x.ClearanceId, x.ClearanceHash = ref(beta), ref(source), []byte(ticket)[:16], make([]byte, 32)
			x.Authorization, x.Deliberation, x.Fields, x.Withheld = "a-1", "DEMO-2026/001", []string{"gross"}, []string{"net"}
			x.Outcome = registrypb.Outcome_PERMIT
			change(x)
		}
		if _, err := m.logs[n].Append(context.Background(), x); err != nil {
			m.t.Fatal(err)
		}
	}
	found := func(x *nodepb.Entry) { x.Status, x.AnswerCommitment = nodepb.Status_DATA_FOUND, make([]byte, 32) }
	write(office, nodepb.Role_CONSULTANT, nodepb.Event_REQUESTED, nil)
	write(beta, nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, func(x *nodepb.Entry) { x.Detail = "a remark of the machine" })
	write(source, nodepb.Role_SUPPLIER, nodepb.Event_SUPPLIED, found)
	write(office, nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED, found)
}

var desk = Reader{Application: "portal", User: "portal", Channel: "api"}

// token answers a challenge.
func (m *mesh) token(c *Challenge, about string, change func(*registrypb.IdentityToken)) []byte {
	m.t.Helper()
	node, err := names.ParseNodeID(c.Node)
	if err != nil {
		m.t.Fatal(err)
	}
	t := &registrypb.IdentityToken{
		Mesh: string(c.Mesh), Provider: "eid", Subject: recordtest.SSIN(about), Node: ref(node), Nonce: c.Nonce, Purpose: string(c.Purpose),
		PayloadHash: c.PayloadHash, AuthLevel: 3, IssuedUnixMs: today.UnixMilli(), ExpiresUnixMs: today.Add(time.Minute).UnixMilli(),
	}
	if change != nil {
		change(t)
	}
	raw, err := identity.Issue(t, recordtest.Key("eid"))
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

func (m *mesh) challenge(at names.NodeID) *Challenge {
	m.t.Helper()
	c, err := m.nodes[at].Nonce(desk, time.Time{}, time.Time{})
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func (m *mesh) view(at names.NodeID, about string) *SubjectView {
	m.t.Helper()
	v, err := m.nodes[at].Subject(context.Background(), desk, m.token(m.challenge(at), about, nil))
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

// order makes an inspection order for gamma, signed by the given keys.
func (m *mesh) order(change func(*nodepb.InspectionOrder), signers ...string) []byte {
	m.t.Helper()
	o := &nodepb.InspectionOrder{
		Mesh: string(recordtest.Mesh), Id: "o-1", Reason: "a complaint", Executor: &registrypb.NodeRef{Institution: "gamma"},
		Scope: &nodepb.InspectionOrder_Ticket{Ticket: ticketA}, IssuedUnixMs: today.UnixMilli(), ExpiresUnixMs: today.Add(time.Hour).UnixMilli(),
	}
	if change != nil {
		change(o)
	}
	raw, err := NewOrder(o, subject.Belgian())
	for _, s := range signers {
		if err == nil {
			raw, err = envelope.AddSignature(raw, ed25519.PrivateKey(recordtest.Key(s)))
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

func build(_ context.Context, t names.Ticket, s map[names.NodeID]trace.Segment) *trace.Story {
	return trace.Build(t, s, trace.Means{})
}
