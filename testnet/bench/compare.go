package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/belgium"
)

// rounds is how often networks that are compared take turns, so that what else the
// machine does falls on all of them.
const rounds = 3

// comparedPersons live at most in networks that are compared, which are asked for less
// long: several are filled, and kept up, at a time.
const comparedPersons = 8_000

// Compared is one network of a comparison of several.
type Compared struct {
	What       string    `json:"what"`
	Members    int       `json:"members"`
	References uint64    `json:"references,omitempty"` // loaded beside those of the network itself
	Exchanges  Exchanges `json:"exchanges"`            // with flatAt in flight
	Proxy      Measured  `json:"bare_proxy"`
}

// Ratio is the rate beside that of the bare proxy.
func (c Compared) Ratio() float64 { return c.Exchanges.PerSecond / c.Proxy.PerSecond }

// members compares networks that differ in how many of them are registry members.
func (r *runner) members(ctx context.Context) (err error) {
	var networks []*measured
	defer func() {
		for _, n := range networks {
			err = errors.Join(err, n.close())
		}
	}()
	var all []Compared
	for _, members := range r.Members {
		n, err := r.network(ctx, members, min(r.Persons, comparedPersons))
		if err != nil {
			return fmt.Errorf("with %d members: %w", members, err)
		}
		networks = append(networks, n)
		all = append(all, Compared{What: fmt.Sprintf("%d registry members", members), Members: members})
	}
	r.report.Members, err = r.compare(ctx, networks, all)
	return err
}

// compare has networks take turns, and the bare proxy after each.
func (r *runner) compare(ctx context.Context, networks []*measured, all []Compared) ([]Compared, error) {
	refs, err := r.references(ctx, networks[0].load)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		if err := r.warm(ctx, n.load); err != nil {
			return nil, err
		}
	}
	if err := refs.warm(ctx, flatAt); err != nil {
		return nil, err
	}
	ours, proxies := make([][]Exchanges, len(all)), make([][]Exchanges, len(all))
	for round := range rounds {
		for i, n := range networks {
			r.say("%s, %d in flight, %d of %d", all[i].What, flatAt, round+1, rounds)
			x, err := n.closed(ctx, flatAt, r.For/2)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", all[i].What, err)
			}
			proxy, err := closedLoop(ctx, flatAt, r.For/8, func(ctx context.Context, _ int) error { return refs.proxy(ctx) })
			if err != nil {
				return nil, err
			}
			ours[i], proxies[i] = append(ours[i], x), append(proxies[i], Exchanges{Measured: proxy.Measured})
		}
	}
	for i := range all {
		all[i].Exchanges, all[i].Proxy = merged(ours[i], r.For/2), merged(proxies[i], r.For/8).Measured
	}
	return all, nil
}

// merged is what was seen in turns of d each: of all calls together, but for the
// percentiles, of which it takes those of the turn in the middle.
func merged(turns []Exchanges, d time.Duration) Exchanges {
	all := Exchanges{CPUBy: map[string]float64{}, MemoryBy: turns[len(turns)-1].MemoryBy}
	var p50, p99 []float64
	for _, t := range turns {
		all.Count, all.Failed = all.Count+t.Count, all.Failed+t.Failed
		p50, p99 = append(p50, t.P50), append(p99, t.P99)
	}
	for _, t := range turns {
		part := float64(t.Count) / float64(max(all.Count, 1))
		all.CPU += t.CPU * part
		for name, v := range t.CPUBy {
			all.CPUBy[name] += v * part
		}
	}
	slices.Sort(p50)
	slices.Sort(p99)
	all.PerSecond = float64(all.Count) / (d.Seconds() * float64(len(turns)))
	all.P50, all.P99 = p50[len(p50)/2], p99[len(p99)/2]
	return all
}

// directories compares a network whose members hold few references with one whose members
// hold many, and with one that belgium keeps in a folder.
func (r *runner) directories(ctx context.Context) (err error) {
	var networks []*measured
	defer func() {
		for _, n := range networks {
			err = errors.Join(err, n.close())
		}
	}()
	var all []Compared
	add := func(n *testnet.Network, err error, fill int) error {
		if err != nil {
			return err
		}
		if fill > 0 {
			r.say("loading %d references, each signed by its institution, through consensus", fill)
			if _, err := belgium.Fill(ctx, n, fill, io.Discard); err != nil {
				return errors.Join(err, n.Close())
			}
		}
		m, err := measuring(n)
		if err != nil {
			return err
		}
		networks = append(networks, m)
		first := m.World().Institutions()[0].ID
		held, err := n.Client(first).RegistryStatus(ctx)
		if err != nil {
			return err
		}
		all = append(all, Compared{What: thousands(held.References) + " references", Members: 3, References: held.References})
		return nil
	}
	o := belgium.Options{Binary: r.Binary}
	for _, fill := range []int{0, r.References} {
		r.say("a network of 4 institutions, 3 of them registry members")
		n, err := belgium.Empty(ctx, o)
		if err := add(n, err, fill); err != nil {
			return err
		}
	}
	if r.Loaded != "" {
		r.say("the network in %s", r.Loaded)
		o.Dir = r.Loaded
		n, err := belgium.Open(ctx, o)
		if err := add(n, err, 0); err != nil {
			return err
		}
		r.say("its nodes read through what they keep")
		var nodes []names.InstitutionID
		for _, e := range n.Endpoints().Nodes {
			nodes = append(nodes, e.Institution)
		}
		if err := belgium.HaveRead(ctx, n, nodes, func(int, uint64) error { return nil }); err != nil {
			return err
		}
	}
	r.report.Directories, err = r.compare(ctx, networks, all)
	return err
}

// thousands writes a number in groups of three digits.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
