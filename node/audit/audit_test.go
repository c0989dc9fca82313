package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var (
	known   = recordtest.Person(1) // at office and at wages
	foreign = recordtest.Person(2) // at wages alone
)

// mesh has the members alpha, beta, gamma and delta, the requester office and the
// supplier wages. Whoever is in slander says of everything that it was wrong.
type mesh struct {
	t       testing.TB
	w       *recordtest.World
	state   *record.MapState
	index   uint64
	mu      sync.Mutex
	asked   []string // members
	down    map[string]bool
	slander map[string]bool
	entries []*nodepb.Entry
}

func newMesh(t testing.TB) *mesh {
	m := &mesh{t: t, w: recordtest.New(t, "alpha", "beta", "gamma", "delta"), state: new(record.MapState), down: map[string]bool{}, slander: map[string]bool{}}
	if err := record.Bootstrap(m.state, m.w.Rules); err != nil {
		t.Fatal(err)
	}
	for _, i := range []*registrypb.Institution{{Id: "office", Type: "pcsa"}, {Id: "wages", Type: "wage-office"}} {
		m.do(m.w.Admit(i))
		m.do(m.w.Command(i.Id, &registrypb.Command_SetNode{SetNode: recordtest.Node(i.Id, "n1")}))
	}
	m.do(m.w.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
		Id: "wages/v1", Title: "Wages", Schema: `{"properties":{"gross":{},"net":{},"employer":{}}}`, Scheme: "ssin"}}))
	m.do(m.w.Command("wages", &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
		Institution: "wages", Dataset: "wages/v1", Qualities: []string{"employee"}, Period: recordtest.Since()}}))
	m.do(m.w.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "a-1", Deliberation: "DEMO-2024/017", RequesterType: "pcsa", RequesterQualities: []string{"client"}, Dataset: "wages/v1",
		Fields: []string{"gross"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: &registrypb.Period{Until: int32(names.Forever)}}})) // virtual time begins in 2000
	m.do(m.w.Declare("office", recordtest.Reference(known, "client")))
	m.do(m.w.Declare("wages", recordtest.Reference(known, "employee"), recordtest.Reference(foreign, "employee")))
	return m
}

func (m *mesh) do(raw []byte) {
	m.t.Helper()
	m.index++
	if res, err := record.Apply(m.state, m.w.Rules, m.index, raw); err != nil || !res.Accepted {
		m.t.Fatalf("%s, %v", res.Refusal, err)
	}
	if err := record.SetAppliedIndex(m.state, m.index); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) View(fn func(record.View) error) error { return fn(record.NewView(m.state)) }

func node(i string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(i), Node: "n1"}
}

func ref(i string) *registrypb.NodeRef { return &registrypb.NodeRef{Institution: i, Node: "n1"} }

func (m *mesh) sign(t envelope.Type, msg proto.Message, by string) []byte {
	raw, err := proto.Marshal(msg)
	if err != nil {
		m.t.Fatal(err)
	}
	signed, err := envelope.Sign(t, raw, recordtest.Key(by))
	if err != nil {
		m.t.Fatal(err)
	}
	return signed
}

// cleared is what alpha cleared for office at wages: rightly, for person known and field gross.
func (m *mesh) cleared(person string, fields ...string) (request, clearance []byte) {
	now := time.Now()
	r := &registrypb.Request{
		Mesh: string(recordtest.Mesh), Nonce: make([]byte, 16), Requester: ref("office"), User: "u-17", Purpose: "inquiry", Mode: "consultation",
		Dataset: "wages/v1", Subject: recordtest.SSIN(person), Period: &registrypb.Period{From: 18900, Until: 19100}, TimeUnixMs: now.UnixMilli(),
	}
	request = m.sign(envelope.Request, r, "office")
	hash := sha256.Sum256(request)
	return request, m.sign(envelope.Clearance, &registrypb.Clearance{
		Mesh: string(recordtest.Mesh), Id: hash[:16], Ticket: string(names.TicketOf(request)), Clearer: ref("alpha"), Requester: ref("office"), Supplier: "wages",
		RequestHash: hash[:], Subject: r.Subject, Dataset: r.Dataset, Fields: fields, Period: r.Period, Purpose: r.Purpose, Mode: r.Mode,
		Authorization: "a-1", SupplierQualities: []string{"employee"}, RegistryIndex: m.index, IssuedUnixMs: now.UnixMilli(),
	}, "alpha")
}

func (m *mesh) redecider(self string) *clearing.Redecider {
	return clearing.NewRedecider(clearing.RedeciderConfig{Self: node(self), Mesh: recordtest.Mesh, Rules: m.w.Rules, Registry: m})
}

func (m *mesh) auditor(self string, change ...func(*Config)) *Auditor {
	cfg := Config{Self: node(self), Registry: m, Journal: m, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	cfg.Ask = func(ctx context.Context, to names.NodeID, req *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error) {
		who := string(to.Institution)
		m.mu.Lock()
		m.asked = append(m.asked, who)
		m.mu.Unlock()
		switch {
		case m.down[who]:
			return nil, errors.New("down")
		case m.slander[who]:
			return &registrypb.RedecideResponse{Outcome: registrypb.Outcome_DENY, Reason: registrypb.Reason_NOT_ALLOWED, Member: true}, nil
		}
		return m.redecider(who).Redecide(ctx, node(self), req)
	}
	for _, c := range change {
		c(&cfg)
	}
	return New(cfg)
}

func (m *mesh) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = append(m.entries, e)
	return uint64(len(m.entries)), nil
}

func (m *mesh) Find(_ context.Context, q journal.Query) (found []journal.Stored, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if q.Ticket != "" {
			if e.Ticket == string(q.Ticket) {
				found = append(found, journal.Stored{Entry: e})
			}
			continue
		}
		if at := time.UnixMilli(e.TimeUnixMs); !at.Before(q.From) && at.Before(q.Until) {
			found = append(found, journal.Stored{Entry: e})
		}
	}
	return found, nil
}

func TestLiarIsNamed(t *testing.T) {
	m := newMesh(t)
	for name, tt := range map[string]struct {
		person string
		fields []string
		says   string
	}{
		"without integration": {foreign, []string{"gross"}, "NOT_INTEGRATED"},
		"more fields":         {known, []string{"gross", "employer"}, "other fields"},
	} {
		request, clearance := m.cleared(tt.person, tt.fields...)
		a := m.auditor("wages")
		v := a.Examine(t.Context(), request, clearance)
		if !v.Wrong() || v.Clearer != node("alpha") || !strings.Contains(v.Says, tt.says) || len(v.Against) != 3 {
			t.Errorf("%s: %+v", name, v)
		}
		found := a.Findings()
		if len(found) != 1 || found[0].Clearer != "alpha/n1" || !slices.Equal(found[0].Ruling, clearance) || a.Counts().Wrong != 1 {
			t.Errorf("%s: %+v", name, found)
		}
		a.Examine(t.Context(), request, clearance)
		if len(a.Findings()) != 1 {
			t.Error("the same was found twice")
		}
	}
	if slices.Contains(m.asked, "alpha") {
		t.Error("the accused was asked about itself")
	}
}

func TestTheHonestAreNotAccused(t *testing.T) {
	m := newMesh(t)
	request, clearance := m.cleared(known, "gross")
	a := m.auditor("wages")
	if v := a.Examine(t.Context(), request, clearance); v.Wrong() || len(v.Same) != 1 || v.Unknown != "" {
		t.Errorf("%+v", v)
	}
	// One member slanders, whichever is asked first.
	m.slander["beta"] = true
	for range 20 {
		if v := a.Examine(t.Context(), request, clearance); v.Wrong() {
			t.Fatalf("%+v", v)
		}
	}
	// A member believes what it decides itself.
	m.slander["gamma"], m.slander["delta"] = true, true
	own := m.auditor("delta", func(c *Config) { c.Own = m.redecider("delta") })
	if v := own.Examine(t.Context(), request, clearance); v.Wrong() || !slices.Equal(v.Same, []names.NodeID{node("delta")}) {
		t.Errorf("%+v", v)
	}
	if len(a.Findings())+len(own.Findings()) != 0 {
		t.Error("something was found")
	}
}

func TestNobodyAnswers(t *testing.T) {
	m := newMesh(t)
	m.down["beta"], m.down["gamma"], m.down["delta"] = true, true, true
	request, clearance := m.cleared(foreign, "gross")
	a := m.auditor("wages")
	if v := a.Examine(t.Context(), request, clearance); v.Unknown == "" || v.Wrong() || len(a.Findings()) != 0 {
		t.Errorf("%+v", v)
	}
	if v := a.Examine(t.Context(), request, []byte("garbage")); v.Unknown == "" {
		t.Errorf("%+v", v)
	}
}

// TestSampling: a supplier that answers under what a liar cleared hands it over sooner or later.
func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		a := m.auditor("wages", func(c *Config) { c.Every = time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		answer := func(person string, fields ...string) {
			request, clearance := m.cleared(person, fields...)
			_, _ = m.Append(ctx, &nodepb.Entry{TimeUnixMs: time.Now().UnixMilli(), Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED,
				Evidence: [][]byte{request, clearance, []byte("answer")}})
		}
		for range 3 {
			answer(known, "gross")
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if c := a.Counts(); c.Examined != 3 || c.Wrong != 0 {
			t.Errorf("%+v", c)
		}
		answer(foreign, "gross")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f := a.Findings(); len(f) != 1 || f[0].Clearer != "alpha/n1" {
			t.Errorf("%+v", f)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFalseRefusalsAreSampled: a consultant that was refused hands the refusal over, and the
// peer that refused what it must permit is named.
func TestFalseRefusalsAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		a := m.auditor("office", func(c *Config) { c.Every = time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		refuse := func(person string) {
			request, _ := m.cleared(person, "gross")
			hash := sha256.Sum256(request)
			ticket := string(names.TicketOf(request))
			d := m.sign(envelope.Decision, &registrypb.Decision{
				Mesh: string(recordtest.Mesh), Ticket: ticket, Clearer: ref("alpha"), Requester: ref("office"), RequestHash: hash[:],
				Outcome: registrypb.Outcome_DENY, Reason: registrypb.Reason_NOT_INTEGRATED, RegistryIndex: m.index, TimeUnixMs: time.Now().UnixMilli(),
			}, "alpha")
			now := time.Now().UnixMilli()
			_, _ = m.Append(ctx, &nodepb.Entry{TimeUnixMs: now, Ticket: ticket, Event: nodepb.Event_REQUESTED, RequestHash: hash[:], Evidence: [][]byte{request}})
			_, _ = m.Append(ctx, &nodepb.Entry{TimeUnixMs: now, Ticket: ticket, Event: nodepb.Event_ANSWERED, RequestHash: hash[:],
				Status: nodepb.Status_NO_RESULT, Evidence: [][]byte{d}})
		}
		refuse(foreign)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c := a.Counts(); c.Examined != 1 || c.Wrong != 0 {
			t.Errorf("an honest refusal: %+v, %+v", c, a.Findings())
		}
		refuse(known)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f := a.Findings(); len(f) != 1 || f[0].Clearer != "alpha/n1" || !strings.Contains(f[0].Says, "PERMIT") {
			t.Errorf("%+v", f)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestServe: a member decides for others, writes down that it did, and keeps what it found.
func TestServe(t *testing.T) {
	m := newMesh(t)
	request, clearance := m.cleared(foreign, "gross")
	req := &registrypb.RedecideRequest{Request: request, Clearance: clearance}
	a := m.auditor("beta", func(c *Config) { c.Own = m.redecider("beta") })
	if _, err := a.Serve(t.Context(), node("wages"), req); err != nil || len(a.Findings()) != 1 {
		t.Fatal(err, a.Findings())
	}
	if _, err := a.Serve(t.Context(), node("elsewhere"), req); !errors.Is(err, clearing.ErrNotParty) {
		t.Fatal(err)
	}
	if len(m.entries) != 2 || m.entries[1].Role != nodepb.Role_READER || !strings.Contains(m.entries[1].Detail, "refused") {
		t.Errorf("%+v", m.entries)
	}
	if _, err := m.auditor("wages").Serve(t.Context(), node("office"), req); !errors.Is(err, clearing.ErrNotMember) {
		t.Error(err)
	}
}
