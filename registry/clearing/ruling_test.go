package clearing

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// refusal is a decision as an honest peer makes it, changed.
func (m *mesh) refusal(by string, r *registrypb.Request, change func(*registrypb.Decision)) []byte {
	m.t.Helper()
	d := new(registrypb.Decision)
	resp := m.clear(by, r)
	if _, err := open(envelope.Decision, resp.Decision, d); resp.Decision != nil && err != nil {
		m.t.Fatal(err)
	}
	if resp.Decision == nil {
		d = &registrypb.Decision{
			Mesh: string(recordtest.Mesh), Clearer: ref(by), Requester: r.Requester, RequestHash: hashOf(m.signed(r)), Ticket: resp.Ticket,
			Outcome: registrypb.Outcome_DENY, RegistryIndex: m.index, TimeUnixMs: m.now.UnixMilli(),
		}
	}
	change(d)
	return sign(m.t, envelope.Decision, d, by)
}

func (m *mesh) refusedAgain(r *registrypb.Request, decision []byte) string {
	m.t.Helper()
	return m.ruledAgain(&registrypb.RedecideRequest{Request: m.signed(r), Decision: decision})
}

// TestFalseRefusalsAreTold: who refuses what it must permit, or for another reason, or
// tells another number, is told by any member; who refuses rightly is not.
func TestFalseRefusalsAreTold(t *testing.T) {
	m := newMesh(t)
	same := func(*registrypb.Decision) {}
	because := func(r registrypb.Reason) func(*registrypb.Decision) {
		return func(d *registrypb.Decision) { d.Reason = r }
	}
	stale := func(r *registrypb.Request) { r.TimeUnixMs = m.now.Add(-3 * time.Hour).UnixMilli() }
	curious := func(r *registrypb.Request) { r.Purpose = "curiosity" }
	for name, tt := range map[string]struct {
		by        string
		request   *registrypb.Request
		change    func(*registrypb.Decision)
		different string
	}{
		"rightly: not integrated":  {"alpha", m.request(foreign), same, ""},
		"rightly: nobody has it":   {"alpha", m.request(alone), same, ""},
		"rightly: replaced":        {"alpha", m.request(replaced), same, ""},
		"rightly: cancelled":       {"alpha", m.request(gone), same, ""},
		"rightly: no row":          {"alpha", m.request(known, curious), same, ""},
		"rightly: stale":           {"alpha", m.request(known, stale), same, ""},
		"rightly: malformed":       {"alpha", m.request("11111111111"), same, ""},
		"rightly: a party":         {"epsilon", m.request(known), same, ""},
		"what it must permit":      {"alpha", m.request(known), because(registrypb.Reason_NOT_ALLOWED), "PERMIT"},
		"called stale":             {"alpha", m.request(known), because(registrypb.Reason_STALE_REQUEST), "PERMIT"},
		"another reason":           {"alpha", m.request(foreign), because(registrypb.Reason_NOT_ALLOWED), "NOT_INTEGRATED"},
		"calls it dead":            {"alpha", m.request(known), because(registrypb.Reason_DECEASED_SUBJECT), "PERMIT"},
		"another number":           {"alpha", m.request(replaced), func(d *registrypb.Decision) { d.Successor = recordtest.SSIN(known) }, "another number"},
		"a number for no number":   {"alpha", m.request(gone), func(d *registrypb.Decision) { d.Successor = recordtest.SSIN(known) }, "another number"},
		"another authorization":    {"alpha", m.request(alone), func(d *registrypb.Decision) { d.Authorization = "a-2" }, "named a-2"},
		"by somebody who is party": {"epsilon", m.request(known), func(d *registrypb.Decision) { d.Outcome, d.Recused = registrypb.Outcome_DENY, false }, "itself a party"},
		"stands aside for nothing": {"alpha", m.request(known), func(d *registrypb.Decision) { d.Outcome, d.Recused = 0, true }, "was no party"},
		"no member":                {"register", m.request(foreign), nil, "no registry member"},
	} {
		t.Run(name, func(t *testing.T) {
			var raw []byte
			if tt.change != nil {
				raw = m.refusal(tt.by, tt.request, tt.change)
			} else {
				raw = sign(t, envelope.Decision, &registrypb.Decision{
					Mesh: string(recordtest.Mesh), Clearer: ref(tt.by), Requester: tt.request.Requester, RequestHash: hashOf(m.signed(tt.request)),
					Outcome: registrypb.Outcome_DENY, Reason: registrypb.Reason_NOT_INTEGRATED, RegistryIndex: m.index, TimeUnixMs: m.now.UnixMilli(),
				}, tt.by)
			}
			got := m.refusedAgain(tt.request, raw)
			if !strings.Contains(got, tt.different) || tt.different == "" && got != "" {
				t.Errorf("%q, want %q", got, tt.different)
			}
			if n := tt.request.Subject.GetNumber(); strings.Contains(got, n) || strings.Contains(got, known) {
				t.Error("a number is told")
			}
		})
	}
}

// TestHonestRefusalsStandForEver: after the registry has changed at random, nobody who
// refused rightly is accused, whichever suppliers others had cleared before.
func TestHonestRefusalsStandForEver(t *testing.T) {
	m := newMesh(t)
	rnd := rand.New(rand.NewPCG(9, 4))
	type refused struct {
		request  *registrypb.Request
		decision []byte
	}
	var all []refused
	persons := []string{known, foreign, nobody, alone, replaced, gone, dead, other}
	at := 0
	for step := range 80 {
		switch rnd.IntN(5) {
		case 0:
			m.offer("wages", func(o *registrypb.Offering) { o.Withdrawn = rnd.IntN(2) == 0 })
		case 1:
			m.authorize(fmt.Sprintf("z-%d", step), func(z *registrypb.Authorization) {
				z.Fields, z.MinAuthLevel = []string{"net", "employer"}, uint32(rnd.IntN(2))*500
			})
		case 2:
			m.declare("office", "living-wage", recordtest.Person(200+step), foreign)
		case 3:
			if at == 0 && step > 40 {
				at = step
				m.revoke("a-1")
			}
		}
		m.now = m.now.Add(time.Second)
		r := m.request(persons[rnd.IntN(len(persons))], func(r *registrypb.Request) {
			if rnd.IntN(4) == 0 {
				r.Fields = []string{"secret"}
			}
			if rnd.IntN(6) == 0 {
				r.TimeUnixMs = m.now.Add(-2 * time.Hour).UnixMilli()
			}
		})
		by := []string{"alpha", "beta", "delta", "epsilon"}[rnd.IntN(4)]
		var cleared []string
		if rnd.IntN(2) == 0 {
			cleared = []string{"wages"}
		}
		if resp := m.clear(by, r, cleared...); resp.Decision != nil {
			all = append(all, refused{r, resp.Decision})
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %d were refused", len(all))
	}
	m.suspend("office")
	for i, x := range all {
		if d := m.refusedAgain(x.request, x.decision); d != "" {
			t.Fatalf("refusal %d of %d: an honest peer is accused: %s", i, len(all), d)
		}
	}
}

// TestOneRuling: what is shown is one clearance or one decision, on the request beside it.
func TestOneRuling(t *testing.T) {
	m := newMesh(t)
	r := m.request(foreign)
	d := m.refusal("alpha", r, func(*registrypb.Decision) {})
	c := m.lie("alpha", r, func(*registrypb.Clearance) {})
	for name, rr := range map[string]*registrypb.RedecideRequest{
		"neither":         {Request: m.signed(r)},
		"both":            {Request: m.signed(r), Clearance: c, Decision: d},
		"in wrong places": {Request: m.signed(r), Clearance: d},
		"another request": {Request: m.signed(m.request(known)), Decision: d},
	} {
		if _, err := m.redecider("gamma").Redecide(t.Context(), node("beta"), rr); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.redecider("gamma").Redecide(t.Context(), node("wages"), &registrypb.RedecideRequest{Request: m.signed(r), Decision: d}); !errors.Is(err, ErrNotParty) {
		t.Errorf("a refusal is told to who could have supplied: %v", err)
	}
}

func FuzzOpenRuling(f *testing.F) {
	m := newMesh(f)
	r := m.request(foreign)
	f.Add([]byte{}, m.refusal("alpha", r, func(*registrypb.Decision) {}))
	f.Add(m.lie("alpha", r, func(*registrypb.Clearance) {}), []byte{})
	f.Fuzz(func(t *testing.T, clearance, decision []byte) {
		w, err := OpenRuling(&registrypb.RedecideRequest{Clearance: clearance, Decision: decision})
		if (err == nil) != (w != nil) {
			t.Fatal(w, err)
		}
		if w != nil {
			_ = w.Differs(&registrypb.RedecideResponse{Member: true})
		}
	})
}
