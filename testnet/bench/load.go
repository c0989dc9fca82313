package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

// Measured is what was seen of calls of one kind.
type Measured struct {
	Count     int     `json:"count"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	CPU       float64 `json:"cpu_us,omitempty"` // of all processes, for one call
	Failed    int     `json:"failed,omitempty"` // turned away, or not served in time, by nodes that were asked too much
}

// Exchanges is what was seen of consultations.
type Exchanges struct {
	Measured
	CPUBy    map[string]float64 `json:"cpu_us_by_process"` // for one consultation
	MemoryBy map[string]int     `json:"memory_kb_by_process"`
}

// load asks a network.
type load struct {
	asking
	client *http.Client
	pids   map[string]int // by institution; this process generates the load
	next   []atomic.Int64 // by requester
	turn   atomic.Int64
	last   []atomic.Pointer[names.Ticket]
}

// generator is the name of this process among those of the institutions. Their own
// systems that are HTTP services run in it too.
const generator = "client and systems"

func newLoad(n *testnet.Network) (*load, error) {
	l := &load{
		client: &http.Client{Transport: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 512}},
		pids:   map[string]int{generator: os.Getpid()},
	}
	for _, e := range n.Endpoints().Nodes {
		l.pids[string(e.Institution)] = e.PID
	}
	var err error
	if n.World().Config().Careers {
		l.asking, err = newCareers(n.World(), n.Endpoints())
	} else {
		l.asking, err = prepare(n, lookAt)
	}
	if err != nil {
		return nil, err
	}
	l.next, l.last = make([]atomic.Int64, l.requesters()), make([]atomic.Pointer[names.Ticket], l.requesters())
	return l, nil
}

// asked tells how many questions were put, and how many of these had been put before.
func (l *load) asked() (all, again int) {
	for by := range l.next {
		n := int(l.next[by].Load())
		all, again = all+n, again+max(0, n-l.each())
	}
	return all, again
}

func (l *load) close() { l.client.CloseIdleConnections() }

// errTurnedAway is what comes of asking nodes more than they can do: it is counted, and
// anything else ends the measurement.
var errTurnedAway = errors.New("the node was asked too much at once")

// overload are the reasons of an answer which say that some node was not fast enough.
var overload = []string{"REGISTRY_STALE", "CLEARING_UNAVAILABLE", "SUPPLIER_UNAVAILABLE", "CLEARANCE_EXPIRED", "STALE_REQUEST"}

func overloaded(status int, answer []byte) bool {
	return status == http.StatusTooManyRequests || status == http.StatusOK &&
		slices.ContainsFunc(overload, func(reason string) bool { return bytes.Contains(answer, []byte(`"reason":"`+reason+`"`)) })
}

// ask puts the next question of one requester.
func (l *load) ask(ctx context.Context, by int) error {
	by %= l.requesters()
	ticket, err := l.put(ctx, l.question(by, l.next[by].Add(1)-1))
	if ticket != "" {
		l.last[by].Store(&ticket)
	}
	return err
}

// put puts a question, and gives the ticket of the answer that brings data.
func (l *load) put(ctx context.Context, q question) (names.Ticket, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.url, bytes.NewReader(q.body))
	if err != nil {
		return "", err
	}
	req.Header = q.header
	resp, err := l.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	switch {
	case resp.StatusCode == http.StatusOK && found(answer):
	case overloaded(resp.StatusCode, answer):
		return "", errTurnedAway
	default:
		return "", fmt.Errorf("%s: %s: %.300s", q.direction, resp.Status, answer)
	}
	return ticketOf(answer), nil
}

// ticketOf finds the ticket of an answer.
func ticketOf(answer []byte) names.Ticket {
	_, rest, _ := bytes.Cut(answer, []byte(`"ticket":"`))
	t, _, _ := bytes.Cut(rest, []byte(`"`))
	return names.Ticket(t)
}

// traces asks, one after the other, for the trace of a consultation that was just
// carried out: three nodes' journals, joined and verified. Only the traces are timed.
func (l *load) traces(ctx context.Context, n *testnet.Network, d time.Duration) (*Measured, error) {
	var took []time.Duration
	begun := time.Now()
	for i := 0; time.Since(begun) < d; i++ {
		by := i % l.requesters()
		if err := l.ask(ctx, by); errors.Is(err, errTurnedAway) {
			continue
		} else if err != nil {
			return nil, err
		}
		ticket := *l.last[by].Load()
		at := time.Now()
		story, err := n.Client(l.requester(by)).Trace(ctx, ticket)
		if err != nil {
			return nil, fmt.Errorf("trace: %w", err)
		}
		took = append(took, time.Since(at))
		if story.Verdict != trace.Consistent {
			return nil, fmt.Errorf("the trace of an exchange that went well is %s: %s", story.Verdict, story.Summary)
		}
	}
	m := measuredOf(took, time.Since(begun))
	return &m, nil
}

// closed keeps k questions under way for d. Each caller asks at one node, so that a slow
// one does not gather them all; fewer callers than nodes go round.
func (l *load) closed(ctx context.Context, k int, d time.Duration) (Exchanges, error) {
	used := usageOf(l.pids)
	ask := l.ask
	if k < l.requesters() {
		ask = func(ctx context.Context, _ int) error { return l.ask(ctx, int(l.turn.Add(1))) }
	}
	s, err := closedLoop(ctx, k, d, ask)
	if err != nil {
		return Exchanges{}, err
	}
	return used.since(s.Count).exchanges(s.Measured), nil
}

// steady asks at a rate, whether or not the answers keep up; the time that an answer
// took counts from when its question was due.
func (l *load) steady(ctx context.Context, perSecond int, d time.Duration) (*Exchanges, error) {
	used := usageOf(l.pids)
	n := int(d.Seconds() * float64(perSecond))
	took, errs := make([]time.Duration, n), make([]error, n)
	begun := time.Now()
	var all sync.WaitGroup
	for i := range n {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(due))
		all.Go(func() {
			errs[i] = l.ask(ctx, i)
			took[i] = time.Since(due)
		})
	}
	all.Wait()
	m := measuredOf(took, time.Since(begun))
	for _, err := range errs {
		if err != nil && !errors.Is(err, errTurnedAway) {
			return nil, fmt.Errorf("steady: %w", err)
		}
		if err != nil {
			m.Failed++
		}
	}
	x := used.since(n).exchanges(m)
	return &x, nil
}

// sample is what was measured, and how many calls there were.
type sample struct{ Measured }

// closedLoop keeps k calls under way for d, counts those that are turned away, and fails
// with the first that fails otherwise.
func closedLoop(ctx context.Context, k int, d time.Duration, call func(context.Context, int) error) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([][]time.Duration, k)
	var failed atomic.Int64
	begun := time.Now()
	var all sync.WaitGroup
	for i := range k {
		all.Go(func() {
			for ctx.Err() == nil {
				at := time.Now()
				if at.Sub(begun) >= d {
					return
				}
				if err := call(ctx, i); errors.Is(err, errTurnedAway) {
					failed.Add(1)
					continue
				} else if err != nil {
					cancel(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return sample{}, err
	}
	m := measuredOf(slices.Concat(took...), time.Since(begun))
	m.Failed = int(failed.Load())
	if m.Count == 0 {
		return sample{}, fmt.Errorf("nothing succeeded in %v, %d were turned away", d, m.Failed)
	}
	return sample{m}, nil
}

func measuredOf(took []time.Duration, d time.Duration) Measured {
	slices.Sort(took)
	m := Measured{Count: len(took), PerSecond: float64(len(took)) / d.Seconds()}
	if len(took) > 0 {
		m.P50, m.P99 = ms(took[len(took)/2]), ms(took[len(took)*99/100])
	}
	return m
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
