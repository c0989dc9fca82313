package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

func sampleReport() *Report {
	m := func(rate float64) Measured { return Measured{Count: 10, PerSecond: rate, P50: 1.5, P99: 3, CPU: 200} }
	x := Exchanges{Measured: m(800), CPUBy: map[string]float64{generator: 50, "fpd": 150}, MemoryBy: map[string]int{generator: 2048, "fpd": 4096}}
	return &Report{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Machine: "2 cores, <a & b>", Load: "0 0 0", Seconds: 2,
		Rows:   []Row{{InFlight: 64, Exchanges: x, Proxy: m(1600), QUIC: m(9000), Fsync: m(4000)}},
		Steady: &x, Members: []Compared{{What: "3 registry members", Members: 3, Exchanges: x, Proxy: m(1600)}},
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
	for _, want := range []string{"0.500", "fpd", "4", "durable appends", "registry members"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	if !strings.Contains(benchfmt.String(), "BenchmarkConsultation/in-flight=64 1 0.5000 of-proxy") {
		t.Errorf("for benchstat: %s", benchfmt.String())
	}
	back := new(Report)
	if err := json.Unmarshal(raw.Bytes(), back); err != nil || back.Rows[0].Ratio() != 0.5 {
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
		t.Skip("no /proc here")
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
