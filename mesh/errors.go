package mesh

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// Code says what kind of failure an [Error] is. The numbers are part of the wire
// protocol; where gRPC has a code of the same meaning it has the same number.
type Code uint32

// The codes.
const (
	// OK is the code of a nil error.
	OK Code = 0
	// Canceled means that the caller gave up.
	Canceled Code = 1
	// InvalidArgument means that the request makes no sense; sending it again will not help.
	InvalidArgument Code = 3
	// DeadlineExceeded means that time ran out. The request may or may not have had its effect.
	DeadlineExceeded Code = 4
	// NotFound means that what the request names is not there.
	NotFound Code = 5
	// PermissionDenied means that the peer is known and may not do this, or is not admitted.
	PermissionDenied Code = 7
	// ResourceExhausted means that a quota is used up; try after Error.RetryAfter.
	ResourceExhausted Code = 8
	// Unimplemented means that the peer does not know the method or the protocol.
	Unimplemented Code = 12
	// Internal means a fault of the peer's. Its text stays there.
	Internal Code = 13
	// Unavailable means that the peer could not be reached, or went away. The request may
	// or may not have had its effect.
	Unavailable Code = 14
	// Unauthenticated means that one side did not accept the other's certificate.
	Unauthenticated Code = 16
	// TooLarge means that a message is above its size limit.
	TooLarge Code = 17
)

var codeNames = map[Code]string{
	OK: "OK", Canceled: "CANCELED", InvalidArgument: "INVALID_ARGUMENT", DeadlineExceeded: "DEADLINE_EXCEEDED",
	NotFound: "NOT_FOUND", PermissionDenied: "PERMISSION_DENIED", ResourceExhausted: "RESOURCE_EXHAUSTED",
	Unimplemented: "UNIMPLEMENTED", Internal: "INTERNAL", Unavailable: "UNAVAILABLE",
	Unauthenticated: "UNAUTHENTICATED", TooLarge: "TOO_LARGE",
}

// String gives the name of the code, as in "NOT_FOUND".
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return "CODE_" + strconv.FormatUint(uint64(c), 10)
}

// ErrRestarted is in the chain of an *Error when the peer came back without the
// connection that was used (QUIC stateless reset). The next call makes a new one, so
// whoever may repeat a request does well to do so at once.
var ErrRestarted = errors.New("the peer was restarted")

// Error is a failure with a code. A handler returns one to say something to its
// caller: Code, Message, RetryAfter and Reason travel. Endpoint.Call and Receiver return
// one for whatever goes wrong.
type Error struct {
	Code Code
	// Message is for people. It must never contain the number of a subject. What is
	// received is cut at 512 bytes and has no control characters.
	Message string
	// RetryAfter, if not zero, says when trying again makes sense.
	RetryAfter time.Duration
	// Reason is a stable word that the method defines. Empty: none.
	Reason string

	peer  spiffeid.ID // who was asked, when the error is the outcome of a call
	cause error
}

// Errorf makes an *Error of a code and a message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error gives code, peer and message.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code.String())
	if !e.peer.IsZero() {
		b.WriteString(" from " + e.peer.String())
	}
	if e.Reason != "" {
		b.WriteString(" (" + e.Reason + ")")
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

// Unwrap gives the underlying failure of this machine, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// Is makes the codes DeadlineExceeded and Canceled match the context's errors, whichever
// side's clock was first.
func (e *Error) Is(target error) bool {
	return e.Code == DeadlineExceeded && target == context.DeadlineExceeded ||
		e.Code == Canceled && target == context.Canceled
}

// CodeOf gives the code of an error: that of the first *Error in its chain, those of
// the context's errors, OK for nil, and Internal for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// statusOf says what a caller may learn of a handler's error: everything of the
// handler's own *Error, the code and hints of one that another peer gave the handler
// (its text was not meant for a third party), and nothing of any other error.
func statusOf(err error) *meshpb.Status {
	var e *Error
	if !errors.As(err, &e) {
		return &meshpb.Status{Code: uint32(CodeOf(err))}
	}
	st := &meshpb.Status{Code: uint32(e.Code), RetryAfterMs: millis(e.RetryAfter), Reason: clean(e.Reason, maxReason)}
	if e.Code == OK {
		st.Code = uint32(Internal)
	}
	if e.peer.IsZero() {
		st.Message = clean(e.Message, maxText)
	}
	return st
}

// errorOf reads a peer's status; it trusts nothing in it.
func errorOf(peer spiffeid.ID, st *meshpb.Status) *Error {
	e := &Error{
		Code:       Code(st.GetCode()),
		Message:    clean(st.GetMessage(), maxText),
		RetryAfter: duration(st.GetRetryAfterMs()),
		Reason:     clean(st.GetReason(), maxReason),
		peer:       peer,
	}
	if _, known := codeNames[e.Code]; !known || e.Code == OK {
		e.Code = Internal
	}
	return e
}

const (
	maxText   = 512
	maxReason = 64
	// maxWait is the longest time that is believed of a peer: timeouts and retry hints.
	maxWait = 24 * time.Hour
)

// clean cuts s and takes out what could confuse a terminal or a log.
func clean(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
}

// millis rounds up, so that a short wait does not become none.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func duration(ms int64) time.Duration {
	if ms <= 0 {
		return 0
	}
	if ms > int64(maxWait/time.Millisecond) {
		return maxWait
	}
	return time.Duration(ms) * time.Millisecond
}
