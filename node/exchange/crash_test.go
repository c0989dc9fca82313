package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var errCrashed = errors.New("the node is dead")

// crash kills one node at its n-th step: from then on nothing that it tries has an
// effect. The step itself happens, or not. A step is a call of any port.
type crash struct {
	mu     sync.Mutex
	left   int
	happen bool // the step takes effect, and only its return is lost
	dead   bool
}

// step says whether a step takes effect, and whether its caller learns of it.
func (c *crash) step() (happens, returns bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false, false
	}
	c.left--
	if c.left > 0 {
		return true, true
	}
	c.dead = true
	return c.happen, false
}

func (c *crash) did() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

func through[T any](c *crash, do func() (T, error)) (T, error) {
	var none T
	happens, returns := c.step()
	if !happens {
		return none, errCrashed
	}
	v, err := do()
	if !returns {
		return none, errCrashed
	}
	return v, err
}

type crashJournal struct {
	*crash
	Journal
}

func (j crashJournal) Append(ctx context.Context, e *nodepb.Entry) (uint64, error) {
	return through(j.crash, func() (uint64, error) { return j.Journal.Append(ctx, e) })
}

type crashOutbox struct {
	*crash
	Outbox
}

func (o crashOutbox) Write(changes ...outbox.Change) error {
	_, err := through(o.crash, func() (struct{}, error) { return struct{}{}, o.Outbox.Write(changes...) })
	return err
}

type crashSource struct {
	*crash
	Source
}

func (s crashSource) Fetch(ctx context.Context, q Query) ([]Record, error) {
	return through(s.crash, func() ([]Record, error) { return s.Source.Fetch(ctx, q) })
}

type crashPeers struct {
	*crash
	Peers
}

func (p crashPeers) Clear(ctx context.Context, to names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
	return through(p.crash, func() (*registrypb.ClearResponse, error) { return p.Peers.Clear(ctx, to, req) })
}

func (p crashPeers) Present(ctx context.Context, to names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	return through(p.crash, func() (*nodepb.PresentResponse, error) { return p.Peers.Present(ctx, to, req) })
}

// arm makes a node die at its n-th step.
func (n *testNode) arm(c *crash) {
	n.consultant.cfg.Journal = crashJournal{c, n.journal}
	n.consultant.cfg.Outbox = crashOutbox{c, n.faulty}
	n.consultant.cfg.Peers = crashPeers{c, n.w.net.of(n.id)}
	n.supplier.cfg.Journal = crashJournal{c, n.journal}
	n.supplier.cfg.Outbox = crashOutbox{c, n.faulty}
	n.supplier.cfg.Sources = map[names.DatasetID]Source{"wages/v1": crashSource{c, n.source}}
}

// everyCrash runs try once for each step at which a node can die, with and without
// the step's effect, until it no longer dies.
func everyCrash(t *testing.T, try func(t *testing.T, c *crash)) {
	steps := 0
	for _, happen := range []bool{false, true} {
		for n, died := 1, true; died; n++ {
			c := &crash{left: n, happen: happen}
			t.Run(fmt.Sprintf("step %d happened %v", n, happen), func(t *testing.T) { try(t, c) })
			died = c.did()
			steps++
		}
	}
	if steps < 8 {
		t.Fatalf("only %d crash points were found", steps)
	}
}

// TestConsultantCrashes: whatever the application was told stays so, and asking
// again under the same client ticket ends in one answer and one effect.
func TestConsultantCrashes(t *testing.T) {
	everyCrash(t, func(t *testing.T, c *crash) {
		w := newDiskWorld(t)
		w.hurry()
		pcsa := w.node("pcsa")
		pcsa.arm(c)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		first, err := pcsa.consultant.Consult(ctx, question())
		if c.did() == (err == nil) {
			t.Fatalf("died %v, answered %+v, %v", c.did(), first, err)
		}
		pcsa.restart()
		again := w.mustConsult(question())
		wantStatus(t, again, nodepb.Status_DATA_FOUND, none)
		if first != nil && !reflect.DeepEqual(first, again) {
			t.Fatalf("%+v, then %+v", first, again)
		}
		for _, s := range []string{"office", "fund"} {
			if n := w.log.count(s + " fetch"); n != 1 {
				t.Fatalf("%s fetched %d times", s, n)
			}
		}
		tickets := map[string]bool{}
		for _, e := range pcsa.journal.entries {
			tickets[e.GetTicket()] = true
		}
		if len(tickets) > 2 || len(tickets) == 2 && len(pcsa.journal.of(nodepb.Event_REQUESTED)) != 2 || !tickets[string(again.Ticket)] {
			t.Fatalf("tickets %v", tickets)
		}
		// Whatever a supplier let out was requested durably before.
		for _, s := range []string{"office", "fund"} {
			for _, e := range w.node(s).journal.of(nodepb.Event_SUPPLIED) {
				if e.GetTicket() != string(again.Ticket) {
					t.Fatalf("supplied under another ticket: %v", e)
				}
			}
		}
		// Clearances that came to nothing are told of.
		w.clock.Add(bounds.PresentLife + bounds.Skew + time.Second)
		if err := pcsa.consultant.sweepUnused(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.everyPermitEnds(t)
	})
}

// everyPermitEnds insists that each clearance that reached the consultant is
// journaled there as answered or as expired unused.
func (w *world) everyPermitEnds(t *testing.T) {
	t.Helper()
	ended := map[string]bool{}
	for _, event := range []nodepb.Event{nodepb.Event_ANSWERED, nodepb.Event_EXPIRED_UNUSED} {
		for _, e := range w.node("pcsa").journal.of(event) {
			ended[string(e.GetClearanceId())] = true
		}
	}
	for _, s := range []string{"office", "fund"} {
		for _, event := range []nodepb.Event{nodepb.Event_SUPPLIED, nodepb.Event_RESENT, nodepb.Event_REFUSED} {
			for _, e := range w.node(s).journal.of(event) {
				if !ended[string(e.GetClearanceId())] {
					t.Fatalf("%s %s, and the consultant does not tell of it", s, event)
				}
			}
		}
	}
}

// TestSupplierCrashes: an answer leaves only after its journal entry, all that
// leave are the same, and what left stays marked as seen.
func TestSupplierCrashes(t *testing.T) {
	everyCrash(t, func(t *testing.T, c *crash) {
		w := newDiskWorld(t)
		office := w.node("office")
		office.arm(c)
		p := w.cleared(w.request(question()))
		var left [][]byte
		present := func() {
			if answer, err := w.present("pcsa", p); err == nil {
				left = append(left, answer)
				journaled := len(office.journal.of(nodepb.Event_SUPPLIED)) + len(office.journal.of(nodepb.Event_RESENT))
				if journaled < len(left) {
					t.Fatal("an answer left before its entry was durable")
				}
			}
		}
		present()
		office.restart()
		present()
		present()
		if len(left) < 2 {
			t.Fatalf("%d answers", len(left))
		}
		for _, a := range left {
			if !bytes.Equal(a, left[0]) {
				t.Fatal("two answers to one clearance")
			}
		}
		seen, err := office.supplier.seen(clearanceID(t, p))
		if err != nil || seen == nil {
			t.Fatal("an answer left, and its clearance is not marked", err)
		}
	})
}

// TestExpiredUnused lets clearances end that nobody could present, across a restart.
func TestExpiredUnused(t *testing.T) {
	w := newDiskWorld(t)
	pcsa := w.node("pcsa")
	ctx, cancel := context.WithCancel(context.Background())
	w.net.set(func(c call) error {
		if c.method == "present" {
			cancel() // the application leaves before anything is presented
			return errLost
		}
		return nil
	}, nil)
	if _, err := pcsa.consultant.Consult(ctx, question()); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	sweep := func(want int) []*nodepb.Entry {
		t.Helper()
		if err := pcsa.consultant.sweepUnused(context.Background()); err != nil {
			t.Fatal(err)
		}
		unused := pcsa.journal.of(nodepb.Event_EXPIRED_UNUSED)
		if len(unused) != want {
			t.Fatalf("%d expired unused, want %d", len(unused), want)
		}
		return unused
	}
	sweep(0)
	pcsa.restart()
	w.clock.Add(bounds.PresentLife + bounds.Skew)
	sweep(0)
	w.clock.Add(time.Millisecond)
	pcsa.journal.setFail(failing)
	if err := pcsa.consultant.sweepUnused(context.Background()); !errors.Is(err, ErrJournalUnavailable) {
		t.Fatal(err)
	}
	pcsa.journal.setFail(nil)
	for _, e := range sweep(2) {
		if e.GetTicket() == "" || e.GetUser() != "clerk-7" || len(e.GetClearanceHash()) != 32 || e.GetClearer() == nil || e.GetPresentByUnixMs() == 0 || e.GetDeliberation() == "" {
			t.Errorf("%v", e)
		}
	}
	sweep(2) // told once
}

// TestDeadSupplierEndsUnused: a permit whose supplier never replied is answered for
// in the result, and ends as unused.
func TestDeadSupplierEndsUnused(t *testing.T) {
	w := newWorld(t)
	w.net.kill("office")
	w.mustConsult(question())
	w.clock.Add(time.Minute)
	if err := w.node("pcsa").consultant.sweepUnused(context.Background()); err != nil {
		t.Fatal(err)
	}
	unused := w.node("pcsa").journal.of(nodepb.Event_EXPIRED_UNUSED)
	if len(unused) != 1 || unused[0].GetSupplier().GetInstitution() != "office" {
		t.Fatalf("%v", unused)
	}
}

// TestSweeperSparesWhatIsBeingPresented: a slow source may take longer than
// present-by.
func TestSweeperSparesWhatIsBeingPresented(t *testing.T) {
	w := newWorld(t)
	w.node("office").source.set([]Record{Record(`{"employer":"x","wage":1}`)}, nil, func(context.Context, Query) {
		w.clock.Add(bounds.PresentLife + bounds.Skew + time.Millisecond)
		if err := w.node("pcsa").consultant.sweepUnused(context.Background()); err != nil {
			t.Error(err)
		}
	})
	q := question()
	q.Suppliers = []names.InstitutionID{"office"}
	wantStatus(t, w.mustConsult(q), nodepb.Status_DATA_FOUND, none)
	if n := len(w.node("pcsa").journal.of(nodepb.Event_EXPIRED_UNUSED)); n != 0 {
		t.Fatalf("%d expired unused", n)
	}
}

// TestRun acknowledges to the suppliers, sweeps, and ends all it started.
func TestRun(t *testing.T) {
	w := newWorld(t)
	pcsa := w.node("pcsa")
	acked := make(chan names.NodeID, 2)
	w.net.set(nil, func(c call, _ proto.Message) error {
		if c.method == "acknowledge" {
			acked <- c.to
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- pcsa.consultant.Run(ctx) }()
	w.mustConsult(question())
	for range 2 {
		select {
		case <-acked:
		case <-time.After(2 * time.Minute):
			t.Fatal("no acknowledgement")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"office", "fund"} {
		if err := w.node(s).outbox.Each(contents, func(_ string, v []byte) error {
			if bytes.Contains(v, []byte("1500.50")) {
				return errors.New("content is still kept")
			}
			return nil
		}); err != nil {
			t.Fatal(s, err)
		}
	}
}
