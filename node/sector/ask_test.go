package sector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// check is what a fund's employee asks.
func check(id subject.ID, ticket string) exchange.Question {
	q := question(id, ticket)
	q.Application, q.User, q.Purpose, q.Dataset = "claims", "an-employee-of-the-fund", "contribution-check", "wages/v1"
	return q
}

// TestFundAsks: a fund asks through its managing body, which stands outside as the
// sector; nobody there learns the fund or its user, and the sector's officer does.
func TestFundAsks(t *testing.T) {
	w := newWorld(t)
	id, elsewhere := w.person(1, "fund-b"), w.person(2, "fund-a")
	w.bubble(t, func(t *testing.T) {
		w.node("nsso").source.set(id, yes)
		fund, nic := w.node("fund-b"), w.node("nic")
		r, err := fund.asker.Consult(t.Context(), check(id, "T-1"))
		w.must(err)
		if len(r.Suppliers) != 1 || string(r.Suppliers[0].Records) != `[{"entitled":true}]` || r.Ticket == "" {
			t.Fatalf("got %+v", r)
		}
		again, err := fund.asker.Consult(t.Context(), check(id, "T-1"))
		w.must(err)
		if again.Ticket != r.Ticket || w.node("nsso").source.fetched() != 1 {
			t.Errorf("asking twice is not asking once: %+v", again)
		}
		// Outside.
		for who, n := range w.nodes {
			for _, s := range n.journal.stored {
				for _, secret := range []string{"fund-b", "an-employee", "claims", "T-1"} {
					if bytes.Contains(s.Raw, []byte(secret)) {
						t.Errorf("%s: %s tells %q", who, s.Entry.GetEvent(), secret)
					}
				}
			}
		}
		// Within, the pseudonym and the ticket both lead to who it was.
		outside := nic.journal.of(nodepb.Event_REQUESTED)[0]
		if outside.GetApplication() != OuterApplication || !strings.HasPrefix(outside.GetUser(), "sector-") {
			t.Fatalf("outside it stands %s %s", outside.GetApplication(), outside.GetUser())
		}
		desk := &Desk{Manager: nic.manager, Outer: nic.outer}
		found, err := desk.Search(t.Context(), By{User: "officer"}, Search{Pseudonym: outside.GetUser()})
		w.must(err)
		if len(found) != 1 || found[0].Entry.GetMember() != "fund-b" || found[0].Entry.GetUser() != "an-employee-of-the-fund" {
			t.Errorf("the pseudonym leads to %+v", found)
		}
		story, err := desk.Trace(t.Context(), By{User: "officer"}, r.Ticket)
		w.must(err)
		if !story.Consistent || len(story.Entries) != 2 {
			t.Errorf("trace: %+v", story)
		}
		// Somebody else's person: the sector's half of the check, and nothing leaves.
		before := nic.journal.size()
		r, err = fund.asker.Consult(t.Context(), check(elsewhere, "T-2"))
		w.must(err)
		if r.Status != nodepb.Status_NO_RESULT || r.Reason != registrypb.Reason_NOT_INTEGRATED || nic.journal.size() != before {
			t.Errorf("got %+v, %d entries outside", r, nic.journal.size()-before)
		}
		// A purpose that the sector has no authorization for.
		q := check(id, "T-3")
		q.Purpose = "curiosity"
		if r, err = fund.asker.Consult(t.Context(), q); err != nil || r.Reason != registrypb.Reason_NOT_ALLOWED || nic.journal.size() != before {
			t.Errorf("got %+v, %v", r, err)
		}
		if q.Purpose = "another"; true {
			if _, err = fund.asker.Consult(t.Context(), q); !errors.Is(err, exchange.ErrTicketReused) {
				t.Errorf("another question under one ticket: %v", err)
			}
		}
		w.must(fund.asker.Acknowledge(t.Context(), "claims", "T-1"))
		if _, err = fund.asker.Consult(t.Context(), check(id, "T-1")); !errors.Is(err, exchange.ErrAcknowledged) {
			t.Errorf("after the acknowledgement: %v", err)
		}
		// Two questions of one user cannot be joined outside.
		_, err = fund.asker.Consult(t.Context(), check(id, "T-4"))
		w.must(err)
		requested := nic.journal.of(nodepb.Event_REQUESTED)
		if a, b := requested[0], requested[len(requested)-1]; a.GetUser() == b.GetUser() || len(a.GetUser()) != len(b.GetUser()) {
			t.Errorf("pseudonyms %s and %s", a.GetUser(), b.GetUser())
		}
	})
}

// TestWhoMayAsk: only a member, today, with its own signature.
func TestWhoMayAsk(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "fund-b")
	w.bubble(t, func(t *testing.T) {
		w.node("nsso").source.set(id, yes)
		var caught *nodepb.SectorAsk
		_, err := w.node("fund-b").asker.Consult(t.Context(), check(id, "T-1"))
		w.must(err)
		caught = &nodepb.SectorAsk{Question: w.node("fund-b").inner.of(nodepb.Event_ASKED_INSIDE)[0].GetEvidence()[0]}
		nic := w.node("nic").manager
		for name, from := range map[string]names.NodeID{"another fund": nid("fund-a"), "another node": {Institution: "fund-b", Node: "n2"}, "a stranger": nid("pcsa"), "itself": nid("nic")} {
			if _, err := nic.ServeAsk(t.Context(), from, caught); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotOfSector) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for i := range caught.Question {
			bad := bytes.Clone(caught.Question)
			bad[i] ^= 0x40
			if resp, err := nic.ServeAsk(t.Context(), nid("fund-b"), &nodepb.SectorAsk{Question: bad}); err == nil {
				t.Fatalf("byte %d changed: %v", i, resp)
			}
		}
	})
	w.must(w.dir.SetMember(directory.Member{Institution: "fund-b", Period: names.Period{From: 0, Until: 1}}))
	w.bubble(t, func(t *testing.T) {
		if _, err := w.node("fund-b").asker.Consult(t.Context(), check(id, "T-9")); err == nil {
			t.Error("a former member is answered")
		}
	})
}

// TestAskCrash: asking again after either side died, at any step, is asking once.
func TestAskCrash(t *testing.T) {
	for _, victim := range []string{"fund-b", "nic"} {
		for _, event := range []nodepb.Event{nodepb.Event_ASKED_INSIDE, nodepb.Event_TOLD_INSIDE, nodepb.Event_REQUESTED, nodepb.Event_ANSWERED} {
			for _, kept := range []bool{false, true} {
				w := newWorld(t)
				id := w.person(1, "fund-b")
				w.bubble(t, func(t *testing.T) {
					w.node("nsso").source.set(id, yes)
					n := w.node(victim)
					crash := func(e *nodepb.Entry) (bool, error) {
						if e.GetEvent() == event {
							return kept, errors.New("power loss")
						}
						return false, nil
					}
					n.inner.fail, n.journal.fail = crash, crash
					_, err := w.node("fund-b").asker.Consult(t.Context(), check(id, "T-1"))
					happens := victim == "nic" || event == nodepb.Event_ASKED_INSIDE || event == nodepb.Event_TOLD_INSIDE
					if (err != nil) != happens {
						t.Fatalf("%s %s: %v", victim, event, err)
					}
					n.inner.fail, n.journal.fail = nil, nil
					n.boot("")
					r, err := w.node("fund-b").asker.Consult(t.Context(), check(id, "T-1"))
					if err != nil || len(r.Suppliers) != 1 || string(r.Suppliers[0].Records) != `[{"entitled":true}]` {
						t.Errorf("%s %s kept %t: then %+v, %v", victim, event, kept, r, err)
					}
					if n := w.node("nsso").source.fetched(); n != 1 {
						t.Errorf("%s %s: fetched %d times", victim, event, n)
					}
				})
			}
		}
	}
}

// TestDelivery: what is published about a subject reaches the fund that the subject is
// with, once, and no other.
func TestDelivery(t *testing.T) {
	w := newWorld(t)
	moved, other, nobody := w.person(1, ""), w.person(2, "fund-c"), w.person(3, "")
	w.affiliate(moved, "fund-a", names.Period{From: names.Always, Until: 9500})
	w.affiliate(moved, "fund-b", names.Period{From: 9501, Until: names.Forever})
	w.bubble(t, func(t *testing.T) {
		nic := w.node("nic").manager
		notice := func(n int, id subject.ID, from, until names.Date) Notification {
			return Notification{ID: fmt.Sprint("voucher-", n), Publisher: "nsso", Dataset: "wages/v1", Subject: id,
				Period: names.Period{From: from, Until: until}, Content: []byte(`{"quarter":1}`)}
		}
		took := func(fund string) (ids []string) {
			for _, d := range w.node(fund).member.inbox.(*inbox).took {
				ids = append(ids, d.ID)
			}
			return ids
		}
		for range 2 { // twice is once
			w.must(nic.Deliver(t.Context(), notice(1, moved, 9400, 9500)))
			w.must(nic.Deliver(t.Context(), notice(2, moved, 9501, 9600)))
			w.must(nic.Deliver(t.Context(), notice(3, other, 1, 2)))
		}
		if err := nic.Deliver(t.Context(), notice(4, nobody, 1, 2)); !errors.Is(err, ErrNoRoute) {
			t.Errorf("for nobody: %v", err)
		}
		for fund, want := range map[string]string{"fund-a": "[voucher-1]", "fund-b": "[voucher-2]", "fund-c": "[voucher-3]"} {
			if got := fmt.Sprint(took(fund)); got != want {
				t.Errorf("%s took %s, want %s", fund, got, want)
			}
		}
		// The inbox fails, then the receipt is lost; each is tried again.
		box := w.node("fund-c").member.inbox.(*inbox)
		box.err = errors.New("full")
		if err := nic.Deliver(t.Context(), notice(5, other, 1, 2)); err == nil {
			t.Error("delivered to a full inbox")
		}
		box.err = nil
		lost := false
		w.disturbing(func(_ context.Context, method string, _, _ names.NodeID, arrived bool) error {
			if method == "deliver" && arrived && !lost {
				lost = true
				return errLost
			}
			return nil
		})
		if err := nic.Deliver(t.Context(), notice(5, other, 1, 2)); err == nil {
			t.Error("a lost receipt counts as one")
		}
		w.must(nic.Deliver(t.Context(), notice(5, other, 1, 2)))
		if got := fmt.Sprint(took("fund-c")); got != "[voucher-3 voucher-5]" {
			t.Errorf("fund-c took %s", got)
		}
		// Nobody but the managing body delivers.
		m := &nodepb.SectorDeliver{Delivery: w.node("nic").inner.of(nodepb.Event_DELIVERED_INSIDE)[0].GetEvidence()[0]}
		if _, err := w.node("fund-a").member.ServeDelivery(t.Context(), nid("nsso"), m); !errors.Is(err, ErrNotOfSector) {
			t.Errorf("from a stranger: %v", err)
		}
		for who, n := range w.nodes {
			if n.journal.size() != 0 {
				t.Errorf("%s: the journal that is published grew", who)
			}
		}
	})
}
