package testnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// start brings a small network up for one test.
func start(t testing.TB, o Options) *Network {
	t.Helper()
	if o.Persons == 0 {
		o.Persons = 2000
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	n, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

// notShort keeps a test out of the short run, which is that under the race detector: it
// brings up a network of its own, of whose code others run the same there.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: a network of its own, of whose code others run the same")
	}
}

// patience is how long a test waits for anything before it calls it hung. What is tested
// does not depend on it: a machine with much else to do may take long.
const patience = 5 * time.Minute

// within gives a context that ends the test rather than letting it hang.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// unavailable tells whether a result says that there is none for now: a node is down, or
// the machine has so much else to do that nobody answered in time.
func unavailable(got api.Consultation) bool {
	switch got.Reason {
	case "SUPPLIER_UNAVAILABLE", "CLEARING_UNAVAILABLE", "SUPPLIER_REFUSED", "REGISTRY_STALE", "CLEARANCE_EXPIRED":
		return true
	}
	return got.Status == "INCOMPLETE_DATA"
}

// expect is insist with one consultation, each time under another ticket.
func (n *Network) expect(ctx context.Context, c data.Consultation, want data.Answer) (api.Consultation, error) {
	return insist(ctx, want, func() (api.Consultation, error) { return n.Consult(ctx, c, "") })
}

// insist asks until the network says something else than that there is no result for now,
// and wants it to be what the lives say. A wrong answer is never asked again.
func insist(ctx context.Context, want data.Answer, ask func() (api.Consultation, error)) (got api.Consultation, err error) {
	for {
		err = patiently(ctx, func(context.Context) (err error) { got, err = ask(); return err })
		if err != nil {
			return got, err
		}
		d := Differs(got, want)
		switch {
		case d == "":
			return got, nil
		case !unavailable(got):
			return got, errors.New(d)
		case ctx.Err() != nil:
			return got, fmt.Errorf("%w; last: %s", ctx.Err(), d)
		}
	}
}

// consultOnce carries out one consultation, under one ticket: it asks again what the node
// could not answer in time, and takes the first result, whatever it is.
func (n *Network) consultOnce(ctx context.Context, c data.Consultation) (got api.Consultation, err error) {
	ticket := names.ClientTicket(rand.Text())
	err = patiently(ctx, func(ctx context.Context) (err error) { got, err = n.Consult(ctx, c, ticket); return err })
	return got, err
}

// TestNetwork attacks one network in every way that leaves it whole.
func TestNetwork(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	n := start(t, Options{Persons: 10_000, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	t.Run("every example comes out as the lives say", func(t *testing.T) { everyExample(t, n) })
	t.Run("random consultations", func(t *testing.T) { randomConsultations(t, n) })
	t.Run("a refusal tells nothing", func(t *testing.T) { refusalTellsNothing(t, n) })
	t.Run("garbage on the mesh port", func(t *testing.T) { garbageOnTheMeshPort(t, n) })
	t.Run("rotation under load", func(t *testing.T) { rotationUnderLoad(t, n) })
	t.Run("no number in logs", func(t *testing.T) { noNumberInLogs(t, n, &log) })
}

// everyExample compares the network's answers, for every
// kind of answer and refusal that the data alone can bring about, with what the
// invented lives say, and holds each trace to be whole and without contradiction.
func everyExample(t *testing.T, n *Network) {
	seen := make(map[registrypb.Reason]bool)
	t.Run("each", func(t *testing.T) {
		for _, e := range n.Examples() {
			seen[e.Answer.Reason] = true
			t.Run(e.Title, func(t *testing.T) {
				t.Parallel() // most of it is waiting until journals are anchored
				got, err := n.expect(within(t), e.Consultation, e.Answer)
				if err != nil {
					t.Fatal(err)
				}
				checkTrace(t, n, e.Requester, got.Ticket)
				checkReceipt(t, n, e.Requester, got.Ticket)
			})
		}
	})
	for _, r := range []registrypb.Reason{
		registrypb.Reason_REPLACED_NUMBER, registrypb.Reason_NOT_INTEGRATED, registrypb.Reason_NOT_ALLOWED,
		registrypb.Reason_MALFORMED_NUMBER, registrypb.Reason_AUTH_LEVEL_TOO_LOW,
	} {
		if !seen[r] {
			t.Errorf("no example ended in %s", r)
		}
	}
}

// checkTrace wants every journal of a ticket there and in agreement.
func checkTrace(t testing.TB, n *Network, at names.InstitutionID, ticket names.Ticket) *trace.Story {
	t.Helper()
	story, err := n.Client(at).Trace(within(t), ticket)
	if err != nil {
		t.Errorf("trace %s: %v", ticket, err)
		return nil
	}
	for _, f := range story.Findings {
		if f.Kind != trace.Asserted && f.Kind != trace.Redecided && f.Kind != trace.NotAnchored {
			t.Errorf("trace %s at %s: %s: %s", ticket, at, f.Kind, f.Says)
		}
	}
	return story
}
