package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/crossroads-mesh/crossroads/testnet/traffic"
)

// table is a report being written for people.
type table struct{ w *tabwriter.Writer }

func (t table) line(format string, args ...any) { fmt.Fprintf(t.w, format+"\n", args...) }

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.line("%s, %s; load average before: %s; %.3g s a row, %.0f s in all", r.Time.Format(time.DateTime), r.Machine, r.Load, r.Seconds, r.Took)
	r.consultations(t)
	r.beside(t)
	r.day(t)
	compared(t, r.Members)
	compared(t, r.Directories)
	r.alone(t)
	if goals := r.Goals(); len(goals) > 0 {
		t.line("\ngoal\tmeasured\treached")
		for _, g := range goals {
			t.line("%s\t%s\t%s", g.What, g.Measured, map[bool]string{true: "yes", false: "no"}[g.Reached])
		}
	}
	return t.w.Flush()
}

func (r *Report) consultations(t table) {
	if len(r.Rows) == 0 {
		return
	}
	t.line("%d institutions, each a process; %s questions, all different but %d, in %d directions, answers of %d bytes\n",
		institutions, thousands(uint64(r.Asked)), r.AskedAgain, r.Directions, r.AnswerBytes)
	t.line("consultations in flight\tper second\tp50 ms\tp99 ms\tCPU µs\tbare proxy/s\tp50 ms\tCPU µs\tratio\tbare QUIC/s\tp50 ms\tfsync ms\tfailed")
	for _, x := range r.Rows {
		t.line("%d\t%.0f\t%.2f\t%.2f\t%.0f\t%.0f\t%.2f\t%.0f\t%.3f\t%.0f\t%.2f\t%.2f\t%d", x.InFlight, x.Exchanges.PerSecond, x.Exchanges.P50, x.Exchanges.P99, x.Exchanges.CPU,
			x.Proxy.PerSecond, x.Proxy.P50, x.Proxy.CPU, x.Ratio(), x.QUIC.PerSecond, x.QUIC.P50, x.Fsync.P50, x.Exchanges.Failed)
	}
	if s := r.Steady; s != nil {
		t.line("steady, one every so often\t%.0f\t%.2f\t%.2f\t%.0f\t\t\t\t\t\t\t\t%d", s.PerSecond, s.P50, s.P99, s.CPU, s.Failed)
	}
	var heads []string
	for _, x := range r.Rows {
		heads = append(heads, fmt.Sprintf("at %d", x.InFlight))
	}
	t.line("\nCPU µs a consultation, by process\t%s\tMB", strings.Join(heads, "\t"))
	last := r.Rows[len(r.Rows)-1].Exchanges
	for _, name := range slices.Sorted(maps.Keys(last.CPUBy)) {
		var cells []string
		for _, x := range r.Rows {
			cells = append(cells, fmt.Sprintf("%.0f", x.Exchanges.CPUBy[name]))
		}
		t.line("%s\t%s\t%d", name, strings.Join(cells, "\t"), last.MemoryBy[name]>>10)
	}
}

func (r *Report) beside(t table) {
	if len(r.Beside) == 0 {
		return
	}
	t.line("\n\tper second\tCPU µs\treference in the same run\tper second\tratio")
	for _, b := range r.Beside {
		cpu := ""
		if b.CPU > 0 {
			cpu = fmt.Sprintf("%.0f", b.CPU)
		}
		t.line("%s\t%.0f\t%s\t%s\t%.0f\t%.3f", b.What, b.PerSecond, cpu, b.Reference, b.ReferencePerSecond, b.Ratio())
	}
}

func (r *Report) day(t table) {
	d := r.Day
	if d == nil {
		return
	}
	var kinds []string
	for _, s := range d.Shares {
		kinds = append(kinds, fmt.Sprintf("%s %s", thousands(uint64(d.Exchanges[s.Kind])), s.Kind))
	}
	whole := fmt.Sprintf("%.0f minutes, EXTRAPOLATED from %.3g of it", d.Minutes, d.Fraction)
	if d.Fraction == 1 {
		whole = fmt.Sprintf("%.0f minutes", d.Minutes)
	}
	t.line("\na day of Belgium (%s exchanges)\tper second\tCPU µs\tseconds\tthe whole day\tneeded for 10 minutes\terrors\ttraces whole", thousands(traffic.FullDay))
	t.line("%s played\t%.0f\t%.0f\t%.1f\t%s\t%.0f/s\t0\t%d of %d", thousands(uint64(d.All())), d.PerSecond, d.CPU, d.Seconds, whole, fullDayPerSecond, d.Whole, d.Traced)
	t.line("  %s", strings.Join(kinds, ", "))
	t.line("  %d consultations were turned away at first, and asked again", d.CameBack)
	if d.Complaint != "" {
		t.line("  a trace that is not whole: %s", d.Complaint)
	}
}

// compared tells what networks did that took turns.
func compared(t table, all []Compared) {
	if len(all) == 0 {
		return
	}
	t.line("\n%d in flight, taking turns\tper second\tp50 ms\tCPU µs\tbare proxy/s\tratio\tCPU beside the first\tfailed", flatAt)
	for _, c := range all {
		t.line("%s\t%.0f\t%.2f\t%.0f\t%.0f\t%.3f\t%.2f\t%d", c.What, c.Exchanges.PerSecond, c.Exchanges.P50, c.Exchanges.CPU, c.Proxy.PerSecond,
			c.Ratio(), c.Exchanges.CPU/all[0].Exchanges.CPU, c.Exchanges.Failed)
	}
}

func (r *Report) alone(t table) {
	if len(r.Journal) > 0 {
		t.line("\ndurable appends, %d waiting\tper second\tp50 ms\tCPU µs", appendsWaiting)
	}
	for _, a := range r.Journal {
		t.line("%s\t%.0f\t%.2f\t%.1f", a.What, a.PerSecond, a.P50, a.CPU)
	}
	if r.Verified != nil || r.Traces != nil {
		t.line("")
	}
	if v := r.Verified; v != nil {
		t.line("verifying the log of the second\t%.0f entries/s\t10 M in %.0f s", v.PerSecond, 1e7/v.PerSecond)
	}
	if m := r.Traces; m != nil {
		t.line("trace of one ticket, three nodes\tp50 %.1f ms\tp99 %.1f ms", m.P50, m.P99)
	}
}
