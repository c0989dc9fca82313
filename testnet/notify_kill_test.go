package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestNoticesKilled publishes changes while the processes of publisher, clearing peers and
// recipients are killed and started again, and while a recipient is cut off: its process
// stands still, with calls under way, and the publisher is killed meanwhile; then it goes
// on where it was, or is killed too. Then every recipient has, in its inbox, what the
// lives say, each once and in order for each subject, and the traces are consistent.
// CROSSROADS_NOTICES sets how many changes are published; 120 otherwise. With more, some
// are cut off for longer than any call lasts.
func TestNoticesKilled(t *testing.T) {
	t.Parallel()
	const register = "national-register"
	total := 120
	if n, err := strconv.Atoi(os.Getenv("CROSSROADS_NOTICES")); err == nil {
		total = n
	}
	o := processes(t)
	o.Persons = 300
	n := start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), patience+time.Duration(max(0, total-120))*3*time.Second)
	defer cancel()
	about := names.Period{From: data.Today, Until: names.Forever}
	today := names.DateOf(time.Now().UTC())
	var people []*data.Person
	want := map[string][]names.InstitutionID{} // by number
	for p := range n.World().Persons() {
		told := n.World().Told(p, register, "person-address/v1", about, []names.FieldName{"street", "municipality"}, today)
		if p.Former == nil && p.Death == names.Forever && !p.Bis && len(told) > 0 && len(people) < 12 {
			people = append(people, p)
			for _, x := range told {
				want[p.SSIN.Number()] = append(want[p.SSIN.Number()], x.Institution)
			}
		}
	}
	killing, stop := context.WithCancel(ctx)
	defer stop()
	var killer sync.WaitGroup
	kills, cuts, down := 0, 0, make(chan struct{})
	goOn := func() {
		select {
		case down <- struct{}{}: // changes go on meanwhile
		case <-killing.Done():
		}
	}
	var far []names.InstitutionID // recipients without which the registry goes on
	for _, e := range n.Endpoints().Nodes {
		if e.Role != "member" && slices.ContainsFunc(people, func(p *data.Person) bool { return slices.Contains(want[p.SSIN.Number()], e.Institution) }) {
			far = append(far, e.Institution)
		}
	}
	if len(far) == 0 {
		t.Fatal("every recipient is a registry member")
	}
	// cut has a recipient's process stand still while the publisher's is killed.
	cut := func(dice *rand.Rand, victim names.InstitutionID) error {
		at, _ := n.Endpoints().Of(victim)
		if err := syscall.Kill(at.PID, syscall.SIGSTOP); err != nil {
			return err
		}
		goOn()
		if total > 120 && dice.IntN(3) == 0 {
			select {
			case <-time.After(12 * time.Second): // longer than a call lasts
			case <-killing.Done():
			}
		}
		err := errors.Join(n.KillNode(register), n.StartNode(register, nil))
		goOn()
		if dice.IntN(2) == 0 {
			return errors.Join(err, n.KillNode(victim), n.StartNode(victim, nil))
		}
		return errors.Join(err, syscall.Kill(at.PID, syscall.SIGCONT))
	}
	killer.Go(func() {
		dice := rand.New(rand.NewPCG(3, 3))
		for killing.Err() == nil {
			if (kills+cuts)%3 == 2 {
				if err := cut(dice, far[cuts%len(far)]); err != nil {
					t.Error(err)
				}
				cuts++
				continue
			}
			victim := n.layout.sites[dice.IntN(len(n.layout.sites))].ID
			if dice.IntN(3) == 0 {
				victim = register
			}
			err := n.KillNode(victim)
			kills++
			if victim != register { // without which no change goes on
				goOn()
			}
			if err := errors.Join(err, n.StartNode(victim, nil)); err != nil {
				t.Error(err)
			}
			select {
			case <-time.After(time.Duration(300+dice.IntN(600)) * time.Millisecond):
			case <-killing.Done():
			}
		}
	})
	place := map[names.Ticket]int{}                             // of a change
	expected := map[names.InstitutionID]map[names.Ticket]bool{} // who is to be told of which
	for i := range total {
		if i%15 == 7 {
			select {
			case <-down:
			case <-ctx.Done():
				t.Fatal("nobody was killed")
			}
		}
		p := people[i%len(people)]
		req := api.PublicationRequest{ClientTicket: names.ClientTicket(fmt.Sprintf("moved-%d", i)), Dataset: "person-address/v1", Period: &about,
			Subject: api.Subject{Scheme: string(subject.SSIN), Number: p.SSIN.Number()},
			Record:  json.RawMessage(fmt.Sprintf(`{"street":"Street %d","house_number":"7","postal_code":"9000","municipality":"Ghent","start_date":"2026-01-01","end_date":null}`, i))}
		for {
			done, err := n.Client(register).Publish(ctx, req)
			if err == nil && done.Status == "ACCEPTED" {
				place[done.Ticket] = i
				for _, r := range want[p.SSIN.Number()] {
					if expected[r] == nil {
						expected[r] = map[names.Ticket]bool{}
					}
					expected[r][done.Ticket] = true
				}
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("change %d: %+v, %v", i, done, err)
			}
			time.Sleep(20 * time.Millisecond) // the node is on its way up
		}
	}
	stop()
	killer.Wait()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	told := 0
	for r, due := range expected {
		last := map[string]int{}
		for got := 0; got < len(due); {
			items, err := n.Client(r).TakeInbox(ctx, api.InboxQuery{Max: 100})
			if err != nil {
				t.Fatalf("%s has %d of %d: %v", r, got, len(due), err)
			}
			for _, i := range items.Items {
				at, known := place[i.Ticket]
				if before, any := last[i.Subject.Number]; !known || !due[i.Ticket] || any && before >= at {
					t.Errorf("%s was told of change %d after %d (known: %v)", r, at, before, known)
				}
				last[i.Subject.Number] = at
				got++
				if err := n.Client(r).AcknowledgeInbox(ctx, api.InboxReceipt{ID: i.ID, Lease: i.Lease}); err != nil {
					t.Fatal(err)
				}
			}
		}
		told += len(due)
		if st, err := n.Client(r).InboxState(ctx); err != nil || st.Waiting != 0 {
			t.Errorf("%s: %+v, %v", r, st, err)
		}
	}
	for ticket, i := range place {
		if i%10 != 0 && total == 120 {
			continue
		}
		story, err := n.Client(register).Trace(ctx, ticket)
		for ctx.Err() == nil && (err != nil || story.Verdict != trace.Consistent) { // the receipt may be on its way
			time.Sleep(50 * time.Millisecond)
			story, err = n.Client(register).Trace(ctx, ticket)
		}
		if err != nil || story.Verdict != trace.Consistent {
			t.Errorf("change %d: %v, %v", i, story, err)
		}
	}
	t.Logf("%d changes about %d people, %d notices to %d institutions through %d kills and %d cuts", total, len(people), told, len(expected), kills, cuts)
	if kills < 4 || cuts < 2 || told < total {
		t.Errorf("%d kills, %d cuts, %d notices", kills, cuts, told)
	}
}
