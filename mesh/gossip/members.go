package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// maxMeta is the largest signed metadata in bytes; memberlist takes 512.
const maxMeta = 450

// members knows the nodes and judges what is said of them. It is all of memberlist's
// delegates. memberlist calls it while it holds its own locks.
type members struct {
	cfg Config
	own []byte // this node's signed metadata

	mu    sync.Mutex
	nodes map[string]*node
}

// node is what was verified of one node.
type node struct {
	signed []byte // the metadata that said so
	issued int64
	addr   string
	alive  bool
}

var (
	_ memberlist.Delegate      = (*members)(nil)
	_ memberlist.EventDelegate = (*members)(nil)
	_ memberlist.AliveDelegate = (*members)(nil)
	_ memberlist.MergeDelegate = (*members)(nil)
)

// newMembers knows this node itself, which need not be in any registry yet.
func newMembers(cfg Config, own []byte, addr string) *members {
	return &members{cfg: cfg, own: own, nodes: map[string]*node{cfg.Name: {signed: own, addr: addr, alive: true}}}
}

func (m *members) get(name string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[name]; n != nil {
		return n.addr, n.alive
	}
	return "", false
}

func (m *members) all() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.nodes))
	for name, n := range m.nodes {
		out = append(out, Member{Name: name, Addr: n.addr, Alive: n.alive})
	}
	return out
}

var (
	errNoName    = errors.New("not a node's name")
	errNoMeta    = errors.New("metadata does not fit the node")
	errOldMeta   = errors.New("older metadata than already seen")
	errElsewhere = errors.New("address is not the one the node signed")
)

// check verifies what is said of a node and remembers it.
func (m *members) check(p *memberlist.Node) error {
	name, ok := unescape(p.Name)
	if !ok {
		return errNoName
	}
	if _, ok := m.cfg.Keys(name); !ok {
		return fmt.Errorf("%w for %q", errUnknown, name)
	}
	m.mu.Lock()
	known := m.nodes[name]
	m.mu.Unlock()
	if known != nil && bytes.Equal(known.signed, p.Meta) { // verified before
		return sameAddr(p, known.addr)
	}
	if len(p.Meta) == 0 || len(p.Meta) > maxMeta {
		return errNoMeta
	}
	payload, err := m.cfg.VerifyMeta(name, p.Meta)
	if err != nil {
		return fmt.Errorf("metadata of %q: %w", name, err)
	}
	said := new(meshpb.GossipMeta)
	if proto.Unmarshal(payload, said) != nil || said.Name != name {
		return errNoMeta
	}
	if err := sameAddr(p, said.Addr); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	alive := false
	if known := m.nodes[name]; known != nil {
		if said.IssuedUnixNano < known.issued {
			return errOldMeta
		}
		alive = known.alive
	}
	m.nodes[name] = &node{signed: bytes.Clone(p.Meta), issued: said.IssuedUnixNano, addr: said.Addr, alive: alive}
	return nil
}

// sameAddr compares the address that memberlist would use with the signed one.
func sameAddr(p *memberlist.Node, signed string) error {
	ip, ok := netip.AddrFromSlice(p.Addr)
	if !ok || netip.AddrPortFrom(ip.Unmap(), p.Port).String() != signed {
		return errElsewhere
	}
	return nil
}

// NotifyAlive implements memberlist.AliveDelegate. Of this node itself everything may be
// said: memberlist contradicts what is wrong, and so learns how to be heard.
func (m *members) NotifyAlive(p *memberlist.Node) error {
	if p.Name == escape(m.cfg.Name) {
		return nil
	}
	return m.check(p)
}

// NotifyMerge implements memberlist.MergeDelegate: a list in which nobody is known is that
// of another mesh. Single strangers in it are left out by NotifyAlive.
func (m *members) NotifyMerge(peers []*memberlist.Node) error {
	for _, p := range peers {
		if name, ok := unescape(p.Name); ok && name != m.cfg.Name {
			if _, ok := m.cfg.Keys(name); ok {
				return nil
			}
		}
	}
	return fmt.Errorf("%w for any of %d nodes", errUnknown, len(peers))
}

func (m *members) mark(p *memberlist.Node, alive bool) {
	name, _ := unescape(p.Name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[name]; n != nil {
		n.alive = alive
	}
}

// NotifyJoin implements memberlist.EventDelegate.
func (m *members) NotifyJoin(p *memberlist.Node) { m.mark(p, true) }

// NotifyLeave implements memberlist.EventDelegate.
func (m *members) NotifyLeave(p *memberlist.Node) { m.mark(p, false) }

// NotifyUpdate implements memberlist.EventDelegate.
func (m *members) NotifyUpdate(*memberlist.Node) {}

// NodeMeta implements memberlist.Delegate.
func (m *members) NodeMeta(int) []byte { return m.own }

// Gossip carries nothing but memberlist's own messages.

// NotifyMsg implements memberlist.Delegate.
func (m *members) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (m *members) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (m *members) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (m *members) MergeRemoteState([]byte, bool) {}
