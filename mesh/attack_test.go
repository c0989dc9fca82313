package mesh_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

func TestBadInput(t *testing.T) {
	length := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	cases := map[string]struct {
		send []byte
		fin  bool
		want mesh.Code
		in   time.Duration // the answer must be there after this
	}{
		"nothing":                  {nil, true, mesh.InvalidArgument, time.Second},
		"half a length":            {[]byte{0, 0}, true, mesh.InvalidArgument, time.Second},
		"header announced huge":    {length(1 << 31), false, mesh.TooLarge, time.Second},
		"header truncated":         {join(length(100), []byte("short")), true, mesh.InvalidArgument, time.Second},
		"header is not protobuf":   {join(length(4), []byte{0xff, 0xff, 0xff, 0xff}), false, mesh.InvalidArgument, time.Second},
		"method of 4000 bytes":     {frame(t, &meshpb.CallHeader{Method: strings.Repeat("m", 4000)}), false, mesh.Unimplemented, time.Second},
		"request announced huge":   {join(header(t, "echo"), length(0xffffffff)), false, mesh.TooLarge, time.Second},
		"request over the limit":   {join(header(t, "small"), length(1001)), false, mesh.TooLarge, time.Second},
		"request truncated":        {join(header(t, "echo"), length(100), []byte("short")), true, mesh.InvalidArgument, time.Second},
		"request is not protobuf":  {join(header(t, "echo"), length(3), []byte{0xff, 0xff, 0xff}), true, mesh.InvalidArgument, time.Second},
		"bytes after the request":  {join(header(t, "echo"), length(0), []byte("more")), true, mesh.InvalidArgument, time.Second},
		"silence from the start":   {[]byte{0}, false, mesh.DeadlineExceeded, 4 * time.Second},
		"silence after the header": {header(t, "echo"), false, mesh.DeadlineExceeded, 4 * time.Second},
		"silence before the end":   {join(header(t, "echo"), length(0)), false, mesh.DeadlineExceeded, 4 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.node("b", func(e *mesh.Endpoint) {
					mesh.Handle(e, "small", mesh.Limits{Request: 1000}, func(_ context.Context, _ spiffeid.ID, req *text) (*text, error) { return req, nil })
				}, func(c *mesh.Config) { c.ReadTimeout = 3 * time.Second })
				s := rawStream(t, w.rogue("c", w.peer("b"), mesh.Protocol), c.send)
				if c.fin {
					s.Close()
				}
				start := time.Now()
				if got := status(t, s); mesh.Code(got.GetCode()) != c.want {
					t.Errorf("got %v, want %s", got, c.want)
				}
				if d := time.Since(start); d > c.in {
					t.Errorf("after %s", d)
				}
				a, _ := w.node("a", nil)
				mustEcho(t, a, w.peer("b"))
			})
		})
	}
}

// A slow loris sends a byte now and then; the whole request has one deadline.
func TestDrippingInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.ReadTimeout = 3 * time.Second })
		s := rawStream(t, w.rogue("c", w.peer("b"), mesh.Protocol), header(t, "echo"))
		start := time.Now()
		for _, b := range append(binary.BigEndian.AppendUint32(nil, 1000), make([]byte, 1000)...) {
			if _, err := s.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("cut off after %s only", d)
		}
		if got := status(t, s); mesh.Code(got.GetCode()) != mesh.DeadlineExceeded {
			t.Errorf("got %v", got)
		}
	})
}

func TestEndlessInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil)
		s := rawStream(t, w.rogue("c", w.peer("b"), mesh.Protocol), append(header(t, "echo"), 0, 0, 0, 0))
		var sent int
		for sent < 64<<20 {
			n, err := s.Write(make([]byte, 1<<16))
			sent += n
			if err != nil {
				break
			}
		}
		if sent > 1<<20 {
			t.Errorf("%d bytes were taken", sent)
		}
	})
}

// Announcing much and sending nothing must not cost the server memory.
func TestAnnouncedLengthCostsNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.MaxMessage = 64 << 20; c.Quota.Bytes = 1 << 40 })
		conn := w.rogue("c", w.peer("b"), mesh.Protocol)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 50 {
			rawStream(t, conn, append(header(t, "echo"), binary.BigEndian.AppendUint32(nil, 60<<20)...))
		}
		time.Sleep(time.Second)
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
			t.Errorf("50 announcements cost %d MiB", grown>>20)
		}
	})
}

func TestMessagesAboveTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "small", mesh.Limits{Request: 100, Response: 100}, func(_ context.Context, _ spiffeid.ID, req *text) (*text, error) {
				if req.Value == "much" {
					return wrapperspb.String(strings.Repeat("x", 200)), nil
				}
				return req, nil
			})
			mesh.Handle(e, "large", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) {
				return wrapperspb.String(strings.Repeat("x", 2<<20)), nil
			})
		})
		a, _ := w.node("a", nil, func(c *mesh.Config) { c.MaxMessage = 1 << 20 })
		for method, req := range map[string]string{
			"small": strings.Repeat("x", 1000),  // the server says no
			"echo":  strings.Repeat("x", 2<<20), // not even sent
			"large": "",                         // the client does not take the answer
		} {
			_, err := ask(t.Context(), a, w.peer("b"), method, req)
			if mesh.CodeOf(err) != mesh.TooLarge {
				t.Errorf("%s: %v", method, err)
			}
		}
		_, err := ask(t.Context(), a, w.peer("b"), "small", "much")
		wantCode(t, err, mesh.TooLarge)
		mustEcho(t, a, w.peer("b"))
	})
}

func TestQuotaOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "hang", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) {
				<-release
				return new(text), nil
			})
		}, func(c *mesh.Config) { c.Quota.Streams = 3 })
		a, _ := w.node("a", nil)
		other, _ := w.node("c", nil)
		results := make(chan error)
		for range 3 {
			go func() {
				_, err := ask(t.Context(), a, w.peer("b"), "hang", "")
				results <- err
			}()
		}
		time.Sleep(time.Second)
		for range 30 { // more than the transport's own limit leaves room for
			start := time.Now()
			_, err := ask(t.Context(), a, w.peer("b"), "echo", "")
			var e *mesh.Error
			if !errors.As(err, &e) || e.Code != mesh.ResourceExhausted || e.RetryAfter <= 0 {
				t.Fatalf("got %v", err)
			}
			if d := time.Since(start); d > time.Second {
				t.Fatalf("told after %s", d)
			}
		}
		mustEcho(t, other, w.peer("b")) // another peer has a quota of its own
		close(release)
		for range 3 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		mustEcho(t, a, w.peer("b"))
	})
}

// A rogue that opens streams without end gets no more of them than its quota.
func TestStreamsWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.Quota.Streams = 4 })
		conn := w.rogue("c", w.peer("b"), mesh.Protocol)
		before := runtime.NumGoroutine()
		for range 1000 {
			rawStream(t, conn, []byte{0}).CancelRead(0) // does not even want the refusal
		}
		synctest.Wait()
		if grown := runtime.NumGoroutine() - before; grown > 20 {
			t.Errorf("%d goroutines more", grown)
		}
		a, _ := w.node("a", nil)
		mustEcho(t, a, w.peer("b"))
	})
}

func TestQuotaPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.Quota.PerSecond, c.Quota.Burst = 1, 2 })
		a, stop := w.node("a", nil)
		mustEcho(t, a, w.peer("b"))
		mustEcho(t, a, w.peer("b"))
		_, err := ask(t.Context(), a, w.peer("b"), "echo", "")
		var e *mesh.Error
		if !errors.As(err, &e) || e.Code != mesh.ResourceExhausted || e.RetryAfter <= 0 || e.RetryAfter > time.Second {
			t.Fatalf("got %v", err)
		}
		stop() // a new connection is no new quota
		a, _ = w.node("a", nil)
		_, err = ask(t.Context(), a, w.peer("b"), "echo", "")
		wantCode(t, err, mesh.ResourceExhausted)
		time.Sleep(e.RetryAfter)
		mustEcho(t, a, w.peer("b"))
	})
}

func TestQuotaOfBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.MaxMessage, c.Quota.Bytes = 1000, 1500 })
		conn := w.rogue("c", w.peer("b"), mesh.Protocol)
		part := append(header(t, "echo"), binary.BigEndian.AppendUint32(nil, 1000)...)
		rawStream(t, conn, part)
		time.Sleep(time.Second)
		if got := status(t, rawStream(t, conn, part)); mesh.Code(got.GetCode()) != mesh.ResourceExhausted || got.RetryAfterMs <= 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestQuotaOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.Quota.Connections = 2 })
		live := 0
		for _, name := range []string{"c", "d", "e"} { // one identity, three addresses
			conn := w.rogueAt(addrOf(name), "c", w.peer("b"), mesh.Protocol)
			s := rawStream(t, conn, append(header(t, "echo"), 0, 0, 0, 0))
			s.Close()
			_, err := s.Read(make([]byte, 1))
			var app *quic.ApplicationError
			switch {
			case err == nil:
				live++
			case !errors.As(err, &app) || app.ErrorCode != 3:
				t.Error(err)
			}
		}
		if live != 2 {
			t.Errorf("%d connections live", live)
		}
	})
}

func TestPeerRefusedOnALiveConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, gate := newWorld(t), new(admit)
		handled := 0
		b, _ := w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "count", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) { handled++; return new(text), nil })
			mesh.HandleStream(e, "watch", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, _ *text, _ func(*text) error) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}, func(c *mesh.Config) { c.Admit = gate.ask })
		a, _ := w.node("a", nil)
		c, _ := w.node("c", nil)
		mustEcho(t, a, w.peer("b"))
		mustEcho(t, c, w.peer("b"))
		mustEcho(t, b, w.peer("a"))
		watch, err := a.OpenStream(t.Context(), w.peer("b"), "watch", new(text))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		time.Sleep(time.Second)

		// Refused without Drop: the live connection is of no use any more.
		gate.refuse(w.peer("a").ID, errors.New("suspended for a secret reason"))
		_, err = ask(t.Context(), a, w.peer("b"), "count", "")
		wantCode(t, err, mesh.PermissionDenied)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the reason leaked: %v", err)
		}
		// Nor is it called.
		_, err = ask(t.Context(), b, w.peer("a"), "echo", "")
		wantCode(t, err, mesh.PermissionDenied)
		// With Drop: what is in progress ends now.
		b.Drop(func(id spiffeid.ID) bool { return id == w.peer("a").ID })
		start := time.Now()
		wantCode(t, watch.Receive(new(text)), mesh.PermissionDenied)
		if d := time.Since(start); d > 10*time.Millisecond {
			t.Errorf("the stream ended after %s", d)
		}
		// A new connection gets no further.
		_, err = ask(t.Context(), a, w.peer("b"), "count", "")
		wantCode(t, err, mesh.PermissionDenied)
		if handled != 0 {
			t.Errorf("%d calls of the refused peer were handled", handled)
		}
		mustEcho(t, c, w.peer("b"))
		gate.refuse(w.peer("a").ID, nil)
		mustEcho(t, a, w.peer("b"))
		mustEcho(t, b, w.peer("a"))
	})
}

func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil)
		other := meshtest.NewCA(t) // of another mesh, with the same names
		bad, _ := w.node("a", nil, func(c *mesh.Config) { c.Credentials = halfTrusting{w, other.Credentials(uri("a"))} })
		// With TLS 1.3 the dial succeeds and the refusal comes later: it must still be plain.
		_, err := ask(t.Context(), bad, w.peer("b"), "echo", "")
		wantCode(t, err, mesh.Unauthenticated)
		if !strings.Contains(err.Error(), "did not accept our certificate") {
			t.Errorf("unclear: %v", err)
		}
		// The server is not whom we expect.
		c, _ := w.node("c", nil)
		_, err = ask(t.Context(), c, mesh.Peer{ID: meshtest.ID(t, uri("x")), Addr: addrOf("b")}, "echo", "")
		wantCode(t, err, mesh.Unauthenticated)
		// The server does not speak the protocol.
		e, err := mesh.Listen(mesh.Config{Packets: w.nw.Listen(addrOf("d")), Credentials: w.ca.Credentials(uri("d")), StreamProtocols: []string{"other/1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		_, err = e.StreamLayer("other/1").DialPeer(t.Context(), w.peer("b"))
		wantCode(t, err, mesh.Unimplemented)
	})
}

// halfTrusting trusts the mesh but has an identity of another.
type halfTrusting struct {
	w *world
	*meshtest.Credentials
}

func (h halfTrusting) ClientTLS(peer spiffeid.ID, alpn string) *tls.Config {
	c := h.w.ca.Credentials(uri("a")).ClientTLS(peer, alpn)
	c.GetClientCertificate = h.Credentials.ClientTLS(peer, alpn).GetClientCertificate
	return c
}

func TestCertificateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.HandleStream(e, "watch", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, _ *text, _ func(*text) error) error {
				<-ctx.Done()
				return ctx.Err()
			})
		})
		creds := w.ca.CredentialsUntil(uri("a"), time.Now().Add(time.Minute))
		a, _ := w.node("a", nil, func(c *mesh.Config) { c.Credentials = creds })
		watch, err := a.OpenStream(t.Context(), w.peer("b"), "watch", new(text))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		mustEcho(t, a, w.peer("b"))
		start := time.Now()
		err = watch.Receive(new(text))
		wantCode(t, err, mesh.Unavailable)
		if d := time.Since(start); d > time.Minute+10*time.Millisecond || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after %s: %v", d, err)
		}
		_, err = ask(t.Context(), a, w.peer("b"), "echo", "")
		wantCode(t, err, mesh.Unauthenticated)
		creds.Renew(time.Now().Add(time.Hour))
		mustEcho(t, a, w.peer("b"))
	})
}

// A renewed certificate is in use before the old one's connections close.
func TestRotationDropsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		until := func() time.Time { return time.Now().Add(time.Minute) }
		ac, bc := w.ca.CredentialsUntil(uri("a"), until()), w.ca.CredentialsUntil(uri("b"), until())
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "slow", mesh.Limits{}, func(_ context.Context, _ spiffeid.ID, req *text) (*text, error) {
				time.Sleep(3 * time.Second)
				return req, nil
			})
		}, func(c *mesh.Config) { c.Credentials = bc })
		a, _ := w.node("a", nil, func(c *mesh.Config) { c.Credentials = ac })
		for i := range 200 {
			if i%10 == 9 {
				ac.Renew(until())
				bc.Renew(until())
			}
			if _, err := ask(t.Context(), a, w.peer("b"), "slow", "x"); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	})
}
