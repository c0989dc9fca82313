package mesh

import (
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// reply writes the answering side of a call.
type reply struct {
	s        *quic.Stream
	patience time.Duration // how long one write may take
	log      func(msg string, args ...any)
	// disarm keeps abort from being called; false if it was, or is about to be.
	disarm func() bool

	mu    sync.Mutex
	keep  bool // an answer that is not an error leaves the stream to the next call
	kept  bool // and so it was
	begun bool // the header is out
	ended bool
}

// errEnded means that the caller is gone or its time is up.
var errEnded = errors.New("the call has ended")

// send writes a message, and the header before the first one. The last one ends the call
// in the same breath; unless the stream is kept its end travels in the same packet.
func (r *reply) send(m proto.Message, limit int, last bool) error {
	if m == nil || !m.ProtoReflect().IsValid() {
		return errors.New("handler returned neither a message nor an error")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return errEnded
	}
	var buf []byte
	if !r.begun {
		buf = make([]byte, prefixSize, 2*prefixSize+proto.Size(m)) // an empty header says OK
	}
	buf, err := appendFrame(buf, m, limit)
	if err != nil {
		r.log("answer not sent", "err", err)
		return Errorf(TooLarge, "the answer is larger than the method allows")
	}
	r.begun = true
	if !last {
		return r.write(buf)
	}
	r.ended = true
	return r.finish(buf)
}

func (r *reply) write(b []byte) error {
	r.s.SetWriteDeadline(time.Now().Add(r.patience))
	if _, err := r.s.Write(b); err != nil {
		return errEnded
	}
	return nil
}

// finish writes the last bytes and ends the stream.
func (r *reply) finish(b []byte) error {
	if !r.disarm() {
		return errEnded
	}
	if err := r.write(b); err != nil {
		r.s.CancelWrite(quic.StreamErrorCode(Unavailable))
		return err
	}
	if r.kept = r.keep; !r.kept {
		r.s.Close()
	}
	return nil
}

// end ends the call if nothing has yet: well if err is nil, else with its status.
func (r *reply) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.ended, r.keep = true, false
	var last []byte
	switch {
	case err != nil && r.begun:
		if r.disarm() {
			r.s.CancelWrite(quic.StreamErrorCode(statusOf(err).GetCode()))
		}
		return
	case err != nil:
		st := statusOf(err)
		if last, err = appendFrame(nil, &meshpb.ReplyHeader{Status: st}, maxHeader); err != nil {
			last, _ = appendFrame(nil, &meshpb.ReplyHeader{Status: &meshpb.Status{Code: st.GetCode()}}, maxHeader)
		}
	case !r.begun: // a stream of no messages
		last = make([]byte, prefixSize)
	}
	r.finish(last)
	r.s.CancelRead(quic.StreamErrorCode(OK)) // whatever the caller still sends
}

// abort resets the stream at once, even while send is blocked.
func (r *reply) abort(code Code) {
	r.s.CancelRead(quic.StreamErrorCode(code))
	r.s.CancelWrite(quic.StreamErrorCode(code)) // unblocks a write that holds mu
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}
