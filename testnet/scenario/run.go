package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Result is what came of playing a scenario.
type Result struct {
	Scenario string         `json:"scenario"`
	Flow     int            `json:"flow,omitempty"`
	Title    string         `json:"title"`
	Steps    []Step         `json:"steps"`
	Traced   []names.Ticket `json:"traced"` // whose trace was read, and consistent
	// Lacks are institutions that the network does not have: it was not played.
	Lacks   []names.InstitutionID `json:"lacks,omitempty"`
	Failed  string                `json:"failed,omitempty"` // what came out otherwise than it must
	Seconds float64               `json:"seconds"`
}

// Step is one step of a scenario, and what came of it.
type Step struct {
	Says    string   `json:"says"`
	Outcome []string `json:"outcome,omitempty"`
}

// limit is how long a scenario may take: one that hangs is one that fails.
const limit = 2 * time.Minute

var errUntraced = errors.New("no trace was verified: the scenario does not show what happened")

// Run plays one scenario and tells on out what happens.
func Run(ctx context.Context, n *Network, s Scenario, out io.Writer) Result {
	result := Result{Scenario: s.Name, Flow: s.Flow, Title: s.Title, Steps: []Step{}, Traced: []names.Ticket{}, Lacks: n.Lacks(s)}
	fmt.Fprintf(out, "\n%s: %s\n", s.Name, s.Title)
	if len(result.Lacks) > 0 {
		fmt.Fprintf(out, "\n  not played: the network has no %s (testnet up --also %s)\n", result.Lacks, result.Lacks[0])
		return result
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begun := time.Now()
	err := s.Play(ctx, newStage(n, out, &result))
	if err == nil && len(result.Traced) == 0 {
		err = errUntraced
	}
	result.Seconds = time.Since(begun).Seconds()
	if err != nil {
		result.Failed = err.Error()
		fmt.Fprintf(out, "\n  FAILED after %.1f s: %s\n", result.Seconds, err)
		return result
	}
	fmt.Fprintf(out, "\n  ok: as the lives say, %d traces consistent, %.1f s\n", len(result.Traced), result.Seconds)
	return result
}
