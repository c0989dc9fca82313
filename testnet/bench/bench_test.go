package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/traffic"
)

func sampleReport() *Report {
	m := func(rate float64) Measured { return Measured{Count: 10, PerSecond: rate, P50: 1.5, P99: 3, CPU: 200} }
	x := Exchanges{Measured: m(800), CPUBy: map[string]float64{generator: 50, "fpd": 150}, MemoryBy: map[string]int{generator: 2048, "fpd": 4096}}
	return &Report{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Machine: "2 cores, <a & b>", Load: "0 0 0", Seconds: 2,
		Rows:   []Row{{InFlight: 64, Exchanges: x, Proxy: m(1600), QUIC: m(9000), Fsync: m(4000)}},
		Steady: &x, Members: []Compared{{What: "3 registry members", Members: 3, Exchanges: x, Proxy: m(1600)}},
		Beside: []Beside{
			{What: lotsRow, PerSecond: 5_000, CPU: 100, Reference: "supplier's adapter alone", ReferencePerSecond: 50_000},
			{What: toldRow, PerSecond: 20_000, CPU: 50, Reference: "journal appends alone", ReferencePerSecond: 40_000},
			{What: "registry commits, 64 in flight", PerSecond: 600, Reference: "bare raft, same log store", ReferencePerSecond: 1_000},
		},
		Day: &Day{
			Fraction: 0.001, Shares: traffic.Shares, PerSecond: 4_216, Minutes: 20, Traced: 40, Whole: 39, Complaint: "lots x: INCOMPLETE",
			Played: &traffic.Played{Exchanges: map[traffic.Kind]int{traffic.Consultations: 3_036, traffic.Lots: 1_265, traffic.Notifications: 691, traffic.Declarations: 68}},
		},
		Directories: []Compared{
			{What: "44,929 references", References: 44_929, Exchanges: x, Proxy: m(1600)},
			{What: "1,044,929 references", References: 1_044_929, Exchanges: Exchanges{Measured: Measured{PerSecond: 780, CPU: 230}}, Proxy: m(1600)},
		},
		Journal: []Append{{What: "journal", Waiting: appendsWaiting, Measured: m(100_000)}},
	}
}

// TestReport writes a report in all its forms: each must tell the ratio to the
// reference, and be what its readers take.
func TestReport(t *testing.T) {
	r := sampleReport()
	var table, chart, benchfmt, raw bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteChart(&chart), r.WriteBenchfmt(&benchfmt), r.WriteJSON(&raw)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"0.500", "fpd", "4", "durable appends", "registry members", "20 minutes, EXTRAPOLATED from 0.001", "5,060 played", "3,036 consultations", "39 of 40",
		"lots x: INCOMPLETE", "bare raft, same log store", "0.600", "1.15",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	for _, want := range []string{
		"BenchmarkConsultation/in-flight=64 1 0.5000 of-proxy", "BenchmarkBeside/lots-subjects 1 0.1000 of-reference",
		"BenchmarkCompared/1044929-references 1 0.4875 of-proxy 230.00 us-cpu/exchange 1.1500 of-first-cpu", "BenchmarkDay 1 ",
	} {
		if !strings.Contains(benchfmt.String(), want) {
			t.Errorf("for benchstat, %q is lacking: %s", want, benchfmt.String())
		}
	}
	for _, l := range strings.Split(strings.TrimSpace(benchfmt.String()), "\n")[1:] {
		if f := strings.Fields(l); len(f) < 4 || len(f)%2 != 0 || f[1] != "1" {
			t.Errorf("no line of a benchmark: %q", l)
		}
	}
	for _, want := range []string{"bare raft, same log store", "1,044,929 references, 64 in flight", "a day of Belgium, 0.001 of it"} {
		if !strings.Contains(chart.String(), want) {
			t.Errorf("the chart lacks %q", want)
		}
	}
	back := new(Report)
	if err := json.Unmarshal(raw.Bytes(), back); err != nil || back.Rows[0].Ratio() != 0.5 || back.Day.Exchanges[traffic.Lots] != 1_265 || back.Beside[0].Ratio() != 0.1 {
		t.Errorf("JSON: %v, ratio %v", err, back.Rows)
	}
	for d := xml.NewDecoder(&chart); ; {
		_, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the chart is no XML: %v", err)
		}
	}
}

// TestGoals holds each figure against its goal, and tells what was extrapolated.
func TestGoals(t *testing.T) {
	reached := map[string]bool{}
	for _, g := range sampleReport().Goals() {
		reached[g.What] = g.Reached
	}
	want := map[string]bool{
		"1.0 of the bare proxy with 64": false, "p99 of 10 ms at a steady 600/s": true, "20,000 subjects of lots a second": false,
		"10,000 durable notifications a second": true, "registry commits 0.5 of bare raft": true, "a day of Belgium in 10 minutes": false,
		"its traces are whole": false, "as fast with few and many references, within 10 %": false,
	}
	if !maps.Equal(reached, want) {
		t.Errorf("got %v, want %v", reached, want)
	}
	if all := (&Report{}).Goals(); len(all) != 0 {
		t.Errorf("nothing was measured, and %v", all)
	}
}

// TestOptions: what cannot be measured is refused before anything is started.
func TestOptions(t *testing.T) {
	for _, o := range []Options{{Only: []string{"weather"}}, {InFlight: []int{0}}, {DayFraction: 1.5}, {DayFraction: -1}} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	quick, err := Options{Quick: true}.withDefaults()
	if err != nil || slices.Contains(quick.Only, "references") || !slices.Contains(quick.Only, "day") {
		t.Errorf("quick: %v, %v", quick.Only, err)
	}
	if all, err := (Options{}).withDefaults(); err != nil || !slices.Equal(all.Only, Parts()) {
		t.Errorf("all: %v, %v", all.Only, err)
	}
}

// TestMerged: turns count by their calls.
func TestMerged(t *testing.T) {
	turn := func(n int, p50, cpu float64) Exchanges {
		return Exchanges{Measured: Measured{Count: n, P50: p50, P99: 2 * p50, CPU: cpu}, CPUBy: map[string]float64{"a": cpu}}
	}
	got := merged([]Exchanges{turn(100, 9, 400), turn(300, 1, 200), turn(0, 2, 0)}, time.Second)
	if got.Count != 400 || got.PerSecond != 400.0/3 || got.P50 != 2 || got.P99 != 4 || got.CPU != 250 || got.CPUBy["a"] != 250 {
		t.Errorf("%+v", got)
	}
}

// TestClosedLoop ends with the first call that fails, and measures otherwise.
func TestClosedLoop(t *testing.T) {
	s, err := closedLoop(t.Context(), 4, 20*time.Millisecond, func(context.Context, int) error { time.Sleep(time.Millisecond); return nil })
	if err != nil || s.Count == 0 || s.P50 < 1 || s.P99 < s.P50 {
		t.Fatalf("%+v, %v", s, err)
	}
	broken := errors.New("broken")
	if _, err := closedLoop(t.Context(), 4, time.Hour, func(_ context.Context, i int) error {
		if i == 2 {
			return broken
		}
		return nil
	}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
}

// TestOverload: what asking too much brings is counted, and is no failure.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		want   bool
	}{
		{http.StatusTooManyRequests, "", true},
		{http.StatusOK, `{"status":"NO_RESULT","reason":"REGISTRY_STALE"}`, true},
		{http.StatusOK, `{"status":"NO_RESULT","reason":"NOT_INTEGRATED"}`, false},
		{http.StatusInternalServerError, `{"reason":"REGISTRY_STALE"}`, false},
	} {
		if got := overloaded(c.status, []byte(c.answer)); got != c.want {
			t.Errorf("%d %s: %t", c.status, c.answer, got)
		}
	}
	n := 0
	s, err := closedLoop(t.Context(), 1, 20*time.Millisecond, func(context.Context, int) error {
		if n++; n%2 == 0 {
			return errTurnedAway
		}
		return nil
	})
	if err != nil || s.Failed == 0 || s.Count == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := closedLoop(t.Context(), 1, time.Millisecond, func(context.Context, int) error { return errTurnedAway }); err == nil {
		t.Error("a loop in which nothing succeeds measures something")
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("SKIPPED: /proc is absent, from which the use of processes is read")
	}
	u := usageOf(map[string]int{"me": os.Getpid()})
	for begun := time.Now(); processor(os.Getpid()) < u.cpu["me"]+2*tick; {
		if time.Since(begun) > time.Minute {
			t.Fatal("a busy process is seen to use nothing")
		}
	}
	if by := u.since(2).perCall()["me"]; by < 10_000 {
		t.Errorf("%v µs for each of two calls, at least 10,000 were used", by)
	}
	if resident(os.Getpid()) < 1024 {
		t.Errorf("%d KB resident", resident(os.Getpid()))
	}
}

// TestTurns: requesters are apart, and the directions of each take turns.
func TestTurns(t *testing.T) {
	q := func(from names.InstitutionID, to string) question {
		return question{direction: string(from) + to, requester: from}
	}
	all := inTurns(map[string][]question{"a1": {q("a", "1"), q("a", "1")}, "a2": {q("a", "2")}, "b1": {q("b", "1")}})
	var got []string
	for _, turns := range all {
		for _, x := range turns {
			got = append(got, x.direction)
		}
	}
	if want := "a1 a2 a1 a2 b1 b1"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
