package belgium

import (
	"io"
	"os"
	"testing"
)

// TestCommits compares commits with those of bare consensus. Set BELGIUM_COMMITS to run
// it: half a minute of a quiet machine.
func TestCommits(t *testing.T) {
	if os.Getenv("BELGIUM_COMMITS") == "" {
		t.Skip("BELGIUM_COMMITS is not set")
	}
	r := &run{Options: Options{Dir: t.TempDir(), Out: io.Discard}, country: New(10_000), report: new(Report)}
	if err := r.commits(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := r.report.Commits
	t.Logf("%.0f/s, bare %.0f/s: %.2f; %.0f and %.0f µs of processor for one", c.PerSecond, c.BareRaftPerSecond, c.PerSecond/c.BareRaftPerSecond, c.CPU, c.BareRaftCPU)
}
