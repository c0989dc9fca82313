package sector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// arrivals gives what a test puts in, until it is taken.
type arrivals struct {
	mu   sync.Mutex
	here []Arrival
	done []time.Duration // after the beginning, that each was said to be with the sector
	came time.Time
}

func (a *arrivals) Next(ctx context.Context) ([]Arrival, error) {
	for {
		a.mu.Lock()
		here := slices.Clone(a.here)
		a.mu.Unlock()
		if len(here) > 0 {
			return here, nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (a *arrivals) Done(_ context.Context, all []Arrival) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.here = a.here[len(all):]
	for range all {
		a.done = append(a.done, time.Since(a.came))
	}
	return nil
}

func (a *arrivals) put(all ...Notification) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.came = time.Now()
	for _, n := range all {
		a.here = append(a.here, Arrival{Notification: n})
	}
}

// TestCourier: a fund that is down for long gets everything in order and once, others are
// not held up, and whoever published is told at once, whichever fund it is.
func TestCourier(t *testing.T) {
	w := newWorld(t)
	down, up := w.person(1, "fund-a"), w.person(2, "fund-b")
	w.bubble(t, func(t *testing.T) {
		nic := w.node("nic").manager
		a := &arrivals{}
		start := func() (*Courier, func()) {
			c, err := NewCourier(nic, a)
			w.must(err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- c.Run(ctx) }()
			return c, func() { cancel(); <-ended }
		}
		gone, lost := true, 0
		var mu sync.Mutex
		w.disturbing(func(_ context.Context, method string, _, to names.NodeID, arrived bool) error {
			mu.Lock()
			defer mu.Unlock()
			if method != "deliver" || to.Institution != "fund-a" {
				return nil
			}
			if gone {
				return errLost
			}
			if arrived && lost < 3 { // it has it, and nobody knows
				lost++
				return errLost
			}
			return nil
		})
		var all []Notification
		for i := range 6 {
			for _, id := range []int{1, 2} {
				who := down
				if id == 2 {
					who = up
				}
				all = append(all, Notification{ID: fmt.Sprintf("%d-%d", id, i), Publisher: "nsso", Dataset: "wages/v1", Subject: who, Period: always, Content: []byte(`{}`)})
			}
		}
		c, stop := start()
		a.put(all...)
		time.Sleep(time.Hour)
		synctest.Wait()
		took := func(fund string) (ids []string) {
			for _, d := range w.node(fund).member.inbox.(*inbox).took {
				ids = append(ids, d.ID)
			}
			return ids
		}
		if got := took("fund-b"); len(got) != 6 || !slices.IsSorted(got) {
			t.Errorf("fund-b took %v", got)
		}
		if len(took("fund-a")) > 0 || c.Waiting() != 6 || len(a.done) != 12 {
			t.Fatalf("fund-a took %v, %d wait, %d are done", took("fund-a"), c.Waiting(), len(a.done))
		}
		for i := 1; i < len(a.done); i++ { // the one whose fund is down as soon as the other
			if a.done[i] != a.done[0] {
				t.Errorf("the publisher is told after %v and %v", a.done[0], a.done[i])
			}
		}
		stop()        // a restart
		a.put(all...) // and everything comes again
		mu.Lock()
		gone = false
		mu.Unlock()
		c, stop = start()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := took("fund-a"); len(got) != 6 || !slices.IsSorted(got) || c.Waiting() != 0 || lost != 3 {
			t.Errorf("fund-a took %v, %d wait, %d receipts were lost", got, c.Waiting(), lost)
		}
		if got := took("fund-b"); len(got) != 6 {
			t.Errorf("fund-b took %v", got)
		}
		stop()
		if c, err := NewCourier(nic, a); err != nil || c.Waiting() != 0 {
			t.Errorf("after all was delivered %d wait, %v", c.Waiting(), err)
		}
		if err := nic.Deliver(t.Context(), Notification{ID: "x"}); !errors.Is(err, names.ErrMalformed) {
			t.Errorf("a malformed one: %v", err)
		}
	})
}
