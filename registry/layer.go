package registry

import (
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// StreamLayer is what consensus runs over: connections between nodes that have
// proved their names. Addr and the RemoteAddr of connections read "institution/node".
type StreamLayer interface {
	net.Listener
	Dial(to names.NodeID, timeout time.Duration) (net.Conn, error)
}

// Consensus makes the Raft of a Config, so that who provides the connections need
// not know raft.
func Consensus(l StreamLayer) raft.StreamLayer { return namedLayer{l, l} }

type namedLayer struct {
	net.Listener
	l StreamLayer
}

func (n namedLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := names.ParseNodeID(string(to))
	if err != nil {
		return nil, err
	}
	return n.l.Dial(id, timeout)
}
