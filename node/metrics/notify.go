package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/crossroads-mesh/crossroads/node/notify"
)

// Publisher tells how far recipients are behind; notify.Publisher is one.
type Publisher interface {
	Lags() []notify.Lag
	Pending() int
}

// Inbox tells what waits for the institution's own applications; inbox.Inbox is one.
type Inbox interface {
	Consumers() []string
	Waiting(consumer string) (n int, since time.Time, err error)
}

// Notifications tells of automatic communications from now on. Recipients are labels
// here, and nowhere else: who is told by this institution is public (its subscriptions),
// and whoever watches the node must see who is behind.
func (m *Metrics) Notifications(p Publisher, i Inbox) {
	m.registry.MustRegister(notifyCollector{p, i})
}

type notifyCollector struct {
	publisher Publisher
	inbox     Inbox
}

func notifyDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("crossroads_"+name, help, labels, nil)
}

var (
	descPending = notifyDesc("notify_publications_pending", "Publications that wait for a clearing peer.")
	descWaiting = notifyDesc("notify_deliveries_waiting", "Deliveries that a recipient does not have, dead letters among them.", "recipient", "purpose")
	descDead    = notifyDesc("notify_deliveries_dead", "Deliveries that were given up until they are driven again.", "recipient", "purpose")
	descLag     = notifyDesc("notify_lag_seconds", "How long the oldest delivery has been waiting; 0: none waits.", "recipient", "purpose")
	descSilent  = notifyDesc("notify_silent_seconds", "For how long a recipient has not answered; 0: it answers.", "recipient", "purpose")
	descInbox   = notifyDesc("inbox_waiting", "Items that an application of this institution has not acknowledged.", "application")
	descAge     = notifyDesc("inbox_oldest_seconds", "How long the oldest of them has been waiting.", "application")
)

// Describe implements prometheus.Collector.
func (c notifyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPending, descWaiting, descDead, descLag, descSilent, descInbox, descAge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c notifyCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	age := func(since time.Time) float64 {
		if since.IsZero() {
			return 0
		}
		return max(0, time.Since(since).Seconds())
	}
	gauge(descPending, float64(c.publisher.Pending()))
	for _, l := range c.publisher.Lags() {
		to := []string{string(l.Recipient), string(l.Purpose)}
		gauge(descWaiting, float64(l.Waiting), to...)
		gauge(descDead, float64(l.Dead), to...)
		gauge(descLag, age(l.Oldest), to...)
		gauge(descSilent, age(l.Since), to...)
	}
	for _, name := range c.inbox.Consumers() {
		n, since, err := c.inbox.Waiting(name)
		if err != nil {
			continue
		}
		gauge(descInbox, float64(n), name)
		gauge(descAge, age(since), name)
	}
}
