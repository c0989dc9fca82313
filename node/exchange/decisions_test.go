package exchange

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// lie lets the first clearing peer that is asked answer what change makes of an
// honest denial; the others stay honest. It gives how many were asked.
func (w *world) lie(change func(w *world, by string, r *registrypb.ClearResponse)) (asked *int) {
	asked = new(int)
	for _, m := range members {
		honest := w.node(m).clear
		w.node(m).clear = func(ctx context.Context, from names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
			if *asked++; *asked > 1 {
				return honest(ctx, from, req)
			}
			w.declare("pcsa", "living-wage", true)
			defer w.declare("pcsa", "living-wage", false)
			resp, err := honest(ctx, from, req)
			if err == nil {
				change(w, m, resp)
			}
			return resp, err
		}
	}
	return asked
}

// redecide changes a decision and signs it anew.
func (w *world) redecide(raw []byte, by string, change func(*registrypb.Decision)) []byte {
	d := new(registrypb.Decision)
	return w.resigned(envelope.Decision, raw, w.signers[by], d, func() {
		if change != nil {
			change(d)
		}
	})
}

// TestRefusalsThatDoNotVerify: what a clearing peer says against a request is believed
// only if it is a decision that can be, and the peer signed it. Else it counts as one
// that failed, and the next is asked.
func TestRefusalsThatDoNotVerify(t *testing.T) {
	type spoil = func(w *world, by string, r *registrypb.ClearResponse)
	change := func(f func(*registrypb.Decision)) spoil {
		return func(w *world, by string, r *registrypb.ClearResponse) { r.Decision = w.redecide(r.Decision, by, f) }
	}
	successor := func(s *registrypb.Subject) spoil {
		return change(func(d *registrypb.Decision) { d.Reason, d.Successor = registrypb.Reason_REPLACED_NUMBER, s })
	}
	for name, spoil := range map[string]spoil{
		"unsigned":  func(_ *world, _ string, r *registrypb.ClearResponse) { r.Decision = nil },
		"garbage":   func(_ *world, _ string, r *registrypb.ClearResponse) { r.Decision = []byte("no") },
		"oversized": func(_ *world, _ string, r *registrypb.ClearResponse) { r.Decision = make([]byte, maxClearance+1) },
		"signed by another": func(w *world, _ string, r *registrypb.ClearResponse) {
			r.Decision = w.redecide(r.Decision, "stranger", nil)
		},
		"signed by a party": func(w *world, _ string, r *registrypb.ClearResponse) {
			r.Decision = w.redecide(r.Decision, "pcsa", func(d *registrypb.Decision) { d.Clearer = ref("pcsa") })
		},
		"mesh":                 change(func(d *registrypb.Decision) { d.Mesh = "other.test" }),
		"ticket":               change(func(d *registrypb.Decision) { d.Ticket = "x" }),
		"clearer":              change(func(d *registrypb.Decision) { d.Clearer = ref("stranger") }),
		"requester":            change(func(d *registrypb.Decision) { d.Requester = ref("stranger") }),
		"request":              change(func(d *registrypb.Decision) { d.RequestHash = make([]byte, 32) }),
		"old":                  change(func(d *registrypb.Decision) { d.TimeUnixMs -= 60_000 }),
		"no time":              change(func(d *registrypb.Decision) { d.TimeUnixMs = 0 }),
		"unknown outcome":      change(func(d *registrypb.Decision) { d.Outcome = 77 }),
		"unknown reason":       change(func(d *registrypb.Decision) { d.Reason = 77 }),
		"no reason":            change(func(d *registrypb.Decision) { d.Reason = 0 }),
		"a supplier's reason":  change(func(d *registrypb.Decision) { d.Reason = registrypb.Reason_REVOKED }),
		"not applicable":       change(func(d *registrypb.Decision) { d.Outcome = registrypb.Outcome_NOT_APPLICABLE }),
		"no outcome":           change(func(d *registrypb.Decision) { d.Outcome = 0 }),
		"a permit for nothing": change(func(d *registrypb.Decision) { d.Outcome, d.Reason = registrypb.Outcome_PERMIT, 0 }),
		"denied and recused":   change(func(d *registrypb.Decision) { d.Recused = true }),
		"withheld":             change(func(d *registrypb.Decision) { d.Withheld = []string{"note"} }),
		"withheld twice":       change(func(d *registrypb.Decision) { d.Withheld = []string{"wage", "wage"} }),
		"withheld at length":   change(func(d *registrypb.Decision) { d.Withheld = []string{strings.Repeat("y", 20<<10)} }),
		"authorization":        change(func(d *registrypb.Decision) { d.Authorization = "<b>" }),
		"a script":             successor(&registrypb.Subject{Scheme: "ssin", Number: "<script>"}),
		"another scheme":       successor(&registrypb.Subject{Scheme: "cbe", Number: "0412345614"}),
		"itself":               successor(&registrypb.Subject{Scheme: "ssin", Number: person}),
		"no successor":         successor(nil),
		"a successor of one that stands": change(func(d *registrypb.Decision) {
			d.Successor = &registrypb.Subject{Scheme: "ssin", Number: absent}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.realJournal("pcsa")
			asked := w.lie(spoil)
			q := question()
			q.Fields = []names.FieldName{"wage"}
			r := w.mustConsult(q)
			if r.Status != nodepb.Status_DATA_FOUND || *asked < 2 {
				t.Errorf("%s/%s after %d were asked: the lie was believed", r.Status, r.Reason, *asked)
			}
		})
	}
}

// TestSignedRefusal: what is believed is evidence, in both journals.
func TestSignedRefusal(t *testing.T) {
	for name, spoil := range map[string]func(*registrypb.Decision){
		"denied": func(*registrypb.Decision) {},
		"replaced": func(d *registrypb.Decision) {
			d.Reason, d.Successor = registrypb.Reason_REPLACED_NUMBER, &registrypb.Subject{Scheme: "ssin", Number: absent}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.realJournal("pcsa")
			var decision []byte
			w.lie(func(w *world, by string, r *registrypb.ClearResponse) {
				r.Decision = w.redecide(r.Decision, by, spoil)
				// What stands beside it unsigned is not looked at.
				r.Outcome, r.Reason, r.Withheld = registrypb.Outcome_NOT_APPLICABLE, registrypb.Reason_LOCAL_POLICY, []string{"x"}
				decision = r.Decision
			})
			r := w.mustConsult(question())
			if r.Status != nodepb.Status_NO_RESULT || len(r.Withheld) != 0 || (r.Successor.Number() != "") != (name == "replaced") {
				t.Errorf("%+v", r)
			}
			told := w.node("pcsa").journal.of(nodepb.Event_ANSWERED)[0]
			if len(told.Evidence) != 1 || string(told.Evidence[0]) != string(decision) || told.Outcome != registrypb.Outcome_DENY {
				t.Errorf("the consultant's journal: %v", told)
			}
			for _, m := range members {
				for _, e := range w.node(m).journal.of(nodepb.Event_DECIDED) {
					checkEvidence(t, m, e, []envelope.Type{envelope.Request, envelope.Decision})
				}
			}
		})
	}
}

// TestClearancesWithoutEnd: a clearance that gives itself longer than the mesh does is
// none, and what an outbox holds of such a one is settled at once.
func TestClearancesWithoutEnd(t *testing.T) {
	for name, spoil := range map[string]func(*registrypb.Clearance){
		"release": func(c *registrypb.Clearance) { c.ReleaseByUnixMs = 1 << 62 },
		"both":    func(c *registrypb.Clearance) { c.PresentByUnixMs, c.ReleaseByUnixMs = 1<<62, 1<<62 },
		"the future": func(c *registrypb.Clearance) {
			c.IssuedUnixMs, c.PresentByUnixMs, c.ReleaseByUnixMs = 1<<62, 1<<62, 1<<62
		},
		"issued":   func(c *registrypb.Clearance) { c.IssuedUnixMs = -1 << 62 },
		"withheld": func(c *registrypb.Clearance) { c.Withheld = []string{"<b>"} },
		"right":    func(c *registrypb.Clearance) { c.Authorization = "<b>" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.hurry()
			w.net.set(nil, func(c call, reply proto.Message) error {
				if r, ok := reply.(*registrypb.ClearResponse); ok {
					for i := range r.Clearances {
						r.Clearances[i] = w.reclear(r.Clearances[i], string(c.to.Institution), spoil)
					}
				}
				return nil
			})
			r := w.mustConsult(question())
			wantStatus(t, r, nodepb.Status_NO_RESULT, registrypb.Reason_CLEARING_UNAVAILABLE)
			if w.log.count("pcsa present office") != 0 {
				t.Error("it was presented")
			}
		})
	}

	w := newWorld(t)
	pcsa := w.node("pcsa")
	p := w.cleared(w.request(question()))
	p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) { c.PresentByUnixMs = 1 << 62 })
	raw, err := proto.Marshal(&nodepb.KeptClearance{Request: p.Request, Clearance: p.Clearance})
	if err != nil {
		t.Fatal(err)
	}
	err = pcsa.outbox.Write(outbox.Change{Key: clearanceKey([]byte("absurd")), Value: raw}, outbox.Change{Key: clearanceKey([]byte("junk")), Value: []byte("junk")})
	if err != nil {
		t.Fatal(err)
	}
	if err := pcsa.consultant.sweepUnused(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = pcsa.outbox.Each(clearances, func(string, []byte) error { t.Error("a row is kept for ever"); return nil })
	if err != nil || len(pcsa.journal.of(nodepb.Event_EXPIRED_UNUSED)) != 1 {
		t.Errorf("%v, %d entries", err, len(pcsa.journal.of(nodepb.Event_EXPIRED_UNUSED)))
	}
}

// TestYesterdaysAuthorization: a requester that dates its request before the end of an
// authorization obtains nothing after it.
func TestYesterdaysAuthorization(t *testing.T) {
	w := newWorld(t)
	now := w.clock.Now().UTC()
	tomorrow := now.Truncate(24 * time.Hour).Add(24*time.Hour + 30*time.Minute)
	w.clock.Add(tomorrow.Sub(now))
	w.revoke()
	w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "demo-2", Deliberation: "DEMO-2024/1", LegalBasis: "DEMO law, article 1", RequesterType: "pcsa", RequesterQualities: []string{"living-wage"},
		Dataset: "wages/v1", Fields: []string{"employer", "wage"}, Purpose: "social-inquiry", Modes: []string{"consultation"},
		Period: &registrypb.Period{From: 1, Until: int32(tomorrow.Unix()/86400) - 1}}}})
	w.clock.Add(-40 * time.Minute)
	request := w.request(question())
	w.clock.Add(40 * time.Minute)
	resp, err := w.node("alpha").clear(t.Context(), node("pcsa"), &registrypb.ClearRequest{Request: request})
	if err != nil || resp.GetReason() != registrypb.Reason_NOT_ALLOWED || len(resp.GetClearances()) != 0 {
		t.Errorf("%v, %v", resp, err)
	}
}
