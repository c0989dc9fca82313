package exchange

import (
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestRestoredDisk: a supplier whose marks were lost with its disk answers nothing that
// was cleared before, or about when, the restore was declared; and soon works again.
func TestRestoredDisk(t *testing.T) {
	w := newWorld(t)
	office := w.node("office")
	before := w.cleared(w.request(question()))
	w.mustPresent(before)

	// The disk of before the answer: an outbox without marks.
	if err := office.outbox.Close(); err != nil {
		t.Fatal(err)
	}
	office.boot()
	w.clock.Add(time.Millisecond)
	office.supplier.cfg.NotBefore = w.clock.Now().Add(bounds.ReleaseLife + bounds.Skew)
	w.wantRefused("pcsa", before, registrypb.Reason_CLEARANCE_EXPIRED)
	if n := len(office.journal.of(nodepb.Event_REFUSED)); n != 1 {
		t.Errorf("%d refusals journaled", n)
	}

	w.clock.Add(bounds.ReleaseLife)
	during := w.cleared(w.request(another()))
	w.wantRefused("pcsa", during, registrypb.Reason_CLEARANCE_EXPIRED)
	w.clock.Add(bounds.Skew)
	w.mustPresent(w.cleared(w.request(another())))
}

func another() Question {
	q := question()
	q.ClientTicket += "-2"
	return q
}
