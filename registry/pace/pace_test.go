package pace_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/pace"
)

// TestShare works for a virtual second in steps of a millisecond.
func TestShare(t *testing.T) {
	for _, c := range []struct {
		rest int
		took time.Duration
	}{{0, time.Second}, {-1, time.Second}, {1, 2 * time.Second}, {4, 5 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			p, began := pace.New(c.rest), time.Now()
			for step := range 1001 { // the first one begins
				if step > 0 {
					time.Sleep(time.Millisecond)
				}
				if err := p.Step(t.Context(), 2); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took != c.took || p.Done() != 2002 {
				t.Errorf("resting %d times took %v and did %d, want %v", c.rest, took, p.Done(), c.took)
			}
		})
	}
}

// TestBusyMachine has each piece wait a second for the processor.
func TestBusyMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, began := pace.New(4), time.Now()
		for range 11 {
			if err := p.Step(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if took, most := time.Since(began), 11*time.Second+10*8*pace.Piece; took > most {
			t.Errorf("took %v, want at most %v", took, most)
		}
	})
}

// TestEnds ends a rest.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := pace.New(1 << 20)
		if err := p.Step(ctx, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pace.Piece)
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		if err := p.Step(ctx, 1); !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("%v after %v, want the end of the context after 1s", err, time.Since(began))
		}
		if err := p.Step(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the end of the context", err)
		}
	})
}
