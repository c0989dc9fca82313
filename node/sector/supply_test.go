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

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
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
