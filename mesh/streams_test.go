package mesh_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/mesh"
)

const other = "other/1"

func layered(c *mesh.Config) { c.StreamProtocols = []string{other} }

// connect gives both ends of a stream from a to b.
func connect(t *testing.T, w *world, a, b *mesh.Endpoint) (dialled, accepted net.Conn) {
	t.Helper()
	dialled, err := a.StreamLayer(other).DialPeer(t.Context(), w.peer("b"))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = b.StreamLayer(other).Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialled, accepted
}

func TestStreamLayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil, layered)
		b, _ := w.node("b", nil, layered)
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		for _, acceptorFirst := range []bool{true, false} {
			from, to := connect(t, w, a, b)
			if got := to.(*mesh.Conn).PeerID(); got != w.peer("a").ID {
				t.Errorf("accepted from %s", got)
			}
			if acceptorFirst { // the stream must be visible before the dialler writes
				from, to = to, from
			}
			go func() {
				from.Write(data)
				from.Close()
			}()
			sum := sha256.New()
			if n, err := io.Copy(sum, to); err != nil || n != int64(len(data)) || [32]byte(sum.Sum(nil)) != sha256.Sum256(data) {
				t.Errorf("%d bytes, %v", n, err)
			}
			to.Close()
		}
		mustEcho(t, a, w.peer("b")) // calls are apart from it
	})
}

func TestStreamLayerDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil, layered)
		b, _ := w.node("b", nil, layered)
		here, there := connect(t, w, a, b)
		defer there.Close()
		here.SetReadDeadline(time.Now().Add(time.Second))
		_, err := here.Read(make([]byte, 1))
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		here.SetWriteDeadline(time.Now().Add(time.Second)) // nobody reads
		_, err = here.Write(make([]byte, 32<<20))
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("write: %v", err)
		}
		// Close interrupts a Write, and the reader does not take the torn data for whole.
		here.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := here.Write(make([]byte, 32<<20))
			done <- err
		}()
		time.Sleep(time.Second)
		here.Close()
		here.Close()
		if err := <-done; err == nil {
			t.Error("the write succeeded")
		}
		if _, err := io.Copy(io.Discard, there); err == nil {
			t.Error("the reader saw a clean end")
		}
	})
}

// Bulk on one stream must not hold up another: each has a connection of its own, up to
// a bound, and afterwards they are used again.
func TestStreamsSpreadOverConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil, layered)
		b, _ := w.node("b", nil, layered, func(c *mesh.Config) { c.Quota.Connections = 4 })
		for range 3 {
			var conns []net.Conn
			for range 10 {
				here, there := connect(t, w, a, b)
				conns = append(conns, here, there)
			}
			for _, c := range conns {
				c.Close()
			}
		}
	})
}

func TestStreamLayerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, gate := newWorld(t), new(admit)
		a, _ := w.node("a", nil, layered)
		b, _ := w.node("b", nil, layered, func(c *mesh.Config) { c.Admit = gate.ask; c.Quota.Streams = 2 })
		here, there := connect(t, w, a, b)
		_, second := connect(t, w, a, b)
		third, err := a.StreamLayer(other).DialPeer(t.Context(), w.peer("b"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = third.Read(make([]byte, 1))
		wantCode(t, err, mesh.ResourceExhausted)
		third.Close()
		second.Close()

		gate.refuse(w.peer("a").ID, errors.New("no"))
		late, err := a.StreamLayer(other).DialPeer(t.Context(), w.peer("b"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = late.Read(make([]byte, 1))
		wantCode(t, err, mesh.PermissionDenied)
		late.Close()
		b.Drop(func(id spiffeid.ID) bool { return id == w.peer("a").ID })
		_, err = here.Read(make([]byte, 1))
		wantCode(t, err, mesh.PermissionDenied)
		if _, err = there.Read(make([]byte, 1)); err == nil {
			t.Error("the accepted end lives")
		}
	})
}

func TestStreamLayerNeedsItsGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, layered)
		s := rawStream(t, w.rogue("c", w.peer("b"), other), []byte{0x7f})
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("taken")
		}
	})
}

// Streams that nobody accepts are refused, not piled up.
func TestNobodyAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil, layered)
		w.node("b", nil, layered)
		var last net.Conn
		for range 65 {
			c, err := a.StreamLayer(other).DialPeer(t.Context(), w.peer("b"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			last = c
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		_, err := last.Read(make([]byte, 1))
		wantCode(t, err, mesh.ResourceExhausted)
	})
}

func TestAcceptEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, stop := w.node("a", nil, layered)
		b, _ := w.node("b", nil, layered)
		time.AfterFunc(time.Second, func() { b.StreamLayer(other).Close(); b.StreamLayer(other).Close(); stop() })
		for _, e := range []*mesh.Endpoint{a, b} {
			if _, err := e.StreamLayer(other).Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.node("a", nil)
		b, stop := w.node("b", nil)
		got := make(chan string)
		go func() {
			buf := make([]byte, 100)
			for {
				n, from, err := b.Packets().ReadFrom(t.Context(), buf)
				if err != nil {
					close(got)
					return
				}
				got <- from.String() + " " + string(buf[:n])
			}
		}()
		synctest.Wait()
		if _, err := a.Packets().WriteTo([]byte{0x40, 1}, b.Addr()); !errors.Is(err, mesh.ErrNotPlain) {
			t.Errorf("a packet like QUIC: %v", err)
		}
		if _, err := a.Packets().WriteTo([]byte("\x21hello"), b.Addr()); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != addrOf("a")+" \x21hello" {
			t.Errorf("got %q", s)
		}
		mustEcho(t, a, w.peer("b"))
		stop()
		if _, ok := <-got; ok {
			t.Error("read after the end")
		}
	})
}
