// Package meshtest helps to test what runs over a mesh: an in-memory packet network
// that can be cut, slowed and made lossy, and throw-away credentials.
//
// The network keeps time with timers only, so it works inside a testing/synctest bubble,
// where a second costs nothing. Which packets are lost is decided by the seed and the
// order of the packets between two addresses.
//
//	net := meshtest.New(1)
//	ca := meshtest.NewCA(t)
//	e, err := mesh.Listen(mesh.Config{
//		Packets:     net.Listen("10.0.0.1:1"),
//		Credentials: ca.Credentials("spiffe://mesh.test/a"),
//	})
package meshtest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Any stands for every address, in the methods of Network that take one.
const Any = "*"

// queued is how many packets wait for a reader; further ones are lost, as in a kernel.
const queued = 4096

// Network carries packets between the addresses that listen on it. It is safe for
// concurrent use.
type Network struct {
	seed uint64

	mu    sync.Mutex
	ports map[string]*port
	cut   map[way]bool
	delay map[way]time.Duration
	loss  map[way]float64
	dice  map[way]*rand.Rand
	count Counts
}

// Counts tells what became of the packets sent.
type Counts struct {
	Delivered, Lost, Cut, NoListener, Overflow int
}

// way is one direction between two addresses; Any stands for each.
type way struct{ from, to string }

// New makes a network without delay, loss or cuts.
func New(seed uint64) *Network {
	return &Network{
		seed: seed, ports: make(map[string]*port), cut: make(map[way]bool),
		delay: make(map[way]time.Duration), loss: make(map[way]float64), dice: make(map[way]*rand.Rand),
	}
}

// Listen opens an address, which is an IP address and a port ("10.0.0.1:1"). It panics if
// the address is malformed or in use. Close it to be able to open it again.
func (n *Network) Listen(addr string) net.PacketConn {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		panic(fmt.Sprintf("meshtest: listen: %v", err))
	}
	p := &port{
		net: n, name: ap.String(), addr: net.UDPAddrFromAddrPort(ap),
		in: make(chan packet, queued), closed: make(chan struct{}), moved: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[p.name] != nil {
		panic("meshtest: listen: " + addr + " is in use")
	}
	n.ports[p.name] = p
	return p
}

// Cut stops packets between a and b, both ways.
func (n *Network) Cut(a, b string) { n.CutOneWay(a, b); n.CutOneWay(b, a) }

// CutOneWay stops packets from one address to the other.
func (n *Network) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[way{from, to}] = true
}

// Heal undoes the cuts between a and b, both ways; cuts made with Any it undoes only
// when called with Any.
func (n *Network) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, way{a, b})
	delete(n.cut, way{b, a})
}

// SetDelay makes packets between a and b take d, both ways. Of several settings that fit,
// the one with the fewest Any counts; the same holds for SetLoss.
func (n *Network) SetDelay(a, b string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay[way{a, b}], n.delay[way{b, a}] = d, d
}

// SetLoss loses a share of the packets between a and b, from 0 to 1, both ways.
func (n *Network) SetLoss(a, b string, share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss[way{a, b}], n.loss[way{b, a}] = share, share
}

// Counts tells what became of the packets sent so far.
func (n *Network) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count
}

// lookup finds the most particular setting for a direction.
func lookup[V any](m map[way]V, w way) (v V) {
	for _, k := range []way{w, {w.from, Any}, {Any, w.to}, {Any, Any}} {
		if v, ok := m[k]; ok {
			return v
		}
	}
	return v
}

// isCut asks all settings: a particular one cannot undo a general cut.
func (n *Network) isCut(w way) bool {
	return n.cut[w] || n.cut[way{w.from, Any}] || n.cut[way{Any, w.to}] || n.cut[way{Any, Any}]
}

func (n *Network) send(from *port, b []byte, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := way{from.name, to}
	if n.isCut(w) {
		n.count.Cut++
		return
	}
	if share := lookup(n.loss, w); share > 0 && n.die(w).Float64() < share {
		n.count.Lost++
		return
	}
	pk := packet{data: append([]byte(nil), b...), from: from.addr}
	if d := lookup(n.delay, w); d > 0 {
		time.AfterFunc(d, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.deliver(pk, to)
		})
		return
	}
	n.deliver(pk, to)
}

// deliver puts a packet in the queue of whoever listens. The caller holds n.mu.
func (n *Network) deliver(pk packet, to string) {
	p := n.ports[to]
	if p == nil {
		n.count.NoListener++
		return
	}
	select {
	case p.in <- pk:
		n.count.Delivered++
	default:
		n.count.Overflow++
	}
}

// die gives the random source of a direction.
func (n *Network) die(w way) *rand.Rand {
	r := n.dice[w]
	if r == nil {
		h := fnv.New64a()
		h.Write([]byte(w.from + ">" + w.to))
		r = rand.New(rand.NewPCG(n.seed, h.Sum64()))
		n.dice[w] = r
	}
	return r
}

type packet struct {
	data []byte
	from net.Addr
}

// port is one address of the network, as a net.PacketConn.
type port struct {
	net    *Network
	name   string
	addr   *net.UDPAddr
	in     chan packet
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	until time.Time     // read deadline
	moved chan struct{} // closed when until changes
}

var _ net.PacketConn = (*port)(nil)

func (p *port) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.mu.Lock()
		until, moved := p.until, p.moved
		p.mu.Unlock()
		var expired <-chan time.Time
		if !until.IsZero() {
			left := time.Until(until)
			if left <= 0 {
				return 0, nil, p.fail("read", os.ErrDeadlineExceeded)
			}
			t := time.NewTimer(left)
			defer t.Stop()
			expired = t.C
		}
		select {
		case pk := <-p.in:
			return copy(b, pk.data), pk.from, nil
		case <-p.closed:
			return 0, nil, p.fail("read", net.ErrClosed)
		case <-expired:
		case <-moved:
		}
	}
}

func (p *port) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-p.closed:
		return 0, p.fail("write", net.ErrClosed)
	default:
	}
	ap, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, p.fail("write", errors.New("no address of this network: "+to.String()))
	}
	p.net.send(p, b, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String())
	return len(b), nil
}

func (p *port) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "meshtest", Addr: p.addr, Err: err}
}

func (p *port) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.net.mu.Lock()
		defer p.net.mu.Unlock()
		delete(p.net.ports, p.name)
	})
	return nil
}

func (p *port) LocalAddr() net.Addr { return p.addr }

func (p *port) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = t
	close(p.moved)
	p.moved = make(chan struct{})
	return nil
}

func (p *port) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
func (p *port) SetWriteDeadline(time.Time) error { return nil } // writes do not block

// SetReadBuffer and SetWriteBuffer are what QUIC asks of a socket.
func (p *port) SetReadBuffer(int) error  { return nil }
func (p *port) SetWriteBuffer(int) error { return nil }
