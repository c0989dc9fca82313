package meshtest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

const a, b = "10.0.0.1:1", "10.0.0.2:1"

// receive reads what arrives within a second, in order.
func receive(t *testing.T, c net.PacketConn) (got []string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 100)
	for {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
}

func send(t *testing.T, from net.PacketConn, to net.PacketConn, what string) {
	t.Helper()
	if _, err := from.WriteTo([]byte(what), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
}

func TestCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := meshtest.New(1)
		ca, cb := nw.Listen(a), nw.Listen(b)
		defer ca.Close()
		defer cb.Close()
		both := func() string {
			send(t, ca, cb, "x")
			send(t, cb, ca, "y")
			return fmt.Sprint(receive(t, ca), receive(t, cb))
		}
		steps := []struct {
			do   func()
			want string
		}{
			{func() {}, "[y] [x]"},
			{func() { nw.Cut(a, b) }, "[] []"},
			{func() { nw.Heal(b, a) }, "[y] [x]"},
			{func() { nw.CutOneWay(a, b) }, "[y] []"},
			{func() { nw.CutOneWay(meshtest.Any, a) }, "[] []"},
			{func() { nw.Heal(a, b) }, "[] [x]"},
			{func() { nw.Heal(a, meshtest.Any) }, "[y] [x]"},
		}
		for i, s := range steps {
			s.do()
			if got := both(); got != s.want {
				t.Errorf("step %d: got %s, want %s", i, got, s.want)
			}
		}
		if c := nw.Counts(); c.Delivered != 9-1 || c.Cut != 6 {
			t.Errorf("got %+v", c)
		}
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := meshtest.New(1)
		ca, cb := nw.Listen(a), nw.Listen(b)
		defer ca.Close()
		defer cb.Close()
		nw.SetDelay(meshtest.Any, meshtest.Any, time.Hour)
		nw.SetDelay(a, b, 70*time.Millisecond) // the more particular one counts
		start := time.Now()
		send(t, ca, cb, "x")
		if _, _, err := cb.ReadFrom(make([]byte, 1)); err != nil || time.Since(start) != 70*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

func TestGrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := meshtest.New(1)
		ca, cb := nw.Listen(a), nw.Listen(b)
		defer ca.Close()
		defer cb.Close()
		nw.SetDelay(meshtest.Any, meshtest.Any, 2*time.Millisecond)
		nw.SetGrain(10 * time.Millisecond)
		start := time.Now() // a multiple of the grain
		for _, what := range []string{"x", "y", "z"} {
			time.Sleep(3 * time.Millisecond)
			send(t, ca, cb, what)
		}
		buf := make([]byte, 1)
		for _, want := range []struct {
			what string
			at   time.Duration
		}{{"x", 10 * time.Millisecond}, {"y", 10 * time.Millisecond}, {"z", 20 * time.Millisecond}} {
			if _, _, err := cb.ReadFrom(buf); err != nil || string(buf) != want.what || time.Since(start) != want.at {
				t.Errorf("%q after %s (%v), want %q after %s", buf, time.Since(start), err, want.what, want.at)
			}
		}
	})
}

func TestLossIsDecidedBySeed(t *testing.T) {
	outcome := func(t *testing.T, seed uint64) (got []string) {
		synctest.Test(t, func(t *testing.T) {
			nw := meshtest.New(seed)
			nw.SetLoss(meshtest.Any, meshtest.Any, 0.3)
			ca, cb := nw.Listen(a), nw.Listen(b)
			defer ca.Close()
			defer cb.Close()
			for i := range 200 {
				send(t, ca, cb, fmt.Sprint(i))
			}
			got = receive(t, cb)
		})
		return got
	}
	one, again, other := outcome(t, 1), outcome(t, 1), outcome(t, 2)
	if !slices.Equal(one, again) {
		t.Error("the same seed, another outcome")
	}
	if slices.Equal(one, other) {
		t.Error("another seed, the same outcome")
	}
	if len(one) < 100 || len(one) > 180 {
		t.Errorf("%d of 200 packets came through a loss of 0.3", len(one))
	}
}

func TestCloseFreesTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := meshtest.New(1)
		ca, cb := nw.Listen(a), nw.Listen(b)
		defer ca.Close()
		done := make(chan error)
		go func() {
			_, _, err := cb.ReadFrom(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		cb.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if _, err := cb.WriteTo([]byte("x"), ca.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		send(t, ca, cb, "x") // to nobody
		cb = nw.Listen(b)
		defer cb.Close()
		send(t, ca, cb, "y")
		if got := receive(t, cb); !slices.Equal(got, []string{"y"}) {
			t.Errorf("got %v", got)
		}
		if c := nw.Counts(); c.NoListener != 1 {
			t.Errorf("got %+v", c)
		}
	})
}
