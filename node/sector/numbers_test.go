package sector

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// TestReplacedNumber follows a number in the sector directory, whichever of the two
// directories learnt of it first.
func TestReplacedNumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.inRealTime()
	old, now := w.person(1, "fund-a"), ssin(2)
	w.submit("alpha", &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{
		Events: []*registrypb.NumberEvent{{Subject: protoSubject(old), Kind: registrypb.NumberEvent_REPLACED, Successor: protoSubject(now), Date: 9000}}}}})
	for _, told := range []bool{false, true} {
		if told {
			w.must(w.dir.Replace(old, now))
		}
		w.node("fund-a").source.set(old, yes)
		r := w.consult(question(now, map[bool]string{false: "T-1", true: "T-2"}[told]))
		wantRecords(t, r, `[{"entitled":true}]`)
	}
}

// replace has the register say that a number was replaced, and the sector say to the mesh
// that its file stands under the new one, and no more under the old.
func (w *world) replace(old, now subject.ID, quality string) {
	w.t.Helper()
	w.submit("alpha", &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{
		Events: []*registrypb.NumberEvent{{Subject: protoSubject(old), Kind: registrypb.NumberEvent_REPLACED, Successor: protoSubject(now), Date: 9000}}}}})
	w.file(now, "nic", quality)
	w.submit("nic", &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_DeclareReferences{
		DeclareReferences: &registrypb.References{References: []*registrypb.Reference{{
			Subject: protoSubject(old), Quality: quality, Period: protoPeriod(always), Withdrawn: true}}}}})
}

// inRealTime makes answers leave soon: the sector directory cannot be written to in a bubble.
func (w *world) inRealTime() {
	w.node("nic").manager.times = veil.Times{Prompt: 250 * time.Millisecond, Late: 3 * time.Second}
}

// TestFollowsTheRegistry: nobody tells the managing body that a number was replaced, nor
// does the clearance name the old one; the fund's file under it is found all the same, once,
// by the exchange, by a lot and by the fund itself.
func TestFollowsTheRegistry(t *testing.T) {
	for name, ask := range map[string]func(t *testing.T, w *world, now subject.ID){
		"exchange": func(t *testing.T, w *world, now subject.ID) {
			for _, ticket := range []string{"T-1", "T-2"} {
				wantRecords(t, w.consult(question(now, ticket)), `[{"entitled":true}]`)
			}
		},
		"fund": func(t *testing.T, w *world, now subject.ID) {
			q := question(now, "F-1")
			q.Purpose, q.Dataset = "contribution-check", "wages/v1"
			w.node("nsso").source.set(now, yes)
			w.node("nsso").source.set(ssin(1), yes)
			r, err := w.node("fund-a").asker.Consult(t.Context(), q)
			if err != nil || r.Reason == registrypb.Reason_NOT_INTEGRATED || r.Status != nodepb.Status_DATA_FOUND {
				t.Errorf("%+v, %v", r, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.inRealTime()
			old, now := w.person(1, "fund-a"), ssin(2)
			w.replace(old, now, "insured")
			w.node("fund-a").source.set(old, yes)
			ask(t, w, now)
			if family, err := w.dir.Family(now); err != nil || !slices.Contains(family, old) {
				t.Errorf("the sector directory has not learnt of it: %v", err)
			}
			learnt := 0
			for _, s := range w.node("nic").inner.stored {
				if s.Entry.Event == nodepb.Event_AFFILIATED {
					learnt++
				}
			}
			if learnt != 1 {
				t.Errorf("it is journaled %d times that it was learnt", learnt)
			}
		})
	}
}

// TestMergedNumbers: two numbers with a file each turn out to be one subject's, at one fund
// and at two; every file is found, and a record that both have is given once.
func TestMergedNumbers(t *testing.T) {
	for _, second := range []string{"fund-a", "fund-b"} {
		t.Run(second, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.inRealTime()
			old, now := w.person(1, "fund-a"), w.person(2, second)
			w.replace(old, now, "insured")
			for _, f := range funds {
				w.node(f).source.set(old, yes)
				w.node(f).source.set(now, yes)
			}
			wantRecords(t, w.consult(question(now, "T-1")), `[{"entitled":true}]`)
		})
	}
}

// TestNumbersAreForManagingBodies: a member tells of numbers to a managing body that has a
// file, and looks the same to it where there is none; to others it says nothing.
func TestNumbersAreForManagingBodies(t *testing.T) {
	w := newWorld(t)
	old, now, stranger := w.person(1, ""), ssin(2), ssin(3)
	w.replace(old, now, "insured")
	ask := func(from string, ids ...subject.ID) (*nodepb.NumbersResponse, error) {
		req := new(nodepb.NumbersRequest)
		for _, id := range ids {
			req.Subjects = append(req.Subjects, protoSubject(id))
		}
		n := w.node("alpha")
		return (&Numbers{Registry: n, Journal: n.journal, Schemes: subject.Belgian(), Now: time.Now}).Serve(t.Context(), nid(from), req)
	}
	resp, err := ask("nic", old, stranger, now, subject.Raw(subject.SSIN, "nonsense"))
	if err != nil || len(resp.Subjects) != 4 || len(resp.Subjects[0].Numbers) != 2 || resp.Subjects[0].Numbers[0].Number != now.Number() ||
		len(resp.Subjects[1].Numbers) != 0 || len(resp.Subjects[2].Numbers) != 2 || len(resp.Subjects[3].Numbers) != 0 {
		t.Errorf("%v, %v", resp, err)
	}
	for _, from := range []string{"pcsa", "fund-a", "nsso"} {
		if resp, err := ask(from, old); err == nil && len(resp.Subjects) > 0 || !errors.Is(err, ErrNotOfSector) {
			t.Errorf("%s is told %v, %v", from, resp, err)
		}
	}
	if _, err := ask("nic"); !errors.Is(err, ErrMalformed) {
		t.Errorf("nothing asked: %v", err)
	}
	n := w.node("alpha")
	n.journal.fail = func(*nodepb.Entry) (bool, error) { return false, errLost }
	if _, err := ask("nic", old); !errors.Is(err, ErrJournal) {
		t.Errorf("told without a journal: %v", err)
	}
}

// TestOneLiarJoinsNobody: a member that says of two persons that they are one is not
// believed alone, whichever member it is.
func TestOneLiarJoinsNobody(t *testing.T) {
	for _, liar := range []string{"alpha", "bravo", "delta"} {
		t.Run(liar, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.inRealTime()
			victim, other := w.person(1, "fund-a"), w.person(2, "fund-b")
			for _, f := range funds {
				w.node(f).source.set(victim, yes)
				w.node(f).source.set(other, no)
			}
			w.lie = func(to names.NodeID, resp *nodepb.NumbersResponse) {
				if string(to.Institution) == liar {
					resp.Subjects[0].Numbers = []*registrypb.Subject{protoSubject(other), protoSubject(victim)}
				}
			}
			wantRecords(t, w.consult(question(victim, "T-1")), `[{"entitled":true}]`)
			if family, err := w.dir.Family(victim); err != nil || len(family) != 1 {
				t.Errorf("%d numbers are one person's: %v", len(family), err)
			}
		})
	}
}
