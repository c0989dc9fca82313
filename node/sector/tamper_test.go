package sector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestTampered changes the sector's journals as their owners could, who make the
// commitments anew: whatever is taken away or altered is found, and an honest story is
// never accused.
func TestTampered(t *testing.T) {
	w := newWorld(t)
	id := w.person(1, "")
	w.affiliate(id, "fund-a", names.Period{From: names.Always, Until: 9500})
	w.affiliate(id, "fund-b", names.Period{From: 9501, Until: names.Forever})
	mine := w.person(2, "fund-c")
	w.bubble(t, func(t *testing.T) {
		for _, f := range funds {
			w.node(f).source.set(id, yes)
		}
		w.node("nsso").source.set(mine, yes)
		nic := w.node("nic")
		supplied := w.consult(question(id, "T-1")).Ticket
		asked, err := w.node("fund-c").asker.Consult(t.Context(), check(mine, "T-2"))
		w.must(err)
		told := names.TicketOf([]byte("a notification"))
		w.must(nic.manager.Deliver(t.Context(), Notification{ID: "n-1", Ticket: told, Publisher: "nsso", Purpose: "insurability", Dataset: "wages/v1", Subject: mine, Period: always, Content: []byte(`{}`)}))
		dice := rand.New(rand.NewPCG(1, 2))
		tried := 0
		for _, ticket := range []names.Ticket{supplied, asked.Ticket, told} {
			findings := func() []string {
				story, err := nic.manager.Trace(t.Context(), ticket, nic.outer)
				w.must(err)
				return story.Findings
			}
			if f := findings(); len(f) > 0 {
				t.Fatalf("honest, and accused: %v", f)
			}
			for _, n := range w.nodes {
				for i, s := range n.inner.stored {
					if s.Entry.GetTicket() != string(ticket) {
						continue
					}
					for name, change := range tamperings(s.Entry, dice) {
						tried++
						n.inner.stored[i] = change
						if len(findings()) == 0 {
							t.Errorf("%s: %s %s is not found", n.id, s.Entry.GetEvent(), name)
						}
						n.inner.stored[i] = s
					}
				}
			}
			if f := findings(); len(f) > 0 {
				t.Fatalf("put right, and accused: %v", f)
			}
		}
		t.Logf("%d tamperings", tried)
		if tried < 80 {
			t.Errorf("only %d tamperings were tried", tried)
		}
	})
}

// tamperings gives an entry altered in each field that tells something, or gone.
func tamperings(e *nodepb.Entry, dice *rand.Rand) map[string]journal.Stored {
	all := map[string]journal.Stored{}
	alter := func(name string, change func(*nodepb.Entry)) {
		c := proto.CloneOf(e)
		change(c)
		raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		s := journal.Stored{Entry: c, Raw: raw}
		s.Commitment = journal.EntryCommitment(s.Salt, raw)
		all[name] = s
	}
	twice := []nodepb.Event{nodepb.Event_DELIVERED_INSIDE} // stands twice at the managing body: the second says all that the first does
	one := []nodepb.Event{nodepb.Event_TOLD_INSIDE}        // who was told may not have heard it: its entry may be missing
	if !slices.Contains(twice, e.GetEvent()) && !slices.Contains(one, e.GetEvent()) {
		alter("gone", func(c *nodepb.Entry) { c.Ticket = fmt.Sprint("elsewhere", dice.Uint64()) })
	}
	alter("with another institution", func(c *nodepb.Entry) { c.Member = "fund-x" })
	alter("of another user", func(c *nodepb.Entry) { c.User = "somebody" })
	alter("for another purpose", func(c *nodepb.Entry) { c.Purpose = "curiosity" })
	alter("of another dataset", func(c *nodepb.Entry) { c.Dataset = "other/v1" })
	alter("of another requester", func(c *nodepb.Entry) { c.Requester = &registrypb.NodeRef{Institution: "pcsa-x"} })
	if len(e.GetEvidence()) > 0 {
		alter("with other evidence", func(c *nodepb.Entry) { c.Evidence[0][len(c.Evidence[0])/2] ^= 1 })
	}
	if len(e.GetAnswerCommitment()) > 0 && len(e.GetEvidence()) > 1 {
		alter("of another answer", func(c *nodepb.Entry) { c.AnswerCommitment[3] ^= 1 })
	}
	return all
}
