package veil

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// TestEverySize pads messages of every size around each class and in the first two.
func TestEverySize(t *testing.T) {
	try := func(n int) {
		m := &nodepb.PresentResponse{Content: make([]byte, n)}
		size := proto.Size(m)
		want, err := Class(size)
		if err != nil {
			t.Fatal(err)
		}
		if m.Padding, err = Padding(m); err != nil {
			t.Fatal(err)
		}
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) != want || want&(want-1) != 0 || want < size {
			t.Fatalf("a message of %d bytes became %d, its class is %d", size, len(raw), want)
		}
	}
	for n := range Floor + 300 {
		try(n)
	}
	for c := 4 * Floor; c <= Ceiling; c *= 2 {
		for n := c - 60; n < c-8; n++ {
			try(n)
		}
		try(c/2 + 17)
	}
	for n := 0; n < 1<<15; n++ {
		if n == 1 {
			continue
		}
		size := 0
		for _, p := range fill(n) {
			size += proto.Size(&nodepb.SectorAsk{Padding: [][]byte{p}})
		}
		if size != n {
			t.Fatalf("fill(%d) takes %d", n, size)
		}
	}
	if _, err := Padding(&nodepb.PresentResponse{Content: make([]byte, Ceiling)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestHold(t *testing.T) {
	times := DefaultTimes()
	for _, c := range []struct {
		ready  time.Duration
		failed bool
		want   time.Duration
	}{
		{0, false, times.Prompt}, {times.Prompt - 1, false, times.Prompt}, {times.Prompt, false, times.Prompt},
		{times.Prompt + 1, false, times.Late}, {times.Late, false, times.Late}, {times.Late + 1, false, 2 * times.Late},
		{0, true, times.Late}, {times.Prompt, true, times.Late}, {times.Late + 1, true, 2 * times.Late},
	} {
		synctest.Test(t, func(t *testing.T) {
			arrived := time.Now()
			time.Sleep(c.ready)
			times.Hold(t.Context(), arrived, c.failed)
			if got := time.Since(arrived); got != c.want {
				t.Errorf("ready after %v, failed %t: left after %v, want %v", c.ready, c.failed, got, c.want)
			}
			arrived = time.Now()
			time.Sleep(c.ready)
			times.Settle(t.Context(), arrived, c.failed)
			settled := time.Since(arrived)
			times.Hold(t.Context(), arrived, c.failed)
			if left := time.Since(arrived); left-settled != times.Lead() || left != times.Prompt && left%times.Late != 0 {
				t.Errorf("ready after %v: settled after %v, left after %v", c.ready, settled, left)
			}
			c.want = time.Since(arrived)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			times.Hold(ctx, time.Now(), true) // nobody waits
			if got := time.Since(arrived); got != c.want {
				t.Errorf("it held what nobody waits for")
			}
		})
	}
	for _, bad := range []Times{{}, {Prompt: time.Second, Late: time.Second * 3 / 2}, {Prompt: time.Second, Late: time.Second - 1}, {Prompt: -1, Late: 5}} {
		if bad.Validate() == nil {
			t.Errorf("%v passed", bad)
		}
	}
}

// Whatever is ready before the room that is kept, and every failure that is known by then,
// leaves in the first or the last class; with both the same, in the only one.
func TestRoom(t *testing.T) {
	for _, times := range []Times{DefaultTimes(), {time.Second, time.Second}, {time.Second, 2 * time.Second}} {
		if err := times.Validate(); err != nil {
			t.Fatal(err)
		}
		last := times.Late - times.Room()
		for ready := time.Duration(0); ready <= last; ready += last / 100 {
			if got := times.after(ready+times.Lead(), false); got != times.Prompt && got != times.Late {
				t.Errorf("%v: ready after %v, it leaves after %v", times, ready, got)
			}
			if got := times.after(ready+times.Lead(), true); got != times.Late {
				t.Errorf("%v: failed after %v, it leaves after %v", times, ready, got)
			}
		}
	}
}
