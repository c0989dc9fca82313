package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/crossroads-mesh/crossroads/mesh"
)

// transport carries memberlist over an endpoint.
type transport struct {
	cfg     Config
	addr    netip.AddrPort
	sealer  *sealer
	layer   *mesh.StreamLayer
	packets chan *memberlist.Packet
	streams chan net.Conn
	dropped atomic.Uint64

	ctx     context.Context // ends with Shutdown
	cancel  context.CancelFunc
	running sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(cfg Config, addr netip.AddrPort) *transport {
	t := &transport{
		cfg: cfg, addr: addr,
		sealer:  newSealer(cfg.Name, cfg.agree, cfg.Keys),
		layer:   cfg.Endpoint.StreamLayer(Protocol),
		packets: make(chan *memberlist.Packet, 64),
		streams: make(chan net.Conn),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.running.Go(t.readPackets)
	t.running.Go(t.acceptStreams)
	return t
}

func (t *transport) readPackets() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := t.cfg.Endpoint.Packets().ReadFrom(t.ctx, buf)
		if err != nil {
			return
		}
		payload, err := t.sealer.open(buf[:n])
		if err != nil {
			t.dropped.Add(1)
			t.cfg.Log.Debug("gossip: packet dropped", "from", from, "err", err)
			continue
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: payload, From: from, Timestamp: time.Now()}:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		c, err := t.layer.Accept()
		if err != nil {
			return
		}
		select {
		case t.streams <- c:
		case <-t.ctx.Done():
			c.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

// WriteToAddress implements memberlist.NodeAwareTransport. What is meant for a node without
// a key is lost without an error, so that memberlist finds that node gone.
func (t *transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	name, ok := unescape(to.Name)
	if !ok {
		return time.Time{}, errNoName
	}
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, err
	}
	packet, err := t.sealer.seal(name, b)
	if errors.Is(err, errUnknown) {
		return time.Now(), nil
	}
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.cfg.Endpoint.Packets().WriteTo(packet, net.UDPAddrFromAddrPort(addr))
	return time.Now(), err
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	name, ok := unescape(to.Name)
	if !ok {
		return nil, errNoName
	}
	if _, ok := t.cfg.Keys(name); !ok {
		return nil, fmt.Errorf("%w for %q", errUnknown, name)
	}
	id, err := t.cfg.ID(name)
	if err != nil {
		return nil, fmt.Errorf("identity of %q: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.layer.DialPeer(ctx, mesh.Peer{ID: id, Addr: to.Addr})
}

// WriteTo implements memberlist.Transport; every packet needs a receiver's name.
func (t *transport) WriteTo([]byte, string) (time.Time, error) { return time.Time{}, errNoName }

// DialTimeout implements memberlist.Transport; every stream needs a name, too.
func (t *transport) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNoName }

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	t.cancel()
	t.layer.Close()
	t.running.Wait()
	return nil
}
