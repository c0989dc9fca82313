package testnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

var binary = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	path := filepath.Join(buildDir, "crossroads")
	out, err := exec.Command("go", "build", "-C", dir, "-o", path, "./cmd/crossroads").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// processes are the options of a network whose nodes can really be killed.
func processes(t *testing.T) Options {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it starts processes, which are not under it")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Processes: true, Binary: path}
}

// answered are the examples that bring data and need neither supplier nor
// requester among the given institutions.
func answered(n *Network, without names.InstitutionID) (es []data.Example) {
	for _, e := range n.Examples() {
		if e.Answer.Status != nodepb.Status_DATA_FOUND || e.Requester == without {
			continue
		}
		ok := true
		for _, s := range e.Answer.Suppliers {
			ok = ok && s.Supplier != without
		}
		if ok {
			es = append(es, e)
		}
	}
	return es
}

// TestLeaderKilled kills the leader's process and asks at once, and tells how long it took.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	n := start(t, processes(t))
	ctx := within(t)
	leader, err := n.leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	examples := answered(n, leader)
	if len(examples) == 0 {
		t.Fatalf("no example leaves out %s", leader)
	}
	if err := n.KillNode(leader); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for i := 0; ; i++ {
		e := examples[i%len(examples)]
		got, err := n.Consult(ctx, e.Consultation, "")
		if err == nil && Differs(got, e.Answer) == "" {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no exchange succeeded after the leader %s was killed; last: %+v, %v", leader, got, err)
		}
	}
	exchange := time.Since(killed)

	// The registry takes commands again, and the old leader finds its way back.
	declared, err := n.Client(examples[0].Requester).DeclareReferences(ctx, []api.Reference{inventedReference(1)})
	if err != nil || !declared.Accepted {
		t.Fatalf("no command was accepted after the leader %s was killed: %+v, %v", leader, declared, err)
	}
	t.Logf("leader %s killed; the next exchange had succeeded after %d ms, the next command was decided after %d ms",
		leader, exchange.Milliseconds(), time.Since(killed).Milliseconds())
	if err := n.StartNode(leader, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestKilledAtAnyPoint kills nodes with SIGKILL, in every role, while questions are
// under way, and starts them again. Whoever asks repeats the same client ticket
// until it has an answer, as the protocol wants. Then every answer must be the
// right one, given once, and every journal must have its part.
func TestKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	n := start(t, processes(t))
	rounds := 8
	ctx, stop := context.WithCancel(within(t))
	defer stop()

	examples := answered(n, "")
	var mu sync.Mutex
	var done []asked
	var askers sync.WaitGroup
	killing, killed := context.WithCancel(ctx)
	for w := range 6 {
		askers.Go(func() {
			for i := 0; killing.Err() == nil; i++ {
				e := examples[(i*7+w)%len(examples)]
				a := asked{Example: e, client: names.ClientTicket(fmt.Sprintf("chaos-%d-%d", w, i))}
				if err := a.ask(ctx, n); err != nil {
					t.Errorf("%s: %v", a.client, err)
					return
				}
				mu.Lock()
				done = append(done, a)
				mu.Unlock()
			}
		})
	}
	dice := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		victim := n.layout.sites[dice.IntN(len(n.layout.sites))].ID
		awaitMore(ctx, &mu, &done, 10) // the last victim serves again
		if err := n.KillNode(victim); err != nil {
			t.Fatal(err)
		}
		if err := n.StartNode(victim, nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: killed %s", round, victim)
		if err := n.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	killed()
	askers.Wait()
	if len(done) < rounds*5 {
		t.Fatalf("only %d questions were answered", len(done))
	}
	t.Logf("%d questions were answered through %d kills", len(done), rounds)
	for _, a := range done {
		a.check(ctx, t, n)
	}
}

// asked is a question that was answered at last.
type asked struct {
	data.Example
	client names.ClientTicket
	got    api.Consultation
}

// ask repeats the question until the network gives it an answer that is none of
// the machinery's.
func (a *asked) ask(ctx context.Context, n *Network) (err error) {
	for {
		if a.got, err = n.Consult(ctx, a.Consultation, a.client); err == nil {
			return nil
		}
		var p *api.Problem
		if errors.As(err, &p) && p.Status < 500 && p.Status != http.StatusTooManyRequests {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		}
	}
}

// check asks once more, and reads every journal.
func (a *asked) check(ctx context.Context, t *testing.T, n *Network) {
	t.Helper()
	again, err := n.Consult(ctx, a.Consultation, a.client)
	if err != nil {
		t.Errorf("%s: asked again: %v", a.client, err)
		return
	}
	if canonical(again) != canonical(a.got) {
		t.Errorf("%s: asked again, it is another answer:\n%s\n%s", a.client, canonical(a.got), canonical(again))
	}
	// With a node down the honest outcome may be that it could not be had.
	if d := Differs(a.got, a.Answer); d != "" && !unavailable(a.got) {
		t.Errorf("%s: %s", a.client, d)
	}
	story, err := a.wholeTrace(ctx, n)
	if err != nil {
		t.Errorf("%s: trace: %v", a.client, err)
		return
	}
	released, answeredBy := false, false
	for _, step := range story.Steps {
		released = released || step.Event == nodepb.Event_SUPPLIED.String() || step.Event == nodepb.Event_RESENT.String()
		answeredBy = answeredBy || step.Event == nodepb.Event_ANSWERED.String()
	}
	for _, supplied := range a.got.Suppliers {
		if supplied.Status == nodepb.Status_DATA_FOUND.String() {
			a.checkOneEffect(ctx, t, n, supplied.Supplier)
		}
	}
	if !answeredBy {
		t.Errorf("%s: answered, and the consultant's journal does not say so", a.client)
	}
	if a.got.Status == "DATA_FOUND" && !released {
		t.Errorf("%s: data came, and no supplier's journal says so", a.client)
	}
	for _, f := range story.Findings {
		switch f.Kind {
		case "altered", "contradicted", "missing":
			t.Errorf("%s: %s: %s", a.client, f.Kind, f.Says)
		}
	}
}

// wholeTrace traces until every journal could be read, a few times at most: a node
// that has just come back may not have been reached.
func (a *asked) wholeTrace(ctx context.Context, n *Network) (story *trace.Story, err error) {
	for range 5 {
		story, err = n.Client(a.Requester).Trace(ctx, a.got.Ticket)
		if err != nil || !slices.ContainsFunc(story.Findings, func(f trace.Finding) bool { return f.Kind == trace.Missing }) {
			break
		}
	}
	return story, err
}

// checkOneEffect wants the supplier's own system to have been asked once at most,
// however many clearances and resumptions it took.
func (a *asked) checkOneEffect(ctx context.Context, t *testing.T, n *Network, supplier names.InstitutionID) {
	t.Helper()
	found, err := n.Client(supplier).JournalOf(ctx, a.got.Ticket)
	if err != nil {
		t.Errorf("%s: journal of %s: %v", a.client, supplier, err)
		return
	}
	effects := 0
	for _, e := range found.Items {
		if e.Event == nodepb.Event_SUPPLIED.String() && e.Detail == "" {
			effects++
		}
	}
	if effects > 1 {
		t.Errorf("%s: the source of %s was asked %d times", a.client, supplier, effects)
	}
}

// awaitMore returns when count more questions have been answered.
func awaitMore(ctx context.Context, mu *sync.Mutex, done *[]asked, count int) {
	have := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(*done)
	}
	want := have() + count
	for have() < want && ctx.Err() == nil {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}
