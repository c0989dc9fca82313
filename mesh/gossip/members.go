package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/hashicorp/memberlist"
)

const (
	// issuedSize is what the time of a statement takes in bytes.
	issuedSize = 8
	// maxSignature is the largest signature of metadata in bytes; memberlist takes 512 for
	// all metadata.
	maxSignature = 256
)

// statement is what a node signs of itself.
func statement(name string, addr netip.AddrPort, issued int64) []byte {
	where := addr.String()
	b := make([]byte, 0, 2+len(name)+len(where)+issuedSize)
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(where)))
	b = append(b, where...)
	return binary.BigEndian.AppendUint64(b, uint64(issued))
}

// packMeta makes metadata of what the receiver does not know already.
func packMeta(issued int64, signature []byte) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, issuedSize+len(signature)), uint64(issued))
	return append(b, signature...)
}

func parseMeta(b []byte) (issued int64, signature []byte, err error) {
	if len(b) <= issuedSize || len(b) > issuedSize+maxSignature {
		return 0, nil, errNoMeta
	}
	return int64(binary.BigEndian.Uint64(b)), b[issuedSize:], nil
}

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
	meta   []byte // that said so: memberlist's own, which nobody changes
	issued int64
	addr   netip.AddrPort
	alive  bool
}

var (
	_ memberlist.Delegate      = (*members)(nil)
	_ memberlist.EventDelegate = (*members)(nil)
	_ memberlist.AliveDelegate = (*members)(nil)
	_ memberlist.MergeDelegate = (*members)(nil)
)

// newMembers knows this node itself, which need not be in any registry yet.
func newMembers(cfg Config, own []byte, addr netip.AddrPort) *members {
	return &members{cfg: cfg, own: own, nodes: map[string]*node{cfg.Name: {meta: own, addr: addr, alive: true}}}
}

func (m *members) get(name string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[name]; n != nil {
		return n.addr.String(), n.alive
	}
	return "", false
}

func (m *members) all() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.nodes))
	for name, n := range m.nodes {
		out = append(out, Member{Name: name, Addr: n.addr.String(), Alive: n.alive})
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
	ip, ok := netip.AddrFromSlice(p.Addr)
	if !ok {
		return errElsewhere
	}
	addr := netip.AddrPortFrom(ip.Unmap(), p.Port)
	if known != nil && bytes.Equal(known.meta, p.Meta) { // verified before
		if known.addr != addr {
			return errElsewhere
		}
		return nil
	}
	issued, signature, err := parseMeta(p.Meta)
	if err != nil {
		return err
	}
	if err := m.cfg.VerifyMeta(name, statement(name, addr, issued), signature); err != nil {
		return fmt.Errorf("metadata of %q: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	alive := false
	if known := m.nodes[name]; known != nil {
		if issued < known.issued {
			return errOldMeta
		}
		alive = known.alive
	}
	m.nodes[name] = &node{meta: p.Meta, issued: issued, addr: addr, alive: alive}
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
