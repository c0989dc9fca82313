// Package metrics counts what a node does and tells how it stands, for Prometheus. Each
// node has a registry of its own: nothing is global, many nodes live in one process.
//
// No label holds a subject, a user, a ticket or an institution: what is counted can be
// shown to whoever watches machines. docs/operations.md lists what there is.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/crossroads-mesh/crossroads/node/anchor"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Media is the form in which Text gives the metrics.
const Media = "text/plain; version=0.0.4; charset=utf-8"

// Registry is how a node stands to the registry; registry.Registry is one.
type Registry interface {
	Status() (*registrypb.StatusResponse, error)
}

// Config says what is looked at when somebody asks. Everything is required unless it
// says otherwise, and must be safe for concurrent use.
type Config struct {
	Version  string
	Registry Registry
	// Raft gives consensus figures of a member. Nil: none.
	Raft func() (registry.RaftStats, bool)
	// Entries gives how many journal entries are durable.
	Entries func() uint64
	// Anchoring gives how the journal's checkpoints stand.
	Anchoring func() anchor.Stats
	// Evidence gives how much evidence a member holds. Nil on a node that is no member.
	Evidence func() (int, error)
	// Examined gives how many clearances were decided again, and how many of them must
	// not have been given. Nil: not told.
	Examined func() (examined, wrong uint64)
}

// Metrics are those of one node. It is safe for concurrent use.
type Metrics struct {
	registry       *prometheus.Registry
	consultations  *timed
	presentations  *timed
	clearings      *timed
	acknowledgedBy prometheus.Counter
}

// New makes the metrics of a node.
func New(cfg Config) *Metrics {
	r := prometheus.NewRegistry()
	m := &Metrics{
		registry:      r,
		consultations: newTimed(r, "consultation", "Consultations that this node's applications asked"),
		presentations: newTimed(r, "presentation", "Clearances presented to this node as supplier"),
		clearings:     newTimed(r, "clearing", "Requests that this node decided as clearing peer"),
		acknowledgedBy: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "crossroads_exchange_acknowledgements_total", Help: "Answers that the consultant's application acknowledged.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "crossroads_build_info", Help: "Always 1; the label tells the version.", ConstLabels: prometheus.Labels{"version": cfg.Version},
	})
	build.Set(1)
	r.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, m.acknowledgedBy, registryCollector{cfg.Registry},
	)
	if cfg.Raft != nil {
		r.MustRegister(raftCollector{cfg.Raft})
	}
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("crossroads_journal_size", "Durable journal entries.", func() float64 { return float64(cfg.Entries()) })
	gauge("crossroads_journal_checkpoint_size", "Entries that the newest checkpoint covers.",
		func() float64 { return float64(cfg.Anchoring().Size) })
	gauge("crossroads_journal_anchored_size", "Entries that the newest anchored checkpoint covers.",
		func() float64 { return float64(cfg.Anchoring().Anchored) })
	gauge("crossroads_journal_checkpoint_age_seconds", "How long a newer checkpoint than the anchored one has been waiting for its majority; 0: none waits.",
		func() float64 { return cfg.Anchoring().Waiting.Seconds() })
	gauge("crossroads_journal_cosign_lag_seconds", "How long the last anchored checkpoint took to get its majority.",
		func() float64 { return cfg.Anchoring().Lag.Seconds() })
	if cfg.Examined != nil {
		gauge("crossroads_clearances_examined", "Clearances that were decided again, here or on this node's asking, since it started.",
			func() float64 { n, _ := cfg.Examined(); return float64(n) })
		gauge("crossroads_clearances_wrong", "Those of them that their clearing peer must not have given. Any is an alarm.",
			func() float64 { _, n := cfg.Examined(); return float64(n) })
	}
	if cfg.Evidence != nil {
		gauge("crossroads_witness_evidence", "Contradictions between checkpoints that this member found; -1: its memory cannot be read. Any is an alarm.",
			func() float64 {
				n, err := cfg.Evidence()
				if err != nil {
					return -1
				}
				return float64(n)
			})
	}
	return m
}

// Text gives all metrics in the form that Prometheus reads, see Media.
func (m *Metrics) Text(context.Context) ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return b.Bytes(), nil
}

// timed counts one kind of work by its outcome, and how long it took.
type timed struct {
	total   *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newTimed(r *prometheus.Registry, kind, help string) *timed {
	t := &timed{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crossroads_exchange_" + kind + "s_total", Help: help + ", by outcome and reason.",
		}, []string{"outcome", "reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "crossroads_exchange_" + kind + "_seconds", Help: help + ": how long each took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
		}),
	}
	r.MustRegister(t.total, t.seconds)
	return t
}

func (t *timed) done(began time.Time, outcome, reason string) {
	t.total.WithLabelValues(outcome, reason).Inc()
	t.seconds.Observe(time.Since(began).Seconds())
}
