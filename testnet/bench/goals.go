package bench

import (
	"fmt"
	"math"
)

// Goal is one that was set, and what was measured.
type Goal struct {
	What     string `json:"goal"`
	Measured string `json:"measured"`
	Reached  bool   `json:"reached"`
}

// The goals.
const (
	goalPerSecond  = 10_000 // with 256 in flight
	goalOfProxy    = 1.0    // with 64
	goalP50        = 2.0    // ms, with one
	goalSteadyP99  = 10.0   // ms
	goalLots       = 20_000 // subjects a second
	goalTold       = 10_000 // durable notifications a second
	goalOfRaft     = 0.5
	goalFlat       = 0.10 // of processor and rate, between networks that are compared
	goalDayMinutes = 10.0
	lotsRow        = "lots, subjects"
	toldRow        = "durable notifications"
)

// Goals says which goals are reached, of those about which something was measured.
func (r *Report) Goals() (all []Goal) {
	add := func(reached bool, what, format string, args ...any) {
		all = append(all, Goal{what, fmt.Sprintf(format, args...), reached})
	}
	for _, x := range r.Rows {
		switch x.InFlight {
		case 1:
			add(x.Exchanges.P50 <= goalP50, "p50 of 2 ms with 1 in flight", "%.2f ms", x.Exchanges.P50)
		case 64:
			add(x.Ratio() >= goalOfProxy, "1.0 of the bare proxy with 64", "%.3f", x.Ratio())
		case 256:
			add(x.Exchanges.PerSecond >= goalPerSecond, "10,000/s with 256", "%.0f/s", x.Exchanges.PerSecond)
		}
	}
	if s := r.Steady; s != nil {
		add(s.P99 <= goalSteadyP99 && s.Failed == 0, "p99 of 10 ms at a steady 600/s", "%.1f ms at %.0f/s, %d failed", s.P99, s.PerSecond, s.Failed)
	}
	for _, b := range r.Beside {
		switch b.What {
		case lotsRow:
			add(b.PerSecond >= goalLots, "20,000 subjects of lots a second", "%.0f/s", b.PerSecond)
		case toldRow:
			add(b.PerSecond >= goalTold, "10,000 durable notifications a second", "%.0f/s", b.PerSecond)
		default:
			add(b.Ratio() >= goalOfRaft, "registry commits 0.5 of bare raft", "%.3f", b.Ratio())
		}
	}
	if d := r.Day; d != nil {
		measured := "%.0f minutes, extrapolated"
		if d.Fraction == 1 {
			measured = "%.0f minutes"
		}
		add(d.Minutes <= goalDayMinutes, "a day of Belgium in 10 minutes", measured, d.Minutes)
		add(d.Whole == d.Traced, "its traces are whole", "%d of %d looked at", d.Whole, d.Traced)
	}
	flat := func(what string, all []Compared) {
		if len(all) > 1 {
			cpu, rate := spread(all)
			add(max(cpu, rate) <= goalFlat, what, "CPU within %.0f %%, rate within %.0f %%", 100*cpu, 100*rate)
		}
	}
	flat("as fast with 3, 5 and 7 members, within 10 %", r.Members)
	flat("as fast with few and many references, within 10 %", r.Directories)
	return all
}

// spread gives how far networks lie apart at most, beside the first: in processor for an
// exchange, and in rate.
func spread(all []Compared) (cpu, rate float64) {
	for _, c := range all[1:] {
		cpu = max(cpu, math.Abs(c.Exchanges.CPU/all[0].Exchanges.CPU-1))
		rate = max(rate, math.Abs(c.Exchanges.PerSecond/all[0].Exchanges.PerSecond-1))
	}
	return cpu, rate
}
