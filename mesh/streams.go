package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// hello is the first byte of every stream of a stream layer.
	hello = 0x01
	// layerWidth is how many connections to one peer a layer spreads its streams over, so
	// that bulk on one of them does not hold up a heartbeat on another.
	layerWidth = 4
	// backlog is how many accepted streams wait for Accept.
	backlog = 64
)

// StreamLayer carries another protocol, as net.Conns, over connections of its own. It is
// a net.Listener. All methods are safe for concurrent use.
type StreamLayer struct {
	e        *Endpoint
	alpn     string
	pool     *pool
	accepted chan *Conn
	closed   chan struct{}
	once     sync.Once
}

var (
	_ net.Listener = (*StreamLayer)(nil)
	_ net.Conn     = (*Conn)(nil)
)

func newStreamLayer(e *Endpoint, alpn string) *StreamLayer {
	return &StreamLayer{
		e: e, alpn: alpn, pool: newPool(e, alpn, layerWidth),
		accepted: make(chan *Conn, backlog), closed: make(chan struct{}),
	}
}

// StreamLayer gives the layer of a protocol that Config.StreamProtocols names; of another
// it panics. It is the same layer each time.
func (e *Endpoint) StreamLayer(alpn string) *StreamLayer {
	l := e.layers[alpn]
	if l == nil {
		panic(fmt.Sprintf("mesh: %q is not in Config.StreamProtocols", alpn))
	}
	return l
}

// DialPeer opens a stream to the peer. It succeeds as soon as a connection is there; that
// the peer takes the stream shows with the first read. ctx bounds the dialling only. The
// error is an *Error.
func (l *StreamLayer) DialPeer(ctx context.Context, to Peer) (net.Conn, error) {
	s, link, err := l.pool.openStream(ctx, to, false)
	if err != nil {
		return nil, err
	}
	c := &Conn{s: s, peer: to, local: l.e.Addr(), release: func() { l.pool.release(link) }}
	if _, err := s.Write([]byte{hello}); err != nil {
		c.Close()
		return nil, failure(ctx, to, "dial", err)
	}
	return c, nil
}

// serve hands an incoming stream to Accept.
func (l *StreamLayer) serve(in *inbound, s *quic.Stream) {
	refuse := func(code Code) {
		s.CancelRead(quic.StreamErrorCode(code))
		s.CancelWrite(quic.StreamErrorCode(code))
	}
	if err := in.welcome(); err != nil {
		refuse(err.Code)
		return
	}
	if !in.account.streams.TryAcquire(1) {
		refuse(ResourceExhausted)
		return
	}
	ended := make(chan struct{})
	c := &Conn{s: s, peer: Peer{ID: in.peer, Addr: in.conn.RemoteAddr().String()}, local: l.e.Addr(),
		release: func() { in.account.streams.Release(1); close(ended) }}
	defer func() { <-ended }() // what is accepted counts as a stream of its connection
	s.SetReadDeadline(time.Now().Add(l.e.cfg.ReadTimeout))
	var first [1]byte
	if _, err := io.ReadFull(s, first[:]); err != nil || first[0] != hello {
		refuse(InvalidArgument)
		c.Close()
		return
	}
	s.SetReadDeadline(time.Time{})
	select {
	case l.accepted <- c:
	default:
		refuse(ResourceExhausted)
		c.Close()
		return
	}
	select { // nobody may ever accept or close it
	case <-ended:
	case <-in.conn.Context().Done():
		c.Close()
	}
}

// Accept waits for the next stream of a peer; the result is a *Conn. The error wraps
// net.ErrClosed.
func (l *StreamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
	case <-l.e.ctx.Done():
	}
	return nil, fmt.Errorf("mesh: %s on %s: %w", l.alpn, l.e.Addr(), net.ErrClosed)
}

// Close ends Accept. The endpoint and the layer's streams go on.
func (l *StreamLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is the endpoint's address.
func (l *StreamLayer) Addr() net.Addr { return l.e.Addr() }

// Conn is one stream of a StreamLayer, as a net.Conn.
type Conn struct {
	s       *quic.Stream
	peer    Peer
	local   net.Addr
	release func()
	writing sync.Mutex // Close and Write must not meet in the stream
	broken  bool       // a Write failed; owned by writing
	once    sync.Once
}

// Peer is the authenticated other side. Addr is where it was dialled, or where it came from.
func (c *Conn) Peer() Peer { return c.peer }

// PeerID is the authenticated identity of the other side.
func (c *Conn) PeerID() spiffeid.ID { return c.peer.ID }

// Read reads; io.EOF says that the other side closed.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.s.Read(b)
	return n, c.explain("read from", err)
}

// Write writes.
func (c *Conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.s.Write(b)
	c.broken = c.broken || err != nil
	return n, c.explain("write to", err)
}

// explain turns an error into an *Error, but for those a net.Conn must have as they are.
func (c *Conn) explain(doing string, err error) error {
	var timeout net.Error
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(err, net.ErrClosed):
		return err // a deadline of the caller's
	}
	return failure(context.Background(), c.peer, doing, err)
}

// Close sends what was written and ends both sides. A Write in progress fails, and then
// the other side does not see a clean end.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.s.SetWriteDeadline(time.Now())
		c.writing.Lock()
		if c.broken {
			c.s.CancelWrite(quic.StreamErrorCode(Canceled))
		} else {
			c.s.Close()
		}
		c.writing.Unlock()
		c.s.CancelRead(quic.StreamErrorCode(OK))
		c.release()
	})
	return nil
}

// LocalAddr is the endpoint's address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return peerAddr(c.peer.Addr) }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.s.SetDeadline(t) }

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.s.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.s.SetWriteDeadline(t) }

// peerAddr is a peer's address as it was configured.
type peerAddr string

func (a peerAddr) Network() string { return "udp" }
func (a peerAddr) String() string  { return string(a) }
