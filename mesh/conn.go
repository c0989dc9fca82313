package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// QUIC application error codes, part of the wire protocol.
const (
	closeGoingAway quic.ApplicationErrorCode = 0
	closeRefused   quic.ApplicationErrorCode = 1
	closeExpired   quic.ApplicationErrorCode = 2
	closeTooMany   quic.ApplicationErrorCode = 3
)

// alertNoProtocol is TLS alert 120, no_application_protocol, as a QUIC error code.
const alertNoProtocol quic.TransportErrorCode = 0x100 + 120

// identify reads the peer's SPIFFE ID and the end of its certificate. The credentials
// have verified the certificate.
func identify(c *quic.Conn) (spiffeid.ID, time.Time, error) {
	certs := c.ConnectionState().TLS.PeerCertificates
	if len(certs) == 0 || len(certs[0].URIs) != 1 {
		return spiffeid.ID{}, time.Time{}, errors.New("the peer's certificate does not have exactly one SPIFFE ID")
	}
	id, err := spiffeid.FromURI(certs[0].URIs[0])
	return id, certs[0].NotAfter, err
}

// expire closes the connection when the certificate ends. The result undoes that.
func expire(c *quic.Conn, end time.Time) (stop func() bool) {
	t := time.AfterFunc(time.Until(end), func() { c.CloseWithError(closeExpired, "certificate expired") })
	return t.Stop
}

// resolve finds the address of a peer in the family of the socket.
func (e *Endpoint) resolve(ctx context.Context, addr string) (*net.UDPAddr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q is no number up to 65535", port)
	}
	number := int(n)
	if ip := net.ParseIP(host); ip != nil {
		return &net.UDPAddr{IP: ip, Port: number}, nil
	}
	network := "ip"
	if local, ok := e.Addr().(*net.UDPAddr); ok && local.IP.To4() != nil {
		network = "ip4"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("host %q has no address", host)
	}
	return &net.UDPAddr{IP: ips[0].AsSlice(), Port: number, Zone: ips[0].Zone()}, nil
}

// failure turns what went wrong with a call or connection into an *Error of that peer.
// ctx is the caller's.
func failure(ctx context.Context, peer Peer, doing string, err error) *Error {
	e := &Error{Code: Unavailable, Message: fmt.Sprintf("%s %s: %v", doing, peer.Addr, err), peer: peer.ID, cause: err}
	var (
		typed    *Error
		large    *tooLargeError
		stream   *quic.StreamError
		app      *quic.ApplicationError
		trans    *quic.TransportError
		reset    *quic.StatelessResetError
		deadline = errors.Is(err, context.DeadlineExceeded)
	)
	switch {
	case errors.As(err, &typed):
		return typed
	case ctx.Err() != nil:
		e.cause = ctx.Err()
		e.Code, e.Message = DeadlineExceeded, doing+" "+peer.Addr+": time is up"
		if errors.Is(ctx.Err(), context.Canceled) {
			e.Code, e.Message = Canceled, doing+" "+peer.Addr+": the caller gave up"
		}
	case errors.As(err, &large):
		e.Code = TooLarge
	case errors.Is(err, errNoCredit):
		e.Code, e.RetryAfter = ResourceExhausted, busyHint
		e.Message = "too many streams to " + peer.Addr + " in progress; come back later"
	case errors.As(err, &stream) && stream.Remote:
		e.Code = Code(stream.ErrorCode)
		if _, known := codeNames[e.Code]; !known || e.Code == OK {
			e.Code = Unavailable
		}
		e.Message = fmt.Sprintf("%s %s: the peer ended the stream: %s", doing, peer.Addr, e.Code)
	case errors.As(err, &reset):
		e.cause, e.Message = ErrRestarted, fmt.Sprintf("%s %s: %v", doing, peer.Addr, ErrRestarted)
	case errors.As(err, &app):
		e.explainClose(peer, app)
	case errors.As(err, &trans) && trans.ErrorCode == alertNoProtocol:
		e.Code = Unimplemented
		e.Message = peer.Addr + " does not speak the protocol asked for"
	case errors.As(err, &trans) && trans.ErrorCode.IsCryptoError():
		e.Code = Unauthenticated
		if trans.Remote {
			e.Message = fmt.Sprintf("%s did not accept our certificate (%v); is it of this mesh, not expired, and are we admitted?", peer.Addr, trans)
		} else {
			e.Message = fmt.Sprintf("%s did not prove to be %s: %v", peer.Addr, peer.ID, trans)
		}
	case deadline: // of a dial; the caller still has time
		e.Message = fmt.Sprintf("%s %s: no answer", doing, peer.Addr)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Code, e.Message = Internal, doing+" "+peer.Addr+": the reply ended early"
	}
	return e
}

func (e *Error) explainClose(peer Peer, app *quic.ApplicationError) {
	who := "we closed the connection to " + peer.Addr
	if app.Remote {
		who = peer.Addr + " closed the connection"
	}
	switch app.ErrorCode {
	case closeRefused:
		e.Code = PermissionDenied
		e.Message = who + ": not admitted"
	case closeTooMany:
		e.Code, e.RetryAfter = ResourceExhausted, time.Second
		e.Message = who + ": too many connections"
	default:
		e.Message = who + ": " + strings.TrimSpace(clean(app.ErrorMessage, maxText))
	}
}
