package sector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// lotShown is a chunk of a lot of pcsa's, cleared and ready to be presented to nic.
type lotShown struct {
	w         *world
	ticket    names.Ticket
	clearance *registrypb.ChunkClearance
	shown     *nodepb.ChunkPresentation
}

func (w *world) signedBy(who string, t envelope.Type, m proto.Message) []byte {
	w.t.Helper()
	payload, err := proto.Marshal(m)
	w.must(err)
	raw, err := envelope.Sign(t, payload, w.signers[who])
	w.must(err)
	return raw
}

// lot has alpha clear a lot about some subjects, as pcsa's node would.
func (w *world) lot(purpose string, ids ...subject.ID) *lotShown {
	w.t.Helper()
	var numbers []string
	for _, id := range ids {
		numbers = append(numbers, id.Number())
	}
	order := w.signedBy("pcsa", envelope.LotOrder, &registrypb.LotOrder{
		Mesh: string(mesh), Nonce: fresh(16), Requester: nodeRef(nid("pcsa")), ClientTicket: "L-1", User: "clerk-7", Application: "inquiry", AuthLevel: 3,
		Channel: "api", Purpose: purpose, Dataset: "reimbursement/v1", Period: protoPeriod(names.Period{From: 9000, Until: 10000}), Scheme: "ssin",
		TimeUnixMs: time.Now().UnixMilli(), Lines: uint64(len(ids)), LinesCommitment: fresh(32),
	})
	request := w.signedBy("pcsa", envelope.LotChunk, &registrypb.ChunkRequest{
		Mesh: string(mesh), Nonce: fresh(16), Order: order, Subjects: packed.Of("ssin", numbers), TimeUnixMs: time.Now().UnixMilli()})
	resp, err := w.node("alpha").decisions.Clear(context.Background(), nid("pcsa"), &registrypb.ClearChunkRequest{Request: request})
	w.must(err)
	if len(resp.Clearances) != 1 {
		w.t.Fatalf("%d clearances", len(resp.Clearances))
	}
	l := &lotShown{w: w, ticket: names.TicketOf(order), clearance: new(registrypb.ChunkClearance)}
	opened, err := envelope.Open(envelope.LotClearance, resp.Clearances[0])
	w.must(err)
	w.must(proto.Unmarshal(opened.Payload, l.clearance))
	l.shown = &nodepb.ChunkPresentation{Clearance: resp.Clearances[0], Demand: w.signedBy("pcsa", envelope.LotDemand, &registrypb.ChunkDemand{
		Mesh: string(mesh), Order: order, ClearanceHash: sum(resp.Clearances[0]), TimeUnixMs: time.Now().UnixMilli()})}
	return l
}

// present presents the chunk, and gives what was said of each number.
func (l *lotShown) present(ctx context.Context) (map[string]content.Item, *nodepb.ChunkResponse) {
	l.w.t.Helper()
	resp, err := l.w.node("nic").chunks(ctx, nid("pcsa"), proto.CloneOf(l.shown))
	if err != nil || resp.GetRefusal() != 0 {
		return nil, resp
	}
	var numbers []string
	for _, g := range l.clearance.Groups {
		for _, n := range packed.All(g.Subjects) {
			numbers = append(numbers, n)
		}
	}
	items, err := content.Read(resp.Content, len(numbers))
	l.w.must(err)
	by := map[string]content.Item{}
	for i, n := range numbers {
		by[n] = items[i]
	}
	return by, resp
}

// asOne is what a consultation says, in the words of a lot.
func asOne(r *exchange.Result, yesNo bool) string {
	if len(r.Suppliers) == 0 {
		return fmt.Sprintf("%s %s", r.Status, r.Reason)
	}
	s := r.Suppliers[0]
	if s.Status != nodepb.Status_DATA_FOUND {
		return fmt.Sprintf("%s %s", s.Status, s.Reason)
	}
	if yesNo {
		return fmt.Sprint("DATA_FOUND ", bytes.Contains(s.Records, []byte("true")))
	}
	return "DATA_FOUND " + string(s.Records)
}

func inLot(i content.Item) string {
	switch i.Code {
	case content.Yes, content.No:
		return fmt.Sprint("DATA_FOUND ", i.Code == content.Yes)
	case content.Records:
		return "DATA_FOUND " + string(i.Records)
	}
	s, r := fate(i)
	return fmt.Sprintf("%s %s", s, r)
}

// TestLotAsOneByOne draws people, their funds, changes of fund and what the funds' systems
// hold or fail with, and compares a lot with as many consultations.
func TestLotAsOneByOne(t *testing.T) {
	kinds := map[string]int{}
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t)
		w.submit(record.Committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: "demo-more", Deliberation: "DEMO-2024/2", LegalBasis: "DEMO law, article 1", RequesterType: "pcsa", RequesterQualities: []string{"living-wage"},
			Dataset: "reimbursement/v1", Fields: []string{"entitled", "ground"}, Purpose: "inspection", Modes: []string{"consultation", "batch"}, Period: protoPeriod(always)}}})
		var people []subject.ID
		for i := range 24 {
			id := w.person(i, "")
			people = append(people, id)
			fund := func() string { return funds[rng.IntN(len(funds))] }
			switch rng.IntN(5) {
			case 0: // in no institution's books
			case 1, 2:
				w.affiliate(id, fund(), always)
			case 3: // changed, perhaps to where they were
				cut := names.Date(9000 + rng.IntN(1000))
				w.affiliate(id, fund(), names.Period{From: names.Always, Until: cut})
				w.affiliate(id, fund(), names.Period{From: cut + 1, Until: names.Forever})
			case 4: // a part of the days only
				w.affiliate(id, fund(), names.Period{From: 9100, Until: 9200})
			}
		}
		w.bubble(t, func(t *testing.T) {
			for _, f := range funds {
				s := w.node(f).source
				s.failing = map[subject.ID]bool{}
				for _, id := range people {
					switch rng.IntN(6) {
					case 0:
					case 1:
						s.set(id, yes)
					case 2:
						s.set(id, no)
					case 3:
						s.set(id, no, yes)
					case 4:
						s.set(id, `{"entitled":"perhaps","ground":"x"}`)
					case 5:
						s.failing[id] = true
					}
				}
			}
			if seed%2 == 1 {
				w.dead(funds[rng.IntN(3)])
			}
			for _, purpose := range []string{"social-inquiry", "inspection"} {
				got, resp := w.lot(purpose, people...).present(t.Context())
				if got == nil {
					t.Fatalf("refused: %v", resp.GetRefusal())
				}
				for i, id := range people {
					q := question(id, fmt.Sprint("T-", purpose, i))
					q.Purpose = names.Purpose(purpose)
					want := asOne(w.consult(q), purpose == "social-inquiry")
					if have := inLot(got[id.Number()]); have != want {
						t.Errorf("seed %d, person %d, %s: the lot says %s, a consultation %s", seed, i, purpose, have, want)
					}
					kinds[want]++
				}
			}
		})
	}
	if len(kinds) < 7 {
		t.Errorf("only these came: %v", kinds)
	}
}

// dead has a fund hear nothing.
func (w *world) dead(fund string) {
	w.disturbing(func(_ context.Context, _ string, _, to names.NodeID, _ bool) error {
		if string(to.Institution) == fund {
			return errLost
		}
		return nil
	})
}

// TestLotLooksAlike: whoever's subjects a chunk is about, and whether their funds live, it
// leaves at the same instant, in one size class, and no fund stands anywhere outside.
func TestLotLooksAlike(t *testing.T) {
	w := newWorld(t)
	var of [3][]subject.ID
	for i := range 12 {
		of[i%3] = append(of[i%3], w.person(i, funds[i%3]))
	}
	nobody := w.person(50, "")
	w.bubble(t, func(t *testing.T) {
		for i, f := range funds {
			s := w.node(f).source
			for _, id := range of[i] {
				s.set(id, yes)
			}
			s.delay = time.Duration(i) * 400 * time.Millisecond
		}
		w.dead("fund-c")
		for name, ids := range map[string][]subject.ID{
			"quick": of[0], "slow": of[1], "dead": of[2], "mixed": slices.Concat(of[0], of[2]), "nobody": {nobody},
		} {
			l := w.lot("social-inquiry", ids...)
			arrived := time.Now()
			got, resp := l.present(t.Context())
			if after := time.Since(arrived); after != 3*time.Second {
				t.Errorf("%s: it left after %v", name, after)
			}
			if size := proto.Size(resp); size != 4096 {
				t.Errorf("%s: of %d bytes", name, size)
			}
			for _, id := range ids {
				want := "DATA_FOUND true"
				if slices.Contains(of[2], id) || id == nobody {
					want = "NO_RESULT SECTOR_FAILED"
				}
				if have := inLot(got[id.Number()]); have != want {
					t.Errorf("%s: %s, want %s", name, have, want)
				}
			}
			if raw, _ := proto.Marshal(resp); bytes.Contains(raw, []byte("fund-")) {
				t.Errorf("%s: the answer names a fund", name)
			}
			for id, n := range w.nodes {
				for _, s := range n.journal.stored {
					text, err := protojson.Marshal(s.Entry)
					w.must(err)
					if bytes.Contains(s.Raw, []byte("fund-")) || bytes.Contains(text, []byte("fund-")) {
						t.Errorf("%s: an entry %s names a fund", id, s.Entry.GetEvent())
					}
				}
				if slices.Contains(funds, string(id.Institution)) && n.journal.size() > 0 {
					t.Errorf("%s has entries in the journal that is published", id)
				}
			}
			// The sector itself knows, and its segments agree.
			story, err := w.node("nic").manager.Trace(t.Context(), l.ticket, w.node("nic").outer)
			w.must(err)
			silent := func(f string) bool { return !strings.Contains(f, "cannot be reached") }
			if slices.ContainsFunc(story.Findings, silent) || len(story.Entries) < 1 {
				t.Errorf("%s: trace %+v", name, story.Findings)
			}
		}
		if n := w.node("nic").journal.of(nodepb.Event_SUPPLIED); len(n) != 5 || len(n[0].GetSectorSeal()) != 32 {
			t.Errorf("%d entries outside", len(n))
		}
	})
}

// TestLotShares: each fund is shown its own subjects and nothing of the others', and each
// subject sees its own part of the chunk and nothing of the others'.
func TestLotShares(t *testing.T) {
	w := newWorld(t)
	var people []subject.ID
	for i := range 9 {
		people = append(people, w.person(i, funds[i%3]))
	}
	w.bubble(t, func(t *testing.T) {
		l := w.lot("social-inquiry", people...)
		var asked []*nodepb.ForwardLot
		w.sees(func(f *nodepb.ForwardLot) { asked = append(asked, f) })
		if got, resp := l.present(t.Context()); got == nil {
			t.Fatal(resp)
		}
		if len(asked) != 3 {
			t.Fatalf("%d messages to three funds", len(asked))
		}
		for _, f := range asked {
			p := new(nodepb.SectorLotPermission)
			_, err := decode(envelope.SectorLotPermission, f.GetPermission(), p)
			w.must(err)
			raw, err := proto.Marshal(f)
			w.must(err)
			own := numbersOf(p.GetSubjects())
			if len(own) != 3 {
				t.Errorf("%s is asked about %d", p.GetMember(), len(own))
			}
			for i, id := range people {
				its := funds[i%3] == p.GetMember()
				if slices.Contains(own, id.Number()) != its {
					t.Errorf("%s is asked about %d", p.GetMember(), i)
				}
				if bytes.Contains(raw, packed.Of("ssin", []string{id.Number()}).Numbers) != its || bytes.Contains(raw, []byte(id.Number())) {
					t.Errorf("%s is shown person %d", p.GetMember(), i)
				}
			}
		}
		desk := &Desk{Manager: w.node("nic").manager}
		for i, id := range people {
			v, err := desk.SubjectView(t.Context(), By{Application: "portal"}, id, time.Time{}, time.Time{})
			w.must(err)
			events := map[nodepb.Event]int{}
			for _, e := range v.Entries {
				events[e.GetEvent()]++
				text, err := protojson.Marshal(e)
				w.must(err)
				for _, other := range people {
					if strings.Contains(string(text), other.Number()) != (other == id) || e.GetLot() != nil {
						t.Fatalf("person %d sees %s", i, text)
					}
				}
				if m := e.GetMember(); m != "" && m != funds[i%3] {
					t.Errorf("person %d sees %s", i, m)
				}
			}
			if events[nodepb.Event_FORWARDED] != 1 || events[nodepb.Event_SECTOR_ANSWERED] != 1 || events[nodepb.Event_RESOLVED] != 1 {
				t.Errorf("person %d sees %v", i, events)
			}
		}
		story, err := w.node("nic").manager.Trace(t.Context(), l.ticket, w.node("nic").outer)
		w.must(err)
		if !story.Consistent || len(story.Entries) != 10 {
			t.Errorf("trace: %d entries, %v", len(story.Entries), story.Findings)
		}
		story, err = w.node("fund-b").member.Trace(t.Context(), l.ticket)
		w.must(err)
		if !story.Consistent || len(story.Entries) != 3 {
			t.Errorf("the fund's trace: %d entries, %v", len(story.Entries), story.Findings)
		}
	})
}

// TestLotCrash: the managing body or the fund dies at every step between forwarding and
// answering, and the same clearance is presented again. No source is asked twice about
// anybody, and a permission that was sent again brings the same bytes.
func TestLotCrash(t *testing.T) {
	for _, event := range []nodepb.Event{nodepb.Event_FORWARDED, nodepb.Event_SECTOR_ANSWERED, nodepb.Event_RESOLVED, nodepb.Event_SUPPLIED} {
		for _, after := range []bool{false, true} {
			w := newWorld(t)
			people := []subject.ID{w.person(1, "fund-a"), w.person(2, "fund-a"), w.person(3, "fund-b")}
			w.bubble(t, func(t *testing.T) {
				for i, id := range people {
					w.node(funds[i/2]).source.set(id, yes)
				}
				var asked [][]byte
				w.sees(func(f *nodepb.ForwardLot) { asked = append(asked, f.GetPermission()) })
				nic := w.node("nic")
				crash := func(e *nodepb.Entry) (bool, error) {
					if e.GetEvent() == event {
						return after, errors.New("power loss")
					}
					return false, nil
				}
				nic.inner.fail, nic.journal.fail = crash, crash
				l := w.lot("social-inquiry", people...)
				gone, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // nobody waits for a dead node
				defer cancel()
				if got, _ := l.present(gone); got != nil {
					t.Fatalf("answered without %s", event)
				}
				nic.inner.fail, nic.journal.fail = nil, nil
				nic.boot("")
				got, first := l.present(t.Context())
				for _, id := range people {
					if have := inLot(got[id.Number()]); have != "DATA_FOUND true" {
						t.Errorf("%s: %s", event, have)
					}
				}
				if _, again := l.presentSoon(); !bytes.Equal(again.GetContent(), first.GetContent()) || !bytes.Equal(again.GetAnswer(), first.GetAnswer()) {
					t.Errorf("%s: it was answered twice", event)
				}
				if a, b := w.node("fund-a").source.fetched(), w.node("fund-b").source.fetched(); a != 2 || b != 1 {
					t.Errorf("%s: sources were asked %d and %d times", event, a, b)
				}
				different := map[string]bool{}
				for _, p := range asked {
					different[string(p)] = true
				}
				if len(different) != 2 {
					t.Errorf("%s: %d permissions left", event, len(different))
				}
				if n := len(nic.journal.of(nodepb.Event_SUPPLIED)); n != 1 && !(event == nodepb.Event_SUPPLIED && n == 2) {
					t.Errorf("%s: SUPPLIED stands %d times", event, n)
				}
			})
		}
	}
}

// presentSoon presents again before the clearance ends.
func (l *lotShown) presentSoon() (map[string]content.Item, *nodepb.ChunkResponse) {
	return l.present(context.Background())
}

// sees has fn see each share of a chunk that sets out.
func (w *world) sees(fn func(*nodepb.ForwardLot)) {
	w.netMu.Lock()
	defer w.netMu.Unlock()
	w.shares = fn
}

// TestFundRefusesShare attacks a fund as a managing body could that is dishonest.
func TestFundRefusesShare(t *testing.T) {
	w := newWorld(t)
	ids := []subject.ID{w.person(1, "fund-a"), w.person(2, "fund-a"), w.person(3, "fund-b")}
	uncleared := w.person(4, "fund-a")
	w.bubble(t, func(t *testing.T) {
		fund, nic := w.node("fund-a"), w.node("nic")
		var good *nodepb.ForwardLot
		w.sees(func(f *nodepb.ForwardLot) {
			if p := new(nodepb.SectorLotPermission); good == nil {
				if _, err := decode(envelope.SectorLotPermission, f.GetPermission(), p); err == nil && p.GetMember() == "fund-a" {
					good = f
				}
			}
		})
		l := w.lot("social-inquiry", ids...)
		other := w.lot("social-inquiry", uncleared)
		gone, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		l.present(gone)
		forge := func(by string, change func(*nodepb.SectorLotPermission, *nodepb.ForwardLot)) *nodepb.ForwardLot {
			p, f := new(nodepb.SectorLotPermission), proto.CloneOf(good)
			_, err := decode(envelope.SectorLotPermission, good.GetPermission(), p)
			w.must(err)
			p.Id = fresh(idSize)
			change(p, f)
			f.Permission = w.signedBy(by, envelope.SectorLotPermission, p)
			return f
		}
		nothing := func(*nodepb.SectorLotPermission, *nodepb.ForwardLot) {}
		before, refusals := fund.source.fetched(), 0
		for name, f := range map[string]*nodepb.ForwardLot{
			"no permission":     {Demand: good.Demand, Outline: good.Outline},
			"signed by another": forge("pcsa", nothing),
			"for another fund":  forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) { p.Member = "fund-b" }),
			"somebody uncleared": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) {
				p.Subjects = packed.Of("ssin", []string{ids[0].Number(), uncleared.Number()})
			}),
			"somebody of another's place": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) {
				p.Places = []uint32{0, 2}
			}),
			"somebody twice": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) {
				p.Subjects, p.Places = packed.Of("ssin", []string{ids[0].Number(), ids[0].Number()}), []uint32{0, 0}
				p.Blindings = append(p.Blindings[:chunk.BlindingSize:chunk.BlindingSize], p.Blindings[:chunk.BlindingSize]...)
			}),
			"a place beyond": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) { p.Places = []uint32{0, 1 << 31} }),
			"a longer period": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) {
				p.Routes = []*nodepb.SectorLotRoute{{Parts: []*nodepb.SectorPart{{Subject: protoSubject(ids[0]), Period: protoPeriod(names.Period{From: 9000, Until: 10001}), Qualities: []string{"insured"}}}}}
			}),
			"another quality": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) {
				p.Routes = []*nodepb.SectorLotRoute{{Parts: []*nodepb.SectorPart{{Subject: protoSubject(ids[0]), Period: protoPeriod(names.Period{From: 9000, Until: 9001}), Qualities: []string{"incapacity"}}}}}
			}),
			"for ever":    forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) { p.AnswerByUnixMs += 3600_000 }),
			"of the past": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) { p.AnswerByUnixMs = 1 }),
			"of nobody": forge("nic", func(p *nodepb.SectorLotPermission, _ *nodepb.ForwardLot) {
				p.Subjects, p.Places, p.Blindings = nil, nil, nil
			}),
			"another demand": forge("nic", func(_ *nodepb.SectorLotPermission, f *nodepb.ForwardLot) { f.Demand = other.shown.Demand }),
			"another outline": forge("nic", func(p *nodepb.SectorLotPermission, f *nodepb.ForwardLot) {
				f.Outline = other.clearance.Outline
				p.OutlineHash = sum(f.Outline)
			}),
			"an outline of its own": forge("nic", func(p *nodepb.SectorLotPermission, f *nodepb.ForwardLot) {
				o := new(registrypb.ChunkClearance)
				opened, err := envelope.Open(envelope.LotOutline, good.Outline)
				w.must(err)
				w.must(proto.Unmarshal(opened.Payload, o))
				f.Outline = w.signedBy("nic", envelope.LotOutline, o)
				p.OutlineHash = sum(f.Outline)
			}),
		} {
			resp, err := fund.member.ServeForwardLot(t.Context(), nic.id, f)
			var refused *exchange.Refusal
			if resp != nil || !errors.As(err, &refused) {
				t.Errorf("%s: %v, %v", name, resp, err)
			}
			refusals++
		}
		if _, err := fund.member.ServeForwardLot(t.Context(), nid("pcsa"), good); !errors.Is(err, ErrNotOfSector) {
			t.Errorf("a peer that is no managing body: %v", err)
		}
		if n := len(fund.inner.of(nodepb.Event_SECTOR_REFUSED)); n != refusals {
			t.Errorf("%d refusals are journaled, want %d", n, refusals)
		}
		if resp, err := fund.member.ServeForwardLot(t.Context(), nic.id, forge("nic", nothing)); err != nil || resp == nil {
			t.Errorf("what is in order: %v", err)
		}
		if n := fund.source.fetched(); n != before {
			t.Errorf("the source was asked %d times more", n-before)
		}
	})
}
