package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// LotOptions say how a lot is measured. The zero value of each field takes its default.
type LotOptions struct {
	Subjects int           // of the lot, each a person of the test network; default 100,000
	Steady   int           // consultations a second beside it; default 100
	For      time.Duration // how long consultations are measured before and after; default 8 s
	Within   time.Duration // each lot is cancelled after so long, and measured as far as it came; default 10 minutes
	Binary   string        // as Options.Binary
	Profile  string        // folder for profiles of every process, while the lot runs alone; empty: none
	Out      io.Writer     // progress; nil: none
}

func (o LotOptions) withDefaults() LotOptions {
	if o.Subjects == 0 {
		o.Subjects = 100_000
	}
	if o.Steady == 0 {
		o.Steady = 100
	}
	if o.For == 0 {
		o.For = 8 * time.Second
	}
	if o.Within == 0 {
		o.Within = 10 * time.Minute
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o
}

func (o LotOptions) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

// LotReport is what one run measured.
type LotReport struct {
	Time      time.Time           `json:"time"`
	Machine   string              `json:"machine"`
	Load      string              `json:"load_average_before"`
	Requester names.InstitutionID `json:"requester"`
	Supplier  names.InstitutionID `json:"supplier"`
	Dataset   names.DatasetID     `json:"dataset"`
	Subjects  int                 `json:"subjects"`

	Alone  *LotRun `json:"lot_alone"`
	Beside *LotRun `json:"lot_beside_consultations"`
	// Adapter is the supplier's source alone, asked as lots ask it.
	Adapter Measured `json:"supplier_adapter_alone"`

	Rate   int      `json:"consultations_per_second"`
	Before Measured `json:"consultations_before"`
	While  Measured `json:"consultations_while"`
	After  Measured `json:"consultations_after"`
}

// LotRun is one lot.
type LotRun struct {
	Whole     bool               `json:"whole"` // false: it was cancelled after LotOptions.Within
	Done      uint64             `json:"done"`
	Seconds   float64            `json:"seconds"`
	PerSecond float64            `json:"per_second"`
	Submit    float64            `json:"submit_seconds"`    // of them, until the voucher came
	CPUBy     map[string]float64 `json:"cpu_us_by_process"` // for one subject; beside consultations, theirs too
	PeakKB    map[string]int     `json:"peak_memory_kb_by_process"`
	Tally     map[string]uint64  `json:"tally"`
}

// RunLots brings a network up and sends the same lot through it twice: alone, and beside
// consultations at a steady rate, which are measured before and after too.
func RunLots(ctx context.Context, o LotOptions) (_ *LotReport, err error) {
	o = o.withDefaults()
	head := newReport(Options{})
	r := &LotReport{Time: head.Time, Machine: head.Machine, Load: head.Load, Subjects: o.Subjects, Rate: o.Steady}
	o.say("a network of %d institutions, %d persons", institutions, o.Subjects)
	n, err := testnet.Start(ctx, testnet.Options{Nodes: institutions, Persons: o.Subjects, Processes: true, Binary: o.Binary, Profile: o.Profile})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	l, err := newLoad(n)
	if err != nil {
		return nil, err
	}
	defer l.close()
	q, supplier, err := largest(n.World())
	if err != nil {
		return nil, err
	}
	r.Requester, r.Supplier, r.Dataset = q.Requester, supplier, q.Dataset
	o.say("the supplier's adapter alone")
	if r.Adapter, err = adapterAlone(ctx, n, q, supplier, o.For); err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	o.say("the lot alone: %s asks %s for %s", q.Requester, supplier, q.Dataset)
	stop, err := l.profile(o.Profile, true)
	if err != nil {
		return nil, err
	}
	r.Alone, err = runLot(ctx, o, n, l, q, "alone")
	if err = errors.Join(err, stop()); err != nil {
		return nil, err
	}
	if _, err := l.closed(ctx, 16, o.For/4); err != nil { // warm
		return nil, err
	}
	o.say("%d consultations/s, before, beside and after the lot", o.Steady)
	if r.Before, err = l.steadyUntil(ctx, o.Steady, time.After(o.For)); err != nil {
		return nil, err
	}
	over := make(chan time.Time)
	var asked error
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		r.While, asked = l.steadyUntil(ctx, o.Steady, over)
	}()
	r.Beside, err = runLot(ctx, o, n, l, q, "beside")
	close(over)
	<-measured
	if err = errors.Join(err, asked); err != nil {
		return nil, err
	}
	r.After, err = l.steadyUntil(ctx, o.Steady, time.After(o.For))
	return r, err
}

// runLot sends every person of the network in one file, and waits for its end.
func runLot(ctx context.Context, o LotOptions, n *testnet.Network, l *load, q data.Consultation, ticket names.ClientTicket) (*LotRun, error) {
	c := n.Client(q.Requester)
	c.AuthLevel = fmt.Sprint(q.AuthLevel)
	for _, pid := range l.pids {
		forgetPeak(pid)
	}
	used, begun := usageOf(l.pids), time.Now()
	file, w := io.Pipe()
	go func() {
		_, err := io.WriteString(w, "number\n")
		for p := range n.World().Persons() {
			if err == nil {
				_, err = fmt.Fprintln(w, p.SSIN.Number())
			}
		}
		w.CloseWithError(err)
	}()
	lot, err := c.SubmitLot(ctx, api.LotRequest{ClientTicket: ticket, Purpose: q.Purpose, Dataset: q.Dataset, Period: q.Period}, file)
	_ = file.Close() // ends the writer, if nobody reads any more
	if err != nil {
		return nil, err
	}
	run := &LotRun{Whole: true, Submit: time.Since(begun).Seconds()}
	for told := begun; lot.Ended == nil; {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if lot, err = c.Lot(ctx, lot.Voucher); err != nil {
			return nil, err
		}
		if run.Whole && time.Since(begun) > o.Within {
			run.Whole = false
			run.Done = lot.Done
			if _, err := c.CancelLot(ctx, lot.Voucher); err != nil {
				return nil, err
			}
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			o.say("  %d of %d, %.0f/s %s", lot.Done, lot.Lines, float64(lot.Done)/time.Since(begun).Seconds(), lot.Waits)
		}
	}
	took := time.Since(begun)
	if run.Whole {
		run.Done = lot.Done
	}
	run.Seconds, run.PerSecond, run.Tally = took.Seconds(), float64(run.Done)/took.Seconds(), lot.Tally
	run.CPUBy, run.PeakKB = used.since(int(run.Done)).perCall(), map[string]int{}
	for name, pid := range l.pids {
		run.PeakKB[name] = peak(pid)
	}
	if run.Whole && int(run.Done) != o.Subjects {
		return nil, fmt.Errorf("a lot of %d subjects has %d results", o.Subjects, run.Done)
	}
	return run, c.AcknowledgeLot(ctx, lot.Voucher)
}

// WriteJSON writes the report for machines.
func (r *LotReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// WriteTable writes the report for people.
func (r *LotReport) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	line("%s, %s; load average before: %s", r.Time.Format(time.DateTime), r.Machine, r.Load)
	line("%s asks %s for %s of %d subjects\n", r.Requester, r.Supplier, r.Dataset, r.Subjects)
	line("lot\tsubjects/s\tseconds\tof them handing in\tdone")
	line("alone\t%.0f\t%.1f\t%.1f\t%d", r.Alone.PerSecond, r.Alone.Seconds, r.Alone.Submit, r.Alone.Done)
	line("beside %d consultations/s\t%.0f\t%.1f\t%.1f\t%d", r.Rate, r.Beside.PerSecond, r.Beside.Seconds, r.Beside.Submit, r.Beside.Done)
	line("supplier's adapter alone\t%.0f\t\t\t%d", r.Adapter.PerSecond, r.Adapter.Count)
	line("\nprocess\tCPU µs a subject, alone\tpeak MB")
	for _, name := range slices.Sorted(maps.Keys(r.Alone.CPUBy)) {
		line("%s\t%.1f\t%d", name, r.Alone.CPUBy[name], max(r.Alone.PeakKB[name], r.Beside.PeakKB[name])>>10)
	}
	line("\nconsultations, %d/s\tp50 ms\tp99 ms\tturned away or late", r.Rate)
	for _, m := range []struct {
		when string
		Measured
	}{{"before", r.Before}, {"while the lot runs", r.While}, {"after", r.After}} {
		line("%s\t%.2f\t%.2f\t%d of %d", m.when, m.P50, m.P99, m.Failed, m.Count)
	}
	line("\n%s: what came of the lines: %v", r.Dataset, r.Alone.Tally)
	return t.Flush()
}

// forgetPeak has the system count a process's peak anew, where it can.
func forgetPeak(pid int) { _ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) }
