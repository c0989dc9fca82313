package testnet

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
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
		if err := differs(got, e.Answer); err != "" {
			t.Errorf("%s: %s", e.Title, err)
		}
		seen[e.Answer.Reason] = true
		checkTrace(t, n, e.Requester, got.Ticket)
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
		if f.Kind != trace.Asserted {
			t.Errorf("trace %s at %s: %s: %s", ticket, at, f.Kind, f.Says)
		}
	}
	return story
}

// differs says how an answer is not the one that was expected, or nothing.
func differs(got api.Consultation, want data.Answer) string {
	wantReason := ""
	if want.Reason != registrypb.Reason_REASON_UNSPECIFIED {
		wantReason = want.Reason.String()
	}
	if got.Status != want.Status.String() || got.Reason != wantReason {
		return "got " + got.Status + " " + got.Reason + ", want " + want.Status.String() + " " + wantReason
	}
	if (got.Successor != nil) != !want.Successor.IsZero() || got.Successor != nil && got.Successor.Number != want.Successor.Number() {
		return "another successor"
	}
	if len(got.Suppliers) != len(want.Suppliers) {
		b, _ := json.Marshal(got.Suppliers)
		return "other suppliers: " + string(b)
	}
	for i, s := range want.Suppliers {
		if got.Suppliers[i].Supplier != s.Supplier || got.Suppliers[i].Status != s.Status.String() {
			return "supplier " + string(s.Supplier) + " came out otherwise"
		}
		if s.Status != nodepb.Status_DATA_FOUND {
			continue
		}
		if g, w := canonical(got.Suppliers[i].Records), canonical(s.Records); g != w {
			return "records of " + string(s.Supplier) + ":\n got " + g + "\nwant " + w
		}
	}
	return ""
}

// canonical forgets the order of keys and records' white space.
func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var any any
	if err := json.Unmarshal(b, &any); err != nil {
		return err.Error()
	}
	b, _ = json.Marshal(any)
	return string(b)
}
