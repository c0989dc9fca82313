package belgium

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// prober is the other traffic: an application that looks subjects up at the members (each
// look-up is journaled, durably, before it is answered), and an institution that declares
// one reference at a time.
type prober struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu                      sync.Mutex
	reads, snapshot, commit []time.Duration
	failed                  int
}

const readEvery, commitEvery = 20 * time.Millisecond, 500 * time.Millisecond

func (r *run) probe(through ...names.InstitutionID) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{cancel: cancel}
	for _, id := range through {
		client := r.net.Client(id)
		p.every(ctx, readEvery*time.Duration(len(through)), func(n int) error {
			busy := r.writesSnapshot(id)
			began := time.Now()
			number := r.country.Number(int(mix(uint64(n)) % uint64(r.country.Persons())))
			_, err := client.FindReferences(ctx, api.Subject{Scheme: string(number.Scheme()), Number: number.Number()})
			took := time.Since(began)
			busy = busy || r.writesSnapshot(id)
			p.note(err, took, &p.reads, busy)
			return err
		})
	}
	author := r.net.Institution(r.newcomer)
	p.every(ctx, commitEvery, func(n int) error {
		row := r.country.reference(&r.country.Institutions()[0], n%r.country.Institutions()[0].Count())
		began := time.Now()
		_, err := author.Do(ctx, &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_DeclareReferences{
			DeclareReferences: &registrypb.References{References: []*registrypb.Reference{protoOf(row)}},
		}})
		p.note(err, time.Since(began), &p.commit, false)
		return err
	})
	return p
}

func protoOf(d record.Declaration) *registrypb.Reference {
	return &registrypb.Reference{
		Subject: &registrypb.Subject{Scheme: string(d.Subject.Scheme()), Number: d.Subject.Number()}, Quality: string(d.Quality),
		Period: &registrypb.Period{From: int32(d.Period.From), Until: int32(d.Period.Until)},
	}
}

func (p *prober) every(ctx context.Context, pause time.Duration, do func(n int) error) {
	p.done.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				_ = do(n) // it is counted
			case <-ctx.Done():
				return
			}
		}
	})
}

func (p *prober) note(err error, took time.Duration, of *[]time.Duration, snapshot bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.failed++
	case snapshot:
		p.snapshot = append(p.snapshot, took)
		fallthrough
	default:
		*of = append(*of, took)
	}
}

// end stops the traffic.
func (p *prober) end() (reads, snapshot, commits Times) {
	p.cancel()
	p.done.Wait()
	return timesOf(p.reads), timesOf(p.snapshot), timesOf(p.commit)
}

// timesOf gives the percentiles of some measured times.
func timesOf(d []time.Duration) Times {
	if len(d) == 0 {
		return Times{}
	}
	slices.Sort(d)
	at := func(q float64) float64 { return float64(d[min(len(d)-1, int(q*float64(len(d))))].Nanoseconds()) / 1000 }
	return Times{N: len(d), P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}
}
