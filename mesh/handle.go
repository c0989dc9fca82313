package mesh

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
)

// Limits bound one method. Zero fields have the default.
type Limits struct {
	// Request and Response are the largest messages in bytes. Default Config.MaxMessage.
	Request, Response int
	// Timeout bounds a call whatever its caller asks for. For calls the default is 30 s; a
	// stream of messages has no bound by default.
	Timeout time.Duration
}

const defaultTimeout = 30 * time.Second

// Message is a pointer to a protobuf message of type T; it is inferred.
type Message[T any] interface {
	*T
	proto.Message
}

// method is a registered handler without its types.
type method struct {
	limits    Limits
	streaming bool
	run       func(ctx context.Context, from spiffeid.ID, request []byte, send func(proto.Message) error) error
}

// Handle registers the handler of a method that has one reply. The handler's context ends
// at the caller's deadline, when the caller gives up, and when the endpoint closes; a
// handler must heed it. from is the authenticated caller. An *Error goes to the caller as
// it is, any other error as Internal without its text; a panic is logged and Internal.
// Handle panics if the method is registered already. Register before Run.
func Handle[Req, Resp any, PReq Message[Req], PResp Message[Resp]](
	e *Endpoint, name string, limits Limits,
	h func(ctx context.Context, from spiffeid.ID, req *Req) (*Resp, error),
) {
	if limits.Timeout <= 0 {
		limits.Timeout = defaultTimeout
	}
	e.register(name, &method{limits: limits, run: func(ctx context.Context, from spiffeid.ID, raw []byte, send func(proto.Message) error) error {
		req := PReq(new(Req))
		if err := decode(raw, req); err != nil {
			return err
		}
		resp, err := h(ctx, from, (*Req)(req))
		if err != nil {
			return err
		}
		return send(PResp(resp))
	}})
}

// HandleStream registers the handler of a method that answers with a stream of messages.
// It ends when the handler returns; an error of the handler after the first message
// reaches the caller as a code only. send blocks while the caller is slow, up to
// Config.ReadTimeout; it must not be used by two goroutines at a time, nor after the
// return. Otherwise as Handle.
func HandleStream[Req, Event any, PReq Message[Req], PEvent Message[Event]](
	e *Endpoint, name string, limits Limits,
	h func(ctx context.Context, from spiffeid.ID, req *Req, send func(*Event) error) error,
) {
	e.register(name, &method{limits: limits, streaming: true, run: func(ctx context.Context, from spiffeid.ID, raw []byte, send func(proto.Message) error) error {
		req := PReq(new(Req))
		if err := decode(raw, req); err != nil {
			return err
		}
		return h(ctx, from, (*Req)(req), func(ev *Event) error { return send(PEvent(ev)) })
	}})
}

func decode(raw []byte, m proto.Message) error {
	if err := proto.Unmarshal(raw, m); err != nil {
		return Errorf(InvalidArgument, "the request is not a valid %s", m.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

func (e *Endpoint) register(name string, m *method) {
	if _, dup := e.methods[name]; dup {
		panic(fmt.Sprintf("mesh: method %q is registered twice", name))
	}
	if m.limits.Request <= 0 {
		m.limits.Request = e.cfg.MaxMessage
	}
	if m.limits.Response <= 0 {
		m.limits.Response = e.cfg.MaxMessage
	}
	e.methods[name] = m
}
