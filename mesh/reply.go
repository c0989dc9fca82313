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

	mu      sync.Mutex
	begun   bool // the header is out
	ended   bool
	aborted bool
}

// errEnded means that the caller is gone or its time is up.
var errEnded = errors.New("the call has ended")

// send writes a message, and the header before the first one.
func (r *reply) send(m proto.Message, limit int) error {
	if m == nil || !m.ProtoReflect().IsValid() {
		return errors.New("handler returned neither a message nor an error")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.aborted {
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
	return r.write(buf)
}

func (r *reply) write(b []byte) error {
	r.s.SetWriteDeadline(time.Now().Add(r.patience))
	if _, err := r.s.Write(b); err != nil {
		return errEnded
	}
	return nil
}

// end finishes the call: well if err is nil, else with its status.
func (r *reply) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.aborted {
		return
	}
	r.ended = true
	r.s.CancelRead(quic.StreamErrorCode(OK))
	switch {
	case err != nil && r.begun:
		r.s.CancelWrite(quic.StreamErrorCode(statusOf(err).GetCode()))
		return
	case err != nil:
		buf, tooLong := appendFrame(nil, &meshpb.ReplyHeader{Status: statusOf(err)}, maxHeader)
		if tooLong != nil || r.write(buf) != nil {
			r.s.CancelWrite(quic.StreamErrorCode(CodeOf(err)))
			return
		}
	case !r.begun: // a stream of no messages
		if r.write(make([]byte, prefixSize)) != nil {
			return
		}
	}
	r.s.Close()
}

// abort resets the stream at once, even while send is blocked.
func (r *reply) abort(code Code) {
	r.s.CancelRead(quic.StreamErrorCode(code))
	r.s.CancelWrite(quic.StreamErrorCode(code)) // unblocks a write that holds mu
	r.mu.Lock()
	defer r.mu.Unlock()
	r.aborted = true
}
