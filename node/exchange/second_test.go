package exchange

import (
	"bytes"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// takeTwo lets wages be asked only if two peers clear it.
func (w *world) takeTwo() {
	w.t.Helper()
	w.revoke()
	w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "demo-2", Deliberation: "DEMO-2024/2", LegalBasis: "DEMO law, article 2", RequesterType: "pcsa", RequesterQualities: []string{"living-wage"},
		Dataset: "wages/v1", Fields: []string{"employer", "wage"}, Purpose: "social-inquiry", Modes: []string{"consultation"}, SecondClearingPeer: true,
		Period: &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}}}})
}

func TestTwoClear(t *testing.T) {
	w := newDiskWorld(t)
	w.takeTwo()
	for _, at := range []string{"pcsa", "office", "fund"} {
		w.realJournal(at)
	}
	first := w.mustConsult(question())
	wantStatus(t, first, nodepb.Status_DATA_FOUND, none)
	if len(first.Suppliers) != 2 {
		t.Fatalf("%+v", first.Suppliers)
	}
	told := append(w.node("pcsa").journal.of(nodepb.Event_ANSWERED), append(w.node("office").journal.of(nodepb.Event_SUPPLIED), w.node("fund").journal.of(nodepb.Event_SUPPLIED)...)...)
	if len(told) != 4 {
		t.Fatalf("%d entries tell of data", len(told))
	}
	for _, e := range told {
		s := e.GetSecondClearance()
		if s == nil || s.Clearer.GetInstitution() == e.GetClearer().GetInstitution() || !bytes.Equal(sum(e.Evidence[len(e.Evidence)-1]), s.Hash) {
			t.Errorf("%s of %s: second %v", e.GetEvent(), e.GetSupplier().GetInstitution(), s)
		}
	}
	decided := 0
	for _, m := range members {
		decided += len(w.node(m).journal.of(nodepb.Event_DECIDED))
	}
	if decided != 4 {
		t.Errorf("%d decisions journaled, want two for each supplier", decided)
	}
	// A crash keeps it: the same answer, and nothing is left to expire unused.
	w.node("pcsa").restart()
	if again := w.mustConsult(question()); again.Ticket != first.Ticket || again.Status != first.Status {
		t.Errorf("%+v", again)
	}
	if err := w.node("pcsa").outbox.Each(clearances, func(string, []byte) error { t.Error("a clearance that was answered is kept"); return nil }); err != nil {
		t.Error(err)
	}
}

// TestOneAloneClearsNothing: nothing is presented, nothing supplied, and the refusal says
// why.
func TestOneAloneClearsNothing(t *testing.T) {
	w := newWorld(t)
	w.takeTwo()
	w.hurry()
	w.net.kill("beta", "gamma")
	r := w.mustConsult(question())
	wantStatus(t, r, nodepb.Status_NO_RESULT, registrypb.Reason_NO_ELIGIBLE_CLEARER)
	for _, s := range []string{"office", "fund"} {
		if n := len(w.node(s).journal.all()); n != 0 {
			t.Errorf("%s has %d entries", s, n)
		}
	}
	if a := w.node("pcsa").journal.of(nodepb.Event_ANSWERED); len(a) != 1 || a[0].GetReason() != registrypb.Reason_NO_ELIGIBLE_CLEARER || a[0].GetOutcome() != registrypb.Outcome_DENY {
		t.Errorf("%v", a)
	}
}

// TestSecondClearanceSpoilt: whatever becomes of it on the way, no data come.
func TestSecondClearanceSpoilt(t *testing.T) {
	for what, spoil := range map[string]func(p *nodepb.Presentation){
		"lost":            func(p *nodepb.Presentation) { p.SecondClearance = nil },
		"the first again": func(p *nodepb.Presentation) { p.SecondClearance = p.Clearance },
		"garbage":         func(p *nodepb.Presentation) { p.SecondClearance = []byte("garbage") },
		"too large":       func(p *nodepb.Presentation) { p.SecondClearance = make([]byte, maxClearance+1) },
		"cut":             func(p *nodepb.Presentation) { p.SecondClearance = p.SecondClearance[:len(p.SecondClearance)-1] },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.takeTwo()
			w.net.set(func(c call) error {
				if p, ok := c.msg.(*nodepb.Presentation); ok {
					spoil(p)
				}
				return nil
			}, nil)
			wantStatus(t, w.mustConsult(question()), nodepb.Status_NO_RESULT, registrypb.Reason_CLEARANCE_INVALID)
			for _, s := range []string{"office", "fund"} {
				if n := len(w.node(s).journal.of(nodepb.Event_SUPPLIED)); n != 0 {
					t.Errorf("%s supplied", s)
				}
			}
		})
	}
	// The other way round: a supplier that shows another second clearance than it was shown
	// is not believed.
	w := newWorld(t)
	w.takeTwo()
	w.spoilAnswer(func(raw []byte) []byte {
		return w.resign(raw, "office", func(a *nodepb.Answer) { a.SecondClearanceHash = nil })
	})
	wantStatus(t, w.mustConsult(question()), nodepb.Status_INCOMPLETE_DATA, registrypb.Reason_SUPPLIER_ERROR)
}
