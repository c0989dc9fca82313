package bench

import (
	"fmt"
	"io"
	"strings"
)

// WriteBenchfmt writes ratios to the references in the form of Go's benchmarks, which
// benchstat compares with those of another release.
func (r *Report) WriteBenchfmt(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "Benchmark%s 1 "+format+"\n", append([]any{strings.NewReplacer(" ", "-", ",", "").Replace(name)}, args...)...)
	}
	b.WriteString("pkg: github.com/crossroads-mesh/crossroads/testnet/bench\n")
	for _, x := range r.Rows {
		line(fmt.Sprintf("Consultation/in-flight=%d", x.InFlight), "%.4f of-proxy %.2f us-cpu/exchange %.2f of-proxy-cpu %.3f p50-ms %.3f p99-ms",
			x.Ratio(), x.Exchanges.CPU, x.Exchanges.CPU/x.Proxy.CPU, x.Exchanges.P50, x.Exchanges.P99)
	}
	if s := r.Steady; s != nil {
		line("Consultation/steady", "%.2f us-cpu/exchange %.3f p50-ms %.3f p99-ms", s.CPU, s.P50, s.P99)
	}
	for _, x := range r.Beside {
		line("Beside/"+x.What, "%.4f of-reference %.2f us-cpu/one", x.Ratio(), x.CPU)
	}
	if d := r.Day; d != nil {
		line("Day", "%.2f us-cpu/exchange %.0f exchanges/s", d.CPU, d.PerSecond)
	}
	for _, all := range [][]Compared{r.Members, r.Directories} {
		for _, c := range all {
			line("Compared/"+c.What, "%.4f of-proxy %.2f us-cpu/exchange %.4f of-first-cpu", c.Ratio(), c.Exchanges.CPU, c.Exchanges.CPU/all[0].Exchanges.CPU)
		}
	}
	for _, a := range r.Journal {
		line("Append/"+a.What, "%.0f appends/s %.2f us-cpu/append", a.PerSecond, a.CPU)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
