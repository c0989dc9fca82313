package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/crossroads-mesh/crossroads/node/inbox/push"
)

// Pushes tells from now on how the institution's systems do that are sent what arrives.
func (m *Metrics) Pushes(pushers []*push.Pusher) {
	m.registry.MustRegister(pushCollector(pushers))
}

type pushCollector []*push.Pusher

var (
	descPushed  = notifyDesc("push_delivered_total", "Items that a system of this institution was sent and has accepted.", "application")
	descSetBy   = notifyDesc("push_refused", "Items that it refused and that are set aside.", "application")
	descFailing = notifyDesc("push_failing_seconds", "For how long it has accepted nothing; 0: it works.", "application")
)

// Describe implements prometheus.Collector.
func (c pushCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descPushed
	ch <- descSetBy
	ch <- descFailing
}

// Collect implements prometheus.Collector.
func (c pushCollector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c {
		s := p.Status()
		failing := 0.0
		if !s.Since.IsZero() {
			failing = max(0, time.Since(s.Since).Seconds())
		}
		ch <- prometheus.MustNewConstMetric(descPushed, prometheus.CounterValue, float64(s.Delivered), s.Name)
		ch <- prometheus.MustNewConstMetric(descSetBy, prometheus.GaugeValue, float64(s.Refused), s.Name)
		ch <- prometheus.MustNewConstMetric(descFailing, prometheus.GaugeValue, failing, s.Name)
	}
}
