package belgium

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// loopback is the mesh between members in this process, as nodes have it: QUIC on
// loopback, mutual TLS with certificates of an authority.
type loopback struct {
	endpoints map[names.NodeID]*mesh.Endpoint
	addrs     map[names.NodeID]string
	protocol  string
	stop      context.CancelFunc
	running   errgroup.Group
}

func newLoopback(dir, protocol string) (_ *loopback, err error) {
	ctx, stop := context.WithCancel(context.Background())
	l := &loopback{endpoints: make(map[names.NodeID]*mesh.Endpoint), addrs: make(map[names.NodeID]string), protocol: protocol, stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	issuer, err := authority.New(filepath.Join(dir, "authority"), smallMesh)
	if err != nil {
		return nil, err
	}
	for n := range members {
		id := smallMember(n)
		spiffe, err := certs.NodeSPIFFE(smallMesh, id)
		if err != nil {
			return nil, err
		}
		svids := filepath.Join(dir, "svid", string(id.Institution))
		if err := os.MkdirAll(svids, 0o700); err != nil {
			return nil, err
		}
		if err := authority.NewRenewer(issuer, spiffe, svids, 0, quiet).Renew(); err != nil {
			return nil, err
		}
		source, err := certs.OpenDir(svids, quiet)
		if err != nil {
			return nil, err
		}
		l.running.Go(func() error { return source.Run(ctx) })
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		l.addrs[id] = socket.LocalAddr().String()
		e, err := mesh.Listen(mesh.Config{
			Packets: socket, Credentials: certs.NewTLS(source, smallMesh, func(spiffeid.ID) error { return nil }), StreamProtocols: []string{protocol},
		})
		if err != nil {
			return nil, errors.Join(err, socket.Close())
		}
		l.endpoints[id] = e
		l.running.Go(func() error { return e.Run(ctx) })
	}
	return l, nil
}

func (l *loopback) close() error {
	l.stop()
	err := l.running.Wait()
	for _, e := range l.endpoints {
		if closing := e.Close(); !errors.Is(closing, net.ErrClosed) {
			err = errors.Join(err, closing)
		}
	}
	return err
}

// layer is a registry.StreamLayer.
type layer struct {
	*mesh.StreamLayer
	of   *loopback
	self names.NodeID
}

func (l *loopback) layer(self names.NodeID) *layer {
	return &layer{l.endpoints[self].StreamLayer(l.protocol), l, self}
}

func (l *layer) Addr() net.Addr { return named(l.self) }

func (l *layer) Accept() (net.Conn, error) {
	for {
		c, err := l.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		id, err := certs.NodeOf(smallMesh, c.(*mesh.Conn).PeerID())
		if err == nil {
			return namedConn{c, id}, nil
		}
		_ = c.Close()
	}
}

func (l *layer) Dial(to names.NodeID, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, err := certs.NodeSPIFFE(smallMesh, to)
	if err != nil {
		return nil, err
	}
	c, err := l.DialPeer(ctx, mesh.Peer{ID: id, Addr: l.of.addrs[to]})
	if err != nil {
		return nil, err
	}
	return namedConn{c, to}, nil
}

type namedConn struct {
	net.Conn
	peer names.NodeID
}

func (c namedConn) RemoteAddr() net.Addr { return named(c.peer) }

type named names.NodeID

func (named) Network() string  { return "mesh" }
func (n named) String() string { return names.NodeID(n).String() }
