package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// pipes is a listener without a network, so that time can be virtual.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
	case <-p.closed:
		theirs.Close()
	}
	return ours
}

// bubble runs a server in virtual time; try ends before the server is told to stop.
func bubble(t *testing.T, f *fakes, try func(t *testing.T, p *pipes), change ...func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, f, change...)
		p := newPipes()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Serve(ctx, p) }()
		try(t, p)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

const head = "Host: node\r\nAuthorization: Bearer file-token\r\nX-Crossroads-User: alice\r\nContent-Type: application/json\r\n"

// answer reads what the server says until it hangs up, and how long that took.
func answer(c net.Conn) (*http.Response, string, time.Duration) {
	began := time.Now()
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err.Error(), time.Since(began)
	}
	b, _ := io.ReadAll(resp.Body)
	_, _ = io.Copy(io.Discard, r)
	return resp, string(b), time.Since(began)
}

func TestSlowHeaderIsCut(t *testing.T) {
	bubble(t, new(fakes), func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: ")
		if _, _, took := answer(c); took > 6*time.Second {
			t.Errorf("held for %v", took)
		}
	})
}

func TestSlowBodyIsCut(t *testing.T) {
	f := new(fakes)
	bubble(t, f, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/consultations HTTP/1.1\r\n%sContent-Length: 1000\r\n\r\n{", head)
		resp, body, took := answer(c)
		if resp == nil || resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(body, string(CodeSlow)) || took > 16*time.Second {
			t.Errorf("%v %s after %v", resp, body, took)
		}
	})
	if len(f.asked) != 0 {
		t.Error("half a question was asked")
	}
}

// A byte a second is no way to hold a connection for ever.
func TestDripIsCut(t *testing.T) {
	bubble(t, new(fakes), func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		go func() {
			_, err := fmt.Fprintf(c, "POST /v1/consultations HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n", head)
			for err == nil {
				time.Sleep(time.Second)
				_, err = fmt.Fprint(c, "1\r\n \r\n")
			}
		}()
		resp, body, took := answer(c)
		if resp == nil || resp.StatusCode != http.StatusRequestTimeout || took > 17*time.Second {
			t.Errorf("%v %s after %v", resp, body, took)
		}
		c.Close()
		synctest.Wait()
		time.Sleep(2 * time.Second) // lets the drip see that nobody listens
	})
}

func TestEndlessBodyIsCut(t *testing.T) {
	f := new(fakes)
	bubble(t, f, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		sent := make(chan int)
		go func() {
			n := 0
			_, err := fmt.Fprintf(c, "POST /v1/consultations HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n", head)
			for chunk := fmt.Sprintf("400\r\n%s\r\n", strings.Repeat(" ", 0x400)); err == nil; n++ {
				_, err = io.WriteString(c, chunk)
			}
			sent <- n
		}()
		resp, body, _ := answer(c)
		if resp == nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(body, string(CodeTooLarge)) {
			t.Errorf("%v %s", resp, body)
		}
		c.Close()
		if n := <-sent; n > 300 {
			t.Errorf("%d KiB were read of an endless body", n)
		}
	})
	if len(f.asked) != 0 {
		t.Error("it was asked")
	}
}

func TestOversizeAndTruncated(t *testing.T) {
	for name, tt := range map[string]struct {
		length int
		code   Code
	}{
		"announced too large": {1 << 30, CodeTooLarge},
		"truncated":           {500, CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(fakes)
			bubble(t, f, func(t *testing.T, p *pipes) {
				c := p.dial()
				defer c.Close()
				fmt.Fprintf(c, "POST /v1/consultations HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", head, tt.length)
				if tt.code == CodeMalformed {
					fmt.Fprint(c, question()[:100])
					c.Close() // nobody is left to answer
					return
				}
				go io.Copy(c, strings.NewReader(strings.Repeat(" ", 1<<20)))
				resp, body, _ := answer(c)
				if resp == nil || !strings.Contains(body, string(tt.code)) {
					t.Errorf("%v %s", resp, body)
				}
			})
			if len(f.asked) != 0 {
				t.Error("it was asked")
			}
		})
	}
}

func TestLargeHeaderIsRefused(t *testing.T) {
	bubble(t, new(fakes), func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		go fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: node\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", 64<<10))
		if resp, _, _ := answer(c); resp == nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v", resp)
		}
	})
}

// Whoever does not read the answer gives the connection back all the same.
func TestSlowReaderIsCut(t *testing.T) {
	f := new(fakes)
	bubble(t, f, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		fmt.Fprint(c, "GET /openapi.json HTTP/1.1\r\nHost: node\r\n\r\n")
		time.Sleep(30 * time.Second)
		b, _ := io.ReadAll(c)
		if len(b) >= len(openAPI) {
			t.Errorf("%d bytes were still given after 30 s", len(b))
		}
	})
}

func TestDeadline(t *testing.T) {
	for prefer, want := range map[string]time.Duration{"": 10 * time.Second, "wait=3": 3 * time.Second, "respond-async, wait=60": time.Minute} {
		f := new(fakes)
		bubble(t, f, func(t *testing.T, p *pipes) {
			f.hold = make(chan struct{}) // made in the bubble, so that time passes while it is waited for
			began := time.Now()
			c := p.dial()
			defer c.Close()
			q := question()
			fmt.Fprintf(c, "POST /v1/consultations HTTP/1.1\r\n%sConnection: close\r\nPrefer: %s\r\nContent-Length: %d\r\n\r\n%s", head, prefer, len(q), q)
			resp, body, _ := answer(c)
			if resp == nil || resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, `"client_ticket":"t-1"`) || time.Since(began) != want {
				t.Errorf("%q: %v %s after %v, want %v", prefer, resp, body, time.Since(began), want)
			}
		})
	}
	s, _ := newServer(t, new(fakes))
	for _, bad := range []string{"wait=0", "wait=61", "wait=x", "wait", "wait=-1"} {
		wantProblem(t, ask(s, "GET", "/v1/institutions", "", "Prefer", bad), CodeMalformed, "Prefer")
	}
}

// An answer that takes longer than a request may take to arrive is given.
func TestLongWorkIsNotCut(t *testing.T) {
	f := new(fakes)
	bubble(t, f, func(t *testing.T, p *pipes) {
		f.hold = make(chan struct{})
		go func() { time.Sleep(50 * time.Second); close(f.hold) }()
		c := p.dial()
		defer c.Close()
		q := question()
		fmt.Fprintf(c, "POST /v1/consultations HTTP/1.1\r\n%sConnection: close\r\nPrefer: wait=60\r\nContent-Length: %d\r\n\r\n%s", head, len(q), q)
		resp, body, took := answer(c)
		if resp == nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%v %s after %v", resp, body, took)
		}
	})
}

// client speaks to p; each request has a connection of its own.
func client(p *pipes, token string) *Client {
	c := NewClient("http://node", token)
	c.HTTP.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil },
	}
	return c
}

var asked = ConsultationRequest{
	ClientTicket: "t-1", Subject: Subject{"ssin", person}, Dataset: "wages/v1", Purpose: "inquiry", Period: &names.Period{From: 20000, Until: 20010},
}

// One application cannot take the places of another, nor of the health checks.
func TestConcurrencyPerApplication(t *testing.T) {
	f := new(fakes)
	bubble(t, f, func(t *testing.T, p *pipes) {
		f.hold, f.entered = make(chan struct{}), make(chan struct{})
		greedy, other := client(p, "robot-token"), client(p, "file-token")
		other.User = "alice"
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := greedy.Consult(t.Context(), asked); err != nil {
					t.Error(err)
				}
			})
			<-f.entered
		}
		_, err := greedy.Consult(t.Context(), asked)
		if !IsProblem(err, CodeTooMany) {
			t.Errorf("the fifth: %v", err)
		}
		wg.Go(func() {
			if _, err := other.Consult(t.Context(), asked); err != nil {
				t.Errorf("another application: %v", err)
			}
		})
		<-f.entered
		if err := greedy.Healthy(t.Context()); err != nil {
			t.Errorf("health: %v", err)
		}
		close(f.hold)
		wg.Wait()
		go func() { <-f.entered }()
		if _, err := greedy.Consult(t.Context(), asked); err != nil {
			t.Errorf("a place was not given back: %v", err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	f := &fakes{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
	s, _ := newServer(t, f, func(c *Config) { c.MaxConcurrent = 1 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		ask(s, "POST", "/v1/consultations", question(), bearer("robot-token")...)
	}()
	<-f.entered
	w := ask(s, "POST", "/v1/consultations", question(), bearer("robot-token")...)
	wantProblem(t, w, CodeTooMany, "")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(f.hold)
	<-done
}

// Told to stop, the server lets what is under way end, and nothing new begin.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{hold: make(chan struct{}), entered: make(chan struct{})}
		s, _ := newServer(t, f, func(c *Config) { c.Drain = 20 * time.Second })
		p := newPipes()
		ctx, stop := context.WithCancel(t.Context())
		ended, got := make(chan error, 1), make(chan error, 1)
		go func() { ended <- s.Serve(ctx, p) }()
		go func() { _, err := client(p, "robot-token").Consult(t.Context(), asked); got <- err }()
		<-f.entered
		stop()
		synctest.Wait()
		if err := client(p, "").Healthy(t.Context()); err == nil {
			t.Error("a request began after the end")
		}
		time.Sleep(5 * time.Second)
		close(f.hold)
		if err := <-got; err != nil {
			t.Errorf("the request under way: %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// What does not end in time is cut, and Serve returns only when its handler has.
func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{hold: make(chan struct{}), entered: make(chan struct{})}
		s, _ := newServer(t, f, func(c *Config) { c.Drain = 3 * time.Second })
		p := newPipes()
		ctx, stop := context.WithCancel(t.Context())
		ended, got := make(chan error, 1), make(chan error, 1)
		go func() { ended <- s.Serve(ctx, p) }()
		go func() {
			slow, done := context.WithTimeout(t.Context(), time.Minute)
			defer done()
			_, err := client(p, "robot-token").Consult(slow, asked)
			got <- err
		}()
		<-f.entered
		stop()
		began := time.Now()
		if err := <-ended; err != nil || time.Since(began) > 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := <-got; err == nil {
			t.Error("an answer came from nowhere")
		}
	})
}

func TestServeFailsWithItsListener(t *testing.T) {
	s, _ := newServer(t, new(fakes))
	p := newPipes()
	p.Close()
	if err := s.Serve(t.Context(), p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
