package mesh

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// Call asks a peer and waits for its reply, which goes to resp. The deadline of ctx
// travels along; without one it is Config.CallTimeout. Cancelling ctx cancels the
// peer's handler. The error is an *Error. With Unavailable, DeadlineExceeded and
// Canceled the request may or may not have had its effect: nothing that may have reached
// a handler is sent again.
func (e *Endpoint) Call(ctx context.Context, to Peer, method string, req, resp proto.Message) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.cfg.CallTimeout)
		defer cancel()
	}
	r, err := e.open(ctx, to, &meshpb.CallHeader{Method: method, Keep: true}, req)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Receive(resp); err != nil {
		if errors.Is(err, io.EOF) {
			return failure(ctx, to, "call", io.ErrUnexpectedEOF)
		}
		return err
	}
	// Unless ctx has just ended, and the stream with it, the next call may have it.
	r.ended = r.stop()
	r.keep = r.ended
	return nil
}

// OpenStream asks a peer for a stream of messages. The stream ends with ctx, whose
// deadline, if it has one, travels along. The Receiver must be closed. OpenStream does
// not wait for an answer: a refusal comes with the first Receive.
func (e *Endpoint) OpenStream(ctx context.Context, to Peer, method string, req proto.Message) (*Receiver, error) {
	return e.open(ctx, to, &meshpb.CallHeader{Method: method}, req)
}

// open sends a request, on a stream that was kept if hdr says that it is to be kept.
func (e *Endpoint) open(ctx context.Context, to Peer, hdr *meshpb.CallHeader, req proto.Message) (*Receiver, error) {
	if d, ok := ctx.Deadline(); ok {
		hdr.TimeoutMs = millis(time.Until(d))
		if hdr.TimeoutMs == 0 {
			return nil, &Error{Code: DeadlineExceeded, Message: "call " + to.Addr + ": time is up", peer: to.ID}
		}
	}
	buf, err := appendFrame(make([]byte, 0, 256+proto.Size(req)), hdr, maxHeader)
	if err == nil {
		buf, err = appendFrame(buf, req, e.cfg.MaxMessage)
	}
	if err != nil {
		return nil, unsendable(to, err)
	}
	s, l, err := e.calls.openStream(ctx, to, hdr.Keep)
	if err != nil {
		return nil, err
	}
	r := &Receiver{ctx: ctx, s: s, to: to, limit: e.cfg.MaxMessage, link: l}
	r.stop = context.AfterFunc(ctx, r.reset)
	if _, err := s.Write(buf); err != nil {
		var refused *quic.StreamError
		if !errors.As(err, &refused) || !refused.Remote {
			defer r.Close()
			return nil, failure(ctx, to, "call", err)
		}
		return r, nil // the peer does not want the rest; its reply says why
	}
	if !hdr.Keep {
		s.Close()
	}
	return r, nil
}

// unsendable says why a request cannot be sent.
func unsendable(to Peer, err error) *Error {
	var large *tooLargeError
	if errors.As(err, &large) {
		return &Error{Code: TooLarge, Message: "request not sent: " + large.Error(), peer: to.ID, cause: err}
	}
	return &Error{Code: InvalidArgument, Message: "request not sent: " + err.Error(), peer: to.ID, cause: err}
}

// Receiver is the caller's end of a stream of messages. One goroutine may receive at a
// time; Close may be called by any.
type Receiver struct {
	ctx   context.Context
	s     *quic.Stream
	to    Peer
	limit int
	link  *link
	stop  func() bool
	begun bool
	ended bool // all was read, and nobody resets the stream any more
	keep  bool // the next call may have it
	once  sync.Once
}

// Receive waits for the next message. It returns io.EOF when the peer ended the stream
// well, else an *Error; after an error the stream is of no more use.
func (r *Receiver) Receive(m proto.Message) error {
	err := r.receive(m)
	if err == nil || err == io.EOF {
		return err
	}
	return failure(r.ctx, r.to, "call", err)
}

func (r *Receiver) receive(m proto.Message) error {
	if !r.begun {
		raw, err := readFrame(r.s, maxHeader)
		if err != nil {
			return truncated(err)
		}
		hdr := new(meshpb.ReplyHeader)
		if err := proto.Unmarshal(raw, hdr); err != nil {
			return &Error{Code: Internal, Message: "the peer's reply header is not valid", peer: r.to.ID}
		}
		if hdr.Status != nil {
			return errorOf(r.to.ID, hdr.Status)
		}
		r.begun = true
	}
	raw, err := readFrame(r.s, r.limit)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		return &Error{Code: Internal, Message: "the peer's message is not valid", peer: r.to.ID}
	}
	return nil
}

// Close ends the stream; the peer's handler is told if it still runs. It may be called
// again.
func (r *Receiver) Close() {
	r.once.Do(func() {
		if r.stop(); !r.ended {
			r.reset()
		}
		if r.keep {
			r.link.pool.keep(r.link, r.s)
		} else {
			r.link.pool.release(r.link)
		}
	})
}

// reset tells the peer that nobody listens any more; after the end it does nothing.
func (r *Receiver) reset() {
	r.s.CancelWrite(quic.StreamErrorCode(Canceled))
	r.s.CancelRead(quic.StreamErrorCode(Canceled))
}
