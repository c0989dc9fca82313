package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/belgium"
	"github.com/crossroads-mesh/crossroads/testnet/data"
	"github.com/crossroads-mesh/crossroads/testnet/traffic"
)

// Beside is a rate, and that of what it rests on alone.
type Beside struct {
	What      string  `json:"what"`
	Count     int     `json:"count,omitempty"`
	PerSecond float64 `json:"per_second"`
	CPU       float64 `json:"cpu_us,omitempty"` // of all processes, for one

	Reference          string  `json:"reference"`
	ReferencePerSecond float64 `json:"reference_per_second"`
}

// Ratio is the rate beside the reference's.
func (b Beside) Ratio() float64 { return b.PerSecond / b.ReferencePerSecond }

// Day is a part of a country's day.
type Day struct {
	Fraction float64         `json:"fraction"`
	Shares   []traffic.Share `json:"shares_wanted"`
	*traffic.Played
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	CPU       float64 `json:"cpu_us"` // of all processes, for one exchange
	// Minutes are what the whole day would take at this rate: extrapolated, unless the
	// fraction is 1.
	Minutes   float64 `json:"whole_day_minutes"`
	Traced    int     `json:"traced"`
	Whole     int     `json:"traces_whole"`
	Complaint string  `json:"first_other_trace,omitempty"`
}

// mixed is a network with an employer beside the seven institutions, and all kinds of
// traffic.
type mixed struct {
	*measured
	question data.Consultation // of lots
	supplier names.InstitutionID
}

func (m *mixed) close() error {
	if m == nil {
		return nil
	}
	return m.measured.close()
}

func (r *runner) mixedNetwork(ctx context.Context) (*mixed, error) {
	if r.mix != nil {
		return r.mix, nil
	}
	r.say("a network of %d institutions and an employer, %d persons", institutions, r.Persons)
	n, err := testnet.Start(ctx, testnet.Options{
		Nodes: institutions, Also: []names.InstitutionID{traffic.Employer}, Persons: r.Persons, Careers: true, Processes: true, Binary: r.Binary, Profile: r.Profile,
	})
	if err != nil {
		return nil, err
	}
	m, err := measuring(n)
	if err != nil {
		return nil, err
	}
	mix := &mixed{measured: m}
	if mix.question, mix.supplier, err = largest(m.World()); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := r.warm(ctx, m.load); err != nil {
		return nil, errors.Join(err, m.close())
	}
	r.mix = mix
	return mix, nil
}

// lots sends one lot about everybody through the network, and asks the supplier's adapter
// about them alone.
func (r *runner) lots(ctx context.Context) error {
	m, err := r.mixedNetwork(ctx)
	if err != nil {
		return err
	}
	r.say("a lot of %d subjects, and the supplier's adapter alone", r.Persons)
	adapter, err := adapterAlone(ctx, m.Network, m.question, m.supplier, r.For)
	if err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	o := LotOptions{Subjects: r.Persons, Within: 5 * time.Minute, Out: r.Out}
	run, err := runLot(ctx, o, m.Network, m.load, m.question, "bench-lot")
	if err != nil {
		return err
	}
	if !run.Whole {
		return fmt.Errorf("%d of %d subjects in %v", run.Done, r.Persons, o.Within)
	}
	b := Beside{What: lotsRow, Count: int(run.Done), PerSecond: run.PerSecond, Reference: "supplier's adapter alone", ReferencePerSecond: adapter.PerSecond}
	for _, cpu := range run.CPUBy {
		b.CPU += cpu
	}
	r.report.Beside = append(r.report.Beside, b)
	return nil
}

// noticesEach is how many changes are published for each second of a row.
const noticesEach = 500

// notifications publishes changes, and waits until all concerned hold them; the reference
// is appends to one journal, with as many waiting.
func (r *runner) notifications(ctx context.Context) error {
	m, err := r.mixedNetwork(ctx)
	if err != nil {
		return err
	}
	r.say("appends to a journal alone")
	alone, err := r.appendsAlone(ctx)
	if err != nil {
		return err
	}
	b, err := newNotices(NoticeOptions{Changes: int(noticesEach * r.For.Seconds())}.withDefaults(), m.Network)
	if err != nil {
		return err
	}
	r.say("changes that are told to all concerned")
	run, err := b.published(ctx)
	if err != nil {
		return err
	}
	r.report.Beside = append(r.report.Beside, Beside{
		What: toldRow, Count: run.Deliveries, PerSecond: run.PerSecond, CPU: run.CPU + run.CPUBy[generator],
		Reference: "journal appends alone", ReferencePerSecond: alone.PerSecond,
	})
	return nil
}

func (r *runner) appendsAlone(ctx context.Context) (a Append, err error) {
	dir, err := os.MkdirTemp("", "crossroads-bench-")
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return appending(ctx, filepath.Join(dir, "journal"), true, func(do func(int64) error) (Append, error) { return appends(ctx, r.For/4, do) })
}

// commits compares small commands with bare consensus.
func (r *runner) commits(ctx context.Context) error {
	r.say("small commands of many institutions, and bare consensus")
	c, err := belgium.MeasureCommits(ctx, r.For/2)
	if err != nil {
		return err
	}
	r.report.Beside = append(r.report.Beside, Beside{
		What: fmt.Sprintf("registry commits, %d in flight", c.InFlight), PerSecond: c.PerSecond, Reference: "bare raft, same log store", ReferencePerSecond: c.BareRaftPerSecond,
	})
	return nil
}

const dayCallers = 192

// fullDayPerSecond is at what rate a whole day is over in goalDayMinutes.
const fullDayPerSecond = traffic.FullDay / (goalDayMinutes * 60)

// day plays a part of a country's day.
func (r *runner) day(ctx context.Context) error {
	m, err := r.mixedNetwork(ctx)
	if err != nil {
		return err
	}
	r.say("preparing a day")
	usual, err := prepare(m.Network, min(lookAt, 200+int(traffic.FullDay*r.DayFraction/10)))
	if err != nil {
		return err
	}
	plan := traffic.Plan{
		Fraction: r.DayFraction, Lot: m.question, Callers: dayCallers,
		Later: func(err error) bool { return errors.Is(err, errTurnedAway) },
		// One of two is for a career record, the other for what these institutions ask each
		// other anyhow.
		Consult: func(ctx context.Context, n int) (names.InstitutionID, names.Ticket, error) {
			from := asking(usual)
			if n%2 == 0 {
				from = m.asking
			}
			n /= 2
			by := n % from.requesters()
			q := from.question(by, int64(n/from.requesters()))
			ticket, err := m.put(ctx, q)
			return q.requester, ticket, err
		},
	}
	on := names.DateOf(time.Now().UTC())
	c := m.question
	for p := range m.World().Persons() {
		c.Number = p.SSIN.Number()
		if m.World().Expected(c, on).Status == nodepb.Status_DATA_FOUND {
			plan.Numbers = append(plan.Numbers, c.Number)
		}
	}
	r.say("%.4g of a day", r.DayFraction)
	used := usageOf(m.pids)
	played, err := traffic.Day(ctx, m.Network, plan)
	if err != nil {
		return err
	}
	d := &Day{Fraction: r.DayFraction, Shares: traffic.Shares, Played: played, Seconds: played.Took.Seconds(), Traced: len(played.Tickets)}
	for _, cpu := range used.since(played.All()).perCall() {
		d.CPU += cpu
	}
	d.PerSecond = float64(played.All()) / d.Seconds
	d.Minutes = traffic.FullDay / d.PerSecond / 60
	r.say("%d traces", d.Traced)
	if d.Whole, d.Complaint, err = traffic.Trace(ctx, m.Network, played.Tickets); err != nil {
		return err
	}
	r.report.Day = d
	return nil
}
