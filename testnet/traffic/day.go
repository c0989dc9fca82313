package traffic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// FullDay is how many messages a country's institutions exchanged on a day in the mean:
// 1,845,890,189 in 2024.
const FullDay = 5_060_000

// Kind is a kind of exchange.
type Kind string

// The kinds.
const (
	Consultations Kind = "consultations"
	Lots          Kind = "subjects of lots"
	Notifications Kind = "notifications"
	Declarations  Kind = "declarations"
)

// Share is what part of a day's exchanges are of a kind.
type Share struct {
	Kind Kind    `json:"kind"`
	Part float64 `json:"part"`
}

// Shares are those of a day. That of declarations follows from 25 million a year (ISSA
// 2019) of 1.85 thousand million; how the rest divides is not published, and assumed.
var Shares = []Share{{Consultations, 0.60}, {Lots, 0.25}, {Notifications, 0.1365}, {Declarations, 0.0135}}

// Plan says which part of a day to play.
type Plan struct {
	// Fraction of FullDay, above 0, at most 1.
	Fraction float64
	// Consult carries the n-th consultation out. It gives what to call again for as it is,
	// and who asked under which ticket.
	Consult func(ctx context.Context, n int) (names.InstitutionID, names.Ticket, error)
	// Later tells which of its errors are of nodes that were asked too much at once: the
	// application comes back.
	Later func(error) bool
	// Lot is what is asked about the subjects of lots, and Numbers those about whom there is
	// an answer.
	Lot     data.Consultation
	Numbers []string
	// Callers is how many consultations are under way at once.
	Callers int
}

const (
	publishers = 8
	declarers  = 4
	lotSize    = 5_000
)

// Played is what came of it.
type Played struct {
	Exchanges map[Kind]int `json:"exchanges"`
	Lots      int          `json:"lots"`
	Published int          `json:"published"`
	CameBack  int          `json:"came_back"` // consultations that a node turned away, and the application asked again
	Took      time.Duration
	Tickets   []Ticket `json:"-"` // some of each kind
}

// All is how many exchanges there were.
func (p *Played) All() (n int) {
	for _, k := range p.Exchanges {
		n += k
	}
	return n
}

// counts gives how many exchanges of each kind a plan has, at least one.
func (p Plan) counts() map[Kind]int {
	all := map[Kind]int{}
	for _, s := range Shares {
		all[s.Kind] = max(1, int(math.Round(FullDay*p.Fraction*s.Part)))
	}
	return all
}

// ErrPlan is wrapped by the error of a plan that cannot be.
var ErrPlan = errors.New("impossible day")

// Day plays a part of a day, all kinds at the same time, each as fast as it goes. The first
// thing that does not come out as it must ends it. Before anything is timed, files are
// opened and questions made.
func Day(ctx context.Context, n *testnet.Network, p Plan) (_ *Played, err error) {
	if !(p.Fraction > 0 && p.Fraction <= 1) {
		return nil, fmt.Errorf("%w: the fraction %v of it", ErrPlan, p.Fraction)
	}
	want, on := p.counts(), names.DateOf(time.Now().UTC())
	workers, err := hire(ctx, n, want[Declarations])
	if err != nil {
		return nil, fmt.Errorf("an employer's files: %w", err)
	}
	changes := Changes(n.World(), want[Notifications], on)
	toTell := 0
	for _, c := range changes {
		toTell += c.Told
	}
	if toTell == 0 {
		return nil, fmt.Errorf("%w: nobody is told of anything", ErrPlan)
	}
	b, err := take(ctx, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	done := &Played{Exchanges: map[Kind]int{}}
	var asked, lotted, declared []Ticket
	var told sent
	var toldToo int64 // of declarations
	var cameBack atomic.Int64
	begun := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		asked, err = p.consult(gctx, want[Consultations], &cameBack)
		return err
	})
	g.Go(func() (err error) {
		lotted, done.Lots, err = lots(gctx, n, p.Lot, p.Numbers, want[Lots], lotSize)
		return err
	})
	g.Go(func() (err error) {
		for left := want[Notifications]; left > 0; { // the same persons move again
			some, err := publish(gctx, n, upTo(changes, left), publishers, func() bool { return true })
			told.published, told.told, told.tickets = told.published+some.published, told.told+some.told, some.tickets
			if left -= int(some.told); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() (err error) {
		toldToo, declared, err = declare(gctx, n, workers, want[Declarations], declarers, on)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := b.until(ctx, told.told+toldToo, int64(want[Declarations])); err != nil {
		return nil, err
	}
	done.Took = time.Since(begun)
	if d := b.declined.Load(); d > 0 {
		return nil, fmt.Errorf("%d declarations were not accepted", d)
	}
	done.Published, done.CameBack = told.published, int(cameBack.Load())
	done.Exchanges = map[Kind]int{
		Consultations: want[Consultations], Lots: want[Lots], Notifications: int(told.told + toldToo), Declarations: want[Declarations],
	}
	for _, t := range [][]Ticket{asked, lotted, told.tickets, declared} {
		done.Tickets = append(done.Tickets, t...)
	}
	return done, nil
}

// upTo gives as many changes as there must be for so many deliveries.
func upTo(changes []Change, deliveries int) []Change {
	for i, c := range changes {
		if deliveries -= c.Told; deliveries <= 0 {
			return changes[:i+1]
		}
	}
	return changes
}

func (p Plan) consult(ctx context.Context, count int, cameBack *atomic.Int64) ([]Ticket, error) {
	var next atomic.Int64
	some := newSample(Consultations)
	g, ctx := errgroup.WithContext(ctx)
	for range max(1, p.Callers) {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return nil
				}
				for {
					of, ticket, err := p.Consult(ctx, i)
					if err == nil {
						some.add(of, ticket)
						break
					}
					if !p.Later(err) {
						return err
					}
					cameBack.Add(1)
					select {
					case <-time.After(20 * time.Millisecond):
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	return some.all, err
}
