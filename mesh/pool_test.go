package mesh_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

func TestServerRestartsBetweenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil)
		for range 3 {
			_, stop := w.node("b", nil)
			mustEcho(t, a, w.peer("b"))
			mustEcho(t, a, w.peer("b"))
			stop()
			start := time.Now()
			_, err := ask(t.Context(), a, w.peer("b"), "echo", "")
			wantCode(t, err, mesh.Unavailable)
			if d := time.Since(start); d > 1100*time.Millisecond {
				t.Errorf("a call to nobody took %s", d)
			}
		}
	})
}

func hang(e *mesh.Endpoint) {
	mesh.Handle(e, "hang", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, _ *text) (*text, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
}

// A peer that vanishes without a word.
func TestKilledPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", hang)
		a, _ := w.node("a", nil)
		mustEcho(t, a, w.peer("b"))
		time.AfterFunc(time.Second, func() { w.nw.Cut(meshtest.Any, addrOf("b")) })
		start := time.Now()
		_, err := ask(t.Context(), a, w.peer("b"), "hang", "")
		wantCode(t, err, mesh.Unavailable)
		if d := time.Since(start); d > 3300*time.Millisecond {
			t.Errorf("a call in progress failed %s after the cut", d-time.Second)
		}
		start = time.Now()
		_, err = ask(t.Context(), a, w.peer("b"), "echo", "")
		wantCode(t, err, mesh.Unavailable)
		if d := time.Since(start); d > 1100*time.Millisecond {
			t.Errorf("the next call failed after %s", d)
		}
		w.nw.Heal(meshtest.Any, addrOf("b"))
		mustEcho(t, a, w.peer("b"))
	})
}

// A peer that crashed and came back with its reset key says so at the first packet.
func TestStatelessReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := [32]byte{1, 2, 3}
		keyed := func(c *mesh.Config) { c.ResetKey, c.IdleTimeout = &key, time.Minute }
		a, _ := w.node("a", nil, keyed)
		_, stop := w.node("b", hang, keyed)
		mustEcho(t, a, w.peer("b"))
		w.nw.Cut(addrOf("a"), addrOf("b")) // the goodbye is lost
		stop()
		w.nw.Heal(addrOf("a"), addrOf("b"))
		w.node("b", hang, keyed)
		start := time.Now()
		_, err := ask(t.Context(), a, w.peer("b"), "hang", "")
		wantCode(t, err, mesh.Unavailable)
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("noticed after %s", d)
		}
		mustEcho(t, a, w.peer("b"))
	})
}

func TestOneWayCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil)
		a, _ := w.node("a", nil)
		mustEcho(t, a, w.peer("b"))
		w.nw.CutOneWay(addrOf("b"), addrOf("a"))
		_, err := ask(t.Context(), a, w.peer("b"), "echo", "")
		wantCode(t, err, mesh.Unavailable)
	})
}

func TestManyCallersShareOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.Quota.Connections = 1 })
		a, _ := w.node("a", nil)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustEcho(t, a, w.peer("b")) })
		}
		wg.Wait()
	})
}

// One caller's impatience is not the others' failure.
func TestImpatientDialler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.nw.SetDelay(meshtest.Any, meshtest.Any, 100*time.Millisecond)
		w.node("b", nil)
		a, _ := w.node("a", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		done := make(chan error)
		go func() {
			_, err := ask(ctx, a, w.peer("b"), "echo", "")
			done <- err
		}()
		mustEcho(t, a, w.peer("b"))
		wantCode(t, <-done, mesh.DeadlineExceeded)
	})
}

func TestUnusedConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", hang)
		a, _ := w.node("a", nil, func(c *mesh.Config) { c.Unused = 4 * time.Second })
		mustEcho(t, a, w.peer("b"))
		time.Sleep(6 * time.Second)
		before := w.nw.Counts().Delivered
		time.Sleep(time.Minute)
		if n := w.nw.Counts().Delivered - before; n != 0 {
			t.Errorf("%d packets still", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := ask(ctx, a, w.peer("b"), "hang", "") // a used one stays
		wantCode(t, err, mesh.DeadlineExceeded)
	})
}

func TestUnusableAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil)
		for _, addr := range []string{"", "nowhere", "10.0.0.9:x", "10.0.0.9:99999", "10.0.0.9:1"} {
			_, err := ask(t.Context(), a, mesh.Peer{ID: w.peer("b").ID, Addr: addr}, "echo", "")
			if mesh.CodeOf(err) != mesh.Unavailable {
				t.Errorf("%q: %v", addr, err)
			}
		}
	})
}

func TestClosedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil)
		a := w.listen("a")
		mustEcho(t, a, w.peer("b")) // without Run
		a.Close()
		a.Close()
		_, err := ask(t.Context(), a, w.peer("b"), "echo", "")
		wantCode(t, err, mesh.Unavailable)
		if err := a.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSocketFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		socket := w.nw.Listen(addrOf("a"))
		e, err := mesh.Listen(mesh.Config{Packets: socket, Credentials: w.ca.Credentials(uri("a"))})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { socket.Close() })
		if err := e.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// The real thing: sockets, many callers, endpoints that come and go. The goroutine check
// of TestMain sees what stays behind.
func TestUDP(t *testing.T) {
	ca := meshtest.NewCA(t)
	open := func(name string) (*mesh.Endpoint, mesh.Peer) {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		creds := ca.Credentials(uri(name))
		e, err := mesh.Listen(mesh.Config{Packets: socket, Credentials: creds})
		if err != nil {
			t.Fatal(err)
		}
		echo(e)
		_, port, _ := net.SplitHostPort(socket.LocalAddr().String())
		return e, mesh.Peer{ID: creds.ID(), Addr: "localhost:" + port}
	}
	b, peer := open("b")
	stop := run(t, b)
	defer stop()
	for range 2 {
		a, self := open("a")
		halt := run(t, a)
		mustEcho(t, a, self)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 20 {
					mustEcho(t, a, peer)
				}
			})
		}
		wg.Wait()
		halt()
	}
}
