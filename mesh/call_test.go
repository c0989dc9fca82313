package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

func TestCallKnowsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "who", mesh.Limits{}, func(_ context.Context, from spiffeid.ID, _ *text) (*text, error) {
				return wrapperspb.String(from.String()), nil
			})
		})
		a, _ := w.node("a", nil)
		for range 2 { // over a new connection and over a pooled one
			if got, err := ask(t.Context(), a, w.peer("b"), "who", ""); err != nil || got != uri("a") {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	})
}

func TestErrorsSurviveTheWire(t *testing.T) {
	secret := "subject 74071238186"
	cases := map[string]struct {
		err  error
		want mesh.Error
	}{
		"typed": {
			&mesh.Error{Code: mesh.NotFound, Message: "no such dataset", Reason: "DATASET", RetryAfter: 1500 * time.Millisecond},
			mesh.Error{Code: mesh.NotFound, Message: "no such dataset", Reason: "DATASET", RetryAfter: 1500 * time.Millisecond},
		},
		"wrapped: the wrapping stays home": {
			fmt.Errorf("%s: %w", secret, mesh.Errorf(mesh.PermissionDenied, "no")), mesh.Error{Code: mesh.PermissionDenied, Message: "no"},
		},
		"plain":                     {errors.New(secret), mesh.Error{Code: mesh.Internal}},
		"context":                   {context.DeadlineExceeded, mesh.Error{Code: mesh.DeadlineExceeded}},
		"an error that says OK":     {&mesh.Error{}, mesh.Error{Code: mesh.Internal}},
		"control characters, long":  {mesh.Errorf(mesh.NotFound, "a\x1b[2J\n%s", strings.Repeat("x", 9000)), mesh.Error{Code: mesh.NotFound, Message: "a[2J" + strings.Repeat("x", 506)}},
		"longer than a header, too": {&mesh.Error{Code: mesh.NotFound, Reason: strings.Repeat("R", 9000)}, mesh.Error{Code: mesh.NotFound, Reason: strings.Repeat("R", 64)}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.node("b", func(e *mesh.Endpoint) {
					mesh.Handle(e, "fail", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) { return nil, c.err })
				})
				a, _ := w.node("a", nil)
				_, err := ask(t.Context(), a, w.peer("b"), "fail", "")
				var got *mesh.Error
				if !errors.As(err, &got) {
					t.Fatalf("got %T", err)
				}
				if got.Code != c.want.Code || got.Message != c.want.Message || got.Reason != c.want.Reason || got.RetryAfter != c.want.RetryAfter {
					t.Errorf("got %#v, want %#v", got, c.want)
				}
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the text leaked: %v", err)
				}
			})
		})
	}
}

// A handler that asks a third peer and returns its error must not pass on its text.
func TestThirdPartysTextStaysHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("c", func(e *mesh.Endpoint) {
			mesh.Handle(e, "fail", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) {
				return nil, &mesh.Error{Code: mesh.ResourceExhausted, Message: "for b only", RetryAfter: time.Second}
			})
		})
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "forward", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, req *text) (*text, error) {
				return nil, e.Call(ctx, w.peer("c"), "fail", req, new(text))
			})
		})
		a, _ := w.node("a", nil)
		_, err := ask(t.Context(), a, w.peer("b"), "forward", "")
		wantCode(t, err, mesh.ResourceExhausted)
		if strings.Contains(err.Error(), "for b only") || strings.Contains(err.Error(), "mesh.test/c") {
			t.Errorf("told of a third party: %v", err)
		}
		if e := new(mesh.Error); !errors.As(err, &e) || e.RetryAfter != time.Second {
			t.Errorf("the hint is lost: %v", err)
		}
	})
}

func TestUnknownMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", nil)
		a, _ := w.node("a", nil)
		_, err := ask(t.Context(), a, w.peer("b"), "no.such", "")
		wantCode(t, err, mesh.Unimplemented)
	})
}

func TestPanicIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, lines := newWorld(t), new(logged)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "panic", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) { panic("boo") })
			mesh.Handle(e, "nil", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) { return nil, nil })
		}, func(c *mesh.Config) { c.Log = lines.logger() })
		a, _ := w.node("a", nil)
		_, err := ask(t.Context(), a, w.peer("b"), "panic", "")
		wantCode(t, err, mesh.Internal)
		if strings.Contains(err.Error(), "boo") || !strings.Contains(lines.String(), "boo") {
			t.Errorf("the caller got %v, the log %s", err, lines)
		}
		_, err = ask(t.Context(), a, w.peer("b"), "nil", "")
		wantCode(t, err, mesh.Internal)
		mustEcho(t, a, w.peer("b"))
	})
}

func TestDeadlineTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		left := make(chan time.Duration, 1)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "left", mesh.Limits{Timeout: time.Minute}, func(ctx context.Context, _ spiffeid.ID, _ *text) (*text, error) {
				d, _ := ctx.Deadline()
				left <- time.Until(d)
				return new(text), nil
			})
		})
		a, _ := w.node("a", nil)
		mustEcho(t, a, w.peer("b"))
		for asked, want := range map[time.Duration]time.Duration{3 * time.Second: 3 * time.Second, time.Hour: time.Minute, 0: 30 * time.Second} {
			ctx, cancel := t.Context(), func() {}
			if asked > 0 {
				ctx, cancel = context.WithTimeout(ctx, asked)
			}
			if _, err := ask(ctx, a, w.peer("b"), "left", ""); err != nil {
				t.Fatal(err)
			}
			cancel()
			if got := <-left; got != want {
				t.Errorf("asked for %s, the handler has %s, want %s", asked, got, want)
			}
		}
	})
}

func TestHandlerThatIgnoresItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		b, stop := w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "hang", mesh.Limits{Timeout: time.Second}, func(context.Context, spiffeid.ID, *text) (*text, error) {
				<-release
				return new(text), nil
			})
		})
		_ = b
		a, _ := w.node("a", nil)
		start := time.Now()
		_, err := ask(t.Context(), a, w.peer("b"), "hang", "")
		wantCode(t, err, mesh.DeadlineExceeded)
		if d := time.Since(start); d > 1100*time.Millisecond {
			t.Errorf("the caller waited %s for the server's deadline of 1s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start = time.Now()
		_, err = ask(ctx, a, w.peer("b"), "hang", "")
		wantCode(t, err, mesh.DeadlineExceeded)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 110*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		mustEcho(t, a, w.peer("b"))
		close(release)
		stop()
	})
}

func TestCancellationReachesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began, ended := make(chan struct{}), make(chan error, 1)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "wait", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, _ *text) (*text, error) {
				close(began)
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			})
		})
		a, _ := w.node("a", nil)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		_, err := ask(ctx, a, w.peer("b"), "wait", "")
		wantCode(t, err, mesh.Canceled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		start := time.Now()
		if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(start) > 10*time.Millisecond {
			t.Errorf("the handler ended after %s with %v", time.Since(start), err)
		}
	})
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.HandleStream(e, "count", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, req *text, send func(*text) error) error {
				for range len(req.Value) {
					if err := send(wrapperspb.String("tick")); err != nil {
						return err
					}
				}
				switch req.Value {
				case "xx":
					return mesh.Errorf(mesh.NotFound, "gone")
				case "xxx":
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			})
			mesh.HandleStream(e, "refuse", mesh.Limits{}, func(context.Context, spiffeid.ID, *text, func(*text) error) error {
				return &mesh.Error{Code: mesh.PermissionDenied, Message: "not you", Reason: "R"}
			})
		})
		a, _ := w.node("a", nil)
		count := func(req string) (n int, err error) {
			r, err := a.OpenStream(t.Context(), w.peer("b"), "count", wrapperspb.String(req))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for ; ; n++ {
				if err = r.Receive(new(text)); err != nil || req == "xxx" && n == 2 {
					return n, err
				}
			}
		}
		for req, want := range map[string]int{"": 0, "x": 1, "xxxxx": 5} {
			if n, err := count(req); n != want || err != io.EOF {
				t.Errorf("%q: %d messages and %v", req, n, err)
			}
		}
		_, err := count("xx")
		wantCode(t, err, mesh.NotFound)
		if _, err := count("xxx"); err != nil { // closes early; the handler must end, or the bubble hangs
			t.Error(err)
		}
		r, err := a.OpenStream(t.Context(), w.peer("b"), "refuse", new(text))
		if err != nil {
			t.Fatal(err)
		}
		err = r.Receive(new(text))
		r.Close()
		r.Close()
		if e := new(mesh.Error); !errors.As(err, &e) || e.Code != mesh.PermissionDenied || e.Message != "not you" || e.Reason != "R" {
			t.Errorf("got %#v", err)
		}
	})
}

func TestStreamIsCutOffWhenNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ended := make(chan error, 1)
		w.node("b", func(e *mesh.Endpoint) {
			mesh.HandleStream(e, "flood", mesh.Limits{}, func(_ context.Context, _ spiffeid.ID, _ *text, send func(*blob) error) error {
				for {
					if err := send(wrapperspb.Bytes(make([]byte, 1<<20))); err != nil {
						ended <- err
						return err
					}
				}
			})
		}, func(c *mesh.Config) { c.ReadTimeout = 3 * time.Second })
		a, _ := w.node("a", nil)
		r, err := a.OpenStream(t.Context(), w.peer("b"), "flood", new(text))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		start := time.Now()
		<-ended
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("the sender was held for %s", d)
		}
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := make(chan struct{}, 2)
		_, stop := w.node("b", func(e *mesh.Endpoint) {
			mesh.Handle(e, "slow", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, req *text) (*text, error) {
				began <- struct{}{}
				d, _ := time.ParseDuration(req.Value)
				select {
				case <-time.After(d):
					return req, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
			mesh.HandleStream(e, "watch", mesh.Limits{}, func(ctx context.Context, _ spiffeid.ID, _ *text, _ func(*text) error) error {
				<-ctx.Done()
				return ctx.Err()
			})
		})
		a, _ := w.node("a", nil)
		watch, err := a.OpenStream(t.Context(), w.peer("b"), "watch", new(text))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		type answer struct {
			got string
			err error
		}
		answers := map[string]chan answer{"500ms": make(chan answer, 1), "5s": make(chan answer, 1)}
		for d, ch := range answers {
			go func() {
				got, err := ask(t.Context(), a, w.peer("b"), "slow", d)
				ch <- answer{got, err}
			}()
			<-began
		}
		start := time.Now()
		stop()
		if d := time.Since(start); d > 1100*time.Millisecond {
			t.Errorf("shutdown took %s", d)
		}
		if got := <-answers["500ms"]; got.err != nil || got.got != "500ms" {
			t.Errorf("a call in progress was not let end: %v", got)
		}
		wantCode(t, (<-answers["5s"]).err, mesh.Unavailable)
		wantCode(t, watch.Receive(new(text)), mesh.Unavailable)
	})
}

// Only what certainly reached no handler is sent again.
func TestNothingIsProcessedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var runs atomic.Int32
		serve := func(e *mesh.Endpoint) {
			mesh.Handle(e, "once", mesh.Limits{}, func(context.Context, spiffeid.ID, *text) (*text, error) {
				runs.Add(1)
				w.nw.Cut(addrOf("a"), addrOf("b")) // the answer is lost, then the connection
				return new(text), nil
			})
		}
		w.node("b", serve)
		a, _ := w.node("a", nil)
		mustEcho(t, a, w.peer("b"))
		_, err := ask(t.Context(), a, w.peer("b"), "once", "")
		wantCode(t, err, mesh.Unavailable)
		w.nw.Heal(addrOf("a"), addrOf("b"))
		mustEcho(t, a, w.peer("b"))
		if n := runs.Load(); n != 1 {
			t.Errorf("the request was processed %d times", n)
		}
	})
}

func TestLossyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.nw.SetLoss(meshtest.Any, meshtest.Any, 0.1)
		w.node("b", nil)
		a, _ := w.node("a", nil)
		for range 50 {
			mustEcho(t, a, w.peer("b"))
		}
		if w.nw.Counts().Lost == 0 {
			t.Error("nothing was lost")
		}
	})
}

// Whichever side's clock is first, the error is the context's.
func TestErrorsAreTheContexts(t *testing.T) {
	for code, want := range map[mesh.Code]error{mesh.DeadlineExceeded: context.DeadlineExceeded, mesh.Canceled: context.Canceled} {
		err := fmt.Errorf("wrapped: %w", mesh.Errorf(code, "x"))
		if !errors.Is(err, want) {
			t.Errorf("%v is not %v", err, want)
		}
	}
	if errors.Is(mesh.Errorf(mesh.Unavailable, "x"), context.Canceled) {
		t.Error("matches too much")
	}
}
