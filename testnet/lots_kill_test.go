package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// lotVictims are killed in turn while a lot runs: who asks, who is asked, and every node
// that may decide.
var lotVictims = []names.InstitutionID{"fps-economy", "nic", "national-register", "neo", "fpd", "nic", "fps-economy"}

// TestLotKilled kills the processes of consultant, clearing peers and supplier with
// SIGKILL while a lot runs. The lot ends by itself; every line has what the lives say; no
// node has a second account of a subject; and the supplier's own system is asked twice of
// those subjects alone whose answer a kill took before it was kept.
func TestLotKilled(t *testing.T) {
	t.Parallel()
	const chunk, atOnce = 16, 2
	o := processes(t)
	o.Persons, o.Dir = 6000, filepath.Join(t.TempDir(), "net")
	o.Configure = func(_ names.InstitutionID, c *config.Config) { c.Lots.ChunkLines, c.Lots.AtOnce = chunk, atOnce }
	n := start(t, o)
	ctx := within(t)
	var mu sync.Mutex
	fetched := map[string]int{}
	n.systems.Watch(func(_ names.InstitutionID, _ names.DatasetID, id subject.ID) {
		mu.Lock()
		fetched[id.Number()]++
		mu.Unlock()
		time.Sleep(250 * time.Millisecond) // a slow system, so that kills find chunks that wait for it
	})
	var in strings.Builder
	in.WriteString("number\n")
	var people []*data.Person
	period := names.Period{From: data.Today - 364, Until: data.Today}
	others := 0
	for p := range n.World().Persons() {
		if want := energyTariff(n, p, period); len(want.Suppliers) == 0 {
			if others++; others > 100 {
				continue
			}
		}
		people = append(people, p)
		fmt.Fprintln(&in, p.SSIN.Number())
	}
	c := n.Client("fps-economy")
	l, err := c.SubmitLot(ctx, api.LotRequest{Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1", Period: period}, strings.NewReader(in.String()))
	if err != nil {
		t.Fatal(err)
	}
	kills := map[names.InstitutionID]int{}
	for i := 0; l.Ended == nil; {
		if i < len(lotVictims) && l.Done >= uint64((i+1)*len(people)/(len(lotVictims)+2)) {
			victim := lotVictims[i]
			if err := n.KillNode(victim); err != nil {
				t.Fatal(err)
			}
			if err := n.StartNode(victim, nil); err != nil {
				t.Fatal(err)
			}
			if err := n.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			kills[victim]++
			i++
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("does not end: %+v", l)
		}
		if l, err = c.Lot(ctx, l.Voucher); err != nil {
			t.Fatal(err)
		}
	}
	if len(kills) < 3 || kills["nic"] == 0 || kills["fps-economy"] == 0 {
		t.Errorf("the lot ended after %v kills", kills)
	}
	took := l.Ended.Sub(l.Submitted)
	var out bytes.Buffer
	if err := c.LotResults(ctx, l.Voucher, "jsonl", &out); err != nil {
		t.Fatal(err)
	}
	wantLines(t, n, people, &out, period)
	story, err := c.Trace(ctx, l.Voucher)
	if err != nil {
		t.Fatal(err)
	}
	if story.Verdict != trace.Consistent || story.Lot == nil || story.Lot.Asked != len(people) {
		t.Errorf("the trace is %s: %s %+v", story.Verdict, story.Summary, story.Findings)
	}
	twice := 0
	mu.Lock()
	for _, times := range fetched {
		if times > 1+kills["nic"]+kills["fps-economy"] {
			t.Errorf("the source was asked %d times about one subject", times)
		}
		if times > 1 {
			twice++
		}
	}
	asked := len(fetched)
	mu.Unlock()
	// A kill of the supplier, or of who waits for it, takes at most the chunks under way.
	if most := (kills["nic"] + kills["fps-economy"]) * atOnce * chunk; asked == 0 || twice > most {
		t.Errorf("of %d subjects %d were asked about again, want at most %d", asked, twice, most)
	}
	for id := range n.nodes {
		if err := n.StopNode(id); err != nil {
			t.Error(err)
		}
	}
	accounts := lotAccounts(ctx, t, n, l.Voucher)
	for _, e := range []nodepb.Event{nodepb.Event_REQUESTED, nodepb.Event_DECIDED, nodepb.Event_SUPPLIED, nodepb.Event_ANSWERED} {
		more, of := 0, map[string]bool{}
		for a, times := range accounts {
			if a.event != e {
				continue
			}
			of[a.number] = true
			if times > 1 {
				more++
			}
		}
		t.Logf("%s: %d subjects, %d more than once", e, len(of), more)
		if more > 0 {
			t.Errorf("%s stands more than once in one journal for %d subjects", e, more)
		}
		if e == nodepb.Event_REQUESTED && len(of) < len(people) || e == nodepb.Event_SUPPLIED && len(of) != asked {
			t.Errorf("%s: %d subjects of %d, of whom the source was asked about %d", e, len(of), len(people), asked)
		}
	}
	t.Logf("%d lines through %v kills in %s; %d subjects asked of the source, %d of them again", len(people), kills, took.Round(time.Millisecond), asked, twice)
}

// energyTariff is what the lives say of one line.
func energyTariff(n *Network, p *data.Person, period names.Period) data.Answer {
	return n.World().Expected(data.Consultation{
		Requester: "fps-economy", Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1", Scheme: subject.SSIN,
		Number: p.SSIN.Number(), Period: period,
	}, names.DateOf(time.Now().UTC()))
}

// wantLines wants every line of a lot of yes and no to be what the lives say.
func wantLines(t *testing.T, n *Network, people []*data.Person, out *bytes.Buffer, period names.Period) {
	t.Helper()
	i := 0
	for s := bufio.NewScanner(out); s.Scan(); i++ {
		var got batch.ResultJSON
		if err := json.Unmarshal(s.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := energyTariff(n, people[i], period)
		reason := ""
		if want.Reason != 0 {
			reason = want.Reason.String()
		}
		yes := false
		for _, s := range want.Suppliers {
			for _, r := range s.Records {
				yes = yes || strings.Contains(string(r), "true")
			}
		}
		if got.Status != want.Status.String() || got.Reason != reason || yes != (got.Answer == "yes") {
			t.Errorf("line %d: %s, want %s %s, yes %v", i+1, s.Bytes(), want.Status, reason, yes)
		}
	}
	if i != len(people) {
		t.Errorf("%d results of %d", i, len(people))
	}
}

// account is one subject in one journal.
type account struct {
	at     names.InstitutionID
	event  nodepb.Event
	number string
}

// lotAccounts counts, in the files of all journals, how often each subject of a lot
// stands under each event. A decision that could not be presented in time does not count:
// another one stands for it. The requester's journal says so, or, where the reply was lost
// with a process, the clearing peer's own: it decided the same request anew, and only when
// nothing that it had cleared could be presented any more.
func lotAccounts(ctx context.Context, t *testing.T, n *Network, voucher names.Ticket) map[account]int {
	t.Helper()
	all := map[account]int{}
	expired := map[string]bool{}
	var decided []*nodepb.Entry
	eachEntry(ctx, t, n, func(at names.InstitutionID, e *nodepb.Entry) {
		if e.Ticket != string(voucher) {
			return
		}
		switch e.Event {
		case nodepb.Event_EXPIRED_UNUSED:
			expired[string(e.ClearanceId)] = true
		case nodepb.Event_DECIDED:
			decided = append(decided, e)
		}
		for _, g := range e.GetLot().GetGroups() {
			for _, number := range packed.All(g.Subjects) {
				all[account{at, e.Event, number}]++
			}
		}
	})
	for _, e := range decided {
		if len(e.ClearanceId) > 0 && expired[string(e.ClearanceId)] || lost(e, decided) {
			for _, g := range e.GetLot().GetGroups() {
				for _, number := range packed.All(g.Subjects) {
					all[account{names.InstitutionID(e.Clearer.GetInstitution()), e.Event, number}]--
				}
			}
		}
	}
	return all
}

// lost tells whether a decision's clearances had ended when its peer next decided the same
// request: as batch's TestDecisionLostWithItsReply has it, it gives the same one again until
// then, and makes another only later.
func lost(e *nodepb.Entry, decided []*nodepb.Entry) bool {
	next, presentBy := int64(math.MaxInt64), int64(0)
	for _, o := range decided {
		switch {
		case !proto.Equal(o.Clearer, e.Clearer) || !bytes.Equal(o.RequestHash, e.RequestHash):
		case o.TimeUnixMs == e.TimeUnixMs:
			presentBy = max(presentBy, o.PresentByUnixMs)
		case o.TimeUnixMs > e.TimeUnixMs:
			next = min(next, o.TimeUnixMs)
		}
	}
	return presentBy > 0 && next < math.MaxInt64 && next >= presentBy
}
