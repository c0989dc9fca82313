package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// errNoCredit means that the peer allows no further stream at present.
var errNoCredit = errors.New("no further stream allowed")

// errClosed is the outcome of calls after Close.
var errClosed = Errorf(Unavailable, "this endpoint is closed")

// creditWait is how long a call waits for a stream. The peer gives streams back a moment
// after they ended, so a short wait is not yet overload.
const creditWait = 250 * time.Millisecond

// pool holds the dialled connections of one protocol.
type pool struct {
	e     *Endpoint
	alpn  string
	width int // connections to a peer, if there is a stream on each already

	mu     sync.Mutex
	links  map[Peer][]*link   // where new streams may start
	live   map[*link]struct{} // all, also those that only finish what they have
	closed bool
}

// link is one dialled connection, or the attempt at one.
type link struct {
	pool  *pool
	peer  Peer
	ready chan struct{} // closed when conn or err is set

	conn  *quic.Conn
	err   error
	fresh time.Time   // until when new streams may start: well before a certificate ends
	stop  func() bool // ends the expiry timer

	streams int            // in use; owned by pool.mu, like what follows
	kept    []*quic.Stream // whose last call ended well, for the next
	retired bool
	idle    time.Time // since when streams is 0
}

func newPool(e *Endpoint, alpn string, width int) *pool {
	return &pool{e: e, alpn: alpn, width: width, links: make(map[Peer][]*link), live: make(map[*link]struct{})}
}

// acquire gives a live connection to the peer, dialled if need be; many callers share one
// attempt. The link must be released. A connection that was there before is told by old.
func (p *pool) acquire(ctx context.Context, peer Peer) (l *link, old bool, err error) {
	if err := p.e.cfg.Admit(peer.ID); err != nil {
		return nil, false, notAdmitted(peer.ID)
	}
	l, old, err = p.pick(peer)
	if err != nil {
		return nil, false, err
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		p.release(l)
		return nil, old, ctx.Err()
	}
	if l.err != nil {
		p.release(l)
		return nil, old, l.err
	}
	// Between the first question and the dial, Drop may have looked for this connection.
	if err := p.e.cfg.Admit(peer.ID); err != nil {
		p.release(l)
		p.drop(func(id spiffeid.ID) bool { return id == peer.ID })
		return nil, old, notAdmitted(peer.ID)
	}
	return l, old, nil
}

func notAdmitted(id spiffeid.ID) *Error {
	return &Error{Code: PermissionDenied, Message: "not admitted here, so not called either", peer: id}
}

func (p *pool) pick(peer Peer) (*link, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, errClosed
	}
	for _, l := range slices.Clone(p.links[peer]) {
		if l.stale() {
			p.retire(l)
		}
	}
	links := p.links[peer]
	var best *link
	for _, l := range links {
		if best == nil || l.streams < best.streams {
			best = l
		}
	}
	if best != nil && (best.streams == 0 || len(links) >= p.width) {
		best.streams++
		return best, true, nil
	}
	l := &link{pool: p, peer: peer, ready: make(chan struct{}), streams: 1}
	p.links[peer] = append(links, l)
	p.live[l] = struct{}{}
	p.e.running.Go(func() { p.dial(l) })
	return l, false, nil
}

// stale reports whether no new stream should start on l.
func (l *link) stale() bool {
	select {
	case <-l.ready:
		return l.err != nil || l.conn.Context().Err() != nil || time.Now().After(l.fresh)
	default:
		return false
	}
}

// retire takes l out of the pool; it closes with its last stream. The caller holds p.mu.
func (p *pool) retire(l *link) {
	if l.retired {
		return
	}
	l.retired = true
	p.links[l.peer] = slices.DeleteFunc(p.links[l.peer], func(o *link) bool { return o == l })
	if len(p.links[l.peer]) == 0 {
		delete(p.links, l.peer)
	}
	p.finish(l)
}

// finish closes a retired link that nobody uses. The caller holds p.mu.
func (p *pool) finish(l *link) {
	if !l.retired || l.streams > 0 || p.closed { // once closed, close sees to it
		return
	}
	delete(p.live, l)
	p.e.running.Go(func() { l.shut(closeGoingAway, "unused") })
}

// discard keeps others from l, whose connection does not work.
func (p *pool) discard(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retire(l)
}

func (p *pool) release(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(l)
}

// put gives back one use of a link. The caller holds p.mu.
func (p *pool) put(l *link) {
	l.streams--
	l.idle = time.Now()
	p.finish(l)
}

// maxKept is how many streams of a connection wait for the next call: as many as the peer
// has room for beside its quota.
const maxKept = 16

// keep releases a link, and has the stream wait for the next call.
func (p *pool) keep(l *link, s *quic.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.kept) < maxKept {
		l.kept = append(l.kept, s)
	} else {
		s.Close()
	}
	p.put(l)
}

// take gives a stream that waits, or nil.
func (p *pool) take(l *link) *quic.Stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(l.kept)
	if n == 0 {
		return nil
	}
	s := l.kept[n-1]
	l.kept = l.kept[:n-1]
	return s
}

func (p *pool) dial(l *link) {
	defer close(l.ready)
	ctx, cancel := context.WithTimeout(p.e.ctx, p.e.cfg.DialTimeout)
	defer cancel()
	if l.err = p.connect(ctx, l); l.err != nil {
		if l.conn != nil {
			l.conn.CloseWithError(closeGoingAway, "")
		}
		if p.e.ctx.Err() != nil {
			l.err = errClosed
		} else {
			l.err = failure(p.e.ctx, l.peer, "dial", l.err)
		}
		p.discard(l)
	}
}

func (p *pool) connect(ctx context.Context, l *link) error {
	addr, err := p.e.resolve(ctx, l.peer.Addr)
	if err != nil {
		return err
	}
	conf, own := watchOwn(p.e.cfg.ClientTLS(l.peer.ID, p.alpn))
	conn, err := p.e.transport.Dial(ctx, addr, conf, p.e.quicConfig(false))
	if err != nil {
		return err
	}
	l.conn = conn
	id, end, err := identify(conn)
	if err != nil {
		return err
	}
	if id != l.peer.ID {
		return Errorf(Unauthenticated, "%s is %s, not %s", l.peer.Addr, id, l.peer.ID)
	}
	l.stop = expire(conn, end)
	if mine := own(); mine.Before(end) {
		end = mine
	}
	left := time.Until(end)
	l.fresh = end.Add(-min(left/5, time.Minute))
	return nil
}

// watchOwn lets the caller know when the certificate that was used ends. The other side
// closes the connection then, so new streams must have moved on before.
func watchOwn(conf *tls.Config) (*tls.Config, func() time.Time) {
	end := time.Now().Add(1000 * time.Hour)
	note := func(c *tls.Certificate) {
		leaf := c.Leaf
		if leaf == nil && len(c.Certificate) > 0 {
			leaf, _ = x509.ParseCertificate(c.Certificate[0])
		}
		if leaf != nil {
			end = leaf.NotAfter
		}
	}
	if get := conf.GetClientCertificate; get != nil {
		conf = conf.Clone()
		conf.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := get(info)
			if err == nil && c != nil {
				note(c)
			}
			return c, err
		}
	} else if len(conf.Certificates) > 0 {
		note(&conf.Certificates[0])
	}
	return conf, func() time.Time { return end }
}

func (l *link) shut(code quic.ApplicationErrorCode, why string) {
	<-l.ready
	if l.err == nil {
		l.stop()
		l.conn.CloseWithError(code, why)
	}
}

// open starts a stream.
func (l *link) open(ctx context.Context) (*quic.Stream, error) {
	if s, err := l.conn.OpenStream(); err == nil {
		return s, nil
	}
	wait, cancel := context.WithTimeout(ctx, creditWait)
	defer cancel()
	s, err := l.conn.OpenStreamSync(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil && l.conn.Context().Err() == nil {
		return nil, errNoCredit
	}
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	return s, nil
}

// openStream gives a stream to the peer, a kept one if that will do, and its link, which
// must be released. Should a connection of the pool turn out to be dead, a new one is
// dialled: nothing was sent yet.
func (p *pool) openStream(ctx context.Context, peer Peer, kept bool) (*quic.Stream, *link, error) {
	for {
		l, old, err := p.acquire(ctx, peer)
		if err != nil {
			return nil, nil, failure(ctx, peer, "dial", err)
		}
		if kept && l.conn.Context().Err() == nil {
			if s := p.take(l); s != nil {
				return s, l, nil
			}
		}
		s, err := l.open(ctx)
		if err == nil {
			return s, l, nil
		}
		// A connection that is ending opens no stream a moment before its context ends.
		dead := l.conn.Context().Err() != nil || ctx.Err() == nil && !errors.Is(err, errNoCredit)
		if dead {
			p.discard(l)
		}
		p.release(l)
		if !dead || !old || ctx.Err() != nil {
			return nil, nil, failure(ctx, peer, "call", err)
		}
	}
}

// sweep closes what nobody used for a while.
func (p *pool) sweep(unused time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, links := range p.links {
		for _, l := range slices.Clone(links) {
			if l.streams == 0 && time.Since(l.idle) >= unused || l.stale() {
				p.retire(l)
			}
		}
	}
}

func (p *pool) matching(match func(spiffeid.ID) bool) (out []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.live {
		if match(l.peer.ID) {
			out = append(out, l)
		}
	}
	return out
}

// drop closes connections at once, as far as they exist; what is being dialled is seen
// to by acquire.
func (p *pool) drop(match func(spiffeid.ID) bool) {
	for _, l := range p.matching(match) {
		select {
		case <-l.ready:
			l.shut(closeRefused, "not admitted")
		default:
		}
	}
}

// close closes all connections. The endpoint's context has ended, so dials end too.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for _, l := range p.matching(func(spiffeid.ID) bool { return true }) {
		l.shut(closeGoingAway, "going away")
	}
}
