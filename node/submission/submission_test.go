package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	received = nodepb.DeclarationState_RECEIVED
	accepted = nodepb.DeclarationState_ACCEPTED
	declined = nodepb.DeclarationState_DECLINED
	amended  = nodepb.DeclarationState_AMENDED
	annulled = nodepb.DeclarationState_ANNULLED
)

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// decide decides as somebody, and insists that it goes well.
func (w *world) decide(t *testing.T, ticket names.Ticket, accept bool, reasons ...*nodepb.FieldReason) *Status {
	t.Helper()
	s, err := w.nodes["office"].source.Decide(t.Context(), clerk, ticket, accept, reasons)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A declaration from the start to its cancellation: what each side knows, holds signed,
// and whoever is concerned is told.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		firm, office, pension := w.nodes["firm"], w.nodes["office"], w.nodes["pension"]
		first := firm.declare(change(1, worker))
		s := firm.follow(first)
		want(t, "state", s.State, received)
		want(t, "source", s.Source, "office")
		for what, raw := range map[string]struct {
			bytes []byte
			kind  envelope.Type
		}{"receipt": {s.Receipt, envelope.NoticeReceipt}, "status": {s.Signed, envelope.SubmissionStatus}} {
			if o, err := envelope.Open(raw.kind, raw.bytes); err != nil || !o.VerifiedBy(recordtest.Public("office")) {
				t.Errorf("the %s is not signed by the source: %v", what, err)
			}
		}
		want(t, "told before it is decided", len(pension.take()), 0)

		s = w.decide(t, first, true)
		time.Sleep(time.Minute)
		told := pension.take()
		if len(told) != 1 || told[0].CausedBy != first || told[0].Ticket != s.Published || string(told[0].Content) != `[{"start":"2026-01-04"}]` {
			t.Fatalf("pension was told %+v", told)
		}
		want(t, "state", firm.follow(first).State, accepted)
		results := firm.take()
		if len(results) != 1 || results[0].Kind != inbox.Result || results[0].Status != "ACCEPTED" || results[0].ClientTicket != "d-1" {
			t.Fatalf("the firm was told %+v", results)
		}

		right := change(2, worker)
		right.Kind, right.RefersTo, right.Record = registrypb.Change_CORRECTED, first, []byte(`{"start":"2026-01-05"}`)
		second := firm.declare(right)
		corrected := w.decide(t, second, true)
		never := right
		never.ClientTicket, never.Kind, never.RefersTo = "d-3", registrypb.Change_CANCELLED_CHANGE, second
		third := firm.declare(never)
		w.decide(t, third, true)
		time.Sleep(time.Minute)
		told = pension.take()
		if len(told) != 2 || told[0].RefersTo != s.Published || told[0].Change != registrypb.Change_CORRECTED ||
			told[1].RefersTo != corrected.Published || told[1].Change != registrypb.Change_CANCELLED_CHANGE {
			t.Errorf("pension was told %+v", told)
		}
		firm.follow(third) // tells that the originals are to be asked about once more
		want(t, "the original", firm.follow(first).State, amended)
		want(t, "by", firm.follow(first).SupersededBy, second)
		want(t, "the correction", firm.follow(second).State, annulled)
		want(t, "the cancellation", firm.follow(third).State, accepted)
		states := map[string]int{}
		for _, i := range firm.take() {
			states[string(i.ClientTicket)+" "+i.Status]++
		}
		if fmt.Sprint(states) != "map[d-1 AMENDED:1 d-2 ANNULLED:1 d-3 ACCEPTED:1]" { // of the second it missed that it was accepted
			t.Errorf("the firm was told %v", states)
		}
		want(t, "decided", office.count(nodepb.Event_SUBMISSION_DECIDED, ""), 5) // three, and two originals
		for ticket := range map[names.Ticket]bool{first: true, second: true, third: true} {
			if firm.count(nodepb.Event_SUBMISSION_TOLD, ticket) == 0 {
				t.Error("what became of a declaration is not in the firm's journal")
			}
		}
	})
}

// Declaring again under the same client ticket gives the same ticket and receipt, and the
// source has it once; another declaration does not pass under it.
func TestSameTicketSameReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		firm := w.nodes["firm"]
		first := firm.declare(change(1, worker))
		receipt := firm.follow(first).Receipt
		for range 3 {
			firm.powerLoss()
			want(t, "ticket", firm.declare(change(1, worker)), first)
			if got := firm.follow(first).Receipt; len(receipt) == 0 || !bytes.Equal(got, receipt) {
				t.Error("another receipt")
			}
		}
		want(t, "received", len(w.nodes["office"].take()), 1)
		if _, err := firm.publisher.Publish(t.Context(), change(1, other)); !errors.Is(err, notify.ErrTicketReused) {
			t.Errorf("another declaration passes under the same client ticket: %v", err)
		}
	})
}

// Declined is declined, with its reasons, and nobody is told; a decision stands.
func TestDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		firm, office := w.nodes["firm"], w.nodes["office"]
		ticket := firm.declare(change(1, worker))
		reason := &nodepb.FieldReason{Field: "start", Code: "too-early"}
		w.decide(t, ticket, false, reason)
		again := w.decide(t, ticket, false, &nodepb.FieldReason{Code: "other"})
		want(t, "reasons", again.Reasons[0].Code, "too-early")
		if _, err := office.source.Decide(t.Context(), clerk, ticket, true, nil); !errors.Is(err, ErrDecided) {
			t.Errorf("accepted after all: %v", err)
		}
		s := firm.follow(ticket)
		if s.State != declined || len(s.Reasons) != 1 || !proto.Equal(s.Reasons[0], reason) {
			t.Errorf("the firm is told %+v", s)
		}
		time.Sleep(time.Minute)
		want(t, "told", len(w.nodes["pension"].take()), 0)
		want(t, "decided", office.count(nodepb.Event_SUBMISSION_DECIDED, ticket), 1)
		if _, err := office.source.Decide(t.Context(), clerk, "0123456789abcdefghjkmnpqrs", true, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("one that nobody declared: %v", err)
		}
	})
}

// Corrections and cancellations are of an accepted declaration of the same declarant about
// the same subject, under whatever number, and of nothing else.
func TestOriginal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		firm, rival, office := w.nodes["firm"], w.nodes["rival"], w.nodes["office"]
		first, open, no := firm.declare(change(1, worker)), firm.declare(change(2, worker)), firm.declare(change(3, worker))
		w.decide(t, first, true)
		w.decide(t, no, false)
		correct := func(n int, by *testNode, of names.Ticket, about string) error {
			c := change(n, about)
			c.Kind, c.RefersTo = registrypb.Change_CORRECTED, of
			_, err := office.source.Decide(t.Context(), clerk, by.declare(c), true, nil)
			return err
		}
		for name, err := range map[string]error{
			"what nobody declared":  correct(10, firm, "0123456789abcdefghjkmnpqrs", worker),
			"what is not decided":   correct(11, firm, open, worker),
			"what was declined":     correct(12, firm, no, worker),
			"another's":             correct(13, rival, first, worker),
			"about another subject": correct(14, firm, first, other),
		} {
			if !errors.Is(err, ErrOriginal) {
				t.Errorf("%s is corrected: %v", name, err)
			}
		}
		w.put("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
			{Subject: recordtest.SSIN(worker), Kind: registrypb.NumberEvent_REPLACED, Date: 19000, Successor: recordtest.SSIN(anew)}}}})
		if err := correct(15, firm, first, anew); err != nil {
			t.Errorf("under the number that replaced it: %v", err)
		}
		if err := correct(16, firm, first, anew); !errors.Is(err, ErrOriginal) {
			t.Errorf("what was corrected before is corrected: %v", err)
		}
		time.Sleep(time.Minute)
		want(t, "told", len(w.nodes["pension"].take()), 2)
	})
}

// What the source may not publish is not accepted, and nothing is decided.
func TestNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		ticket := w.nodes["firm"].declare(change(1, worker))
		w.offer(true)
		if _, err := w.nodes["office"].source.Decide(t.Context(), clerk, ticket, true, nil); !errors.Is(err, ErrNotPublished) {
			t.Fatalf("accepted: %v", err)
		}
		want(t, "state", w.nodes["firm"].follow(ticket).State, received)
		w.offer(false)
		want(t, "state", w.decide(t, ticket, true).State, accepted)
		want(t, "state", w.nodes["firm"].follow(ticket).State, accepted)
	})
}

// The source dies at every write of an acceptance, and somebody else decides again: all
// are told exactly once, and it is accepted, or was never begun to be.
func TestAcceptedOnceWhereverItDies(t *testing.T) {
	for _, happens := range []bool{false, true} {
		for write := 1; ; write++ {
			ended := false
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				firm, office, pension := w.nodes["firm"], w.nodes["office"], w.nodes["pension"]
				first := firm.declare(change(1, worker))
				w.decide(t, first, true)
				c := change(2, worker)
				c.Kind, c.RefersTo = registrypb.Change_CORRECTED, first
				second := firm.declare(c)
				time.Sleep(time.Minute)
				pension.take()

				office.dieAt(write, happens)
				_, err := office.source.Decide(t.Context(), clerk, second, true, nil)
				if ended = err == nil && !office.died(); ended {
					return
				}
				office.powerLoss()
				if write%2 == 0 {
					if err := office.source.Resume(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				night := clerk
				night.User, night.Application = "clerk-8", "night-shift"
				_, no := office.source.Decide(t.Context(), night, second, false, []*nodepb.FieldReason{{Code: "late"}})
				time.Sleep(time.Minute)
				told := len(pension.take())
				state, was := firm.follow(second).State, firm.follow(first).State
				switch {
				case no == nil:
					if told != 0 || state != declined || was != accepted {
						t.Errorf("write %d (%v): declined, told %d, %s, original %s", write, happens, told, state, was)
					}
				case errors.Is(no, ErrDecided):
					if told != 1 || state != accepted || was != amended {
						t.Errorf("write %d (%v): accepted, told %d, %s, original %s", write, happens, told, state, was)
					}
				default:
					t.Errorf("write %d (%v): %v", write, happens, no)
				}
				again, err := office.source.Decide(t.Context(), night, second, no != nil, nil)
				if err != nil || again.State != state {
					t.Errorf("write %d (%v): decided again, it is %+v: %v", write, happens, again, err)
				}
				time.Sleep(time.Minute)
				want(t, "told once more", len(pension.take()), 0)
			})
			if t.Failed() || ended {
				if !t.Failed() && write < 7 {
					t.Errorf("an acceptance has only %d writes", write-1)
				}
				break
			}
		}
	}
}

// Source and declarant die at every write while a declaration is brought: whoever has a
// receipt has it for something that is durable at the source, once.
func TestReceiptIsForWhatIsDurable(t *testing.T) {
	for _, victim := range []string{"office", "firm"} {
		for _, happens := range []bool{false, true} {
			for write := 1; write < 12; write++ {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					defer w.close()
					firm, office := w.nodes["firm"], w.nodes["office"]
					w.nodes[victim].dieAt(write, happens)
					a, err := firm.publisher.Publish(context.Background(), change(1, worker))
					time.Sleep(time.Minute)
					if err == nil {
						if s, err := firm.declarant.Status(a.Ticket); err == nil && len(s.Receipt) == 0 {
							t.Error("received without a receipt")
						} else if err == nil { // then it must not be lost, whatever is
							office.powerLoss()
							if _, err := office.source.declaration(a.Ticket); err != nil {
								t.Errorf("write %d: a receipt for nothing: %v", write, err)
							}
						}
					}
					w.nodes[victim].powerLoss()
					if err != nil { // not answered, so it is declared again
						firm.declare(change(1, worker))
					}
					time.Sleep(10 * time.Minute) // until couriers try again
					ticket := firm.declare(change(1, worker))
					want(t, "state", firm.follow(ticket).State, received)
					if items := office.take(); len(items) != 1 || items[0].Ticket != ticket {
						t.Errorf("%s, write %d (%v): the source has %d", victim, write, happens, len(items))
					}
				})
			}
		}
	}
}

// A declarant believes what the source signed about what it declared, and never that
// something is undone.
func TestLyingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		firm := w.nodes["firm"]
		ticket := firm.declare(change(1, worker))
		good := func() *nodepb.SubmissionStatus {
			return &nodepb.SubmissionStatus{Mesh: string(recordtest.Mesh), Ticket: string(ticket), Source: &registrypb.NodeRef{Institution: "office", Node: "n1"},
				Declarant: "firm", State: accepted, TimeUnixMs: w.Now().UnixMilli()}
		}
		say := func(by string, kind envelope.Type, change func(*nodepb.SubmissionStatus)) error {
			s := good()
			change(s)
			payload, err := proto.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := envelope.Sign(kind, payload, recordtest.Key(by))
			if err != nil {
				t.Fatal(err)
			}
			return firm.declarant.take(t.Context(), w.nodes["office"].id, map[string]bool{string(ticket): true}, raw)
		}
		status := envelope.SubmissionStatus
		for name, err := range map[string]error{
			"another's signature": say("pension", status, func(*nodepb.SubmissionStatus) {}),
			"another kind":        say("office", envelope.NoticeReceipt, func(*nodepb.SubmissionStatus) {}),
			"another mesh":        say("office", status, func(s *nodepb.SubmissionStatus) { s.Mesh = "other.example" }),
			"another ticket":      say("office", status, func(s *nodepb.SubmissionStatus) { s.Ticket = "0123456789abcdefghjkmnpqrs" }),
			"another source":      say("office", status, func(s *nodepb.SubmissionStatus) { s.Source.Institution = "pension" }),
			"another's declarant": say("office", status, func(s *nodepb.SubmissionStatus) { s.Declarant = "rival" }),
			"larger than any":     say("office", status, func(s *nodepb.SubmissionStatus) { s.Published = string(make([]byte, 64<<10)) }),
		} {
			if err == nil {
				t.Errorf("%s is believed", name)
			}
		}
		want(t, "state", must(t, firm, ticket).State, received)
		for _, step := range []struct {
			says, is nodepb.DeclarationState
		}{{accepted, accepted}, {received, accepted}, {declined, accepted}, {amended, amended}, {accepted, amended}, {annulled, amended}} {
			if err := say("office", status, func(s *nodepb.SubmissionStatus) { s.State = step.says; s.TimeUnixMs = 1 }); err != nil {
				t.Fatal(err)
			}
			want(t, "after "+step.says.String(), must(t, firm, ticket).State, step.is)
		}
		results := firm.take()
		if len(results) != 2 || results[0].Status != "ACCEPTED" || results[1].Status != "AMENDED" {
			t.Errorf("%d results", len(results))
		}
	})
}

func must(t *testing.T, n *testNode, ticket names.Ticket) *Status {
	t.Helper()
	s, err := n.declarant.Status(ticket)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Another's declaration looks like none.
func TestServeOwnOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		ticket := w.nodes["firm"].declare(change(1, worker))
		for _, tt := range []struct {
			by     string
			ticket names.Ticket
			n      int
		}{{"firm", ticket, 1}, {"rival", ticket, 0}, {"rival", "0123456789abcdefghjkmnpqrs", 0}, {"pension", ticket, 0}} {
			resp, err := w.nodes["office"].source.Serve(t.Context(), w.nodes[tt.by].id, &nodepb.SubmissionStatusRequest{Tickets: []string{string(tt.ticket)}})
			if err != nil || len(resp.Statuses) != tt.n {
				t.Errorf("%s learns %d, %v", tt.by, len(resp.GetStatuses()), err)
			}
		}
		many := make([]string, 10*maxTickets)
		for i := range many {
			many[i] = string(ticket)
		}
		resp, err := w.nodes["office"].source.Serve(t.Context(), w.nodes["firm"].id, &nodepb.SubmissionStatusRequest{Tickets: many})
		if err != nil || len(resp.Statuses) != maxTickets {
			t.Errorf("%d statuses at once, %v", len(resp.GetStatuses()), err)
		}
	})
}

// FuzzStatus gives a declarant whatever bytes for a status: none is believed.
func FuzzStatus(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x01, 0x41})
	payload, err := proto.Marshal(&nodepb.SubmissionStatus{Mesh: string(recordtest.Mesh), Ticket: "t", Source: &registrypb.NodeRef{Institution: "office", Node: "n1"}, Declarant: "firm", State: accepted})
	if err != nil {
		f.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.SubmissionStatus, payload, recordtest.Key("stranger"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	w := newWorld(f)
	defer w.close()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := w.nodes["firm"].declarant.take(t.Context(), record.NodeID(&registrypb.NodeRef{Institution: "office", Node: "n1"}), map[string]bool{"t": true}, raw); err == nil {
			t.Error("believed")
		}
	})
}
