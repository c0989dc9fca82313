package mesh_test

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// TestStreamsAreKept: a call that went well leaves its stream to the next, any other end
// takes it away.
func TestStreamsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "fail", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) {
				return nil, mesh.Errorf(mesh.NotFound, "nothing here")
			})
			mesh.Handle(e, "hang", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, _ *text) (*text, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}, func(c *mesh.Config) { c.ReadTimeout = time.Second })
		a, _ := w.node("a", nil)
		want := func(n int) {
			t.Helper()
			if got := a.KeptStreams(); got != n {
				t.Fatalf("%d streams are kept, want %d", got, n)
			}
		}
		for range 5 {
			mustEcho(t, a, w.peer("b"))
			want(1)
			time.Sleep(3 * time.Second) // longer than a request may take
		}
		_, err := ask(t.Context(), a, w.peer("b"), "fail", "")
		wantCode(t, err, mesh.NotFound)
		want(0)
		mustEcho(t, a, w.peer("b"))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = ask(ctx, a, w.peer("b"), "hang", "")
		wantCode(t, err, mesh.DeadlineExceeded)
		want(0)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { mustEcho(t, a, w.peer("b")) })
		}
		all.Wait()
		want(16)
		r, err := a.OpenStream(t.Context(), w.peer("b"), "echo", wrapperspb.String("x")) // ends its side itself
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Receive(new(text)); err != nil {
			t.Fatal(err)
		}
		if err := r.Receive(new(text)); err != io.EOF {
			t.Fatalf("got %v", err)
		}
		r.Close()
		want(16)
	})
}

// TestKeptStreamAttacked: what comes on a stream after a call is judged like what comes
// first.
func TestKeptStreamAttacked(t *testing.T) {
	call := func(t *testing.T) []byte {
		return append(frame(t, &meshpb.CallHeader{Method: "echo", TimeoutMs: 60_000, Keep: true}), frame(t, wrapperspb.String("hello"))...)
	}
	for name, c := range map[string]struct {
		then []byte
		want mesh.Code
	}{
		"a header begun":       {[]byte{0}, mesh.DeadlineExceeded},
		"no request":           {header(t, "echo"), mesh.DeadlineExceeded},
		"a huge header":        {binary.BigEndian.AppendUint32(nil, 1<<31), mesh.TooLarge},
		"no header":            {[]byte("\x00\x00\x00\x04\xff\xff\xff\xff"), mesh.InvalidArgument},
		"a method of nobody's": {frame(t, &meshpb.CallHeader{Method: "nothing", Keep: true}), mesh.Unimplemented},
		"more than its rate":   {nil, mesh.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.node("b", nil, func(c *mesh.Config) { c.ReadTimeout = 3 * time.Second; c.Quota.PerSecond, c.Quota.Burst = 1, 3 })
				s := rawStream(t, w.rogue("c", w.peer("b"), mesh.Protocol), nil)
				answer := func() {
					if st := status(t, s); st.GetCode() != 0 {
						t.Fatalf("got %v", st)
					}
					b := make([]byte, len(frame(t, wrapperspb.String("hello"))))
					if _, err := io.ReadFull(s, b); err != nil {
						t.Fatal(err)
					}
					got := new(text)
					if err := proto.Unmarshal(b[4:], got); err != nil || got.Value != "hello" {
						t.Fatalf("got %q, %v", got.Value, err)
					}
				}
				write(t, s, append(call(t), call(t)...)) // two at once: one after the other
				answer()
				answer()
				then := c.then
				if then == nil {
					then = append(call(t), call(t)...)
				}
				begun := time.Now()
				write(t, s, then)
				if c.then == nil {
					answer()
				}
				if got := status(t, s); mesh.Code(got.GetCode()) != c.want {
					t.Errorf("got %v, want %s", got, c.want)
				}
				if d := time.Since(begun); d > 4*time.Second {
					t.Errorf("after %s", d)
				}
				if _, err := s.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the stream goes on: %v", err)
				}
			})
		})
	}
}

// TestKeptStreamEnds: who ends its side between two calls is answered with the end.
func TestKeptStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil, func(c *mesh.Config) { c.ReadTimeout = time.Second })
		b := append(frame(t, &meshpb.CallHeader{Method: "echo", Keep: true}), frame(t, new(text))...)
		s := rawStream(t, w.rogue("c", w.peer("b"), mesh.Protocol), b)
		if st := status(t, s); st.GetCode() != 0 {
			t.Fatalf("got %v", st)
		}
		time.Sleep(5 * time.Second)
		s.Close()
		if rest, err := io.ReadAll(s); err != nil || len(rest) != 4 {
			t.Errorf("got %x, %v", rest, err)
		}
	})
}

func write(t *testing.T, s *quic.Stream, b []byte) {
	t.Helper()
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}
