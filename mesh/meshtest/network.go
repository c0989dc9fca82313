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
	grain time.Duration
	due   map[int64][]flight // with a grain: what arrives at which nanosecond
	names map[netip.AddrPort]string
	count Counts
}

// flight is a packet under way.
type flight struct {
	packet
	to string
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
		due: make(map[int64][]flight), names: make(map[netip.AddrPort]string),
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
		in: make(chan *packet, queued), closed: make(chan struct{}), moved: make(chan struct{}),
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

// SetGrain lets delayed packets arrive only at multiples of d, rounded up: a network of
// thousands then needs a timer for each such moment, not for each packet. Packets between
// two addresses keep their order as long as their delay stays the same. 0: no rounding.
func (n *Network) SetGrain(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.grain = d
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
	d := lookup(n.delay, w)
	switch {
	case d > 0 && n.grain > 0:
		n.schedule(flight{pk, to}, d)
	case d > 0:
		time.AfterFunc(d, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.deliver(pk, to)
		})
	default:
		n.deliver(pk, to)
	}
}

// schedule has a packet arrive with the others of its moment. The caller holds n.mu.
func (n *Network) schedule(f flight, d time.Duration) {
	now := time.Now().UnixNano()
	grain := int64(n.grain)
	at := (now + int64(d) + grain - 1) / grain * grain
	if _, ok := n.due[at]; !ok {
		time.AfterFunc(time.Duration(at-now), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, f := range n.due[at] {
				n.deliver(f.packet, f.to)
			}
			delete(n.due, at)
		})
	}
	n.due[at] = append(n.due[at], f)
}

// nameOf gives an address as the network spells it.
func (n *Network) nameOf(a net.Addr) (string, error) {
	var ap netip.AddrPort
	if u, ok := a.(*net.UDPAddr); ok {
		ap = u.AddrPort()
	} else {
		var err error
		if ap, err = netip.ParseAddrPort(a.String()); err != nil {
			return "", errors.New("no address of this network: " + a.String())
		}
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.names[ap]
	if !ok {
		name = ap.String()
		n.names[ap] = name
	}
	return name, nil
}

// deliver puts a packet in the queue of whoever listens. The caller holds n.mu.
func (n *Network) deliver(pk packet, to string) {
	p := n.ports[to]
	if p == nil {
		n.count.NoListener++
		return
	}
	select {
	case p.in <- &pk:
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
	in     chan *packet
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
	name, err := p.net.nameOf(to)
	if err != nil {
		return 0, p.fail("write", err)
	}
	p.net.send(p, b, name)
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
