package notify

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// bubble plays in virtual time, with the register publishing.
func bubble(t *testing.T, play func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.nodes["register"].run()
		play(t, w)
	})
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// Everybody concerned is told, each with its own fields, and nobody else; it is
// journaled on all sides, and asking again is publishing once.
func TestToldOnceWithOwnFields(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.publish(ann, 1)
		again, err := w.nodes["register"].publisher.Publish(t.Context(), moved(ann, 1))
		if err != nil || again.Ticket != a.Ticket {
			t.Errorf("published again: %v %+v, want ticket %s", err, again, a.Ticket)
		}
		other := moved(ann, 1)
		other.Record = []byte(`{"street":"x","city":"y"}`)
		if _, err := w.nodes["register"].publisher.Publish(t.Context(), other); !errors.Is(err, ErrTicketReused) {
			t.Errorf("another change under the same ticket: %v", err)
		}
		time.Sleep(time.Second)
		want(t, "pension", contents(w.take("pension")), []string{`[{"street":"Street 1","city":"City 1"}]`})
		want(t, "health", contents(w.take("health")), []string{`[{"city":"City 1"}]`})
		want(t, "stranger", len(w.take("stranger")), 0)
		reg := w.nodes["register"].journal
		want(t, "published", reg.count(nodepb.Event_PUBLISHED), 1)
		want(t, "sent and delivered", reg.count(nodepb.Event_NOTICE_SENT, nodepb.Event_NOTICE_DELIVERED), 4)
		want(t, "received", w.nodes["pension"].journal.count(nodepb.Event_NOTICE_RECEIVED), 1)
		cleared := 0
		for _, m := range []string{"alpha", "beta", "gamma"} {
			for _, e := range w.nodes[m].journal.entries {
				cleared++
				if strings.Contains(e.String(), "Street 1") {
					t.Error("a clearing peer saw content")
				}
			}
		}
		want(t, "cleared", cleared, 2)
		st, err := w.nodes["register"].publisher.Status(caller.Application, moved(ann, 1).ClientTicket)
		if err != nil || len(st.Recipients) != 2 || st.Recipients[0].State != Delivered {
			t.Errorf("status %+v, %v", st, err)
		}
		for _, n := range w.nodes {
			for _, e := range n.journal.entries {
				if e.Requester.GetInstitution() == "health" && slices.Contains(e.Fields, "street") {
					t.Errorf("%s journals that health was told the street", n.id)
				}
			}
		}
	})
}

// Nobody is told of whom only the publisher has a file, and that is journaled too; what
// may not be published is refused.
func TestNobodyAndRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.publish(cleo, 1)
		time.Sleep(time.Second)
		e := w.nodes["register"].journal.last(nodepb.Event_ADDRESSED)
		if e == nil || e.Outcome != registrypb.Outcome_PERMIT || len(e.Evidence) != 1 {
			t.Errorf("that nobody is told is not journaled with the decision: %v", e)
		}
		for name, tt := range map[string]struct {
			at     string
			change func(*Change)
			reason registrypb.Reason
		}{
			"no offering":  {"pension", func(*Change) {}, registrypb.Reason_NOT_ALLOWED},
			"no file":      {"register", func(c *Change) { c.Number = recordtestPerson(9) }, registrypb.Reason_NOT_INTEGRATED},
			"no number":    {"register", func(c *Change) { c.Number = "12345678901" }, registrypb.Reason_MALFORMED_NUMBER},
			"no dataset":   {"register", func(c *Change) { c.Dataset = "other/v1" }, registrypb.Reason_NOT_ALLOWED},
			"other period": {"register", func(c *Change) { c.Period = names.Period{From: 1000, Until: 1001} }, registrypb.Reason_NOT_ALLOWED},
		} {
			c := moved(ann, 7)
			tt.change(&c)
			before := w.nodes[tt.at].journal.count(nodepb.Event_PUBLISHED)
			a, err := w.nodes[tt.at].publisher.Publish(t.Context(), c)
			if err != nil || a.Reason != tt.reason {
				t.Errorf("%s: %v %+v, want %s", name, err, a, tt.reason)
			}
			want(t, name+": journaled", w.nodes[tt.at].journal.count(nodepb.Event_PUBLISHED), before+1)
		}
	})
}

// A recipient that is down for days is told when it is back, in order, under clearances
// of that day; and nothing is cleared for it in vain meanwhile.
func TestDownForDays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cut(true, "pension")
		for n := range 20 {
			w.publish([]string{ann, bob}[n%2], n)
			time.Sleep(3 * time.Hour)
		}
		w.net.mu.Lock()
		clearings := w.net.calls["clear alpha"] + w.net.calls["clear beta"] + w.net.calls["clear gamma"]
		w.net.mu.Unlock()
		if clearings > 40 {
			t.Errorf("%d calls to clearing peers for 20 publications while a recipient is down", clearings)
		}
		lag := w.nodes["register"].publisher.Lags()[1]
		if lag.Recipient != "pension" || lag.Waiting != 20 || lag.Since.IsZero() {
			t.Errorf("lag %+v", lag)
		}
		w.cut(false, "pension")
		time.Sleep(10 * time.Minute)
		var want1, want2 []string
		for n := range 20 {
			s := fmt.Sprintf(`[{"street":"Street %d","city":"City %d"}]`, n, n)
			if n%2 == 0 {
				want1 = append(want1, s)
			} else {
				want2 = append(want2, s)
			}
		}
		var got1, got2 []string
		for _, i := range w.take("pension") {
			if i.Subject.Number() == ann {
				got1 = append(got1, string(i.Content))
			} else {
				got2 = append(got2, string(i.Content))
			}
		}
		want(t, "ann", got1, want1)
		want(t, "bob", got2, want2)
		if l := w.nodes["register"].publisher.Lags()[1]; l.Waiting != 0 || !l.Since.IsZero() {
			t.Errorf("after: %+v", l)
		}
	})
}

// What is queued goes under the rights of the day on which it goes.
func TestRightsFallAwayWhileQueued(t *testing.T) {
	for name, fall := range map[string]func(*world){
		"authorization revoked":  func(w *world) { w.revoke("z-pension") },
		"subscription withdrawn": func(w *world) { w.subscribe("pension", "pension", "pensioner", true) },
		"reference withdrawn":    func(w *world) { w.declare("pension", "pensioner", true, ann) },
		"recipient suspended": func(w *world) {
			w.put("@operators", &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "pension", Suspended: true}})
		},
		"publisher's file withdrawn": func(w *world) { w.declare("register", "registered", true, ann) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cut(true, "pension")
				w.publish(ann, 1)
				time.Sleep(5 * time.Hour)
				before := countTo(w.nodes["register"].journal, nodepb.Event_NOTICE_SENT, "pension")
				fall(w)
				w.cut(false, "pension")
				time.Sleep(time.Hour)
				want(t, "told", len(w.take("pension")), 0)
				reg := w.nodes["register"].journal
				want(t, "sent since", countTo(reg, nodepb.Event_NOTICE_SENT, "pension")-before, 0)
				want(t, "lapsed", countTo(reg, nodepb.Event_NOTICE_LAPSED, "pension"), 1)
				list, err := w.nodes["register"].publisher.Deliveries(Select{})
				if err != nil || len(list) != 0 {
					t.Errorf("still waits: %+v %v", list, err)
				}
			})
		})
	}
}

func countTo(j *journal, event nodepb.Event, recipient string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if e.Event == event && e.Requester.GetInstitution() == recipient {
			n++
		}
	}
	return n
}

// A right that falls away between clearing and release stops the content, although the
// clearance is still young.
func TestRevokedBetweenClearingAndRelease(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set(nil, func(method, _, _ string, _ proto.Message) error {
			if method == "clear" {
				w.set(nil, nil)
				w.revoke("z-pension")
			}
			return nil
		})
		w.publish(bob, 1)
		time.Sleep(time.Hour)
		want(t, "told", len(w.take("pension")), 0)
		want(t, "sent", w.nodes["register"].journal.count(nodepb.Event_NOTICE_SENT), 0)
	})
}

// A number that is replaced while notifications wait: they arrive in the right file, in
// order, once, whatever number they were published under.
func TestNumberReplacedUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cut(true, "pension")
		w.publish(ann, 1)
		time.Sleep(time.Hour)
		w.replace(ann, anew)
		w.declare("register", "registered", false, anew)
		c := moved(anew, 2)
		if a, err := w.nodes["register"].publisher.Publish(t.Context(), c); err != nil || a.Reason != 0 {
			t.Fatal(a, err)
		}
		time.Sleep(time.Hour)
		w.publish(ann, 3) // somebody still uses the old one
		time.Sleep(time.Hour)
		w.cut(false, "pension")
		time.Sleep(time.Hour)
		items := w.take("pension")
		if len(items) != 3 {
			t.Fatalf("%d items, want 3", len(items))
		}
		for n, i := range items {
			if !strings.Contains(string(i.Content), fmt.Sprintf("Street %d", n+1)) {
				t.Errorf("place %d: %s", n, i.Content)
			}
			if len(i.FiledUnder) != 1 || i.FiledUnder[0].Number() != ann || i.Current.Number() != anew {
				t.Errorf("item %d: filed under %d numbers, or another current one", n, len(i.FiledUnder))
			}
		}
	})
}

// The same at each other side: after the clearing peer has decided, while the recipient
// files its subject anew, and when two numbers turn out to be one person's.
func TestNumberChangesAtEverySide(t *testing.T) {
	filed := func(t *testing.T, items []inbox.Taken, want ...[]string) {
		t.Helper()
		if len(items) != len(want) {
			t.Fatalf("%d items, want %d", len(items), len(want))
		}
		for n, i := range items {
			if !strings.Contains(string(i.Content), fmt.Sprintf("Street %d", n+1)) {
				t.Errorf("place %d: %s", n, i.Content)
			}
			var under []string
			for _, id := range i.FiledUnder {
				under = append(under, id.Number())
			}
			slices.Sort(under)
			slices.Sort(want[n])
			if !slices.Equal(under, want[n]) {
				t.Errorf("item %d is filed under %d numbers, want %d, or others", n, len(under), len(want[n]))
			}
		}
	}
	t.Run("cleared before, told after", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			var once sync.Once
			going, replaced := make(chan struct{}), make(chan struct{})
			w.set(func(method, _, to string, _ proto.Message) error {
				if method == "deliver" && to == "pension" {
					once.Do(func() { close(going); <-replaced })
				}
				return nil
			}, nil)
			w.publish(ann, 1)
			<-going
			w.replace(ann, anew)
			close(replaced)
			time.Sleep(time.Hour)
			w.declare("register", "registered", false, anew)
			w.publish(anew, 2)
			time.Sleep(time.Hour)
			filed(t, w.take("pension"), []string{ann}, []string{ann})
		})
	})
	t.Run("filed anew while it waits", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.cut(true, "pension")
			w.publish(ann, 1)
			time.Sleep(time.Hour)
			w.replace(ann, anew)
			w.declare("pension", "pensioner", true, ann)
			w.declare("pension", "pensioner", false, anew)
			w.declare("register", "registered", false, anew)
			w.publish(anew, 2)
			time.Sleep(time.Hour)
			w.cut(false, "pension")
			time.Sleep(time.Hour)
			items := w.take("pension")
			filed(t, items, []string{anew}, []string{anew})
			for n, i := range items {
				if i.Current.Number() != anew {
					t.Errorf("item %d names another current number", n)
				}
			}
		})
	})
	t.Run("merged", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.cut(true, "pension")
			w.publish(bob, 1)
			time.Sleep(time.Hour)
			w.succeeds(registrypb.NumberEvent_MERGED, bob, ann)
			w.publish(ann, 2)
			w.publish(bob, 3)
			time.Sleep(time.Hour)
			w.cut(false, "pension")
			time.Sleep(time.Hour)
			both := []string{ann, bob} // whose files are not merged yet
			filed(t, w.take("pension"), both, both, both)
		})
	})
}

// A recipient's system that does not take what comes holds up its own queue only, and
// loses nothing.
func TestInboxFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		box := &fullInbox{Inbox: w.nodes["pension"].inbox}
		box.full.Store(true)
		w.nodes["pension"].recipient.cfg.Inbox = box // nothing runs that reads it: nothing is published yet
		w.publish(ann, 1)
		time.Sleep(time.Hour)
		want(t, "pension", len(w.take("pension")), 0)
		want(t, "health", len(w.take("health")), 1)
		box.full.Store(false)
		time.Sleep(time.Hour)
		want(t, "pension later", len(w.take("pension")), 1)
	})
}

// What was acknowledged is told again when its recipient asks for it, and only then.
func TestReplay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.publish(ann, 1)
		time.Sleep(time.Hour)
		since := w.Now()
		w.publish(ann, 2)
		w.publish(bob, 3)
		time.Sleep(time.Hour)
		want(t, "first", len(w.take("pension")), 3)
		n, err := w.nodes["register"].publisher.Replay(t.Context(), caller, "pension", since)
		if err != nil || n != 2 {
			t.Errorf("replayed by the publisher: %d %v", n, err)
		}
		time.Sleep(time.Minute)
		want(t, "replayed unasked", len(w.take("pension")), 0)
		n, err = w.nodes["pension"].recipient.Replay(t.Context(), caller, "register", since)
		if err != nil || n != 2 {
			t.Errorf("replay asked for: %d %v", n, err)
		}
		time.Sleep(time.Minute)
		items := w.take("pension")
		if len(items) != 2 || !items[0].Replayed {
			t.Errorf("replayed: %v", contents(items))
		}
		// And no more than once.
		if _, err = w.nodes["register"].publisher.Replay(t.Context(), caller, "pension", since); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		want(t, "again", len(w.take("pension")), 0)
	})
}

// A registry that nobody confirms: nothing is sent, nothing is taken in, nothing is lost.
func TestStale(t *testing.T) {
	for _, who := range []string{"register", "pension"} {
		t.Run(who, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.setStale(who, true)
				w.publish(bob, 1)
				time.Sleep(time.Hour)
				want(t, "told", len(w.take("pension")), 0)
				w.setStale(who, false)
				time.Sleep(time.Hour)
				want(t, "told later", len(w.take("pension")), 1)
			})
		})
	}
}

func (w *world) setStale(who string, stale bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[who].stale = stale
}

// Nothing is cleared long before its turn: a recipient that takes its time has each
// delivery cleared once, not again because the clearance ended in the queue.
func TestClearedInTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set(func(method, _, to string, _ proto.Message) error {
			if method == "deliver" && to == "pension" {
				time.Sleep(400 * time.Millisecond)
			}
			return nil
		}, nil)
		const n = 30 * 16 // batches; one after the other they take six times a clearance's life
		for i := range n {
			w.publish(bob, i)
		}
		time.Sleep(time.Minute)
		want(t, "told", len(w.take("pension")), n)
		want(t, "asked whether it is ready, to clear anew", w.calls("ready pension"), 0)
	})
}

// A recipient that answers nobody for long does not keep others from being told.
func TestSlowRecipient(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set(func(method, _, to string, _ proto.Message) error {
			if method == "deliver" && to == "health" {
				time.Sleep(9 * time.Second)
			}
			return nil
		}, nil)
		const n = 10 * 16
		for i := range n {
			w.publish(ann, i)
		}
		time.Sleep(15 * time.Second)
		want(t, "told", len(w.take("pension")), n)
		w.set(nil, nil)
		time.Sleep(time.Hour)
		want(t, "told in the end", len(w.take("health")), n)
	})
}

func (w *world) calls(what string) int {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	return w.net.calls[what]
}

// Several changes at once are each accepted as if it had come alone: what is wrong with one,
// or refused, is its own; they arrive in the order of the list, and publishing the same
// again is publishing once.
func TestPublishedTogether(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		reg := w.nodes["register"]
		noNumber, noRecord, noFile := moved(ann, 90), moved(ann, 91), moved(recordtest.Person(9), 92)
		noNumber.Number, noRecord.Record = "12345678901", []byte(`{"street":"x"}`)
		all := []Change{moved(ann, 1), noNumber, moved(bob, 2), noRecord, moved(ann, 3), noFile, moved(ann, 3), moved(bob, 4)}
		first := reg.publisher.PublishAll(t.Context(), all)
		for i, r := range first {
			bad := new(exchange.QuestionError)
			switch {
			case i == 1 && (r.Err != nil || r.Reason != registrypb.Reason_MALFORMED_NUMBER), i == 5 && (r.Err != nil || r.Reason != registrypb.Reason_NOT_INTEGRATED):
				t.Errorf("%d is not refused: %+v", i, r)
			case i == 3 && (!errors.As(r.Err, &bad) || len(bad.Faults) == 0), i == 6 && (!errors.As(r.Err, &bad) || bad.Field != "client_ticket"):
				t.Errorf("%d: no problem of its own: %v", i, r.Err)
			case i%2 == 0 && i != 6 && (r.Err != nil || r.Reason != 0 || r.Ticket == ""):
				t.Errorf("%d is not accepted: %+v", i, r)
			}
		}
		for i, r := range reg.publisher.PublishAll(t.Context(), all) {
			if i%2 == 0 && i != 6 && (r.Err != nil || r.Ticket != first[i].Ticket) {
				t.Errorf("%d published again: %+v, want ticket %s", i, r, first[i].Ticket)
			}
		}
		time.Sleep(time.Second)
		record := func(n int) string { return fmt.Sprintf(`[{"street":"Street %d","city":"City %d"}]`, n, n) }
		want(t, "pension", contents(w.take("pension")), []string{record(1), record(2), record(3), record(4)})
		want(t, "too many", errors.As(reg.publisher.PublishAll(t.Context(), make([]Change, MaxChanges+1))[0].Err, new(*exchange.QuestionError)), true)
	})
}

// No number of callers that publish the same subjects in different orders keep each other
// waiting for ever.
func TestPublishedTogetherByMany(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				list := []Change{moved(ann, 100+i), moved(bob, 200+i), moved(ann, 300+i)}
				if i%2 == 1 {
					slices.Reverse(list)
				}
				for _, r := range w.nodes["register"].publisher.PublishAll(t.Context(), list) {
					if r.Err != nil {
						t.Error(r.Err)
					}
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		want(t, "pension", len(w.take("pension")), 60)
	})
}

// What a clearing peer decides in one call, where nobody is told, it signs together, and
// each decision is evidence by itself.
func TestDecisionsTogether(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		reg := w.nodes["register"]
		var all []Change
		for n := range 16 {
			all = append(all, moved(cleo, n))
		}
		reg.publisher.PublishAll(t.Context(), all)
		time.Sleep(time.Second)
		want(t, "addressed", reg.journal.count(nodepb.Event_ADDRESSED), len(all))
		signatures := map[string]bool{}
		for _, e := range reg.journal.entries {
			if e.Event != nodepb.Event_ADDRESSED {
				continue
			}
			env := new(certspb.Envelope)
			if err := proto.Unmarshal(e.Evidence[0], env); err != nil {
				t.Fatal(err)
			}
			signatures[string(env.Signatures[0].Signature)] = true
			o, err := envelope.Open(envelope.NotificationDecision, e.Evidence[0])
			if err != nil || !o.VerifiedBy(recordtest.Public(e.Clearer.Institution)) {
				t.Errorf("a decision does not verify by itself: %v", err)
			}
		}
		if len(signatures) > 3 { // one for each clearing peer
			t.Errorf("%d signatures on %d decisions", len(signatures), len(all))
		}
	})
}

// For what waits for one recipient only those are asked that are no party to it.
func TestPartiesAreNotAsked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.authorize("z-alpha", "member", "filed", "members", "city")
		w.subscribe("alpha", "members", "filed", false)
		w.declare("alpha", "filed", false, cleo)
		w.cut(true, "alpha")
		for n := range 10 {
			w.publish(cleo, n)
		}
		time.Sleep(time.Minute)
		w.cut(false, "alpha")
		before := w.calls("clear alpha")
		time.Sleep(time.Hour)
		want(t, "told", len(w.take("alpha")), 10)
		want(t, "asked while what waits is cleared anew", w.calls("clear alpha"), before)
	})
}
