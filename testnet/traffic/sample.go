package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

// Ticket is one under which something was done, and who may have it traced.
type Ticket struct {
	Kind   Kind
	Of     names.InstitutionID
	Ticket names.Ticket
}

// sampleSize is how many tickets of each kind are traced.
const sampleSize = 12

// sample keeps some of many tickets, each with the same chance.
type sample struct {
	mu   sync.Mutex
	kind Kind
	dice *rand.Rand
	seen int
	all  []Ticket
}

func newSample(k Kind) *sample { return &sample{kind: k, dice: rand.New(rand.NewPCG(1, 2))} }

func (s *sample) add(of names.InstitutionID, t names.Ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	switch i := s.dice.IntN(s.seen); {
	case len(s.all) < sampleSize:
		s.all = append(s.all, Ticket{s.kind, of, t})
	case i < sampleSize:
		s.all[i] = Ticket{s.kind, of, t}
	}
}

// wholeWithin is how long a trace may take to become whole: the last receipts come later
// than what they are for.
const wholeWithin = 30 * time.Second

// Trace has tickets traced, and gives how many of the traces are whole and in agreement,
// and what the first other one says.
func Trace(ctx context.Context, n *testnet.Network, tickets []Ticket) (whole int, complaint string, err error) {
	for _, t := range tickets {
		verdict := trace.Verdict("")
		for begun := time.Now(); verdict != trace.Consistent; {
			var story *trace.Story
			err := insist(ctx, func() (err error) { story, err = n.Client(t.Of).Trace(ctx, t.Ticket); return err })
			if err != nil {
				return whole, complaint, fmt.Errorf("trace of %s %s: %w", t.Kind, t.Ticket, err)
			}
			verdict = story.Verdict
			if verdict != trace.Consistent && time.Since(begun) > wholeWithin {
				if complaint == "" {
					complaint = fmt.Sprintf("%s %s: %s: %s", t.Kind, t.Ticket, verdict, story.Summary)
				}
				break
			}
			if verdict != trace.Consistent {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
					return whole, complaint, ctx.Err()
				}
			}
		}
		if verdict == trace.Consistent {
			whole++
		}
	}
	return whole, complaint, nil
}
