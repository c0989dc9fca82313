package reading

import (
	"errors"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func TestInspection(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	m.happened(ticketB, other, 20)
	for name, c := range map[string]struct {
		scope   func(*nodepb.InspectionOrder)
		tickets []names.Ticket
	}{
		"ticket": {nil, []names.Ticket{ticketA}},
		"subject": {func(o *nodepb.InspectionOrder) {
			o.Scope = &nodepb.InspectionOrder_Subject{Subject: recordtest.SSIN(other)}
		}, []names.Ticket{ticketB}},
		"institution": {func(o *nodepb.InspectionOrder) {
			o.Scope = &nodepb.InspectionOrder_Institution{Institution: &nodepb.InspectedInstitution{
				Id: "source", FromUnixMs: today.Add(-time.Hour).UnixMilli(), UntilUnixMs: today.UnixMilli(),
			}}
		}, []names.Ticket{ticketA, ticketB}},
	} {
		in, err := m.nodes[gamma].Inspect(t.Context(), desk, m.order(c.scope, "c1", "c3"))
		if err != nil || len(in.Stories) != len(c.tickets) || !in.Complete {
			t.Errorf("%s: %v %+v", name, err, in)
			continue
		}
		for i, s := range in.Stories {
			if s.Ticket != c.tickets[i] || len(s.Journals) != 3 || s.User != "alice" || s.Verdict == trace.Unknown {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
	for n, l := range m.logs {
		if reads := l.reads(registrypb.Outcome_PERMIT); len(reads) < 3 || reads[0].Purpose != "inspection" || len(reads[0].Detail) == 0 {
			t.Errorf("%s journaled %v", n, reads)
		}
	}
}

// Every node counts the committee's signatures by itself.
func TestOrdersAreRefused(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	good := m.order(nil, "c1", "c2")
	for name, c := range map[string]struct {
		executor names.NodeID
		order    []byte
	}{
		"one signature":       {gamma, m.order(nil, "c1")},
		"the same twice":      {gamma, m.order(nil, "c1", "c1")},
		"others' signatures":  {gamma, m.order(nil, "c1", "operator1", "operator2")},
		"another executes it": {office, good},
		"another node does":   {gamma, m.order(func(o *nodepb.InspectionOrder) { o.Executor.Node = "n2" }, "c1", "c2")},
		"another mesh":        {gamma, m.order(func(o *nodepb.InspectionOrder) { o.Mesh = "other.mesh" }, "c1", "c2")},
		"expired": {gamma, m.order(func(o *nodepb.InspectionOrder) {
			o.IssuedUnixMs -= 7_200_000
			o.ExpiresUnixMs -= 7_200_000
		}, "c1", "c2")},
		"of the future": {gamma, m.order(func(o *nodepb.InspectionOrder) { o.IssuedUnixMs += 10_000 }, "c1", "c2")},
		"a token":       {gamma, m.token(m.challenge(gamma), person, nil)},
		"nothing":       {gamma, nil},
		"garbage":       {gamma, []byte("order")},
	} {
		before := len(m.logs[beta].reads(registrypb.Outcome_DENY))
		if resp, err := m.nodes[beta].ServeInspect(t.Context(), c.executor, &nodepb.InspectRequest{Order: c.order}); !errors.Is(err, ErrNoRight) || resp != nil {
			t.Errorf("%s, shown to another: %v %v", name, resp, err)
		}
		if len(m.logs[beta].reads(registrypb.Outcome_DENY)) != before+1 {
			t.Errorf("%s: the attempt is not journaled", name)
		}
		if in, err := m.nodes[c.executor].Inspect(t.Context(), desk, c.order); !errors.Is(err, ErrNoRight) || in != nil {
			t.Errorf("%s: %v %v", name, in, err)
		}
	}
	if _, err := m.nodes[beta].ServeInspect(t.Context(), gamma, &nodepb.InspectRequest{Order: good}); err != nil {
		t.Error(err)
	}
}

// An inspection finds an altered entry, and whose it is.
func TestInspectionFindsTampering(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	m.lie = func(to names.NodeID, resp *nodepb.InspectResponse) {
		if to == source {
			resp.Entries[0].Entry[len(resp.Entries[0].Entry)-1] ^= 1
		}
	}
	in, err := m.nodes[gamma].Inspect(t.Context(), desk, m.order(nil, "c1", "c2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Altered) != 1 || in.Altered[0].Node != "source/n1" || in.Stories[0].Verdict != trace.Contradicted {
		t.Errorf("%+v", in)
	}
	m.lie = nil
	m.logs[source].entries = nil // it lost its journal, or hides it
	if in, err = m.nodes[gamma].Inspect(t.Context(), desk, m.order(nil, "c1", "c2")); err != nil || in.Stories[0].Verdict == trace.Consistent {
		t.Errorf("%v %+v", err, in)
	}
	m.down[source] = true
	if in, err = m.nodes[gamma].Inspect(t.Context(), desk, m.order(nil, "c1", "c2")); err != nil || in.Complete || len(in.NotReached) != 1 || in.Stories[0].Verdict == trace.Consistent {
		t.Errorf("%v %+v", err, in)
	}
}

func TestCheckOrder(t *testing.T) {
	for name, change := range map[string]func(*nodepb.InspectionOrder){
		"no scope":     func(o *nodepb.InspectionOrder) { o.Scope = nil },
		"no mesh":      func(o *nodepb.InspectionOrder) { o.Mesh = "" },
		"id":           func(o *nodepb.InspectionOrder) { o.Id = "A B" },
		"no reason":    func(o *nodepb.InspectionOrder) { o.Reason = "" },
		"two lines":    func(o *nodepb.InspectionOrder) { o.Reason = "a\nb" },
		"no executor":  func(o *nodepb.InspectionOrder) { o.Executor = nil },
		"for ever":     func(o *nodepb.InspectionOrder) { o.ExpiresUnixMs += 90 * 86_400_000 },
		"never":        func(o *nodepb.InspectionOrder) { o.ExpiresUnixMs = o.IssuedUnixMs },
		"a bad ticket": func(o *nodepb.InspectionOrder) { o.Scope = &nodepb.InspectionOrder_Ticket{Ticket: "x"} },
		"a bad number": func(o *nodepb.InspectionOrder) {
			o.Scope = &nodepb.InspectionOrder_Subject{Subject: recordtest.SSIN("74071238187")}
		},
		"nobody": func(o *nodepb.InspectionOrder) { o.Scope = &nodepb.InspectionOrder_Subject{} },
		"no period": func(o *nodepb.InspectionOrder) {
			o.Scope = &nodepb.InspectionOrder_Institution{Institution: &nodepb.InspectedInstitution{Id: "a"}}
		},
		"no institution": func(o *nodepb.InspectionOrder) { o.Scope = &nodepb.InspectionOrder_Institution{} },
	} {
		o := &nodepb.InspectionOrder{
			Mesh: "m", Id: "o", Reason: "r", Executor: &registrypb.NodeRef{Institution: "a"}, Scope: &nodepb.InspectionOrder_Ticket{Ticket: ticketA},
			IssuedUnixMs: 1, ExpiresUnixMs: 2,
		}
		if err := CheckOrder(o, subject.Belgian()); err != nil {
			t.Fatal(err)
		}
		change(o)
		if err := CheckOrder(o, subject.Belgian()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpenOrder(f *testing.F) {
	f.Add(newMesh(f).order(nil, "c1"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, o, err := OpenOrder(raw, subject.Belgian()); err == nil && (o.Scope == nil || o.Executor == nil) {
			t.Error("an order without sense")
		}
	})
}
