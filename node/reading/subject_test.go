package reading

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func TestSubjectView(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	m.happened(ticketB, other, 20)
	m.happened("2123456789abcdefghjkmnpqrs", person, 60*24*365) // a year ago
	v := m.view(gamma, person)
	if !v.Complete || len(v.Uses) != 1 || len(v.Files) != 2 || !slices.Equal(v.Journals, []string{"alpha/n1", "beta/n1", "gamma/n1", "office/n1", "source/n1"}) {
		t.Fatalf("%+v", v)
	}
	u := v.Uses[0]
	if u.Ticket != ticketA || u.Institution.ID != "office" || u.User != "alice" || u.LegalBasis != "Demo act" || u.Deliberation != "DEMO-2026/001" ||
		u.Title != "Wages" || !slices.Equal(u.Fields, []string{"gross"}) || !slices.Equal(u.Withheld, []string{"net"}) || u.Outcome != Permitted ||
		len(u.Suppliers) != 1 || u.Suppliers[0].Status != "DATA_FOUND" || u.Disputed || len(u.ToldBy) != 3 {
		t.Errorf("%+v", u)
	}
	// Everybody who was asked journaled it, about whom and for whom.
	for n, l := range m.logs {
		reads := l.reads(registrypb.Outcome_PERMIT)
		if len(reads) != 1 || reads[0].Subject.GetNumber() != person || reads[0].Requester.GetInstitution() != "gamma" {
			t.Errorf("%s journaled %v", n, reads)
		}
	}
	// The next view tells of this one, once.
	v = m.view(gamma, person)
	if len(v.Uses) != 2 || v.Uses[0].Kind != LogReading || v.Uses[0].Outcome != Permitted || v.Uses[0].Application != "portal" || len(v.Uses[0].ToldBy) != 5 {
		t.Errorf("%+v", v.Uses)
	}
}

// What travels is stripped of what is not the subject's.
func TestRecordsAreStripped(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	c := m.challenge(gamma)
	token := m.token(c, person, nil)
	viewing, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&nodepb.SubjectViewing{FromUnixMs: c.From.UnixMilli(), UntilUnixMs: c.Until.UnixMilli()})
	resp, err := m.nodes[beta].ServeSubject(t.Context(), gamma, &nodepb.SubjectRequest{Token: token, Viewing: viewing})
	if err != nil || len(resp.Records) != 1 {
		t.Fatalf("%v %v", resp, err)
	}
	raw, _ := proto.Marshal(resp)
	for _, secret := range []string{"internal-7", "a remark of the machine", person, other} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("%q travels", secret)
		}
	}
}

// A node that is shown a token verifies it by itself, and that it is for whoever
// shows it.
func TestServeSubjectRefuses(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	c := m.challenge(gamma)
	viewing, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&nodepb.SubjectViewing{FromUnixMs: c.From.UnixMilli(), UntilUnixMs: c.Until.UnixMilli()})
	wider, _ := proto.Marshal(&nodepb.SubjectViewing{FromUnixMs: 1, UntilUnixMs: c.Until.UnixMilli()})
	good := m.token(c, person, nil)
	refused := 0
	for name, try := range map[string]struct {
		from    int
		request *nodepb.SubjectRequest
	}{
		"another node's token": {1, &nodepb.SubjectRequest{Token: good, Viewing: viewing}},
		"a wider view":         {0, &nodepb.SubjectRequest{Token: good, Viewing: wider}},
		"no token":             {0, &nodepb.SubjectRequest{Viewing: viewing}},
		"no view":              {0, &nodepb.SubjectRequest{Token: good}},
		"nothing":              {0, nil},
		"too weak":             {0, &nodepb.SubjectRequest{Token: m.token(c, person, func(k *registrypb.IdentityToken) { k.AuthLevel = 1 }), Viewing: viewing}},
		"long ago": {0, &nodepb.SubjectRequest{Viewing: viewing, Token: m.token(c, person, func(k *registrypb.IdentityToken) {
			k.IssuedUnixMs -= 3_600_000
			k.ExpiresUnixMs -= 3_600_000
		})}},
	} {
		resp, err := m.nodes[beta].ServeSubject(t.Context(), []names.NodeID{gamma, office}[try.from], try.request)
		if !errors.Is(err, ErrNoRight) || resp != nil {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
		refused++
		if reads := m.logs[beta].reads(registrypb.Outcome_DENY); len(reads) != refused || reads[refused-1].Detail == "" {
			t.Errorf("%s: journaled %v", name, reads)
		}
	}
	m.apply(m.provider(true))
	if _, err := m.nodes[beta].ServeSubject(t.Context(), gamma, &nodepb.SubjectRequest{Token: good, Viewing: viewing}); !errors.Is(err, ErrNoRight) {
		t.Errorf("a retired provider: %v", err)
	}
}

// A refusal is the same whether there is anything to be found or not.
func TestRefusalTellsNothing(t *testing.T) {
	for _, about := range []string{person, other} {
		m := newMesh(t)
		m.happened(ticketA, person, 10)
		_, err := m.nodes[gamma].Subject(t.Context(), desk, m.token(m.challenge(gamma), about, func(k *registrypb.IdentityToken) { k.AuthLevel = 1 }))
		if err != ErrNoRight {
			t.Errorf("%v", err)
		}
	}
}

func TestNonceServesOnce(t *testing.T) {
	m := newMesh(t)
	token := m.token(m.challenge(gamma), person, nil)
	if _, err := m.nodes[gamma].Subject(t.Context(), Reader{Application: "another"}, token); !errors.Is(err, ErrNoRight) {
		t.Errorf("another application's nonce: %v", err)
	}
	token = m.token(m.challenge(gamma), person, nil)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := m.nodes[gamma].Subject(context.Background(), desk, token); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || len(m.logs[gamma].reads(registrypb.Outcome_DENY)) != 20 {
		t.Errorf("used %d times", won.Load())
	}
}

// No answer without its entry, no trust without the registry.
func TestSubjectFailsClosed(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	m.logs[gamma].fail = errDisk
	if v, err := m.nodes[gamma].Subject(t.Context(), desk, m.token(m.challenge(gamma), person, nil)); !errors.Is(err, ErrJournal) || v != nil {
		t.Errorf("%v, %v", v, err)
	}
	if len(m.logs[beta].reads(registrypb.Outcome_PERMIT)) != 0 {
		t.Error("others were asked before the reading was journaled")
	}
	m.logs[gamma].fail = nil
	m.logs[beta].fail = errDisk
	v := m.view(gamma, person)
	if v.Complete || len(v.NotReached) != 1 || v.NotReached[0].Node != "beta/n1" {
		t.Errorf("%+v", v.NotReached)
	}
	m.stale = true
	if _, err := m.nodes[gamma].Subject(t.Context(), desk, m.token(m.challenge(gamma), person, nil)); !errors.Is(err, lease.ErrStale) {
		t.Errorf("%v", err)
	}
}

func TestUnreachedAndDisputed(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	m.down[office] = true
	v := m.view(gamma, person)
	if v.Complete || len(v.NotReached) != 1 || v.NotReached[0].Node != "office/n1" || v.NotReached[0].Why == "" || len(v.Uses) != 1 || v.Uses[0].User != "alice" {
		t.Errorf("%+v", v)
	}
	m.down[office] = false
	m.logs[office].entries[0].User = "somebody else"
	for _, u := range m.view(gamma, person).Uses {
		if u.Ticket == ticketA && !u.Disputed {
			t.Error("journals that disagree are taken to agree")
		}
	}
}

// Under whichever of its numbers a person comes, it sees what was done under all.
func TestReplacedNumbers(t *testing.T) {
	m := newMesh(t)
	m.happened(ticketA, person, 10)
	m.happened(ticketB, other, 20)
	m.apply(m.w.Command("source", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		{Subject: recordtest.SSIN(person), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(other), Date: 1},
	}}}))
	// The source asked its own system under both.
	l := m.logs[source]
	for _, e := range l.entries {
		if e.Ticket == ticketB {
			e.AlsoSubjects = []*registrypb.Subject{recordtest.SSIN(person)}
		}
	}
	in, err := m.nodes[gamma].Inspect(t.Context(), desk, m.order(func(o *nodepb.InspectionOrder) {
		o.Scope = &nodepb.InspectionOrder_Subject{Subject: recordtest.SSIN(other)}
	}, "c1", "c2"))
	if err != nil || len(in.Stories) != 2 || len(in.Stories[0].Steps) != 4 || len(in.Stories[1].Steps) != 4 {
		t.Errorf("%v %+v", err, in)
	}
	for _, number := range []string{person, other} {
		found := 0
		for _, u := range m.view(gamma, number).Uses {
			if u.Kind == Consultation {
				found++
			}
		}
		if found != 2 {
			t.Errorf("%d consultations", found)
		}
	}
}

func TestPeriods(t *testing.T) {
	m := newMesh(t)
	s := m.nodes[gamma]
	c, err := s.Nonce(desk, time.Time{}, time.Time{})
	if err != nil || c.From.Format(time.DateOnly) != c.Until.AddDate(0, -6, 0).Format(time.DateOnly) {
		t.Errorf("%+v %v", c, err)
	}
	for _, p := range [][2]time.Time{{today, today}, {time.UnixMilli(-5), today}, {today.AddDate(-40, 0, 0), today}} {
		if _, err := s.Nonce(desk, p[0], p[1]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

func FuzzViewing(f *testing.F) {
	good, _ := proto.Marshal(&nodepb.SubjectViewing{FromUnixMs: 1, UntilUnixMs: 2})
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if v, err := decodeViewing(raw); err == nil && (v.FromUnixMs >= v.UntilUnixMs || v.FromUnixMs <= 0) {
			t.Error("a view without sense")
		}
	})
}
