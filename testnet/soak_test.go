package testnet

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// These make TestSoak the long run that the evidence rests on:
//
//	go test ./testnet -run TestSoak -soak 1000000 -soak-askers 128 -soak-pause 6s -timeout 3h -v
//
// It writes about ten kilobytes an exchange under TMPDIR.
var (
	soak       = flag.Int("soak", 1_500, "exchanges that TestSoak carries out through random crashes")
	soakAskers = flag.Int("soak-askers", 32, "how many ask at the same time")
	soakPause  = flag.Duration("soak-pause", 1750*time.Millisecond, "mean time between two kills; from a quarter of it to seven quarters")
)

// TestSoak carries out many exchanges while nodes are killed at random, and then reads
// every journal from the disk: no request without its match, no answer without its
// entries in all three places, no supply without a decision.
func TestSoak(t *testing.T) {
	t.Parallel()
	o := processes(t)
	o.Dir = filepath.Join(t.TempDir(), "net")
	n := start(t, o)
	ctx, stop := context.WithTimeout(t.Context(), time.Duration(*soak)*20*time.Millisecond+5*time.Minute)
	defer stop()

	examples := answered(n, "")
	var next, answeredCount, data atomic.Int64
	var askers sync.WaitGroup
	done := make(chan struct{})
	begun := time.Now()
	for range *soakAskers {
		askers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= *soak || ctx.Err() != nil {
					return
				}
				a := asked{Example: examples[i%len(examples)], client: names.ClientTicket(fmt.Sprintf("soak-%d", i))}
				if err := a.ask(ctx, n); err != nil {
					t.Errorf("%s: %v", a.client, err)
					return
				}
				answeredCount.Add(1)
				if a.got.Status == "DATA_FOUND" {
					data.Add(1)
				}
				if d := Differs(a.got, a.Answer); d != "" && !unavailable(a.got) {
					t.Errorf("%s: %s", a.client, d)
				}
			}
		})
	}
	go func() { askers.Wait(); close(done) }()
	go func() {
		for tick := time.NewTicker(time.Minute); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				t.Logf("%s: %d of %d answered", time.Since(begun).Round(time.Second), answeredCount.Load(), *soak)
			}
		}
	}()
	kills := n.killAtRandom(ctx, t, done)
	askers.Wait()
	took := time.Since(begun)
	for _, s := range n.layout.sites {
		if err := n.StopNode(s.ID); err != nil {
			t.Logf("stop %s: %v", s.ID, err)
		}
	}
	j := joinJournals(ctx, t, n)
	t.Logf("%d of %d questions answered, %d with data, through %d kills in %s: %.0f/s; %d journal entries of %d tickets",
		answeredCount.Load(), *soak, data.Load(), kills, took.Round(time.Second), float64(*soak)/took.Seconds(), j.entries, len(j.tickets))
	j.check(t, int(answeredCount.Load()), int(data.Load()))
}

// killAtRandom kills a node now and then, until done, and starts it again.
func (n *Network) killAtRandom(ctx context.Context, t *testing.T, done <-chan struct{}) (kills int) {
	dice := rand.New(rand.NewPCG(17, 4))
	for {
		select {
		case <-done:
			return kills
		case <-ctx.Done():
			return kills
		case <-time.After(*soakPause/4 + time.Duration(dice.Int64N(int64(*soakPause)*3/2))):
		}
		victim := n.layout.sites[dice.IntN(len(n.layout.sites))].ID
		if err := n.KillNode(victim); err != nil {
			t.Errorf("kill %s: %v", victim, err)
		}
		if err := n.StartNode(victim, nil); err != nil {
			t.Errorf("start %s: %v", victim, err)
		}
		kills++
		if err := n.WaitReady(ctx); err != nil {
			t.Errorf("after killing %s: %v", victim, err)
			return kills
		}
	}
}

// joined is what all journals say of each ticket, as bits.
type joined struct {
	entries int
	tickets map[names.Ticket]uint8
}

const (
	requestedBit = 1 << iota
	decidedBit
	suppliedBit
	answeredBit
	answeredDataBit
)

// joinJournals reads every node's segment from its files.
func joinJournals(ctx context.Context, t *testing.T, n *Network) *joined {
	t.Helper()
	j := &joined{tickets: make(map[names.Ticket]uint8)}
	eachEntry(ctx, t, n, func(_ names.InstitutionID, e *nodepb.Entry) { j.add(e) })
	return j
}

// eachEntry gives fn every entry of every node's segment that can be read, from its files.
func eachEntry(ctx context.Context, t *testing.T, n *Network, fn func(names.InstitutionID, *nodepb.Entry)) {
	t.Helper()
	for _, s := range n.layout.sites {
		key, err := certs.LoadStorageKey(filepath.Join(s.dir, "storage.key"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := journal.OpenReader(journal.Config{Dir: filepath.Join(s.dir, "data", "journal"), Key: key})
		if err != nil {
			t.Fatalf("journal of %s: %v", s.ID, err)
		}
		err = r.Each(ctx, 0, r.Next(), func(e journal.Stored) error {
			if e.Entry != nil {
				fn(s.ID, e.Entry)
			}
			return nil
		})
		if err != nil {
			t.Errorf("journal of %s: %v", s.ID, err)
		}
	}
}

func (j *joined) add(e *nodepb.Entry) {
	if e.Ticket == "" {
		return
	}
	j.entries++
	var bit uint8
	switch e.Event {
	case nodepb.Event_REQUESTED:
		bit = requestedBit
	case nodepb.Event_DECIDED:
		bit = decidedBit
	case nodepb.Event_SUPPLIED, nodepb.Event_RESENT:
		bit = suppliedBit
	case nodepb.Event_ANSWERED:
		bit = answeredBit
		if e.Status == nodepb.Status_DATA_FOUND {
			bit |= answeredDataBit
		}
	}
	j.tickets[names.Ticket(e.Ticket)] |= bit
}

// check wants every answer to have its entries, and every supply its decision.
func (j *joined) check(t *testing.T, answered, data int) {
	t.Helper()
	withAnswer, withData := 0, 0
	for ticket, bits := range j.tickets {
		has := func(b uint8) bool { return bits&b != 0 }
		switch {
		case !has(requestedBit):
			t.Errorf("%s: somebody acted on a request that its consultant's journal does not hold", ticket)
		case has(suppliedBit) && !has(decidedBit):
			t.Errorf("%s: supplied, and no decision is journaled", ticket)
		case has(answeredDataBit) && !has(suppliedBit):
			t.Errorf("%s: data were received, and no supply is journaled", ticket)
		}
		if has(answeredBit) {
			withAnswer++
		}
		if has(answeredDataBit) {
			withData++
		}
	}
	if withAnswer < answered {
		t.Errorf("%d questions were answered, and %d tickets say so", answered, withAnswer)
	}
	if withData < data {
		t.Errorf("%d questions brought data, and %d tickets say so", data, withData)
	}
}
