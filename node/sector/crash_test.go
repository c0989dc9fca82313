package sector

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestCrash loses the managing body, or the fund, at every step between forward and
// answer; the requester presents again, and there is one answer and one fetch.
func TestCrash(t *testing.T) {
	for _, victim := range []string{"nic", "fund-a"} {
		for _, event := range []nodepb.Event{nodepb.Event_FORWARDED, nodepb.Event_SECTOR_SUPPLIED, nodepb.Event_SECTOR_ANSWERED, nodepb.Event_RESOLVED, nodepb.Event_SUPPLIED} {
			for _, after := range []bool{false, true} {
				t.Run(strings.Join([]string{victim, event.String(), map[bool]string{false: "before", true: "after"}[after]}, " "), func(t *testing.T) {
					crashAt(t, victim, event, after)
				})
			}
		}
	}
}

func crashAt(t *testing.T, victim string, event nodepb.Event, after bool) {
	w := newWorld(t)
	id := w.person(1, "fund-a")
	w.bubble(t, func(t *testing.T) {
		w.node("fund-a").source.set(id, yes)
		n := w.node(victim)
		crashed := false
		crash := func(e *nodepb.Entry) (bool, error) {
			if crashed || e.GetEvent() != event {
				return false, nil
			}
			crashed = true
			return after, errors.New("power loss")
		}
		n.inner.fail, n.journal.fail = crash, crash
		r := w.consult(question(id, "T-1"))
		if crashed {
			if r.Status == nodepb.Status_DATA_FOUND {
				t.Fatalf("answered although %s could not be journaled", event)
			}
			n.boot("") // what is in memory is gone; disks stay
			// The requester presents the same request anew.
			r = w.consult(question(id, "T-2"))
		}
		wantRecords(t, r, `[{"entitled":true}]`)
		if n := len(w.node("nic").journal.of(nodepb.Event_SUPPLIED)); n < 1 {
			t.Error("an answer without its entry")
		}
		inner := w.node("nic").inner
		for _, r := range inner.of(nodepb.Event_RESOLVED) {
			var of []*nodepb.Entry
			for _, a := range inner.of(nodepb.Event_SECTOR_ANSWERED) {
				if bytes.Equal(a.GetSealSalt(), r.GetSealSalt()) {
					of = append(of, a)
				}
			}
			if !bytes.Equal(RestsOn(of), r.GetPermissionHash()) {
				t.Error("an outcome without the answers that it was made of")
			}
		}
	})
}

// TestPresentedAgain: the reply is lost after the fund answered; the same clearance is
// presented again, and neither the fund nor its source is asked for another answer.
func TestPresentedAgain(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "fund-a")
	w.bubble(t, func(t *testing.T) {
		w.node("fund-a").source.set(id, yes)
		lost := 0
		w.disturbing(func(_ context.Context, method string, _, _ names.NodeID, arrived bool) error {
			if method == "forward" && arrived && lost < 2 {
				lost++
				return errLost
			}
			return nil
		})
		wantRecords(t, w.consult(question(id, "T-1")), `[{"entitled":true}]`)
		if n := w.node("fund-a").source.fetched(); n != 1 || lost != 2 {
			t.Errorf("fetched %d times, %d replies lost", n, lost)
		}
		if n := len(w.node("fund-a").inner.of(nodepb.Event_SECTOR_SUPPLIED)); n != 3 {
			t.Errorf("%d entries for three answers that left", n)
		}
	})
}

// TestSamePresentation: the managing body dies between the fund's answer and its own,
// and the very same clearance is presented again: the same permission goes out, and the
// fund resends what it answered.
func TestSamePresentation(t *testing.T) {
	for _, event := range []nodepb.Event{nodepb.Event_FORWARDED, nodepb.Event_SECTOR_ANSWERED, nodepb.Event_RESOLVED, nodepb.Event_SUPPLIED} {
		w := newWorld(t)
		id := w.person(1, "fund-a")
		w.bubble(t, func(t *testing.T) {
			fund, nic := w.node("fund-a"), w.node("nic")
			fund.source.set(id, yes)
			w.disturbing(func(_ context.Context, method string, _, _ names.NodeID, _ bool) error {
				if method == "present" {
					return errLost
				}
				return nil
			})
			w.consult(question(id, "T-1"))
			crash := func(e *nodepb.Entry) (bool, error) {
				if e.GetEvent() == event {
					return true, errors.New("power loss")
				}
				return false, nil
			}
			nic.inner.fail, nic.journal.fail = crash, crash
			gone, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // nobody waits for a dead node
			defer cancel()
			if resp, err := nic.present(gone, nid("pcsa"), w.shown); err == nil && resp.GetRefusal() == 0 {
				t.Fatalf("answered without %s", event)
			}
			nic.inner.fail, nic.journal.fail = nil, nil
			nic.boot("")
			resp, err := nic.present(t.Context(), nid("pcsa"), w.shown)
			w.must(err)
			again, err := nic.present(t.Context(), nid("pcsa"), w.shown)
			w.must(err)
			if resp.GetRefusal() != 0 || !proto.Equal(resp, again) || string(resp.GetContent()) != `[{"entitled":true}]` {
				t.Errorf("%s: got %v, then %v", event, resp.GetRefusal(), again.GetRefusal())
			}
			if n := fund.source.fetched(); n != 1 {
				t.Errorf("%s: the source was asked %d times", event, n)
			}
			if n, want := len(nic.inner.of(nodepb.Event_FORWARDED)), map[bool]int{true: 2, false: 1}[event == nodepb.Event_FORWARDED]; n != want {
				t.Errorf("%s: %d permissions were journaled, want %d", event, n, want)
			}
		})
	}
}
