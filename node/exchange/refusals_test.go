package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	nodejournal "github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// TestPlanted lets a peer write somebody's number, or what a journal does not take,
// wherever it may write: the log and the details hold none of it, and the refusal
// stands in a real journal.
func TestPlanted(t *testing.T) {
	const planted = absent
	request := func(f func(*registrypb.Request)) func(*world, *nodepb.Presentation) {
		return func(w *world, p *nodepb.Presentation) { p.Request = w.rerequest(p.Request, "pcsa", f) }
	}
	clearance := func(f func(*registrypb.Clearance)) func(*world, *nodepb.Presentation) {
		return func(w *world, p *nodepb.Presentation) { p.Clearance = w.reclear(p.Clearance, "alpha", f) }
	}
	for name, change := range map[string]func(*world, *nodepb.Presentation){
		"requester":        request(func(r *registrypb.Request) { r.Requester.Institution = planted + "!" }),
		"requester's node": request(func(r *registrypb.Request) { r.Requester.Node = planted + "!" }),
		"no requester":     request(func(r *registrypb.Request) { r.Requester = nil }),
		"control bytes":    request(func(r *registrypb.Request) { r.Requester.Institution = strings.Repeat("\x01", 64) }),
		"mesh":             request(func(r *registrypb.Request) { r.Mesh = planted }),
		"nonce":            request(func(r *registrypb.Request) { r.Nonce = []byte(planted) }),
		"user":             request(func(r *registrypb.Request) { r.User = planted + "\x7f" }),
		"field":            request(func(r *registrypb.Request) { r.Fields = []string{planted + " "} }),
		"clearer":          clearance(func(c *registrypb.Clearance) { c.Clearer.Institution = planted + "!" }),
		"long clearer":     clearance(func(c *registrypb.Clearance) { c.Clearer.Institution = strings.Repeat("x", 4000) }),
		"authorization":    clearance(func(c *registrypb.Clearance) { c.Authorization = planted + "!" }),
		"quality":          clearance(func(c *registrypb.Clearance) { c.SupplierQualities = []string{planted} }),
		"registry index":   clearance(func(c *registrypb.Clearance) { c.RegistryIndex = 3022814690 }),
		"the asked number": request(func(r *registrypb.Request) { r.Requester.Institution = person }),
		"an unknown number": clearance(func(c *registrypb.Clearance) {
			c.FiledUnder = []*registrypb.Subject{{Scheme: "ssin", Number: planted + "!"}}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.realJournal("office")
			var log bytes.Buffer
			w.node("office").supplier.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			p := w.cleared(w.request(question()))
			change(w, p)
			_, err := w.present("pcsa", p)
			if reason, ok := refuses(err); name != "registry index" && (!ok || reason == registrypb.Reason_JOURNAL_UNAVAILABLE) {
				t.Errorf("%v", err)
			}
			for _, number := range []string{planted, person} {
				if strings.Contains(log.String(), number) {
					t.Errorf("the log holds a subject's number: %s", log.String())
				}
				for _, e := range w.node("office").journal.all() {
					if strings.Contains(e.Detail, number) || len(e.Detail) > nodejournal.MaxDetail {
						t.Errorf("detail of %d bytes: %s", len(e.Detail), e.Detail)
					}
				}
			}
		})
	}
}

// TestMaxDetail keeps the two rooms' idea of a detail the same.
func TestMaxDetail(t *testing.T) {
	if maxDetail != nodejournal.MaxDetail || maxQueries-1 != nodejournal.MaxAlsoSubjects {
		t.Error("a journal takes other details, or other subjects, than are made here")
	}
	e := &nodepb.Entry{Detail: "of " + person + strings.Repeat("é", 200), Subject: &registrypb.Subject{Scheme: "ssin", Number: person}}
	if tidy(e); len(e.Detail) > maxDetail || strings.Contains(e.Detail, person) || !strings.HasPrefix(e.Detail, "of ***é") {
		t.Errorf("%q", e.Detail)
	}
}

// TestLongPlaceInSchema: how a dataset's schema is written decides no refusal's fate.
func TestLongPlaceInSchema(t *testing.T) {
	w := newWorld(t)
	w.realJournal("office")
	long := strings.Repeat("y", 300)
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
		Id: "wages/v1", Title: "Wages", Scheme: "ssin", Qualities: []string{"employee"},
		Schema: `{"type":"object","properties":{"employer":{"dependentRequired":{"` + long + `":["x"]}},"wage":{},"note":{}}}`}}})
	w.node("office").source.set([]Record{Record(`{"employer":{"` + long + `":1},"wage":1}`)}, nil, nil)
	w.wantRefused("pcsa", w.cleared(w.request(question())), registrypb.Reason_SUPPLIER_ERROR)
}

// TestEvidenceOfRefusals: a refusal keeps what was shown only where it is signed by
// whom it names.
func TestEvidenceOfRefusals(t *testing.T) {
	w := newWorld(t)
	last := func() *nodepb.Entry {
		refused := w.node("office").journal.of(nodepb.Event_REFUSED)
		return refused[len(refused)-1]
	}
	p := w.cleared(w.request(question()))
	forged := &nodepb.Presentation{Request: p.Request, Clearance: w.reclear(p.Clearance, "stranger", nil)}
	w.wantRefused("pcsa", forged, registrypb.Reason_CLEARANCE_INVALID)
	if len(last().Evidence) != 0 {
		t.Error("keeps a clearance that nobody vouches for")
	}
	lie := &nodepb.Presentation{Request: p.Request, Clearance: w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) { c.Fields = []string{"note"} })}
	w.wantRefused("pcsa", lie, registrypb.Reason_CLEARANCE_INVALID)
	checkEvidence(t, "office", last(), []envelope.Type{envelope.Request, envelope.Clearance})
	w.revoke()
	w.wantRefused("pcsa", p, registrypb.Reason_REVOKED)
	checkEvidence(t, "office", last(), []envelope.Type{envelope.Request, envelope.Clearance})
}

// TestRefusalsAreBounded: an institution that is refused again and again is turned
// away unread, alone, and the journal says from when and how often.
func TestRefusalsAreBounded(t *testing.T) {
	w := newWorld(t)
	office := w.node("office")
	office.supplier.refusals = newRefusals(1, 3)
	junk := &nodepb.Presentation{Request: []byte("junk"), Clearance: []byte("junk")}
	for range 3 {
		w.wantRefused("stranger", junk, registrypb.Reason_CLEARANCE_INVALID)
	}
	before := len(office.journal.all())
	for range 7 {
		if _, err := w.present("stranger", junk); !errors.Is(err, ErrTurnedAway) {
			t.Fatal(err)
		}
	}
	if n := len(office.journal.all()) - before; n != 1 {
		t.Fatalf("%d entries of 7 that were turned away, want one", n)
	}
	w.mustPresent(w.cleared(w.request(question()))) // others are served
	w.clock.Add(time.Second)
	w.wantRefused("stranger", junk, registrypb.Reason_CLEARANCE_INVALID)
	refused := office.journal.of(nodepb.Event_REFUSED)
	if d := refused[len(refused)-1].Detail; !strings.HasPrefix(d, "after 7 ") {
		t.Errorf("%q does not say how many were turned away", d)
	}
	// While the journal fails, what was turned away is still told later.
	if _, err := w.present("stranger", junk); !errors.Is(err, ErrTurnedAway) {
		t.Fatal(err)
	}
	w.clock.Add(time.Second)
	office.journal.setFail(failing)
	if _, err := w.present("stranger", junk); err == nil || errors.Is(err, ErrTurnedAway) {
		t.Fatal(err)
	}
	office.journal.setFail(nil)
	w.clock.Add(time.Second)
	w.wantRefused("stranger", junk, registrypb.Reason_CLEARANCE_INVALID)
	refused = office.journal.of(nodepb.Event_REFUSED)
	if d := refused[len(refused)-1].Detail; !strings.HasPrefix(d, "after 1 ") {
		t.Errorf("%q does not say how many were turned away", d)
	}
}

// otherFile gives office a file on another person.
func (w *world) otherFile() {
	w.t.Helper()
	w.submit("office", &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_DeclareReferences{
		DeclareReferences: &registrypb.References{References: []*registrypb.Reference{{
			Subject: &registrypb.Subject{Scheme: "ssin", Number: absent}, Quality: "employee", Period: &registrypb.Period{From: 1, Until: 30000}}}}}})
}

// TestFiledUnderAnother: a clearing peer that lies names another person's number as
// one that the asked one replaced.
func TestFiledUnderAnother(t *testing.T) {
	lie := func(w *world) *nodepb.Presentation {
		w.otherFile()
		p := w.cleared(w.request(question()))
		p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) {
			c.FiledUnder = []*registrypb.Subject{{Scheme: "ssin", Number: absent}}
		})
		return p
	}
	about := subject.Raw(subject.SSIN, absent)

	t.Run("member", func(t *testing.T) {
		w := newWorld(t)
		w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: &registrypb.Members{
			Voters: []*registrypb.NodeRef{ref("alpha"), ref("beta"), ref("gamma"), ref("office")}}}})
		w.wantRefused("pcsa", lie(w), registrypb.Reason_CLEARANCE_INVALID)
		if w.log.count("office fetch") != 0 {
			t.Error("the source was asked")
		}
	})

	// Any other node cannot know; then whoever's file it was sees it.
	t.Run("no member", func(t *testing.T) {
		w := newDiskWorld(t)
		real := w.realJournal("office")
		p := lie(w)
		w.mustPresent(p)
		w.node("office").restart()
		w.mustPresent(p)
		second := w.cleared(p.Request)
		second.Clearance = w.reclear(second.Clearance, "alpha", func(c *registrypb.Clearance) {
			c.FiledUnder = []*registrypb.Subject{{Scheme: "ssin", Number: absent}}
		})
		w.mustPresent(second)
		for _, number := range []subject.ID{about, subject.Raw(subject.SSIN, person)} {
			found, err := real.Find(t.Context(), nodejournal.Query{Subject: number})
			if err != nil || len(found) != 3 {
				t.Fatalf("%d entries, %v; want the answer, that it was sent again, and the second", len(found), err)
			}
		}
		if n := w.log.count("office fetch"); n != 2 { // one for each number, once
			t.Errorf("%d fetches", n)
		}
	})

	t.Run("not a number", func(t *testing.T) {
		w := newWorld(t)
		p := w.cleared(w.request(question()))
		p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) {
			c.FiledUnder = []*registrypb.Subject{{Scheme: "ssin", Number: "x"}}
		})
		w.wantRefused("pcsa", p, registrypb.Reason_CLEARANCE_INVALID)
	})
}

// TestAnsweredOnce has a request cleared again and again for as long as anybody will:
// after it was answered, and the answer was acknowledged or its life ended, it is
// never answered again.
func TestAnsweredOnce(t *testing.T) {
	for _, acknowledged := range []bool{true, false} {
		t.Run(fmt.Sprintf("acknowledged %t", acknowledged), func(t *testing.T) {
			w := newWorld(t)
			office := w.node("office")
			request := w.request(question())
			p := w.cleared(request)
			w.mustPresent(p)
			if acknowledged {
				if _, err := office.supplier.Acknowledge(t.Context(), node("pcsa"), &nodepb.Acknowledgement{ClearanceId: clearanceID(t, p)}); err != nil {
					t.Fatal(err)
				}
			} else {
				w.clock.Add(office.supplier.cfg.Life + time.Second)
			}
			cleared := 0
			for range 80 {
				if _, err := office.outbox.Sweep(); err != nil {
					t.Fatal(err)
				}
				resp, err := w.node("alpha").clear(t.Context(), node("pcsa"), &registrypb.ClearRequest{Request: request})
				if err != nil {
					t.Fatal(err)
				}
				for _, raw := range resp.Clearances {
					cleared++
					if _, err := w.present("pcsa", &nodepb.Presentation{Request: request, Clearance: raw}); err == nil {
						t.Fatalf("answered again at %s", w.clock.Now())
					}
				}
				w.clock.Add(time.Minute - time.Second/2)
			}
			if cleared < 60 || w.log.count("office fetch") != 1 {
				t.Errorf("%d clearances, %d fetches", cleared, w.log.count("office fetch"))
			}
			if _, err := office.outbox.Get(answeredKey(sum(request))); !isNotFound(err) {
				t.Errorf("the mark is kept for ever: %v", err)
			}
		})
	}
}
