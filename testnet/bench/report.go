package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what one run measured.
type Report struct {
	Time        time.Time `json:"time"`
	Machine     string    `json:"machine"`
	Load        string    `json:"load_average_before"` // the machine may be used by others
	Seconds     float64   `json:"seconds_per_row"`
	Took        float64   `json:"seconds"`   // of the whole run
	Questions   int       `json:"questions"` // different ones, of which there are so many
	Asked       int       `json:"questions_asked"`
	AskedAgain  int       `json:"questions_asked_again"`
	Directions  int       `json:"directions"`   // pairs of requester and supplier
	AnswerBytes int       `json:"answer_bytes"` // mean, of content

	Rows        []Row      `json:"consultations"`
	Steady      *Exchanges `json:"steady,omitempty"`
	Members     []Compared `json:"by_members,omitempty"`
	Directories []Compared `json:"by_references,omitempty"`
	Traces      *Measured  `json:"traces,omitempty"`
	Journal     []Append   `json:"journal"`

	Verified *Verified `json:"verified,omitempty"`
}

// Row is what was measured with so many in flight, and the references right after it.
type Row struct {
	InFlight  int       `json:"in_flight"`
	Exchanges Exchanges `json:"exchanges"`
	Proxy     Measured  `json:"bare_proxy"`
	QUIC      Measured  `json:"bare_quic"`
	Fsync     Measured  `json:"fsync"` // one after the other
}

// Ratio is the rate beside that of the bare proxy.
func (r Row) Ratio() float64 { return r.Exchanges.PerSecond / r.Proxy.PerSecond }

func newReport(o Options) *Report {
	load, _ := os.ReadFile("/proc/loadavg")
	return &Report{
		Time: time.Now().UTC().Truncate(time.Second), Machine: fmt.Sprintf("%d cores, %s", runtime.NumCPU(), processorName()),
		Load: strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "), Seconds: o.For.Seconds(),
	}
}

func processorName() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// WriteJSON writes the report for machines.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteBenchfmt writes ratios to the references in the form of Go's benchmarks, which
// benchstat compares with those of another release.
func (r *Report) WriteBenchfmt(w io.Writer) error {
	for _, row := range r.Rows {
		if _, err := fmt.Fprintf(w, "BenchmarkConsultation/in-flight=%d 1 %.4f of-proxy %.2f us-cpu/exchange %.3f p50-ms %.3f p99-ms\n",
			row.InFlight, row.Ratio(), row.Exchanges.CPU, row.Exchanges.P50, row.Exchanges.P99); err != nil {
			return err
		}
	}
	for _, a := range r.Journal {
		if _, err := fmt.Fprintf(w, "BenchmarkAppend/%s 1 %.0f appends/s %.2f us-cpu/append\n", strings.ReplaceAll(a.What, " ", "-"), a.PerSecond, a.CPU); err != nil {
			return err
		}
	}
	return nil
}

// later are the rows of the table whose parts of the network are not measured yet.
var later = []string{
	"with 1 M and 124.9 M references loaded", "durable notifications/s", "registry commits/s", "a day of Belgium",
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	line("%s, %s; load average before: %s; %.0f s a row", r.Time.Format(time.DateTime), r.Machine, r.Load, r.Seconds)
	if r.Questions > 0 {
		line("%d institutions, each a process; %d questions, all different but %d, in %d directions, answers of %d bytes\n", institutions, r.Asked, r.AskedAgain, r.Directions, r.AnswerBytes)
	}
	line("consultations in flight\tper second\tp50 ms\tp99 ms\tCPU µs\tbare proxy/s\tp50 ms\tCPU µs\tratio\tbare QUIC/s\tfsync ms\tfailed")
	for _, x := range r.Rows {
		line("%d\t%.0f\t%.2f\t%.2f\t%.0f\t%.0f\t%.2f\t%.0f\t%.3f\t%.0f\t%.2f\t%d", x.InFlight, x.Exchanges.PerSecond, x.Exchanges.P50, x.Exchanges.P99, x.Exchanges.CPU,
			x.Proxy.PerSecond, x.Proxy.P50, x.Proxy.CPU, x.Ratio(), x.QUIC.PerSecond, x.Fsync.P50, x.Exchanges.Failed)
	}
	if s := r.Steady; s != nil {
		line("steady, one every so often\t%.0f\t%.2f\t%.2f\t%.0f\t\t\t\t\t\t\t%d", s.PerSecond, s.P50, s.P99, s.CPU, s.Failed)
	}
	r.processes(line)
	for _, all := range [][]Compared{r.Members, r.Directories} {
		if len(all) == 0 {
			continue
		}
		line("\n%d in flight, taking turns\tper second\tp50 ms\tCPU µs\tbare proxy/s\tratio\tCPU beside the first\tfailed", flatAt)
		for _, c := range all {
			line("%s\t%.0f\t%.2f\t%.0f\t%.0f\t%.3f\t%.2f\t%d", c.What, c.Exchanges.PerSecond, c.Exchanges.P50, c.Exchanges.CPU, c.Proxy.PerSecond,
				c.Exchanges.PerSecond/c.Proxy.PerSecond, c.Exchanges.CPU/all[0].Exchanges.CPU, c.Exchanges.Failed)
		}
	}
	line("\ndurable appends, %d waiting\tper second\tp50 ms\tCPU µs", appendsWaiting)
	for _, a := range r.Journal {
		line("%s\t%.0f\t%.2f\t%.1f", a.What, a.PerSecond, a.P50, a.CPU)
	}
	if v := r.Verified; v != nil {
		line("\nverifying the log of the second\t%.0f entries/s\t10 M in %.0f s", v.PerSecond, 1e7/v.PerSecond)
	}
	if m := r.Traces; m != nil {
		line("trace of one ticket, three nodes\tp50 %.1f ms\tp99 %.1f ms", m.P50, m.P99)
	}
	line("\nnot measured here yet: %s", strings.Join(later, "; "))
	return t.Flush()
}

// processes tells what each process used, for every row.
func (r *Report) processes(line func(string, ...any)) {
	if len(r.Rows) == 0 {
		return
	}
	var heads []string
	for _, x := range r.Rows {
		heads = append(heads, fmt.Sprintf("at %d", x.InFlight))
	}
	line("\nCPU µs a consultation, by process\t%s\tMB", strings.Join(heads, "\t"))
	last := r.Rows[len(r.Rows)-1].Exchanges
	for _, name := range slices.Sorted(maps.Keys(last.CPUBy)) {
		var cells []string
		for _, x := range r.Rows {
			cells = append(cells, fmt.Sprintf("%.0f", x.Exchanges.CPUBy[name]))
		}
		line("%s\t%s\t%d", name, strings.Join(cells, "\t"), last.MemoryBy[name]>>10)
	}
}
