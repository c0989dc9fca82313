package exchange

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestOneSupplierFails covers whatever may go wrong at one of two suppliers.
func TestOneSupplierFails(t *testing.T) {
	bad := func(records ...string) func(*world) {
		return func(w *world) {
			var list []Record
			for _, r := range records {
				list = append(list, Record(r))
			}
			w.node("office").source.set(list, nil, nil)
		}
	}
	good := `{"employer":"x","wage":1}`
	for name, c := range map[string]struct {
		spoil  func(*world)
		reason registrypb.Reason
	}{
		"dead":             {func(w *world) { w.net.kill("office") }, registrypb.Reason_SUPPLIER_UNAVAILABLE},
		"source down":      {func(w *world) { w.node("office").source.set(nil, fmt.Errorf("x: %w", ErrSourceUnavailable), nil) }, registrypb.Reason_SUPPLIER_UNAVAILABLE},
		"source broken":    {func(w *world) { w.node("office").source.set(nil, errors.New("no such table"), nil) }, registrypb.Reason_SUPPLIER_ERROR},
		"no source":        {func(w *world) { w.node("office").supplier.cfg.Sources = nil }, registrypb.Reason_SUPPLIER_ERROR},
		"missing field":    {bad(good, `{"employer":"x"}`), registrypb.Reason_SUPPLIER_ERROR},
		"wrong type":       {bad(`{"employer":"x","wage":"1"}`), registrypb.Reason_SUPPLIER_ERROR},
		"unknown field":    {bad(`{"employer":"x","wage":1,"ssin":"74071238186"}`), registrypb.Reason_SUPPLIER_ERROR},
		"field twice":      {bad(`{"employer":"x","wage":"secret","wage":1}`), registrypb.Reason_SUPPLIER_ERROR},
		"not JSON":         {bad(`{"employer":"x","wage":1`), registrypb.Reason_SUPPLIER_ERROR},
		"not an object":    {bad(`[1]`), registrypb.Reason_SUPPLIER_ERROR},
		"too large":        {bad(`{"employer":"` + strings.Repeat("x", MaxContent) + `","wage":1}`), registrypb.Reason_SUPPLIER_ERROR},
		"reference gone":   {func(w *world) { w.afterClearing(func() { w.declare("office", "employee", true) }) }, registrypb.Reason_REVOKED},
		"offering gone":    {func(w *world) { w.afterClearing(func() { w.withdrawOffering("office") }) }, registrypb.Reason_REVOKED},
		"stale view":       {func(w *world) { w.node("office").setStale(true) }, registrypb.Reason_REGISTRY_STALE},
		"journal failing":  {func(w *world) { w.node("office").journal.setFail(failing) }, registrypb.Reason_JOURNAL_UNAVAILABLE},
		"outbox failing":   {func(w *world) { w.node("office").faulty.before = func() error { return errDisk } }, registrypb.Reason_JOURNAL_UNAVAILABLE},
		"answer of others": {func(w *world) { w.spoilAnswer(func(raw []byte) []byte { return w.resign(raw, "fund", nil) }) }, registrypb.Reason_SUPPLIER_ERROR},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.spoil(w)
			r := w.mustConsult(question())
			wantStatus(t, r, nodepb.Status_INCOMPLETE_DATA, c.reason)
			office, fund := r.Suppliers[1], r.Suppliers[0]
			if office.Status != nodepb.Status_NO_RESULT || office.Reason != c.reason || office.Records != nil {
				t.Fatalf("office: %+v", office)
			}
			if fund.Status != nodepb.Status_DATA_FOUND || len(fund.Records) == 0 {
				t.Fatalf("fund: %+v", fund)
			}
			for _, e := range w.node("pcsa").journal.of(nodepb.Event_ANSWERED) {
				if e.GetSupplier().GetInstitution() == "office" && (e.GetReason() != c.reason || e.GetAnswerCommitment() != nil) {
					t.Fatalf("journal: %v", e)
				}
			}
			refused := w.node("office").journal.of(nodepb.Event_REFUSED)
			if name != "dead" && name != "journal failing" && name != "answer of others" {
				if len(refused) == 0 || refused[0].GetReason() != c.reason || refused[0].GetTicket() != string(r.Ticket) {
					t.Fatalf("the supplier's journal: %v", refused)
				}
			}
		})
	}
}

func (w *world) withdrawOffering(institution string) {
	w.submit(institution, &registrypb.Command{Body: &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
		Institution: institution, Dataset: "wages/v1", Qualities: []string{"employee"}, Withdrawn: true,
		Period: &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}}}})
}

// afterClearing does something once, before the first presentation arrives.
func (w *world) afterClearing(do func()) {
	var once sync.Once
	w.net.set(func(c call) error {
		if c.method == "present" {
			once.Do(do)
		}
		return nil
	}, nil)
}

// spoilAnswer changes what office answers on its way.
func (w *world) spoilAnswer(change func(raw []byte) []byte) {
	w.spoilResponse(func(r *nodepb.PresentResponse) { r.Answer = change(r.Answer) })
}

func (w *world) spoilResponse(change func(r *nodepb.PresentResponse)) {
	w.net.set(nil, func(c call, reply proto.Message) error {
		if r, ok := reply.(*nodepb.PresentResponse); ok && c.to.Institution == "office" {
			change(r)
		}
		return nil
	})
}

func TestAllSuppliersDead(t *testing.T) {
	w := newWorld(t)
	w.net.kill("office", "fund")
	r := w.mustConsult(question())
	wantStatus(t, r, nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_UNAVAILABLE)
	if len(r.Suppliers) != 2 {
		t.Fatalf("%+v", r.Suppliers)
	}
}

func TestOtherNodeOfTheSupplier(t *testing.T) {
	w := newWorld(t)
	w.addNode("office", "n2")
	w.startNode(names.NodeID{Institution: "office", Node: "n2"})
	w.net.kill("office") // its n1
	r := w.mustConsult(question())
	wantStatus(t, r, nodepb.Status_DATA_FOUND, none)
}

// TestLostReply loses the first answer of each supplier on its way back.
func TestLostReply(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	lost := map[names.NodeID]bool{}
	w.net.set(nil, func(c call, _ proto.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if c.method == "present" && !lost[c.to] {
			lost[c.to] = true
			return errLost
		}
		return nil
	})
	wantStatus(t, w.mustConsult(question()), nodepb.Status_DATA_FOUND, none)
	for _, s := range []string{"office", "fund"} {
		j := w.node(s).journal
		if w.log.count(s+" fetch") != 1 || len(j.of(nodepb.Event_SUPPLIED)) != 1 || len(j.of(nodepb.Event_RESENT)) != 1 {
			t.Fatalf("%s: %v", s, w.log.events)
		}
	}
}

func TestJournalFailsAtTheConsultant(t *testing.T) {
	for _, event := range []nodepb.Event{nodepb.Event_REQUESTED, nodepb.Event_ANSWERED} {
		t.Run(event.String(), func(t *testing.T) {
			w := newWorld(t)
			w.node("pcsa").journal.setFail(func(e *nodepb.Entry) error {
				if e.GetEvent() == event {
					return errDisk
				}
				return nil
			})
			if r, err := w.consult(question()); !errors.Is(err, ErrJournalUnavailable) || r != nil {
				t.Fatalf("%+v, %v", r, err)
			}
			if event == nodepb.Event_REQUESTED && len(w.log.events) != 0 {
				t.Fatalf("it left: %v", w.log.events)
			}
			w.node("pcsa").journal.setFail(nil)
			wantStatus(t, w.mustConsult(question()), nodepb.Status_DATA_FOUND, none)
			if n := w.log.count("office fetch"); n != 1 {
				t.Fatalf("%d fetches", n)
			}
		})
	}
}

func TestJournalFailsAtTheClearingPeers(t *testing.T) {
	w := newWorld(t)
	w.hurry()
	for _, m := range members {
		w.node(m).journal.setFail(failing)
	}
	wantStatus(t, w.mustConsult(question()), nodepb.Status_NO_RESULT, registrypb.Reason_CLEARING_UNAVAILABLE)
	if w.log.count("pcsa present office") != 0 {
		t.Fatal("something was presented")
	}
}

func TestClearingPeersFail(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*world)
		status nodepb.Status
		reason registrypb.Reason
	}{
		"two dead":   {func(w *world) { w.net.kill("alpha", "beta") }, nodepb.Status_DATA_FOUND, none},
		"two stale":  {func(w *world) { w.node("alpha").setStale(true); w.node("beta").setStale(true) }, nodepb.Status_DATA_FOUND, none},
		"all dead":   {func(w *world) { w.hurry(); w.net.kill(members...) }, nodepb.Status_NO_RESULT, registrypb.Reason_CLEARING_UNAVAILABLE},
		"clock off":  {func(w *world) { w.hurry(); w.afterRequest(func() { w.clock.Add(clearing.RequestLife + time.Minute) }) }, nodepb.Status_NO_RESULT, registrypb.Reason_STALE_REQUEST},
		"all in one": {func(w *world) { w.sectorOf("pcsa", "alpha", "beta", "gamma") }, nodepb.Status_NO_RESULT, registrypb.Reason_NO_ELIGIBLE_CLEARER},
		"two in one": {func(w *world) { w.sectorOf("pcsa", "alpha", "beta") }, nodepb.Status_DATA_FOUND, none},
		// Two members are parties to one supplier each: together they clear both.
		"shared": {func(w *world) {
			w.sectorOf("office", "alpha")
			w.sectorOf("fund", "beta")
			w.net.kill("gamma")
		}, nodepb.Status_DATA_FOUND, none},
		// Nobody may clear for office.
		"for one": {func(w *world) { w.sectorOf("office", members...) }, nodepb.Status_INCOMPLETE_DATA, registrypb.Reason_NO_ELIGIBLE_CLEARER},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.spoil(w)
			wantStatus(t, w.mustConsult(question()), c.status, c.reason)
		})
	}
}

// afterRequest does something once, before the first clearing peer is asked.
func (w *world) afterRequest(do func()) {
	var once sync.Once
	w.net.set(func(c call) error {
		if c.method == "clear" {
			once.Do(do)
		}
		return nil
	}, nil)
}

// sectorOf puts an institution and members into one sector.
func (w *world) sectorOf(institution string, with ...string) {
	for _, id := range append(with, institution) {
		kind := map[string]string{"pcsa": "pcsa", "office": "wage-office", "fund": "fund"}[id]
		if kind == "" {
			kind = "registry-keeper"
		}
		w.submit("@operators", &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{
			Id: id, Name: id, Type: kind, Sector: "sector-of-" + institution}}})
	}
}

func TestStaleConsultant(t *testing.T) {
	w := newWorld(t)
	w.hurry()
	w.node("pcsa").setStale(true)
	if _, err := w.consult(question()); !errors.Is(err, ErrRegistryStale) {
		t.Fatal(err)
	}
	if len(w.log.events) != 0 {
		t.Fatalf("it left: %v", w.log.events)
	}
	w.node("pcsa").setStale(false)
	wantStatus(t, w.mustConsult(question()), nodepb.Status_DATA_FOUND, none)
}
