package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
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
	Beside      []Beside   `json:"beside,omitempty"`
	Day         *Day       `json:"day,omitempty"`
	Traces      *Measured  `json:"traces,omitempty"`
	Journal     []Append   `json:"journal"`

	Verified *Verified `json:"verified,omitempty"`
	Against  []Goal    `json:"goals,omitempty"` // as Goals gives them
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
func (r *Report) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, report any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(report)
}
