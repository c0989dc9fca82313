package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

const (
	maxConnections = 4096
	maxHeader      = 16 << 10
)

// Handler gives the interface as an http.Handler, without the limits that belong to
// connections.
func (s *Server) Handler() http.Handler { return s.mux }

// Serve answers on ln until ctx is done, then lets requests under way end for at most
// Drain, and returns when none is left. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.mux,
		TLSConfig:         s.cfg.TLS,
		ReadHeaderTimeout: s.times.header,
		ReadTimeout:       s.times.body,
		WriteTimeout:      s.times.maxWait + s.times.answer,
		IdleTimeout:       s.times.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	failed := make(chan error, 1)
	go func() {
		ln := netutil.LimitListener(ln, maxConnections)
		if s.cfg.TLS != nil {
			failed <- srv.ServeTLS(ln, "", "")
		} else {
			failed <- srv.Serve(ln)
		}
	}()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("api: %w", err)
	case <-ctx.Done():
		drain, stop := context.WithTimeout(base, s.cfg.Drain)
		err = srv.Shutdown(drain)
		stop()
		if errors.Is(err, context.DeadlineExceeded) {
			err = nil // cut below: the caller may ask again under the same client ticket
		}
		<-failed
	}
	cancel()
	_ = srv.Close()
	s.busy.Wait()
	return err
}

// request is one request that passed the gate.
type request struct {
	*http.Request
	app  *application
	user user
	id   string
	body []byte
	// stream is the body, of a route that reads it as it comes.
	stream io.Reader
}

// response is what a handler answers; nil means 204.
type response any

// raw is a body that is JSON already.
type raw []byte

// document is a body that is no JSON.
type document struct {
	media string
	cache string // Cache-Control; empty: not to be stored
	body  []byte
}

// serve is the gate before every handler: identity, quota, limits, deadline, log.
func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.busy.Add(1)
		defer s.busy.Done()
		began := time.Now()
		q := &request{Request: r, app: s.public, id: requestID(r)}
		w.Header().Set("X-Request-Id", q.id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		resp, err := s.pass(w, q, rt)
		status, size := s.write(w, q, resp, err)
		level := slog.LevelInfo
		if status >= 500 {
			level = slog.LevelWarn
		}
		// The pattern, not the path: what callers put in a path is not ours to log.
		attrs := []slog.Attr{
			slog.String("method", r.Method), slog.String("route", r.Pattern), slog.Int("status", status), slog.Int("bytes", size),
			slog.Duration("took", time.Since(began)), slog.String("application", q.app.Name), slog.String("request", q.id),
		}
		if _, callers := err.(*Problem); err != nil && !callers { // what lies behind a problem is the operator's to know
			attrs = append(attrs, slog.Any("error", err))
		}
		s.cfg.Log.LogAttrs(r.Context(), level, "api request", attrs...)
	})
}

func (s *Server) pass(w http.ResponseWriter, q *request, rt route) (resp response, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in %s: %v\n%s", rt.path, p, debug.Stack())
		}
	}()
	if rt.path == "" { // no route: whatever else is wrong does not matter
		w.Header().Set("Connection", "close")
		return rt.handle(q)
	}
	if rt.access != open {
		if err := s.authenticate(q, rt.access); err != nil {
			return nil, err
		}
	}
	if !rt.free {
		select {
		case q.app.slots <- struct{}{}:
			defer func() { <-q.app.slots }()
		default:
			return nil, problem(CodeTooMany, "", "Wait for answers before asking more, or come back after Retry-After.")
		}
	}
	if err := onlyKnown(q.URL.RawQuery, q.URL.Query(), rt.query); err != nil {
		return nil, err
	}
	wait, err := s.wait(q.Header.Get("Prefer"))
	if err != nil {
		return nil, err
	}
	if err := s.read(w, q, rt); err != nil {
		return nil, err
	}
	if rt.stream {
		return rt.handle(q)
	}
	ctx, cancel := context.WithTimeout(q.Context(), wait)
	defer cancel()
	q.Request = q.Request.WithContext(ctx)
	return rt.handle(q)
}

// read takes in the whole body, so that a handler never waits for its caller.
func (s *Server) read(w http.ResponseWriter, q *request, rt route) error {
	rc := http.NewResponseController(w)
	if rt.media == "" {
		if q.ContentLength != 0 {
			w.Header().Set("Connection", "close")
			return problem(CodeMalformed, "body", "This route takes no body.")
		}
	} else {
		got, _, _ := strings.Cut(q.Header.Get("Content-Type"), ";")
		if strings.TrimSpace(strings.ToLower(got)) != rt.media {
			w.Header().Set("Connection", "close")
			return problem(CodeMediaType, "Content-Type", "Send "+rt.media+".")
		}
		if rt.stream {
			q.stream = &steady{rc: rc, read: q.Body}
			return nil
		}
		limit := s.cfg.MaxBody
		if rt.maxBody > 0 {
			limit = rt.maxBody
		}
		var err error
		if q.body, err = io.ReadAll(http.MaxBytesReader(w, q.Body, limit)); err != nil {
			w.Header().Set("Connection", "close")
			var ne net.Error
			var large *http.MaxBytesError
			switch {
			case errors.As(err, &large):
				return err
			case errors.As(err, &ne) && ne.Timeout():
				return problem(CodeSlow, "body", fmt.Sprintf("Send it within %v.", s.times.body))
			}
			return problem(CodeMalformed, "body", "It ended before its end.")
		}
	}
	// Otherwise the deadline for reading would cut off a handler that is still at work.
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return problem(CodeSlow, "", "The connection is gone.")
	}
	return nil
}

// wait reads "Prefer: wait=N" (RFC 7240).
func (s *Server) wait(prefer string) (time.Duration, error) {
	for p := range strings.SplitSeq(prefer, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(name, "wait") {
			continue
		}
		n, err := strconv.Atoi(value)
		if most := int(s.times.maxWait / time.Second); err != nil || n < 1 || n > most {
			return 0, problem(CodeMalformed, "Prefer", fmt.Sprintf("Write wait=N with N from 1 to %d seconds.", most))
		}
		return time.Duration(n) * time.Second, nil
	}
	return s.times.wait, nil
}

// write sends the answer and gives its status and size.
func (s *Server) write(w http.ResponseWriter, q *request, resp response, err error) (status, size int) {
	h := w.Header()
	status = http.StatusOK
	var body []byte
	if v, ok := resp.(streamed); ok && err == nil {
		h.Set("Content-Type", v.media)
		to := &steady{rc: http.NewResponseController(w), to: w}
		if err = v.write(to); err == nil {
			if to.n == 0 {
				w.WriteHeader(status)
			}
			return status, to.n
		}
		if to.n > 0 { // the caller must not take it for the whole
			s.cfg.Log.Warn("an answer was cut off", "request", q.id, "err", err)
			panic(http.ErrAbortHandler)
		}
	}
	if err == nil {
		h.Set("Content-Type", "application/json")
		switch v := resp.(type) {
		case nil:
			status = http.StatusNoContent
		case raw:
			body = v
		case document:
			body = v.body
			h.Set("Content-Type", v.media)
			if v.cache != "" {
				h.Set("Cache-Control", v.cache)
			}
		case statused:
			status = v.status
			body, err = json.Marshal(v.body)
		default:
			body, err = json.Marshal(v)
		}
	}
	if err != nil {
		p := *asProblem(err)
		p.RequestID = q.id
		status = p.Status
		body, _ = json.Marshal(p)
		h.Set("Content-Type", "application/problem+json")
		switch p.Code {
		case CodeUnauthenticated:
			h.Set("WWW-Authenticate", `Bearer realm="crossroads"`)
		case CodeMethod:
			h.Set("Allow", p.allow)
		case CodeTooMany, CodeUnavailable:
			h.Set("Retry-After", "1")
		}
	}
	if status == http.StatusNoContent {
		h.Del("Content-Type")
	} else {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.times.answer))
	w.WriteHeader(status)
	size, _ = w.Write(body) // a caller that is gone is no fault of ours
	return status, size
}

// statused is an answer with a status of its own.
type statused struct {
	status int
	body   any
}

// requestID takes the caller's when it is one we would write ourselves.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
		return id
	}
	return rand.Text()
}
