package gossip

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// post carries the packets and streams of many nodes in memory, without sealing and without
// QUIC, so that some thousands fit into one machine: memberlist, our delegates and statements
// are the real ones. A packet counts as many bytes as it would have sealed.
type post struct {
	mu     sync.Mutex
	boxes  map[string]*postbox
	queue  []letter // the first to arrive first
	filled chan struct{}
	done   chan struct{}
	ended  sync.WaitGroup
}

// delay is what a packet is on its way; arrivals are rounded up to whole milliseconds.
const delay = 2 * time.Millisecond

type letter struct {
	at     time.Time
	to     *postbox
	packet *memberlist.Packet
}

func newPost() *post {
	p := &post{boxes: make(map[string]*postbox), filled: make(chan struct{}, 1), done: make(chan struct{})}
	p.ended.Go(p.deliver)
	return p
}

func (p *post) close() {
	close(p.done)
	p.ended.Wait()
}

func (p *post) deliver() {
	for {
		p.mu.Lock()
		due, now := 0, time.Now()
		for due < len(p.queue) && !p.queue[due].at.After(now) {
			due++
		}
		letters := p.queue[:due:due]
		p.queue = p.queue[due:]
		var next <-chan time.Time
		if len(p.queue) > 0 {
			next = time.After(p.queue[0].at.Sub(now))
		}
		p.mu.Unlock()
		for _, l := range letters {
			select {
			case l.to.packets <- l.packet:
			default:
				l.to.of.overflows.Add(1)
			}
		}
		filled := p.filled
		if next != nil {
			filled = nil
		}
		select {
		case <-next:
		case <-filled:
		case <-p.done:
			return
		}
	}
}

func (p *post) send(l letter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.at = time.Now().Add(delay).Add(time.Millisecond - 1).Truncate(time.Millisecond)
	p.queue = append(p.queue, l)
	select {
	case p.filled <- struct{}{}:
	default:
	}
}

func (p *post) box(addr string) *postbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.boxes[addr]
}

// open gives a node its transport, and what takes it off the network.
func (p *post) open(c *crowd, name, addr string, half byte) (*postbox, func()) {
	b := &postbox{of: c, name: name, addr: netip.MustParseAddrPort(addr), half: half,
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn), gone: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.boxes[addr] = b
	return b, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.boxes, addr)
		close(b.gone)
	})
}

// postbox is the transport of one node.
type postbox struct {
	of      *crowd
	name    string
	addr    netip.AddrPort
	half    byte
	packets chan *memberlist.Packet
	streams chan net.Conn
	gone    chan struct{}
}

var _ memberlist.NodeAwareTransport = (*postbox)(nil)

func (b *postbox) left() bool {
	select {
	case <-b.gone:
		return true
	default:
		return false
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (b *postbox) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return b.addr.Addr().AsSlice(), int(b.addr.Port()), nil
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (b *postbox) WriteToAddress(msg []byte, to memberlist.Address) (time.Time, error) {
	if b.left() { // and says no goodbye
		return time.Now(), nil
	}
	other := b.of.post.box(to.Addr)
	half := b.half
	if other != nil {
		half = other.half
	}
	if b.of.sends(overhead(b.name)+len(msg), b.half, half) && other != nil {
		b.of.post.send(letter{to: other, packet: &memberlist.Packet{Buf: msg, From: net.UDPAddrFromAddrPort(b.addr), Timestamp: time.Now()}})
	}
	return time.Now(), nil
}

var errNobody = errors.New("nobody answers")

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (b *postbox) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	other := b.of.post.box(to.Addr)
	if b.left() || other == nil || !b.of.hears(b.half, other.half) {
		time.Sleep(timeout)
		return nil, errNobody
	}
	time.Sleep(2 * delay)
	here, there := net.Pipe()
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case other.streams <- counted{there, b.of}:
		return counted{here, b.of}, nil
	case <-other.gone:
	case <-late.C:
	}
	here.Close()
	there.Close()
	return nil, errNobody
}

// counted counts what is written.
type counted struct {
	net.Conn
	of *crowd
}

func (c counted) Write(b []byte) (int, error) {
	c.of.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// WriteTo implements memberlist.Transport; every packet needs a receiver's name.
func (b *postbox) WriteTo([]byte, string) (time.Time, error) { return time.Time{}, errNoName }

// DialTimeout implements memberlist.Transport; every stream needs a name, too.
func (b *postbox) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNoName }

// PacketCh implements memberlist.Transport.
func (b *postbox) PacketCh() <-chan *memberlist.Packet { return b.packets }

// StreamCh implements memberlist.Transport.
func (b *postbox) StreamCh() <-chan net.Conn { return b.streams }

// Shutdown implements memberlist.Transport.
func (b *postbox) Shutdown() error { return nil }
