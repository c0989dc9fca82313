package testnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestSectorKilled kills the processes of the managing body and of the funds, again and
// again, while people of all funds are asked about. Whoever asks again under the same
// client ticket gets an answer as the lives say, or SECTOR_FAILED and nothing else;
// every trace within the sector is consistent afterwards, and nobody outside has read of
// a fund.
func TestSectorKilled(t *testing.T) {
	t.Parallel()
	o := processes(t)
	o.Persons, o.Also = 300, data.FundIDs()
	n := start(t, o)
	ctx := within(t)
	var questions []data.Consultation
	for p := range n.World().Persons() {
		c := data.Consultation{Requester: "fps-economy", Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1",
			Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: names.Period{From: data.Today - 1500, Until: data.Today}}
		if want := n.World().Expected(c, names.DateOf(time.Now().UTC())); len(want.Suppliers) > 0 && len(questions) < 24 {
			questions = append(questions, c)
		}
	}
	if len(questions) < 10 {
		t.Fatalf("only %d people to ask about", len(questions))
	}
	asking, stop := context.WithCancel(ctx)
	var killer sync.WaitGroup
	kills := 0
	killer.Go(func() {
		dice := rand.New(rand.NewPCG(7, 7))
		victims := append(data.FundIDs(), "nic", "nic")
		for asking.Err() == nil {
			victim := victims[dice.IntN(len(victims))]
			if err := n.KillNode(victim); err != nil {
				t.Error(err)
			}
			if err := n.StartNode(victim, nil); err != nil {
				t.Error(err)
			}
			kills++
			select {
			case <-time.After(time.Duration(1200+dice.IntN(2000)) * time.Millisecond):
			case <-asking.Done():
			}
		}
	})
	tickets := map[names.Ticket]string{}
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, c := range questions {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			want := n.World().Expected(c, names.DateOf(time.Now().UTC()))
			for attempt := 0; ctx.Err() == nil; attempt++ { // a refusal is final for its ticket
				got, err := persist(ctx, n, c, names.ClientTicket(fmt.Sprintf("kill-%d-%d", i, attempt)))
				if err != nil {
					t.Errorf("question %d: %v", i, err)
					return
				}
				mu.Lock()
				tickets[got.Ticket] = got.Status
				mu.Unlock()
				if got.Status == "NO_RESULT" {
					if !slices.Contains([]string{"SECTOR_FAILED", "SUPPLIER_UNAVAILABLE", "REGISTRY_STALE", "CLEARANCE_EXPIRED"}, got.Reason) {
						t.Errorf("question %d: %s", i, got.Reason)
					}
					continue
				}
				if differs := Differs(got, want); differs != "" {
					t.Errorf("question %d: %s", i, differs)
				}
				return
			}
		})
	}
	all.Wait()
	stop()
	killer.Wait()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	found, consistent := 0, 0
	for ticket, status := range tickets {
		story, err := n.Client("nic").SectorTrace(ctx, ticket)
		if err != nil {
			t.Fatal(err)
		}
		if len(story.Findings) > 0 {
			t.Errorf("ticket %s, %s: %v\n%s", ticket, status, story.Findings, story.Text)
		}
		if status == "DATA_FOUND" || status == "NO_DATA_FOUND" {
			found++
			if story.Consistent && strings.Contains(story.Text, "RESOLVED") {
				consistent++
			}
		}
		entries, err := n.Client("nic").JournalOf(ctx, ticket)
		if status == "NO_RESULT" && api.IsProblem(err, api.CodeNotFound) {
			continue // it never came so far
		}
		if err != nil {
			t.Fatal(err)
		}
		if text := encoded(t, entries); strings.Contains(text, "fund-") {
			t.Errorf("ticket %s: the journal outside names a fund", ticket)
		}
	}
	t.Logf("%d questions, %d tickets, %d kills: %d answered", len(questions), len(tickets), kills, found)
	if found != len(questions) || found != consistent || kills < 2 {
		t.Errorf("%d answered, of them %d with a whole story within, through %d kills", found, consistent, kills)
	}
}

// persist asks until the node has a result.
func persist(ctx context.Context, n *Network, c data.Consultation, ticket names.ClientTicket) (got api.Consultation, err error) {
	for {
		got, err = n.Client(c.Requester).Consult(ctx, Question(c, ticket))
		if err == nil || ctx.Err() != nil {
			return got, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
