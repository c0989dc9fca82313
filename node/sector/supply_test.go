package sector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	yes = `{"entitled":true,"ground":"living-wage"}`
	no  = `{"entitled":false,"ground":"none"}`
)

// consult asks as pcsa does.
func (w *world) consult(q exchange.Question) *exchange.Result {
	w.t.Helper()
	r, err := w.node("pcsa").consultant.Consult(context.Background(), q)
	w.must(err)
	return r
}

func wantRecords(t *testing.T, r *exchange.Result, want string) {
	t.Helper()
	if len(r.Suppliers) != 1 || r.Suppliers[0].Supplier != "nic" || string(r.Suppliers[0].Records) != want {
		t.Fatalf("got %+v, want %s of nic", r, want)
	}
}

func TestSectorSupplies(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "fund-b")
	w.bubble(t, func(t *testing.T) {
		w.node("fund-b").source.set(id, yes)
		r := w.consult(question(id, "T-1"))
		wantRecords(t, r, `[{"entitled":true}]`) // the ground is not permitted
		for _, other := range []string{"fund-a", "fund-c"} {
			if w.node(other).inner.size() != 0 || w.node(other).source.fetched() != 0 {
				t.Errorf("%s was asked", other)
			}
		}
		for who, events := range map[string][]nodepb.Event{
			"nic":    {nodepb.Event_FORWARDED, nodepb.Event_SECTOR_ANSWERED, nodepb.Event_RESOLVED},
			"fund-b": {nodepb.Event_SECTOR_SUPPLIED},
		} {
			for _, event := range events {
				found := w.node(who).inner.of(event)
				if len(found) != 1 || found[0].GetTicket() != string(r.Ticket) {
					t.Errorf("%s: %d entries %s", who, len(found), event)
				}
			}
		}
		supplied := w.node("nic").journal.of(nodepb.Event_SUPPLIED)
		resolved := w.node("nic").inner.of(nodepb.Event_RESOLVED)
		if len(supplied) != 1 || !bytes.Equal(supplied[0].GetSectorSeal(), Seal(resolved[0])) {
			t.Error("the entry outside does not rest on the one within")
		}
		if n := w.node("fund-b").journal.size(); n != 0 {
			t.Errorf("the fund's own journal, whose size is published, grew by %d", n)
		}
		// The same again is the same, without asking anybody.
		wantRecords(t, w.consult(question(id, "T-1")), `[{"entitled":true}]`)
		if n := w.node("fund-b").source.fetched(); n != 1 {
			t.Errorf("the source was asked %d times", n)
		}
		story, err := w.node("nic").manager.Trace(t.Context(), r.Ticket, w.node("nic").outer)
		w.must(err)
		if !story.Consistent || len(story.Entries) != 4 {
			t.Errorf("trace: %+v", story)
		}
		var text strings.Builder
		w.must(story.Write(&text))
		if !strings.Contains(text.String(), "CONSISTENT") || !strings.Contains(text.String(), "fund-b") {
			t.Errorf("trace says\n%s", text.String())
		}
		story, err = w.node("fund-b").member.Trace(t.Context(), r.Ticket)
		w.must(err)
		if !story.Consistent || len(story.Entries) != 3 { // the outcome is not its part
			t.Errorf("the fund's trace: %+v", story)
		}
	})
}

// TestRefusedWhileStale: a fund whose view of the registry is not confirmed refuses, and
// answers the same permission when it is. Nobody is accused of telling two stories.
func TestRefusedWhileStale(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "fund-b")
	w.bubble(t, func(t *testing.T) {
		fund := w.node("fund-b")
		fund.source.set(id, yes)
		stale := func(yes bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			fund.stale = yes
		}
		stale(true)
		time.AfterFunc(3*again/2, func() { stale(false) }) // virtual
		r := w.consult(question(id, "T-1"))
		wantRecords(t, r, `[{"entitled":true}]`)
		if n := len(fund.inner.of(nodepb.Event_SECTOR_REFUSED)); n != 2 {
			t.Errorf("it refused %d times, want 2", n)
		}
		story, err := w.node("nic").manager.Trace(t.Context(), r.Ticket, w.node("nic").outer)
		w.must(err)
		if !story.Consistent {
			t.Errorf("the managing body's trace: %v", story.Findings)
		}
		story, err = fund.member.Trace(t.Context(), r.Ticket)
		w.must(err)
		if !story.Consistent {
			t.Errorf("the fund's trace: %v", story.Findings)
		}
	})
}

func (n *testNode) outer(ctx context.Context, t names.Ticket) (found []*nodepb.Entry, err error) {
	n.journal.mu.Lock()
	defer n.journal.mu.Unlock()
	for _, s := range n.journal.stored {
		if s.Entry.GetTicket() == string(t) {
			found = append(found, s.Entry)
		}
	}
	return found, nil
}

// TestChangedFund merges what two funds have, each about its own days.
func TestChangedFund(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "")
	w.affiliate(id, "fund-c", names.Period{From: names.Always, Until: 9499})
	w.affiliate(id, "fund-a", names.Period{From: 9500, Until: names.Forever})
	w.bubble(t, func(t *testing.T) {
		w.node("fund-a").source.set(id, no, yes)
		w.node("fund-c").source.set(id, yes)
		wantRecords(t, w.consult(question(id, "T-1")), `[{"entitled":true},{"entitled":false}]`)
		for fund, want := range map[string]names.Period{"fund-a": {From: 9500, Until: 10000}, "fund-c": {From: 9000, Until: 9499}} {
			if asked := w.node(fund).source.asked; len(asked) != 1 || asked[0].Period != want {
				t.Errorf("%s was asked for %+v", fund, asked)
			}
		}
		// One of two is not half an answer: it is none.
		w.node("fund-c").source.err = errors.New("disk")
		r := w.consult(question(id, "T-2"))
		if r.Status != nodepb.Status_NO_RESULT || r.Reason != registrypb.Reason_SECTOR_FAILED {
			t.Errorf("got %+v", r)
		}
	})
}

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

// TestFundRefuses attacks a fund as a managing body could that is dishonest, or a peer
// that is none.
func TestFundRefuses(t *testing.T) {
	w := newWorld(t)
	id, other := w.person(1, "fund-a"), w.person(2, "fund-a")
	w.bubble(t, func(t *testing.T) {
		fund, nic := w.node("fund-a"), w.node("nic")
		fund.source.set(id, yes)
		fund.source.set(other, yes)
		caught := w.captured(question(id, "T-1"))
		decoded := func() *nodepb.SectorPermission {
			p := new(nodepb.SectorPermission)
			if _, err := decode("application/vnd.crossroads.sector-permission.v1+protobuf", caught.GetPermission(), p); err != nil {
				t.Fatal(err)
			}
			p.Id = fresh(idSize)
			return p
		}
		forge := func(by string, change func(*nodepb.SectorPermission)) *nodepb.Forward {
			p := decoded()
			change(p)
			raw, _, err := newCore(Config{Signer: w.signers[by]}).sign("application/vnd.crossroads.sector-permission.v1+protobuf", p)
			w.must(err)
			return &nodepb.Forward{Permission: raw, Request: caught.GetRequest(), Clearance: caught.GetClearance()}
		}
		before := fund.source.fetched()
		for name, f := range map[string]*nodepb.Forward{
			"no permission":        {Request: caught.GetRequest(), Clearance: caught.GetClearance()},
			"signed by another":    forge("pcsa", func(*nodepb.SectorPermission) {}),
			"for another fund":     forge("nic", func(p *nodepb.SectorPermission) { p.Member = "fund-b" }),
			"for more fields":      forge("nic", func(p *nodepb.SectorPermission) { p.Fields = append(p.Fields, "ground") }),
			"for a longer period":  forge("nic", func(p *nodepb.SectorPermission) { p.Parts[0].Period.Until++ }),
			"for another quality":  forge("nic", func(p *nodepb.SectorPermission) { p.Parts[0].Qualities = []string{"incapacity"} }),
			"for ever":             forge("nic", func(p *nodepb.SectorPermission) { p.AnswerByUnixMs += 3600_000 }),
			"from the past":        forge("nic", func(p *nodepb.SectorPermission) { p.AnswerByUnixMs = 1 }),
			"of nobody":            forge("nic", func(p *nodepb.SectorPermission) { p.Parts = nil }),
			"without a clearance":  {Permission: forge("nic", func(*nodepb.SectorPermission) {}).Permission, Request: caught.GetRequest()},
			"with another request": {Permission: forge("nic", func(*nodepb.SectorPermission) {}).Permission, Request: caught.GetClearance(), Clearance: caught.GetClearance()},
			"uncleared": forge("nic", func(p *nodepb.SectorPermission) { // the clearance hash is right, the ticket is not its
				p.Ticket = string(names.TicketOf([]byte("x")))
			}),
		} {
			resp, err := fund.member.ServeForward(t.Context(), nic.id, f)
			var refused *exchange.Refusal
			if resp != nil || !errors.As(err, &refused) {
				t.Errorf("%s: %v, %v", name, resp, err)
			}
		}
		if _, err := fund.member.ServeForward(t.Context(), nid("pcsa"), caught); !errors.Is(err, ErrNotOfSector) {
			t.Errorf("a peer that is no managing body: %v", err)
		}
		if n := fund.source.fetched(); n != before {
			t.Errorf("the source was asked %d times", n-before)
		}
		if n := len(fund.inner.of(nodepb.Event_SECTOR_REFUSED)); n != 12 {
			t.Errorf("%d refusals are journaled, want 12", n)
		}
		// What fell away meanwhile.
		good := forge("nic", func(*nodepb.SectorPermission) {})
		w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "demo-pcsa"}}})
		var refused *exchange.Refusal
		if _, err := fund.member.ServeForward(t.Context(), nic.id, good); !errors.As(err, &refused) || refused.Reason != registrypb.Reason_REVOKED {
			t.Errorf("after a revocation: %v", err)
		}
	})
}

// captured gives what the managing body forwards for a question.
func (w *world) captured(q exchange.Question) *nodepb.Forward {
	w.t.Helper()
	w.consult(q)
	e := w.node("nic").inner.of(nodepb.Event_FORWARDED)
	last := e[len(e)-1]
	return &nodepb.Forward{Permission: last.GetEvidence()[0], Request: last.GetEvidence()[1], Clearance: last.GetEvidence()[2]}
}

// TestManagerChecksAnswers lets a fund lie.
func TestManagerChecksAnswers(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "fund-a")
	liar := w.node("fund-a")
	w.bubble(t, func(t *testing.T) {
		liar.source.set(id, yes)
		x := &resolution{Manager: w.node("nic").manager}
		for name, spoil := range map[string]func(*nodepb.ForwardResponse){
			"content":  func(r *nodepb.ForwardResponse) { r.Content = []byte(`[{"entitled":false}]`) },
			"field":    func(r *nodepb.ForwardResponse) { r.Content = []byte(`[{"entitled":true,"ground":"x"}]`) },
			"answer":   func(r *nodepb.ForwardResponse) { r.Answer[len(r.Answer)-1] ^= 1 },
			"blinding": func(r *nodepb.ForwardResponse) { r.Blinding = nil },
			"nothing":  func(r *nodepb.ForwardResponse) { *r = nodepb.ForwardResponse{} },
		} {
			caught := w.captured(question(id, "T-"+name))
			resp, err := liar.member.ServeForward(t.Context(), nid("nic"), caught)
			w.must(err)
			spoil(resp)
			r := &reply{permission: caught.GetPermission(), by: liar.id}
			r.route.Member = "fund-a"
			x.SectorCase.Checked = nil
			if _, _, err := x.verifyFor(r, resp, []names.FieldName{"entitled"}, ticketOf(caught)); err == nil {
				t.Errorf("%s: a lie stands", name)
			}
		}
	})
}

func ticketOf(f *nodepb.Forward) names.Ticket { return names.TicketOf(f.GetRequest()) }

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

// TestRevokedWhileHeld: a right that falls away while an answer waits for its class.
func TestRevokedWhileHeld(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "fund-a")
	w.bubble(t, func(t *testing.T) {
		w.node("fund-a").source.set(id, yes)
		go func() {
			time.Sleep(300 * time.Millisecond) // the answer is ready, and not yet out
			w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "demo-pcsa"}}})
		}()
		r := w.consult(question(id, "T-1"))
		if r.Status != nodepb.Status_NO_RESULT || r.Reason != registrypb.Reason_REVOKED {
			t.Errorf("got %+v", r)
		}
		synctest.Wait()
	})
}

// TestNoFundOutside looks for the id of any fund in everything that anybody outside
// holds: requester, supplier's own journal, clearing peers, and the directory.
func TestNoFundOutside(t *testing.T) {
	w := newWorld(t)
	var people []exchange.Question
	for i, fund := range []string{"fund-a", "fund-b", "fund-c", ""} {
		people = append(people, question(w.person(i, fund), fmt.Sprint("T-", i)))
	}
	w.bubble(t, func(t *testing.T) {
		w.node("fund-b").source.err = errors.New("no")
		for _, q := range people {
			w.consult(q)
		}
		seen := 0
		for id, n := range w.nodes {
			for _, s := range n.journal.stored {
				seen++
				text, err := protojson.Marshal(s.Entry)
				w.must(err)
				for _, f := range funds {
					if bytes.Contains(s.Raw, []byte(f)) || bytes.Contains(text, []byte(f)) {
						t.Errorf("%s: an entry %s names %s", id, s.Entry.GetEvent(), f)
					}
				}
			}
			if slices.Contains(funds, string(id.Institution)) && n.journal.size() > 0 {
				t.Errorf("%s has entries in the journal that is published", id)
			}
		}
		if seen < 16 {
			t.Fatalf("only %d entries were looked at", seen)
		}
		for i := range people {
			refs, err := record.NewView(&w.state).References(ssin(i))
			w.must(err)
			if len(refs) != 3 || slices.ContainsFunc(refs, func(r record.Reference) bool { return slices.Contains(funds, string(r.Institution)) }) {
				t.Errorf("the directory tells %+v", refs)
			}
		}
	})
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
