package scenario

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Stage is what a scenario is played on. It belongs to the goroutine that plays.
type Stage struct {
	// World is the invented country: whose life must bring what.
	World *data.World
	// Today is the day on which it is played: it decides which authorizations are in force.
	Today names.Date
	// Endpoints say how to reach every node, as its institution's application, its
	// security officer, or the test network's identity provider.
	Endpoints *testnet.Endpoints

	network *Network
	out     io.Writer
	run     string // tells the tickets of this run from those of another
	tickets int
	result  *Result
}

// Step begins a step: one sentence on what is done now.
func (s *Stage) Step(format string, args ...any) {
	says := fmt.Sprintf(format, args...)
	s.result.Steps = append(s.result.Steps, Step{Says: says})
	fmt.Fprintf(s.out, "\n  %d. %s\n", len(s.result.Steps), says)
}

// Say tells what came of the present step.
func (s *Stage) Say(format string, args ...any) {
	if len(s.result.Steps) == 0 {
		s.Step("Before anything")
	}
	text := fmt.Sprintf(format, args...)
	last := &s.result.Steps[len(s.result.Steps)-1]
	last.Outcome = append(last.Outcome, text)
	fmt.Fprintf(s.out, "     %s\n", strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n     "))
}

// At gives a client of an institution's node, as its application, on behalf of one of
// its employees. It has no time limit of its own.
func (s *Stage) At(id names.InstitutionID) *api.Client {
	at, ok := s.Endpoints.Of(id)
	if !ok { // Needs did not name it: the scenario is wrong, and its calls will say so
		return api.NewClient("http://"+string(id)+".invalid", "")
	}
	c := api.NewClient(at.API, at.Token)
	c.User, c.Channel = names.UserID("desk@"+string(id)), "scenario"
	return c
}

// Ticket makes a client ticket that no other run has made.
func (s *Stage) Ticket() names.ClientTicket {
	s.tickets++
	return names.ClientTicket(fmt.Sprintf("%s-%d", s.run, s.tickets))
}

// Consult asks, says what came out, compares it with what the lives say, and traces it.
// After an error of the way there the answer is asked for again under the same ticket.
func (s *Stage) Consult(ctx context.Context, c data.Consultation) (api.Consultation, error) {
	client := s.At(c.Requester)
	client.AuthLevel = strconv.FormatUint(uint64(c.AuthLevel), 10)
	got, err := client.Consult(ctx, testnet.Question(c, s.Ticket()))
	if err != nil {
		return got, fmt.Errorf("%s asks for %s: %w", c.Requester, c.Dataset, err)
	}
	s.Say("%s asks for %s: %s (ticket %s)", c.Requester, c.Dataset, outcome(got.Status, got.Reason), got.Ticket)
	if differs := testnet.Differs(got, s.World.Expected(c, s.Today)); differs != "" {
		return got, fmt.Errorf("%s asks for %s, ticket %s: %s", c.Requester, c.Dataset, got.Ticket, differs)
	}
	_, err = s.Trace(ctx, c.Requester, got.Ticket)
	return got, err
}

func outcome(status, reason string) string {
	if reason == "" {
		return status
	}
	return status + ", " + reason
}

// Trace fetches the story of a ticket from one who may read it, and wants every journal
// there and in agreement.
func (s *Stage) Trace(ctx context.Context, at names.InstitutionID, ticket names.Ticket) (*trace.Story, error) {
	story, err := s.At(at).Trace(ctx, ticket)
	if err != nil {
		return nil, fmt.Errorf("trace of %s: %w", ticket, err)
	}
	if story.Verdict != trace.Consistent {
		return story, fmt.Errorf("the trace of %s is %s: %s", ticket, story.Verdict, story.Summary)
	}
	journals := make([]string, len(story.Journals))
	for i, j := range story.Journals {
		journals[i] = j.Node
	}
	s.Say("its trace: CONSISTENT (%s)", strings.Join(journals, ", "))
	s.result.Traced = append(s.result.Traced, ticket)
	return story, nil
}

// Settled waits until the story of a ticket is whole, as it becomes when the last receipt
// is in, and gives it.
func (s *Stage) Settled(ctx context.Context, at names.InstitutionID, ticket names.Ticket) (*trace.Story, error) {
	deadline := time.Now().Add(receiveWithin)
	for {
		story, err := s.At(at).Trace(ctx, ticket)
		if err != nil {
			return nil, fmt.Errorf("trace of %s: %w", ticket, err)
		}
		if story.Verdict == trace.Consistent || time.Now().After(deadline) {
			return s.Trace(ctx, at, ticket)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ErrExit is wrapped by the error of a command line that ended with another code than
// was wanted.
var ErrExit = errors.New("another exit code")

// Command runs the command line as a user of an institution's node would, and wants an
// exit code.
func (s *Stage) Command(ctx context.Context, at names.InstitutionID, want int, args ...string) (string, error) {
	if s.network.command == nil {
		return "", errors.New("this scenario uses the command line, and was given none")
	}
	shown := strings.Join(args, " ")
	s.Say("$ crossroads %s --as %s", shown, at)
	args = append(args, "--endpoints", s.network.path, "--as", string(at))
	out, code := s.network.command(ctx, args...)
	if code != want {
		return out, fmt.Errorf("crossroads %s: %w: %d, want %d:\n%s", shown, ErrExit, code, want, out)
	}
	return out, nil
}

// Person gives the first person whose life fits, by order of the world.
func (s *Stage) Person(fits func(*data.Person) bool) (*data.Person, error) {
	for p := range s.World.Persons() {
		if fits(p) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("none of %d invented persons has the life that this needs; a network of more persons has", s.World.Config().Persons)
}

// Expected says what the lives say of a consultation on the day it is played.
func (s *Stage) Expected(c data.Consultation) data.Answer { return s.World.Expected(c, s.Today) }

// Permitted reports whether a consultation brings data by the lives.
func (s *Stage) Permitted(c data.Consultation) bool {
	return s.Expected(c).Status == nodepb.Status_DATA_FOUND
}

func newStage(n *Network, out io.Writer, result *Result) *Stage {
	return &Stage{
		World: n.world, Today: names.DateOf(time.Now().UTC()), Endpoints: n.endpoints,
		network: n, out: out, run: "scenario-" + rand.Text()[:12], result: result,
	}
}
