package agree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// ErrNoMajority means that no majority of the members said the same in the time given.
var ErrNoMajority = errors.New("no majority of the registry's members signed the same state")

// The pauses between two questions to one member.
const (
	askLeast = 20 * time.Millisecond
	askMost  = 500 * time.Millisecond
)

// Ask asks one member what it says; the states are opened and of that member. An error
// means that it is to be asked again a little later, and so does an answer of none.
type Ask func(ctx context.Context, member names.NodeID) ([]State, error)

// Majority asks all voters, each again and again, until more than half of them say the
// same of one index that fits, or ctx ends. The error then wraps ErrNoMajority and says
// who said what.
func Majority(ctx context.Context, voters []names.NodeID, ask Ask, fits func(State) bool) ([]State, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan []State)
	var g errgroup.Group
	defer g.Wait()
	defer cancel()
	for _, m := range voters {
		g.Go(func() error {
			for pause := askLeast; ; pause = min(2*pause, askMost) {
				states, err := ask(ctx, m)
				if err == nil {
					select {
					case answers <- states:
					case <-ctx.Done():
						return nil
					}
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	tally := NewTally(len(voters))
	for {
		select {
		case states := <-answers:
			for _, s := range states {
				if slices.Contains(voters, s.Member) && fits(s) {
					tally.Add(s)
				}
			}
			if agreed := tally.Majority(); agreed != nil {
				return agreed, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w (%s)", ErrNoMajority, context.Cause(ctx), tally)
		}
	}
}

// String says who said what, in one line.
func (t *Tally) String() string {
	var said []string
	for index, who := range t.at {
		for m, s := range who {
			said = append(said, fmt.Sprintf("%s at %d: %x", m, index, s.Root[:4]))
		}
	}
	slices.Sort(said)
	if len(said) == 0 {
		return "nobody answered with such a state"
	}
	return strings.Join(said, ", ")
}
