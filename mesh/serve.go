package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// inbound is one accepted connection.
type inbound struct {
	e       *Endpoint
	conn    *quic.Conn
	peer    spiffeid.ID
	expires time.Time
	account *account
}

// serveConn serves a connection to its end, and returns when its streams have ended too.
func (e *Endpoint) serveConn(conn *quic.Conn) {
	id, end, err := identify(conn)
	if err != nil {
		e.cfg.Log.Warn("connection refused", "addr", conn.RemoteAddr(), "err", err)
		conn.CloseWithError(closeRefused, "not admitted")
		return
	}
	// First noted, then judged: so a Drop in between does not miss it.
	if !e.track(conn, id) {
		conn.CloseWithError(closeGoingAway, "going away")
		return
	}
	defer e.untrack(conn)
	if err := e.cfg.Admit(id); err != nil {
		e.cfg.Log.Warn("connection refused", "peer", id, "addr", conn.RemoteAddr(), "err", err)
		conn.CloseWithError(closeRefused, "not admitted")
		return
	}
	acc, err := e.accounts.connect(id)
	if err != nil {
		e.cfg.Log.Warn("connection refused", "peer", id, "addr", conn.RemoteAddr(), "err", err)
		conn.CloseWithError(closeTooMany, "too many connections")
		return
	}
	defer e.accounts.disconnect(acc)
	defer expire(conn, end)()

	in := &inbound{e: e, conn: conn, peer: id, expires: end, account: acc}
	serve := in.serveCalls
	if l := e.layers[conn.ConnectionState().TLS.NegotiatedProtocol]; l != nil {
		serve = func(s *quic.Stream) { l.serve(in, s) }
	}
	streams := newWorkers()
	for {
		s, err := conn.AcceptStream(e.ctx)
		if err != nil {
			break
		}
		streams.serve(func() { serve(s) })
	}
	streams.wait()
}

// welcome asks again what was asked when the connection began.
func (in *inbound) welcome() *Error {
	if err := in.e.cfg.Admit(in.peer); err != nil {
		in.e.cfg.Log.Debug("call refused", "peer", in.peer, "err", err)
		return Errorf(PermissionDenied, "not admitted")
	}
	if !time.Now().Before(in.expires) {
		return Errorf(Unauthenticated, "your certificate has expired")
	}
	return nil
}

// serveCalls serves the calls on a stream, one after the other.
func (in *inbound) serveCalls(s *quic.Stream) {
	for again := in.serveCall(s, nil); again; {
		// Between two calls the caller takes the time it likes.
		s.SetReadDeadline(time.Time{})
		var prefix [prefixSize]byte
		n, err := s.Read(prefix[:])
		if n == 0 {
			if err == io.EOF {
				s.Close()
			} else {
				s.CancelWrite(quic.StreamErrorCode(Canceled))
			}
			return
		}
		again = in.serveCall(s, prefix[:n])
	}
}

// serveCall serves one call, of which the bytes begun were read. It reports whether the
// caller may send another on the same stream.
func (in *inbound) serveCall(s *quic.Stream, begun []byte) (again bool) {
	e := in.e
	out := &reply{s: s, patience: e.cfg.ReadTimeout, disarm: func() bool { return true }, log: func(msg string, args ...any) {
		e.cfg.Log.Error(msg, append(args, "peer", in.peer)...)
	}}
	if err := in.welcome(); err != nil {
		out.end(err)
		return false
	}
	if !e.begin() {
		out.end(&Error{Code: Unavailable, Message: "this node is shutting down", RetryAfter: time.Second})
		return false
	}
	defer e.done()
	release, busy := in.account.begin()
	if busy != nil {
		out.end(busy)
		return false
	}
	defer release()
	s.SetReadDeadline(time.Now().Add(e.cfg.ReadTimeout))
	hdr, m, err := in.readHeader(s, begun)
	if err != nil {
		out.end(err)
		return false
	}
	keep := hdr.GetKeep() && !m.streaming
	raw, free, err := in.readRequest(s, m.limits.Request, keep)
	if err != nil {
		out.end(err)
		return false
	}
	defer free()
	out.keep = keep

	// The stream's context ends when the caller resets the stream or the connection ends.
	ctx := s.Context()
	if d := least(duration(hdr.GetTimeoutMs()), m.limits.Timeout); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if m.streaming {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(e.streaming, cancel)()
	}
	// The caller is told in time even if the handler does not heed its context.
	out.disarm = context.AfterFunc(ctx, func() {
		code := CodeOf(ctx.Err())
		if m.streaming && e.streaming.Err() != nil {
			code = Unavailable
		}
		out.abort(code)
	})
	out.end(in.run(ctx, hdr.GetMethod(), m, raw, out))
	return out.kept
}

// least gives the smaller of two durations of which 0 means none.
func least(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// run calls the handler; a panic in it is an error like others.
func (in *inbound) run(ctx context.Context, name string, m *method, raw []byte, out *reply) (err error) {
	defer func() {
		if r := recover(); r != nil {
			in.e.cfg.Log.Error("handler panicked", "method", name, "peer", in.peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = Errorf(Internal, "")
		}
	}()
	err = m.run(ctx, in.peer, raw, func(msg proto.Message) error { return out.send(msg, m.limits.Response, !m.streaming) })
	if err != nil && CodeOf(err) == Internal {
		in.e.cfg.Log.Error("handler failed", "method", name, "peer", in.peer, "err", err)
	}
	return err
}

func (in *inbound) readHeader(s *quic.Stream, begun []byte) (*meshpb.CallHeader, *method, error) {
	n, err := readLengthFrom(begun, s, maxHeader)
	var raw []byte
	if err == nil {
		raw, err = readBody(s, n)
	}
	if err != nil {
		return nil, nil, badInput("call header", err)
	}
	hdr := new(meshpb.CallHeader)
	if err := proto.Unmarshal(raw, hdr); err != nil {
		return nil, nil, Errorf(InvalidArgument, "the call header is not valid")
	}
	m := in.e.methods[hdr.GetMethod()]
	if m == nil {
		return nil, nil, Errorf(Unimplemented, "no method %q here", clean(hdr.GetMethod(), maxReason))
	}
	return hdr, m, nil
}

// readRequest reads the request and, unless more calls may follow, the end of the caller's
// side. Its bytes count against the peer's quota until free is called.
func (in *inbound) readRequest(s *quic.Stream, limit int, more bool) (raw []byte, free func(), err error) {
	n, err := readLength(s, limit)
	if err != nil {
		return nil, nil, badInput("request", err)
	}
	if !in.account.bytes.TryAcquire(int64(n)) {
		return nil, nil, exhausted(busyHint, "too many bytes of requests in progress")
	}
	defer func() {
		if err != nil {
			in.account.bytes.Release(int64(n))
		}
	}()
	if raw, err = readBody(s, n); err != nil {
		return nil, nil, badInput("request", err)
	}
	free = func() { in.account.bytes.Release(int64(n)) }
	if more {
		return raw, free, nil
	}
	var after [1]byte
	if _, err = io.ReadFull(s, after[:]); err == nil {
		err = Errorf(InvalidArgument, "there are bytes after the request")
		return nil, nil, err
	} else if !errors.Is(err, io.EOF) {
		return nil, nil, badInput("request", err)
	}
	return raw, free, nil
}

// badInput says what is wrong with what a caller sent.
func badInput(what string, err error) *Error {
	var large *tooLargeError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &large):
		return Errorf(TooLarge, "%s: %v", what, large)
	case errors.As(err, &timeout) && timeout.Timeout():
		return Errorf(DeadlineExceeded, "the %s did not arrive in time", what)
	}
	return Errorf(InvalidArgument, "the %s ended early", what)
}
