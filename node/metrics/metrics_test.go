package metrics_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/anchor"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/metrics"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

type status struct{ err error }

func (s status) Status() (*registrypb.StatusResponse, error) {
	return &registrypb.StatusResponse{State: "follower", Term: 3, AppliedIndex: 41, CommitIndex: 42, GrantValid: true, Verifying: true, Verified: 43}, s.err
}

type consultant struct {
	result *exchange.Result
	err    error
}

func (c *consultant) Consult(context.Context, exchange.Question) (*exchange.Result, error) {
	return c.result, c.err
}
func (c *consultant) Acknowledge(context.Context, string, names.ClientTicket) error { return c.err }

func open(s status) *metrics.Metrics {
	return metrics.New(metrics.Config{
		Version: "v9", Registry: s, Entries: func() uint64 { return 12 },
		Anchoring: func() anchor.Stats {
			return anchor.Stats{Size: 11, Anchored: 7, Waiting: 1500 * time.Millisecond, Lag: 250 * time.Millisecond}
		},
		Evidence: func() (int, error) { return 1, nil },
	})
}

func TestMetrics(t *testing.T) {
	m, other := open(status{}), open(status{}) // two nodes in one process
	c := &consultant{result: &exchange.Result{Status: nodepb.Status_DATA_FOUND}}
	through := m.Consultations(c)
	q := exchange.Question{Number: "74071238186", Caller: exchange.Caller{User: "alice"}}
	_, _ = through.Consult(t.Context(), q)
	c.result = &exchange.Result{Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_NOT_ALLOWED}
	_, _ = through.Consult(t.Context(), q)
	_ = through.Acknowledge(t.Context(), "file", "t-1")
	c.err = errors.New("alice asked of 74071238186")
	_, _ = through.Consult(t.Context(), q)
	_ = through.Acknowledge(t.Context(), "file", "t-1")

	var refuse error
	present := m.Presentations(func(context.Context, names.NodeID, *nodepb.Presentation) (*nodepb.PresentResponse, error) {
		return nil, refuse
	})
	_, _ = present(t.Context(), names.NodeID{}, nil)
	refuse = &exchange.Refusal{Reason: registrypb.Reason_CLEARANCE_REPLAYED}
	_, _ = present(t.Context(), names.NodeID{}, nil)
	clearing := m.Clearings(func(context.Context, names.NodeID, *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
		return &registrypb.ClearResponse{Outcome: registrypb.Outcome_PERMIT, Clearances: [][]byte{{1}}, Recused: true}, nil
	})
	_, _ = clearing(t.Context(), names.NodeID{}, nil)

	b, err := m.Text(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		`crossroads_build_info{version="v9"} 1`,
		"crossroads_journal_size 12\n", "crossroads_journal_checkpoint_size 11\n", "crossroads_journal_anchored_size 7\n",
		"crossroads_journal_checkpoint_age_seconds 1.5\n", "crossroads_journal_cosign_lag_seconds 0.25\n",
		"crossroads_witness_evidence 1\n",
		`crossroads_registry_state{state="follower"} 1`, `crossroads_registry_state{state="leader"} 0`,
		"crossroads_registry_term 3\n", "crossroads_registry_applied_index 41\n", "crossroads_registry_commit_index 42\n",
		"crossroads_registry_standing_valid 1\n", "crossroads_registry_verifying 1\n", "crossroads_registry_verified 43\n",
		`crossroads_exchange_consultations_total{outcome="DATA_FOUND",reason=""} 1`,
		`crossroads_exchange_consultations_total{outcome="NO_RESULT",reason="NOT_ALLOWED"} 1`,
		`crossroads_exchange_consultations_total{outcome="ERROR",reason=""} 1`,
		"crossroads_exchange_consultation_seconds_count 3\n", "crossroads_exchange_acknowledgements_total 1\n",
		`crossroads_exchange_presentations_total{outcome="ANSWERED",reason=""} 1`,
		`crossroads_exchange_presentations_total{outcome="REFUSED",reason="CLEARANCE_REPLAYED"} 1`,
		`crossroads_exchange_clearings_total{outcome="PERMIT",reason=""} 1`,
		"go_goroutines ", "process_cpu_seconds_total ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, secret := range []string{"74071238186", "alice"} {
		if strings.Contains(text, secret) {
			t.Errorf("the metrics tell %s", secret)
		}
	}
	b, err = other.Text(t.Context())
	if err != nil || strings.Contains(string(b), "consultations_total{") {
		t.Error("one node's metrics are another's", err)
	}
}

// A registry that fails is told, and keeps nothing else from being told.
func TestMetricsSayWhenTheRegistryFails(t *testing.T) {
	b, err := open(status{errors.New("closed")}).Text(t.Context())
	if err != nil || !strings.Contains(string(b), "crossroads_registry_standing_valid 0\n") || !strings.Contains(string(b), "crossroads_journal_size 12\n") {
		t.Error(string(b), err)
	}
}
