// Package bench measures a whole network on one machine: institutions as processes
// of their own, made by the production constructor, asked through their HTTP
// interfaces in every direction, everything durable, signed and journaled. Beside
// each figure stands a reference that was taken in the same run on the same machine:
// a bare two-hop mutual-TLS proxy (net/http), a bare QUIC round trip, a bare fsync, a
// supplier's adapter alone, appends alone, bare consensus.
//
// A figure says little on a machine that others use too; its ratio to the reference
// says more. So the report holds both, and the ratio.
//
//	report, err := bench.Run(ctx, bench.Options{Binary: exe, Out: os.Stderr})
//	err = report.WriteTable(os.Stdout)
//
// `crossroads bench` is this package on the command line.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/testnet"
)

// Options say what to measure. The zero value of each field takes its default.
type Options struct {
	Quick    bool          // less of everything: under a minute
	Only     []string      // parts to measure, of Parts; default all, quick those that are quick
	InFlight []int         // requests under way at once; default 1, 16, 64, 256
	For      time.Duration // how long each row is measured; default 8 s, quick 1.5 s
	Members  []int         // registry members, of seven, of the networks that are compared; default 3, 5, 7
	Steady   int           // consultations a second of the steady load; default 600; below 0: none
	Persons  int           // invented persons; default 20,000, quick 5,000
	// References are loaded into one of two networks that are compared; default 1,000,000.
	References int
	// Loaded is a folder that `crossroads bench registry --dir` filled: its network is
	// compared with those two. Empty: none.
	Loaded string
	// DayFraction is what part of a country's day is played; default 0.002, quick 0.0002.
	DayFraction float64
	Binary      string    // the crossroads binary that node processes run; default: this one
	Profile     string    // folder for profiles of every process, while 64 are in flight if they ever are; empty: none
	Out         io.Writer // progress; nil: none
}

// institutions of every network that is measured.
const institutions = 7

// ErrOptions is wrapped by the error of options that cannot be.
var ErrOptions = errors.New("impossible measurement")

// part is one of the things that are measured.
type part struct {
	name  string
	quick bool // of a quick run too
	mixed bool // on the network that all such parts share
	run   func(*runner, context.Context) error
}

var parts = []part{
	{"consultations", true, false, (*runner).consultations},
	{"lots", true, true, (*runner).lots},
	{"notifications", true, true, (*runner).notifications},
	{"day", true, true, (*runner).day},
	{"members", false, false, (*runner).members},
	{"references", false, false, (*runner).directories},
	{"commits", true, false, (*runner).commits},
	{"journal", true, false, (*runner).journal},
}

// Parts names what can be measured, in order.
func Parts() (all []string) {
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

func (o Options) withDefaults() (Options, error) {
	for _, name := range o.Only {
		if !slices.Contains(Parts(), name) {
			return o, fmt.Errorf("%w: there is no part %q; there are %s", ErrOptions, name, strings.Join(Parts(), ", "))
		}
	}
	if len(o.Only) == 0 {
		for _, p := range parts {
			if p.quick || !o.Quick {
				o.Only = append(o.Only, p.name)
			}
		}
	}
	if len(o.InFlight) == 0 {
		o.InFlight = []int{1, 16, 64, 256}
	}
	for _, k := range o.InFlight {
		if k < 1 {
			return o, fmt.Errorf("%w: %d in flight", ErrOptions, k)
		}
	}
	if o.For == 0 {
		o.For = 8 * time.Second
		if o.Quick {
			o.For = 1500 * time.Millisecond
		}
	}
	if len(o.Members) == 0 {
		o.Members = []int{3, 5, 7}
	}
	if o.Steady == 0 {
		o.Steady = 600
	}
	if o.Persons == 0 {
		o.Persons = 20_000
		if o.Quick {
			o.Persons = 5_000
		}
	}
	if o.DayFraction == 0 {
		o.DayFraction = 0.002
		if o.Quick {
			o.DayFraction = 0.0002
		}
	}
	if !(o.DayFraction > 0 && o.DayFraction <= 1) {
		return o, fmt.Errorf("%w: %v of a day", ErrOptions, o.DayFraction)
	}
	if o.References == 0 {
		o.References = 1_000_000
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o, nil
}

// flatAt is how many are in flight when networks are compared, and when profiles are
// taken.
const flatAt = 64

// profileAt is how many are in flight while profiles are taken.
func (o Options) profileAt() int {
	if slices.Contains(o.InFlight, flatAt) {
		return flatAt
	}
	return o.InFlight[len(o.InFlight)-1]
}

// runner is a run under way.
type runner struct {
	Options
	report *Report
	refs   *references // nil: not needed yet
	mix    *mixed      // nil: not needed yet, or any more
	begun  time.Time
}

// say tells what comes next, and how long it has taken so far.
func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.Out, "%4.0f s  %s ...\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// Run measures. Its error is of what could not be measured; a slow machine is none.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	r := &runner{Options: o, report: newReport(o), begun: time.Now()}
	defer func() {
		if r.refs != nil {
			r.refs.close()
		}
		err = errors.Join(err, r.mix.close())
	}()
	for _, p := range parts {
		if !slices.Contains(o.Only, p.name) {
			continue
		}
		if !p.mixed { // its processes shall not disturb
			closing := r.mix
			r.mix = nil
			if err := closing.close(); err != nil {
				return nil, fmt.Errorf("the mixed network: %w", err)
			}
		}
		if err := p.run(r, ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.report.Took = time.Since(r.begun).Seconds()
	r.report.Against = r.report.Goals()
	return r.report, nil
}

// references stands the references up, whose answers have as many bytes as those of the
// network that is measured first.
func (r *runner) references(ctx context.Context, l *load) (_ *references, err error) {
	if r.refs == nil {
		r.refs, err = openReferences(ctx, l.answerBytes())
	}
	return r.refs, err
}

// network brings up a network in which everybody may ask everybody for some 1 KB, and
// what asks it. The caller closes both.
func (r *runner) network(ctx context.Context, members, persons int) (*measured, error) {
	r.say("a network of %d institutions, %d of them registry members, %d persons", institutions, members, persons)
	n, err := testnet.Start(ctx, testnet.Options{
		Nodes: institutions, Members: members, Persons: persons, Careers: true, Processes: true, Binary: r.Binary, Profile: r.Profile,
	})
	if err != nil {
		return nil, err
	}
	return measuring(n)
}

// measured is a network and what asks it.
type measured struct {
	*testnet.Network
	*load
}

func measuring(n *testnet.Network) (*measured, error) {
	l, err := newLoad(n)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return &measured{n, l}, nil
}

func (m *measured) close() error {
	m.load.close()
	return m.Network.Close()
}

// warm asks for a while before anything is measured.
func (r *runner) warm(ctx context.Context, l *load) error {
	r.say("warming up")
	_, err := l.closed(ctx, flatAt, r.For/2)
	return err
}

func (r *runner) consultations(ctx context.Context) (err error) {
	n, err := r.network(ctx, 3, r.Persons)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if _, err := r.references(ctx, n.load); err != nil {
		return err
	}
	report := r.report
	report.Questions, report.Directions, report.AnswerBytes = n.count(), n.directions(), n.answerBytes()
	if err := r.warm(ctx, n.load); err != nil {
		return err
	}
	for _, k := range r.InFlight {
		if err := r.row(ctx, n.load, k); err != nil {
			return err
		}
	}
	r.say("traces")
	if report.Traces, err = n.traces(ctx, n.Network, r.For/2); err != nil {
		return err
	}
	if r.Steady > 0 {
		r.say("steady %d/s", r.Steady)
		if report.Steady, err = n.steady(ctx, r.Steady, r.For); err != nil {
			return err
		}
	}
	report.Asked, report.AskedAgain = n.asked()
	return nil
}

// row measures with k in flight, and the references right after.
func (r *runner) row(ctx context.Context, l *load, k int) error {
	r.say("%d in flight", k)
	stop, err := l.profile(r.Profile, k == r.profileAt())
	if err != nil {
		return err
	}
	row, err := l.closed(ctx, k, r.For)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	if err := r.refs.warm(ctx, k); err != nil {
		return err
	}
	used := usageOf(map[string]int{"proxy": os.Getpid()})
	proxy, err := closedLoop(ctx, k, r.For/2, func(ctx context.Context, _ int) error { return r.refs.proxy(ctx) })
	if err != nil {
		return err
	}
	proxy.CPU = used.since(proxy.Count).perCall()["proxy"]
	quic, err := closedLoop(ctx, k, r.For/4, func(ctx context.Context, _ int) error { return r.refs.quic.Call(ctx) })
	if err != nil {
		return err
	}
	sync, err := r.refs.fsyncs(r.For / 8)
	if err != nil {
		return err
	}
	r.report.Rows = append(r.report.Rows, Row{InFlight: k, Exchanges: row, Proxy: proxy.Measured, QUIC: quic.Measured, Fsync: sync})
	return nil
}

func (r *runner) journal(ctx context.Context) (err error) {
	r.say("the journal alone, and the disk")
	r.report.Journal, r.report.Verified, err = measureJournal(ctx, r.For)
	return err
}
