// Package bench measures a whole network on one machine: institutions as processes
// of their own, made by the production constructor, asked through their HTTP
// interfaces in every direction, everything durable, signed and journaled. Beside
// each figure stands a reference that was taken in the same run on the same machine:
// a bare two-hop mutual-TLS proxy (net/http), a bare QUIC round trip, a bare fsync.
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
	"time"

	"github.com/crossroads-mesh/crossroads/testnet"
)

// Options say what to measure. The zero value of each field takes its default.
type Options struct {
	Quick    bool          // less of everything: under a minute
	InFlight []int         // requests under way at once; default 1, 16, 64, 256
	For      time.Duration // how long each row is measured; default 8 s, quick 2 s
	Members  []int         // registry members, of seven; the first is measured in full; default 3, 5, 7, quick 3
	Steady   int           // consultations a second of the steady load; default 600; below 0: none
	Persons  int           // invented persons; default 10,000
	Binary   string        // the crossroads binary that node processes run; default: this one
	Profile  string        // folder for profiles of every process, while 64 are in flight if they ever are; empty: none
	Out      io.Writer     // progress; nil: none
}

// institutions of every network that is measured.
const institutions = 7

func (o Options) withDefaults() Options {
	if len(o.InFlight) == 0 {
		o.InFlight = []int{1, 16, 64, 256}
	}
	if o.For == 0 {
		o.For = 8 * time.Second
		if o.Quick {
			o.For = 2 * time.Second
		}
	}
	if len(o.Members) == 0 {
		o.Members = []int{3, 5, 7}
		if o.Quick {
			o.Members = []int{3}
		}
	}
	if o.Steady == 0 {
		o.Steady = 600
	}
	if o.Persons == 0 {
		o.Persons = 10_000
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o
}

// flatAt is how many are in flight when networks of different size are compared, and
// when profiles are taken.
const flatAt = 64

// profileAt is how many are in flight while profiles are taken.
func (o Options) profileAt() int {
	if slices.Contains(o.InFlight, flatAt) {
		return flatAt
	}
	return o.InFlight[len(o.InFlight)-1]
}

// Run measures. Its error is of what could not be measured; a slow machine is none.
func Run(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	r := newReport(o)
	refs, err := openReferences(ctx)
	if err != nil {
		return nil, err
	}
	defer refs.close()
	for i, members := range o.Members {
		o.say("a network of %d institutions, %d of them registry members", institutions, members)
		if err := measureNetwork(ctx, o, r, refs, members, i == 0); err != nil {
			return nil, fmt.Errorf("with %d members: %w", members, err)
		}
	}
	o.say("the journal alone, and the disk")
	if r.Journal, r.Verified, err = measureJournal(ctx, o.For); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return r, nil
}

func (o Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+" ...\n", args...) }

// measureNetwork brings a network up, measures it, and ends it.
func measureNetwork(ctx context.Context, o Options, r *Report, refs *references, members int, full bool) (err error) {
	n, err := testnet.Start(ctx, testnet.Options{
		Nodes: institutions, Members: members, Persons: o.Persons, Processes: true, Binary: o.Binary, Profile: o.Profile,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	l, err := newLoad(n)
	if err != nil {
		return err
	}
	defer l.close()
	r.Questions, r.Directions, r.AnswerBytes = l.count, l.directions, l.answerBytes
	o.say("warming up")
	if _, err := l.closed(ctx, flatAt, o.For/2); err != nil {
		return err
	}
	if full {
		for _, k := range o.InFlight {
			if err := measureRow(ctx, o, r, l, refs, k); err != nil {
				return err
			}
		}
		o.say("traces")
		if r.Traces, err = l.traces(ctx, n, o.For/2); err != nil {
			return err
		}
		if o.Steady > 0 {
			o.say("steady %d/s", o.Steady)
			if r.Steady, err = l.steady(ctx, o.Steady, o.For); err != nil {
				return err
			}
		}
	}
	if len(o.Members) > 1 {
		o.say("%d in flight, to compare networks", flatAt)
		row, err := l.closed(ctx, flatAt, o.For)
		if err != nil {
			return err
		}
		proxy, err := closedLoop(ctx, flatAt, o.For/2, func(ctx context.Context, _ int) error { return refs.proxy(ctx) })
		if err != nil {
			return err
		}
		r.Flat = append(r.Flat, Flat{Members: members, Exchanges: row.Measured, Proxy: proxy.Measured})
	}
	return nil
}

// measureRow measures with k in flight, and the references right after.
func measureRow(ctx context.Context, o Options, r *Report, l *load, refs *references, k int) error {
	o.say("%d in flight", k)
	stop, err := l.profile(o.Profile, k == o.profileAt())
	if err != nil {
		return err
	}
	row, err := l.closed(ctx, k, o.For)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	if err := refs.warm(ctx, k); err != nil {
		return err
	}
	used := usageOf(map[string]int{"proxy": os.Getpid()})
	proxy, err := closedLoop(ctx, k, o.For/2, func(ctx context.Context, _ int) error { return refs.proxy(ctx) })
	if err != nil {
		return err
	}
	proxy.CPU = used.since(proxy.Count).perCall()["proxy"]
	quic, err := closedLoop(ctx, k, o.For/4, func(ctx context.Context, _ int) error { return refs.quic.Call(ctx) })
	if err != nil {
		return err
	}
	sync, err := refs.fsyncs(o.For / 8)
	if err != nil {
		return err
	}
	r.Rows = append(r.Rows, Row{InFlight: k, Exchanges: row, Proxy: proxy.Measured, QUIC: quic.Measured, Fsync: sync})
	return nil
}
