package belgium

import (
	"io"
	"testing"
)

// BenchmarkCommits compares commits with those of bare consensus: half a minute of a quiet
// machine.
func BenchmarkCommits(b *testing.B) {
	for b.Loop() {
		r := &run{Options: Options{Dir: b.TempDir(), Out: io.Discard}, country: New(10_000), report: new(Report)}
		if err := r.commits(b.Context()); err != nil {
			b.Fatal(err)
		}
		c := r.report.Commits
		b.ReportMetric(c.PerSecond, "commits/s")
		b.ReportMetric(c.BareRaftPerSecond, "bare/s")
		b.ReportMetric(c.PerSecond/c.BareRaftPerSecond, "ratio")
		b.ReportMetric(c.CPU, "cpu-µs/commit")
		b.ReportMetric(c.BareRaftCPU, "bare-cpu-µs/commit")
	}
}
