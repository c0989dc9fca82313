package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
)

// Protocol is the ALPN of calls.
const Protocol = "crossroads/1"

// Credentials give the TLS configurations of this node. Both must require TLS 1.3 and
// verify the peer in VerifyConnection, so that resumed sessions are verified too.
type Credentials interface {
	// ServerTLS accepts any peer whose certificate is good.
	ServerTLS(alpn ...string) *tls.Config
	// ClientTLS accepts exactly one peer.
	ClientTLS(peer spiffeid.ID, alpn string) *tls.Config
}

// Peer is whom to call, and where: a host or IP address with a port.
type Peer struct {
	ID   spiffeid.ID
	Addr string
}

// Config says how an Endpoint works. Packets and Credentials are required.
type Config struct {
	// Packets is the socket. The endpoint takes it over and closes it.
	Packets net.PacketConn
	Credentials
	// Admit says whether a peer whose certificate is good is welcome: nil, or why not (the
	// reason is logged, not told). It is asked at every connection, call and stream in both
	// directions, so it must be quick. Nil admits every peer.
	Admit func(spiffeid.ID) error
	// StreamProtocols are the ALPNs of stream layers, beyond Protocol.
	StreamProtocols []string
	// Quota bounds what one peer may use.
	Quota Quota
	// MaxMessage is the largest message in bytes, sent or received, where a method has no
	// smaller limit. Default 4 MiB and 64 KiB.
	MaxMessage int
	// DialTimeout bounds the making of a connection. Default 1 s.
	DialTimeout time.Duration
	// IdleTimeout is how long a silent peer is believed alive: its connections, and the
	// calls on them, fail after it. Keep-alives go out eight times as often. Default 2 s.
	IdleTimeout time.Duration
	// Unused is how long a dialled connection without streams is kept. Default 15 s.
	Unused time.Duration
	// ReadTimeout bounds the arrival of a request, from the first byte to the last. Default 10 s.
	ReadTimeout time.Duration
	// CallTimeout bounds a call whose context has no deadline. Default 30 s.
	CallTimeout time.Duration
	// Drain is how long calls in progress get to end at shutdown. Default 1 s.
	Drain time.Duration
	// ResetKey, if kept over restarts, lets peers notice at once that this node crashed and
	// came back (QUIC stateless reset). It is a secret of the node. Nil: they notice after
	// their IdleTimeout.
	ResetKey *[32]byte
	// Log gets what an operator should know. Nil discards it.
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Packets == nil || c.Credentials == nil {
		return c, errors.New("mesh: Config needs Packets and Credentials")
	}
	if slices.Contains(c.StreamProtocols, Protocol) {
		return c, fmt.Errorf("mesh: %s is the protocol of calls; take it out of StreamProtocols", Protocol)
	}
	if c.Admit == nil {
		c.Admit = func(spiffeid.ID) error { return nil }
	}
	if c.MaxMessage <= 0 {
		c.MaxMessage = 4<<20 + 64<<10
	}
	for d, def := range map[*time.Duration]time.Duration{
		&c.DialTimeout: time.Second, &c.IdleTimeout: 2 * time.Second, &c.Unused: 15 * time.Second,
		&c.ReadTimeout: 10 * time.Second, &c.CallTimeout: 30 * time.Second, &c.Drain: time.Second,
	} {
		if *d <= 0 {
			*d = def
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Quota = c.Quota.withDefaults(c.MaxMessage)
	return c, nil
}

// Endpoint is one node's end of the mesh. Its methods are safe for concurrent use, but
// handlers must be registered before Run.
type Endpoint struct {
	cfg       Config
	transport *quic.Transport
	listener  *quic.Listener
	packets   *PacketPort
	accounts  *accounts
	methods   map[string]*method // not changed after Run began
	layers    map[string]*StreamLayer
	calls     *pool

	ctx        context.Context // ends when closing begins, after draining
	cancel     context.CancelFunc
	streaming  context.Context // ends when draining begins: streams of messages end first
	endStreams context.CancelFunc
	closing    sync.Once
	running    sync.WaitGroup // every goroutine of the endpoint

	mu      sync.Mutex
	conns   map[*quic.Conn]spiffeid.ID // live, accepted
	busy    int                        // calls in progress, streams of messages included
	drained chan struct{}              // not nil: shutting down; closed when busy is 0
	ended   bool
}

// Listen opens an endpoint. It takes part in nothing until Run, except that it can make
// calls. On an error Packets stays open and the caller's.
func Listen(cfg Config) (*Endpoint, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	handshakes := rate.NewLimiter(256, 512)
	e := &Endpoint{
		cfg: cfg,
		transport: &quic.Transport{
			Conn:              cfg.Packets,
			StatelessResetKey: (*quic.StatelessResetKey)(cfg.ResetKey),
			// In a flood of handshakes, strangers must show that they are where they say.
			VerifySourceAddress: func(net.Addr) bool { return !handshakes.Allow() },
		},
		accounts: newAccounts(cfg.Quota),
		methods:  make(map[string]*method),
		layers:   make(map[string]*StreamLayer),
		conns:    make(map[*quic.Conn]spiffeid.ID),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.streaming, e.endStreams = context.WithCancel(e.ctx)
	e.packets = &PacketPort{e.transport}
	e.calls = newPool(e, Protocol, 1)
	for _, alpn := range cfg.StreamProtocols {
		e.layers[alpn] = newStreamLayer(e, alpn)
	}
	alpns := append([]string{Protocol}, cfg.StreamProtocols...)
	e.listener, err = e.transport.Listen(cfg.ServerTLS(alpns...), e.quicConfig(true))
	if err != nil {
		e.cancel()
		e.transport.Close()
		return nil, fmt.Errorf("mesh: listen on %s: %w", cfg.Packets.LocalAddr(), err)
	}
	return e, nil
}

// quicConfig bounds what a connection can hold in memory besides its requests.
// Only who dialled a connection opens streams on it.
func (e *Endpoint) quicConfig(accept bool) *quic.Config {
	// Above the quota there must be room for the answer that says so.
	streams := int64(2*e.cfg.Quota.Streams + 16)
	if !accept {
		streams = -1
	}
	return &quic.Config{
		HandshakeIdleTimeout:       max(e.cfg.DialTimeout, time.Second),
		MaxIdleTimeout:             e.cfg.IdleTimeout,
		KeepAlivePeriod:            e.cfg.IdleTimeout / 8,
		MaxIncomingStreams:         streams,
		MaxIncomingUniStreams:      -1,
		MaxStreamReceiveWindow:     2 << 20,
		MaxConnectionReceiveWindow: 8 << 20,
	}
}

// Addr is the address that the endpoint listens on.
func (e *Endpoint) Addr() net.Addr { return e.cfg.Packets.LocalAddr() }

// Packets is the port for plain datagrams.
func (e *Endpoint) Packets() *PacketPort { return e.packets }

// Run serves until ctx is done, then lets the calls in progress end (Config.Drain),
// closes everything and returns when all goroutines have ended, which they do as soon as
// every handler heeds its context. The error is nil unless the socket failed.
func (e *Endpoint) Run(ctx context.Context) error {
	var failed error
	served := make(chan struct{})
	e.mu.Lock()
	if e.ended {
		e.mu.Unlock()
		return nil
	}
	e.running.Go(e.sweep)
	e.running.Go(func() {
		defer close(served)
		failed = e.accept()
	})
	e.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-served:
	}
	e.Close()
	return failed
}

func (e *Endpoint) accept() error {
	for {
		conn, err := e.listener.Accept(e.ctx)
		switch {
		case err == nil:
			e.running.Go(func() { e.serveConn(conn) })
		case e.ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("mesh: accept on %s: %w", e.Addr(), err)
		}
	}
}

func (e *Endpoint) sweep() {
	tick := time.NewTicker(max(e.cfg.Unused/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.accounts.sweep()
			e.calls.sweep(e.cfg.Unused)
			for _, l := range e.layers {
				l.pool.sweep(e.cfg.Unused)
			}
		case <-e.ctx.Done():
			return
		}
	}
}

// Close does what the end of Run's context does, for an endpoint whether running or not.
// It returns when everything is closed, and may be called again, but not by a handler.
func (e *Endpoint) Close() error {
	e.closing.Do(func() {
		e.drain()
		e.mu.Lock()
		e.ended = true
		e.mu.Unlock()
		e.cancel()
		e.closeAccepted(closeGoingAway, "going away", func(spiffeid.ID) bool { return true })
		e.calls.close()
		for _, l := range e.layers {
			l.pool.close()
		}
		e.listener.Close()
		e.running.Wait()
		e.transport.Close()
		e.cfg.Packets.Close()
	})
	return nil
}

// begin notes a call in progress; false during shutdown.
func (e *Endpoint) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drained != nil {
		return false
	}
	e.busy++
	return true
}

func (e *Endpoint) done() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy--
	if e.busy == 0 && e.drained != nil {
		close(e.drained)
	}
}

// drain refuses new calls, ends streams of messages, and gives the calls in progress
// time to end.
func (e *Endpoint) drain() {
	drained := make(chan struct{})
	e.mu.Lock()
	e.drained = drained
	if e.busy == 0 {
		close(drained)
	}
	e.mu.Unlock()
	e.endStreams()
	t := time.NewTimer(e.cfg.Drain)
	defer t.Stop()
	select {
	case <-drained:
	case <-t.C:
	}
}

// Drop closes the live connections, dialled and accepted, of every peer that match says
// yes to, at once: what is in progress on them fails. New ones are Admit's matter, so
// change what Admit says first.
func (e *Endpoint) Drop(match func(spiffeid.ID) bool) {
	e.closeAccepted(closeRefused, "not admitted", match)
	e.calls.drop(match)
	for _, l := range e.layers {
		l.pool.drop(match)
	}
}

func (e *Endpoint) closeAccepted(code quic.ApplicationErrorCode, why string, match func(spiffeid.ID) bool) {
	e.mu.Lock()
	var out []*quic.Conn
	for c, id := range e.conns {
		if match(id) {
			out = append(out, c)
		}
	}
	e.mu.Unlock()
	for _, c := range out {
		c.CloseWithError(code, why)
	}
}

// track notes an accepted connection; false when the endpoint has ended.
func (e *Endpoint) track(c *quic.Conn, id spiffeid.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ended {
		e.conns[c] = id
	}
	return !e.ended
}

func (e *Endpoint) untrack(c *quic.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}
