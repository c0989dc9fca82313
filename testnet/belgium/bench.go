package belgium

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

// Options say what part of the country to load, and where.
type Options struct {
	// Scale is what part of the country: 1 is all of it, 100 a hundredth. Default 100.
	Scale int
	// Dir keeps the network, so that a run that was interrupted goes on where it was.
	// Empty: a temporary folder, removed at the end.
	Dir string
	// AtOnce is how many institutions send at the same time. Default 24.
	AtOnce int
	// Within ends the loading after so long; what is loaded by then is measured. Default
	// 90 minutes.
	Within  time.Duration
	Again   []string  // of Repeatable: what an earlier run in Dir measured, and this one measures anew
	Profile string    // folder for profiles of every process while it loads; empty: none
	Binary  string    // the crossroads binary that node processes run; default: this one
	Out     io.Writer // progress; nil: none
	// Every is how often progress is told while references are loaded. Default 5 s.
	Every time.Duration
}

// The network: three members, and a node that becomes the fourth.
const (
	nodes   = 4
	members = 3
	persons = 5_000 // of the test network itself
	poll    = 20 * time.Millisecond
)

// run is a benchmark under way.
type run struct {
	Options
	country  *Country
	net      *testnet.Network
	members  []names.InstitutionID
	newcomer names.InstitutionID
	grown    bool    // an earlier run made the newcomer a member
	report   *Report // of state
	state    *state
	sent     *sent
}

// Repeatable is what can be measured again in a folder that was kept.
var Repeatable = []string{"lookups", "restart", "snapshot", "catch-up", "commits"}

// ErrAgain is the error for what is not one of Repeatable.
var ErrAgain = errors.New("cannot be measured again")

// Run loads the country and measures. It can be interrupted at any time, and goes on
// when it is called again with the same Dir and Scale.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Scale <= 0 {
		o.Scale = 100
	}
	if o.AtOnce <= 0 {
		o.AtOnce = 24
	}
	if o.Within <= 0 {
		o.Within = 90 * time.Minute
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Every <= 0 {
		o.Every = reportEvery
	}
	for _, a := range o.Again {
		if !slices.Contains(Repeatable, a) {
			return nil, fmt.Errorf("%q %w; what can: %s", a, ErrAgain, strings.Join(Repeatable, ", "))
		}
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "crossroads-belgium-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	}
	r := &run{Options: o, country: New(FullPersons / o.Scale)}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if r.state, err = readState(filepath.Join(o.Dir, "measured.json"), o, r.country); err != nil {
		return nil, err
	}
	r.report = r.state.Report
	r.state.Done = slices.DeleteFunc(r.state.Done, func(phase string) bool { return slices.Contains(o.Again, phase) })
	r.say("%s persons, %s references of %s institutions; this needs some %s of disk in %s",
		count(r.country.Persons()), count(r.country.References()), count(len(r.country.Institutions())),
		size(int64(r.country.References())*(members+1)*40), o.Dir)
	if r.net, err = testnet.Start(ctx, o.network(filepath.Join(o.Dir, networkDir))); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.net.Close()) }()
	r.roles()
	for _, phase := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"admit", r.admit}, {"load", r.load}, {"settle", r.settle}, {"lookups", r.lookups}, {"restart", r.restart},
		{"snapshot", r.snapshot}, {"catch-up", r.catchUp}, {"commits", r.commits},
	} {
		if slices.Contains(r.state.Done, phase.name) {
			continue
		}
		if err := phase.do(ctx); err != nil {
			return r.report, fmt.Errorf("%s: %w", phase.name, err)
		}
		r.state.Done = append(r.state.Done, phase.name)
		if err := r.state.save(); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// networkDir is where Run keeps the network, within Options.Dir.
const networkDir = "network"

// network is what Start makes in dir. Its institutions keep records on persons of their
// own, so that exchanges can be measured beside the country's references.
func (o Options) network(dir string) testnet.Options {
	return testnet.Options{Nodes: nodes, Members: members, Persons: persons, Careers: true, Processes: true, Dir: dir, Binary: o.Binary, Profile: o.Profile}
}

// roles tells members and newcomer apart, by their place.
func (r *run) roles() {
	for i, e := range r.net.Endpoints().Nodes {
		if i < members {
			r.members = append(r.members, e.Institution)
		} else {
			r.newcomer, r.grown = e.Institution, e.Role == "member"
		}
	}
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Out, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// pid gives a node's process.
func (r *run) pid(id names.InstitutionID) int {
	for _, e := range r.net.Endpoints().Nodes {
		if e.Institution == id {
			return e.PID
		}
	}
	return 0
}

// leader names the member that leads, and another one. The newcomer, if it leads, hands over.
func (r *run) leader(ctx context.Context) (leader, follower names.InstitutionID, err error) {
	for ctx.Err() == nil {
		if st, err := r.net.Client(r.newcomer).RegistryStatus(ctx); err == nil && st.State == "leader" {
			if err := r.net.Client(r.newcomer).TransferLeader(ctx, ""); err != nil {
				r.say("%s leads, and did not hand over: %v", r.newcomer, err)
			}
		}
		for _, m := range r.members {
			st, err := r.net.Client(m).RegistryStatus(ctx)
			if err != nil || st.State != "leader" {
				continue
			}
			for _, f := range r.members {
				if f != m {
					return m, f, nil
				}
			}
		}
		time.Sleep(poll)
	}
	return "", "", ctx.Err()
}
