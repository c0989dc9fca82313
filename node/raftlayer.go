package node

import (
	"context"
	"net"
	"time"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

const raftProtocol = "crossroads-raft/1"

// raftLayer is consensus on the mesh: its addresses are node names, and the remote
// address of a connection is the name that its other end has proved.
type raftLayer struct {
	layer *mesh.StreamLayer
	peers *peers
	self  names.NodeID
}

var _ registry.StreamLayer = (*raftLayer)(nil)

func (l *raftLayer) Addr() net.Addr { return nodeAddr(l.self) }
func (l *raftLayer) Close() error   { return l.layer.Close() }

func (l *raftLayer) Accept() (net.Conn, error) {
	for {
		c, err := l.layer.Accept()
		if err != nil {
			return nil, err
		}
		if named, err := l.name(c); err == nil {
			return named, nil
		}
		_ = c.Close()
	}
}

func (l *raftLayer) Dial(to names.NodeID, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	peer, err := l.peers.peer(to)
	if err != nil {
		return nil, err
	}
	c, err := l.layer.DialPeer(ctx, peer)
	if err != nil {
		return nil, err
	}
	return namedConn{c, to}, nil
}

func (l *raftLayer) name(c net.Conn) (net.Conn, error) {
	node, err := l.peers.identities.node(c.(*mesh.Conn).PeerID())
	return namedConn{c, node}, err
}

type namedConn struct {
	net.Conn
	peer names.NodeID
}

func (c namedConn) RemoteAddr() net.Addr { return nodeAddr(c.peer) }

type nodeAddr names.NodeID

func (nodeAddr) Network() string  { return "mesh" }
func (a nodeAddr) String() string { return names.NodeID(a).String() }
