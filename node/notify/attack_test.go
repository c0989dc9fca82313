package notify

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestTorment publishes while nodes lose power, calls and replies are lost, and
// institutions are cut off, at random moments: every change whose publication was
// acknowledged arrives exactly once, in order per subject, and nothing else does.
// NOTIFY_SEEDS says how many runs; each is one more than the last from NOTIFY_SEED.
func TestTorment(t *testing.T) {
	seeds, first := 12, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("NOTIFY_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("NOTIFY_SEED"), 10, 64); err == nil {
		first = n
	}
	total := tally{}
	for seed := first; seed < first+uint64(seeds); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { total.add(torment(t, seed)) })
		})
	}
	t.Logf("%d runs: %d published, %d deliveries due, %d made, %d lost, %d twice, %d out of order; with %d losses of power, %d lost calls, %d lost replies",
		seeds, total.published, total.due, total.made, total.lost, total.twice, total.disorder, total.crashes, total.calls, total.replies)
}

type tally struct{ published, due, made, lost, twice, disorder, crashes, calls, replies int }

func (a *tally) add(b tally) {
	a.published, a.due, a.made, a.lost = a.published+b.published, a.due+b.due, a.made+b.made, a.lost+b.lost
	a.twice, a.disorder, a.crashes, a.calls, a.replies = a.twice+b.twice, a.disorder+b.disorder, a.crashes+b.crashes, a.calls+b.calls, a.replies+b.replies
}

func torment(t *testing.T, seed uint64) (sum tally) {
	w := newWorld(t)
	defer w.close()
	dice := rand.New(rand.NewPCG(seed, 7))
	w.nodes["register"].run()
	lossy := func(count *int) func(string, string, string, proto.Message) error {
		return func(string, string, string, proto.Message) error {
			w.net.mu.Lock()
			defer w.net.mu.Unlock()
			if dice.IntN(6) == 0 {
				*count++
				return errLost
			}
			return nil
		}
	}
	w.set(lossy(&sum.calls), lossy(&sum.replies))
	accepted := map[string][]int{}
	roll := func(n int) int { w.net.mu.Lock(); defer w.net.mu.Unlock(); return dice.IntN(n) }
	for n := range 40 {
		person := []string{ann, bob}[roll(2)]
		publish := func() bool {
			_, err := w.nodes["register"].publisher.Publish(context.Background(), moved(person, n))
			return err == nil
		}
		ok := publish()
		time.Sleep(time.Duration(roll(4000)) * time.Millisecond)
		switch roll(5) {
		case 0:
			w.cut(roll(2) == 0, []string{"pension", "health", "alpha"}[roll(3)])
		case 1:
			who := w.nodes[[]string{"register", "pension", "health"}[roll(3)]]
			// Sometimes the power goes in the middle of the next few writes.
			who.fs.FailAfter(roll(6))
			_ = publish()
			time.Sleep(time.Duration(roll(3000)) * time.Millisecond)
			running := who.stop != nil
			who.powerLoss(seed + uint64(n))
			sum.crashes++
			if running {
				who.run()
			}
		}
		for !ok { // whoever got no answer asks again, under the same client ticket
			ok = publish()
		}
		accepted[person] = append(accepted[person], n)
	}
	w.set(nil, nil)
	w.cut(false, "pension", "health", "alpha")
	time.Sleep(24 * time.Hour)
	for inst, persons := range map[string][]string{"pension": {ann, bob}, "health": {ann}} {
		got := map[string][]int{}
		for _, i := range w.take(inst) {
			var n int
			text := string(i.Content)
			if _, err := fmt.Sscanf(text[strings.Index(text, "City"):], "City %d", &n); err != nil {
				t.Fatal(err)
			}
			got[i.Subject.Number()] = append(got[i.Subject.Number()], n)
		}
		for _, p := range persons {
			sum.due += len(accepted[p])
			sum.made += len(got[p])
			seen, last := map[int]bool{}, -1
			for _, n := range got[p] {
				if seen[n] {
					sum.twice++
				} else if n < last {
					sum.disorder++
				}
				seen[n], last = true, max(last, n)
			}
			for _, n := range accepted[p] {
				if !seen[n] {
					sum.lost++
				}
			}
			if fmt.Sprint(got[p]) != fmt.Sprint(accepted[p]) {
				t.Errorf("%s was told %v, want %v", inst, got[p], accepted[p])
			}
		}
	}
	sum.published = 40
	list, err := w.nodes["register"].publisher.Deliveries(Select{})
	if err != nil || len(list) > 0 {
		t.Errorf("still waits: %d %v", len(list), err)
	}
	return sum
}

// spoil changes what a publisher sends, as one would that does not keep to the rules: it
// holds its own keys, and no one else's.
func spoil(w *world, how func(d *nodepb.Delivery)) {
	w.set(func(method, _, to string, msg proto.Message) error {
		if method == "deliver" && to == "pension" {
			for _, d := range msg.(*nodepb.DeliverRequest).Deliveries {
				how(d)
			}
		}
		return nil
	}, nil)
}

// resign makes a notice anew over what a delivery now holds.
func (w *world) resign(d *nodepb.Delivery, change func(*nodepb.Notice)) {
	opened, err := envelope.Open(envelope.Notice, d.Notice)
	if err != nil {
		w.t.Fatal(err)
	}
	n := new(nodepb.Notice)
	if err := proto.Unmarshal(opened.Payload, n); err != nil {
		w.t.Fatal(err)
	}
	n.Commitment = exchange.Commitment(d.Blinding, d.Content)
	if change != nil {
		change(n)
	}
	d.Notice = w.sign(envelope.Notice, n, "register")
}

// A publisher that does not keep to the rules gets no receipt, stores nothing with
// anybody, and every attempt stands in the recipient's journal.
func TestHostilePublisher(t *testing.T) {
	forge := func(w *world, d *nodepb.Delivery, signer string, change func(*registrypb.NotificationClearance)) {
		opened, err := envelope.Open(envelope.NotificationClearance, d.Clearance)
		if err != nil {
			w.t.Fatal(err)
		}
		c := new(registrypb.NotificationClearance)
		if err := proto.Unmarshal(opened.Payload, c); err != nil {
			w.t.Fatal(err)
		}
		change(c)
		d.Clearance = w.sign(envelope.NotificationClearance, c, signer)
		w.resign(d, func(n *nodepb.Notice) { n.ClearanceHash = sum(d.Clearance) })
	}
	var healths []byte // a clearance that was given for another recipient
	for name, how := range map[string]func(w *world, d *nodepb.Delivery){
		"more fields than cleared": func(w *world, d *nodepb.Delivery) {
			d.Content = []byte(`[{"street":"Street 1","city":"City 1","secret":"s"}]`)
			w.resign(d, nil)
		},
		"two records": func(w *world, d *nodepb.Delivery) {
			d.Content = []byte(`[{"city":"a"},{"city":"b"}]`)
			w.resign(d, nil)
		},
		"content that is not what was signed": func(_ *world, d *nodepb.Delivery) { d.Content = []byte(`[{"city":"elsewhere"}]`) },
		"a clearance of its own making": func(w *world, d *nodepb.Delivery) {
			forge(w, d, "register", func(c *registrypb.NotificationClearance) {})
		},
		"a clearance with itself as clearing peer": func(w *world, d *nodepb.Delivery) {
			forge(w, d, "register", func(c *registrypb.NotificationClearance) {
				c.Clearer = &registrypb.NodeRef{Institution: "register", Node: "n1"}
			})
		},
		"a clearing peer that gives more fields": func(w *world, d *nodepb.Delivery) {
			forge(w, d, clearerOf(d), func(c *registrypb.NotificationClearance) { c.Fields = []string{"city", "secret", "street"} })
		},
		"a clearing peer that cites another authorization": func(w *world, d *nodepb.Delivery) {
			forge(w, d, clearerOf(d), func(c *registrypb.NotificationClearance) { c.Authorization = "z-health" })
		},
		"a clearing peer that invents a purpose": func(w *world, d *nodepb.Delivery) {
			forge(w, d, clearerOf(d), func(c *registrypb.NotificationClearance) { c.Purpose = "insurance" })
		},
		"a clearing peer that cheats about time": func(w *world, d *nodepb.Delivery) {
			forge(w, d, clearerOf(d), func(c *registrypb.NotificationClearance) {
				c.PresentByUnixMs += time.Hour.Milliseconds()
				c.ReleaseByUnixMs += time.Hour.Milliseconds()
			})
		},
		"a clearance for another publication": func(w *world, d *nodepb.Delivery) {
			forge(w, d, clearerOf(d), func(c *registrypb.NotificationClearance) { c.PublicationHash = make([]byte, 32) })
		},
		"another's clearance": func(w *world, d *nodepb.Delivery) {
			d.Clearance = healths
			w.resign(d, func(n *nodepb.Notice) { n.ClearanceHash = sum(healths) })
		},
		"a notice for somebody else": func(w *world, d *nodepb.Delivery) { w.resign(d, func(n *nodepb.Notice) { n.Recipient = "health" }) },
		"nothing at all":             func(_ *world, d *nodepb.Delivery) { *d = nodepb.Delivery{} },
		"noise":                      func(_ *world, d *nodepb.Delivery) { d.Publication, d.Clearance = []byte("x"), []byte("y") },
		"a publication that was changed": func(_ *world, d *nodepb.Delivery) {
			d.Publication = append(d.Publication[:len(d.Publication):len(d.Publication)], 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.set(nil, func(method, _, _ string, reply proto.Message) error {
					if method == "clear" {
						for _, raw := range reply.(*registrypb.ClearNotificationsResponse).Outcomes[0].Clearances {
							if recipientOf(raw) == "health" {
								healths = raw
							}
						}
					}
					return nil
				})
				w.publish(ann, 1)
				time.Sleep(time.Minute)
				w.take("pension")
				spoil(w, func(d *nodepb.Delivery) { how(w, d) })
				w.publish(bob, 2)
				time.Sleep(time.Hour)
				want(t, "stored", len(w.take("pension")), 0)
				pension, reg := w.nodes["pension"].journal, w.nodes["register"]
				if pension.count(nodepb.Event_NOTICE_REFUSED) == 0 {
					t.Error("no refusal is in the recipient's journal")
				}
				want(t, "receipts", countTo(reg.journal, nodepb.Event_NOTICE_DELIVERED, "pension"), 1)
				// It ends as a dead letter, which holds up its own subject and no other, and
				// goes when it is driven again.
				list, err := reg.publisher.Deliveries(Select{Recipient: "pension", Dead: true})
				if err != nil || len(list) != 1 {
					return // a reason that may pass: it is tried for as long as it is kept
				}
				spoil(w, func(*nodepb.Delivery) {})
				w.publish(bob, 3)
				w.publish(ann, 4)
				time.Sleep(time.Hour)
				want(t, "another subject", contents(w.take("pension")), []string{`[{"street":"Street 4","city":"City 4"}]`})
				n, err := reg.publisher.Redrive(t.Context(), caller, Select{Recipient: "pension"})
				if err != nil || n != 1 {
					t.Errorf("driven again: %d %v", n, err)
				}
				time.Sleep(time.Hour)
				want(t, "driven again", contents(w.take("pension")), []string{`[{"street":"Street 2","city":"City 2"}]`, `[{"street":"Street 3","city":"City 3"}]`})
				want(t, "journaled", reg.journal.count(nodepb.Event_NOTICE_DEAD, nodepb.Event_NOTICE_REDRIVEN), 2)
			})
		})
	}
}

func clearerOf(d *nodepb.Delivery) string {
	c := new(registrypb.NotificationClearance)
	if opened, err := envelope.Open(envelope.NotificationClearance, d.Clearance); err == nil {
		_ = proto.Unmarshal(opened.Payload, c)
	}
	return c.GetClearer().GetInstitution()
}

// A dead letter that is dropped lets what comes after it go.
func TestDrop(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		spoil(w, func(d *nodepb.Delivery) { // the first alone: both may go in one call
			if bytes.Contains(d.Content, []byte("Street 1")) {
				d.Blinding = nil
			}
		})
		w.publish(bob, 1)
		w.publish(bob, 2)
		time.Sleep(time.Hour)
		spoil(w, func(*nodepb.Delivery) {})
		list, err := w.nodes["register"].publisher.Deliveries(Select{})
		if err != nil || len(list) != 2 || !list[0].Dead || !list[1].HeldBack {
			t.Fatalf("%+v %v", list, err)
		}
		n, err := w.nodes["register"].publisher.Drop(t.Context(), caller, Select{Ticket: list[0].Ticket})
		if err != nil || n != 1 {
			t.Errorf("dropped %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		want(t, "told", contents(w.take("pension")), []string{`[{"street":"Street 2","city":"City 2"}]`})
	})
}

// A recipient cannot make a publisher believe that something was delivered by showing an
// old receipt, or another's.
func TestReplayedReceipts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var kept []byte
		w.set(nil, func(method, _, to string, reply proto.Message) error {
			if method == "deliver" && to == "pension" {
				for _, o := range reply.(*nodepb.DeliverResponse).Outcomes {
					if kept == nil {
						kept = o.Receipt
					} else {
						o.Receipt = kept
					}
				}
			}
			return nil
		})
		w.publish(ann, 1)
		time.Sleep(time.Minute)
		w.publish(ann, 2)
		time.Sleep(time.Minute)
		want(t, "delivered", countTo(w.nodes["register"].journal, nodepb.Event_NOTICE_DELIVERED, "pension"), 1)
		list, err := w.nodes["register"].publisher.Deliveries(Select{Recipient: "pension"})
		if err != nil || len(list) != 1 {
			t.Errorf("the second is believed to be there: %+v %v", list, err)
		}
		want(t, "stored once each", len(w.take("pension")), 2)
	})
}

// A change that could not be journaled is not accepted, told to nobody, and given no
// ticket when it comes again: only once its entry is there.
func TestPublishedIsJournaled(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := w.nodes["register"].journal
		failing := func(f func(*nodepb.Entry) error) {
			j.mu.Lock()
			j.fail = f
			j.mu.Unlock()
		}
		failing(func(e *nodepb.Entry) error {
			if e.Event == nodepb.Event_PUBLISHED {
				return context.DeadlineExceeded
			}
			return nil
		})
		change := moved(bob, 1)
		for range 2 {
			if a, err := w.nodes["register"].publisher.Publish(t.Context(), change); err == nil {
				t.Errorf("%s was given, and no entry says so", a.Ticket)
			}
		}
		time.Sleep(time.Hour)
		want(t, "told", len(w.take("pension")), 0)
		failing(nil)
		a, err := w.nodes["register"].publisher.Publish(t.Context(), change)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if items := w.take("pension"); len(items) != 1 || items[0].Ticket != a.Ticket {
			t.Errorf("told later: %v", contents(items))
		}
	})
}

// A journal that fails stops everything on that side, and nothing is lost.
func TestJournalFails(t *testing.T) {
	for _, who := range []string{"register", "pension"} {
		t.Run(who, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.publish(bob, 1)
				j := w.nodes[who].journal
				j.mu.Lock()
				j.fail = func(e *nodepb.Entry) error {
					if e.Event == nodepb.Event_NOTICE_SENT || e.Event == nodepb.Event_NOTICE_RECEIVED {
						return context.DeadlineExceeded
					}
					return nil
				}
				j.mu.Unlock()
				time.Sleep(time.Hour)
				want(t, "told", len(w.take("pension")), 0)
				j.mu.Lock()
				j.fail = nil
				j.mu.Unlock()
				time.Sleep(time.Hour)
				items := w.take("pension")
				if len(items) != 1 || items[0].Ticket != a.Ticket {
					t.Errorf("told later: %v", contents(items))
				}
			})
		})
	}
}
