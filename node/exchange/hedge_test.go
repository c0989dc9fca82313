package exchange

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// hang lets the source of a node answer nobody until the test ends, or its asker has
// gone.
func (w *world) hang(n *testNode) {
	w.t.Helper()
	ended := make(chan struct{})
	w.t.Cleanup(func() { close(ended) })
	n.source.set(n.source.records, nil, func(ctx context.Context, _ Query) {
		select {
		case <-ctx.Done():
		case <-ended:
		}
	})
}

// TestHedge: a node of a supplier that stays silent is not waited for when another one
// is there, and one that fails at once delays nothing at all.
func TestHedge(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"silent": func(w *world) { w.hang(w.node("office")) },
		"dead":   func(w *world) { w.net.kill("office") },
		"stale":  func(w *world) { w.node("office").setStale(true) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.addNode("office", "n2")
			w.startNode(names.NodeID{Institution: "office", Node: "n2"})
			spoil(w)
			w.node("pcsa").consultant.cfg.HedgeAfter = time.Millisecond
			r := w.mustConsult(question())
			wantStatus(t, r, nodepb.Status_DATA_FOUND, none)
			for _, e := range w.node("pcsa").journal.of(nodepb.Event_ANSWERED) {
				if s := e.GetSupplier(); s.GetInstitution() == "office" && s.GetNode() != "n2" {
					t.Errorf("answered by %v", s)
				}
			}
		})
	}
}

// TestBy: whoever has not answered by then is unavailable; that is the answer, and it
// stays the answer.
func TestBy(t *testing.T) {
	w := newWorld(t)
	w.hang(w.node("office"))
	q := question()
	q.By = time.Now().Add(100 * time.Millisecond)
	first := w.mustConsult(q)
	wantStatus(t, first, nodepb.Status_INCOMPLETE_DATA, registrypb.Reason_SUPPLIER_UNAVAILABLE)
	if s := first.Suppliers[0]; s.Supplier != "fund" || s.Status != nodepb.Status_DATA_FOUND {
		t.Errorf("the supplier that answered: %+v", s)
	}
	if n := len(w.node("pcsa").journal.of(nodepb.Event_ANSWERED)); n != 2 {
		t.Errorf("%d outcomes journaled, want 2", n)
	}
	q.By = time.Now().Add(time.Hour)
	if again := w.mustConsult(q); !reflect.DeepEqual(first, again) {
		t.Errorf("asked again: %+v", again)
	}
}

// TestByWhileClearing: the time to conclude may come before anybody has cleared.
func TestByWhileClearing(t *testing.T) {
	w := newWorld(t)
	w.net.kill(members...)
	q := question()
	q.By = time.Now().Add(50 * time.Millisecond)
	wantStatus(t, w.mustConsult(q), nodepb.Status_NO_RESULT, registrypb.Reason_CLEARING_UNAVAILABLE)
}

// TestInquiryTicket: the own journal names the inquiry, and nobody else learns of it.
func TestInquiryTicket(t *testing.T) {
	w := newWorld(t)
	q := question()
	q.Inquiry = names.TicketOf([]byte("an inquiry"))
	w.mustConsult(q)
	for _, n := range w.nodes {
		for _, e := range n.journal.all() {
			if own := n.id.Institution == "pcsa"; own != (e.GetInquiry() == string(q.Inquiry)) {
				t.Errorf("%s journals %s with inquiry %q", n.id, e.GetEvent(), e.GetInquiry())
			}
		}
	}
}
