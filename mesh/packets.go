package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
)

// quicBit is the lowest first byte of a QUIC packet.
const quicBit = 0x40

// ErrNotPlain means that a packet's first byte would make it look like QUIC.
var ErrNotPlain = errors.New("the first byte of a plain packet must be below 0x40")

// PacketPort sends and receives plain datagrams on the endpoint's UDP port. Nothing
// about them is authenticated: anybody can send anything. They are lost, doubled and
// reordered, and when nobody reads for a while all but 32 are dropped.
type PacketPort struct{ transport *quic.Transport }

// ReadFrom waits for the next datagram. A longer one than b is cut. It fails when ctx is
// done or the endpoint is closed. Only one goroutine may read.
func (p *PacketPort) ReadFrom(ctx context.Context, b []byte) (int, net.Addr, error) {
	return p.transport.ReadNonQUICPacket(ctx, b)
}

// WriteTo sends a datagram. Its first byte must be below 0x40 (ErrNotPlain). Safe for
// concurrent use.
func (p *PacketPort) WriteTo(b []byte, to net.Addr) (int, error) {
	if len(b) == 0 || b[0] >= quicBit {
		return 0, fmt.Errorf("send to %s: %w", to, ErrNotPlain)
	}
	return p.transport.WriteTo(b, to)
}
