package testnet

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
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

// within gives a context that ends the test rather than letting it hang.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestNetwork attacks one network in every way that leaves it whole.
func TestNetwork(t *testing.T) {
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
	for _, e := range n.Examples() {
		got, err := n.Consult(within(t, 10*time.Second), e.Consultation, "")
		if err != nil {
			t.Errorf("%s: %v", e.Title, err)
			continue
		}
		if err := Differs(got, e.Answer); err != "" {
			t.Errorf("%s: %s", e.Title, err)
		}
		seen[e.Answer.Reason] = true
		checkTrace(t, n, e.Requester, got.Ticket)
		checkReceipt(t, n, e.Requester, got.Ticket)
	}
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
	story, err := n.Client(at).Trace(within(t, 10*time.Second), ticket)
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
