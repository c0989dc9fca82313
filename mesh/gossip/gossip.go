// Package gossip says which nodes seem to be alive, and where. It never gives a right:
// whoever is dialled proves who it is, and nobody should refuse to dial a node because
// gossip calls it dead.
//
// It is memberlist in a hybrid form. Its packets go as plain datagrams through the mesh's
// own UDP port, because opening a connection to nearly everyone would not scale; its
// streams, which are rare and large, are streams of the mesh (ALPN crossroads-gossip/1).
//
// # Packets
//
// Each packet is authenticated between two nodes with NaCl box and the X25519 keys that
// the Keys port knows:
//
//	0x21 | length of sender's name (1 byte) | name | nonce (24 bytes) | box
//
// The box holds the first 8 bytes of SHA-256(sender 0x00 receiver), so that a packet
// cannot be turned around, and memberlist's message. A packet of a sender without a known
// key, or that does not authenticate, is dropped and counted. A replayed packet is
// possible and harmless: memberlist orders its messages by incarnation.
//
// # Metadata
//
// A node signs its name, its address and when it said so (SignMeta, VerifyMeta):
//
//	length of name (1 byte) | name | length of address (1 byte) | ip:port | Unix time in nanoseconds (8 bytes, big-endian)
//
// memberlist carries name and address itself, and each byte goes to every node many times, so
// the metadata holds only what is left:
//
//	Unix time in nanoseconds (8 bytes, big-endian) | signature
//
// Any node passes such statements on; one that is not signed by the node it speaks of, for
// the very address that it is said to have, or that is older than one already seen is
// ignored, and so is every name without a key.
//
// An admitted node can still lie about others being dead. They hear of it and contradict;
// until then somebody asks another peer first. That is all gossip may cost.
package gossip

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/crypto/nacl/box"

	"github.com/crossroads-mesh/crossroads/mesh"
)

// Protocol is the ALPN of gossip's streams; it must be in mesh.Config.StreamProtocols.
const Protocol = "crossroads-gossip/1"

// Seed is a node to meet others through.
type Seed struct{ Name, Addr string }

// Member is what gossip knows of a node.
type Member struct {
	Name  string
	Addr  string // as the node itself signed it
	Alive bool   // as far as anybody noticed
}

// Config says how to gossip. All fields up to VerifyMeta are required. The ports are
// called often, also while memberlist holds its locks: they must be quick, must not call
// back, and must be safe for concurrent use.
type Config struct {
	// Name is this node's name, at most 255 bytes.
	Name string
	// Addr is where others reach this node: a host or IP address with a port.
	Addr string
	// Key is this node's private X25519 key; see NewKey.
	Key *[32]byte
	// Endpoint carries the gossip.
	Endpoint *mesh.Endpoint
	// ID gives the identity of a node, for its streams.
	ID func(name string) (spiffeid.ID, error)
	// Keys gives the public gossip key of a node. A node without one does not take part.
	Keys func(name string) (*[32]byte, bool)
	// SignMeta signs a statement about this node; the signature may have 256 bytes.
	SignMeta func(statement []byte) (signature []byte, err error)
	// VerifyMeta says whether the named node signed the statement.
	VerifyMeta func(name string, statement, signature []byte) error

	// Seeds gives nodes to meet others through, at the start and whenever one of them
	// seems to be gone: so a mesh that fell apart comes together again. Nil: none.
	Seeds func() []Seed
	// Interval is how often a neighbour is probed. A dead node is noticed after a few
	// intervals, growing with the logarithm of the number of nodes. Default 1 s.
	Interval time.Duration
	// Log gets what an operator should know. Nil discards it.
	Log *slog.Logger

	agree agreement                     // nil: with Key
	wire  memberlist.NodeAwareTransport // nil: over Endpoint
}

// NewKey makes a node's gossip key.
func NewKey() (public, private *[32]byte, err error) { return box.GenerateKey(rand.Reader) }

// Gossip takes part in the gossip of a mesh. Safe for concurrent use.
type Gossip struct {
	cfg     Config
	list    *memberlist.Memberlist
	wire    memberlist.NodeAwareTransport
	members *members
}

// Open begins to take part. Run must follow, for it ends what Open began.
func Open(cfg Config) (*Gossip, error) {
	switch {
	case cfg.Name == "" || len(cfg.Name) > maxName:
		return nil, fmt.Errorf("gossip: a name of 1 to %d bytes is needed", maxName)
	case cfg.Key == nil || cfg.Endpoint == nil && cfg.wire == nil || cfg.ID == nil || cfg.Keys == nil || cfg.SignMeta == nil || cfg.VerifyMeta == nil:
		return nil, errors.New("gossip: Config lacks a required field")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.agree == nil {
		cfg.agree = agreeWith(cfg.Key)
	}
	addr, err := resolve(context.Background(), cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("gossip: own address: %w", err)
	}
	issued := time.Now().UnixNano()
	signature, err := cfg.SignMeta(statement(cfg.Name, addr, issued))
	if err != nil {
		return nil, fmt.Errorf("gossip: sign own metadata: %w", err)
	}
	if len(signature) > maxSignature {
		return nil, fmt.Errorf("gossip: the signature of own metadata has %d bytes, at most %d fit", len(signature), maxSignature)
	}
	meta := packMeta(issued, signature)
	g := &Gossip{
		cfg:     cfg,
		members: newMembers(cfg, meta, addr),
	}
	if g.wire = cfg.wire; g.wire == nil {
		g.wire = newTransport(cfg, addr)
	}
	if g.list, err = memberlist.Create(g.options(addr)); err != nil {
		g.wire.Shutdown()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return g, nil
}

// options are memberlist's, scaled to the interval.
func (g *Gossip) options(addr netip.AddrPort) *memberlist.Config {
	o := memberlist.DefaultLANConfig()
	o.Name = escape(g.cfg.Name)
	o.Transport = g.wire
	o.BindAddr, o.BindPort = addr.Addr().String(), int(addr.Port())
	o.AdvertiseAddr, o.AdvertisePort = o.BindAddr, o.BindPort
	o.RequireNodeNames = true
	o.UDPBufferSize = maxPacket - overhead(g.cfg.Name)
	o.EnableCompression = false // the contents are mostly signatures
	o.ProbeInterval = g.cfg.Interval
	o.ProbeTimeout = g.cfg.Interval / 2
	o.GossipInterval = g.cfg.Interval / 5
	o.PushPullInterval = 30 * g.cfg.Interval
	o.GossipToTheDeadTime = 30 * g.cfg.Interval
	o.DeadNodeReclaimTime = g.cfg.Interval // a restarted node may have another address
	o.Delegate, o.Events, o.Alive, o.Merge = g.members, g.members, g.members, g.members
	o.Logger = log.New(logWriter{g.cfg.Log}, "", 0)
	return o
}

// Run takes part until ctx is done, says goodbye and ends. memberlist's probes that are
// still under way end by themselves within an Interval or two. The error is always nil.
func (g *Gossip) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * g.cfg.Interval)
	defer tick.Stop()
	g.meet(ctx, 2)
	// Who is new, or was cut off, is known to few for a while, and is told of others by few: it
	// asks again, twice. Who finds a seed again asks that one: what the two sides believed of
	// each other is contradicted by then.
	again := time.NewTimer(5 * g.cfg.Interval)
	defer again.Stop()
	var found []Seed
	for left, before := 2, 1; ; {
		select {
		case <-again.C:
			g.ask(ctx, found)
			if left--; left > 0 {
				again.Reset(15 * g.cfg.Interval)
			}
		case <-tick.C:
			alive := g.list.NumMembers()
			many := alive > before+before/8
			before = alive
			var met []Seed
			if mrand.IntN(max(1, alive)) < herd {
				met = g.meet(ctx, 1)
			}
			if len(met) > 0 || many && left == 0 {
				found, left = met, 2
				again.Reset(5 * g.cfg.Interval)
			}
		case <-ctx.Done():
			if err := g.list.Leave(g.cfg.Interval); err != nil {
				g.cfg.Log.Debug("gossip: no goodbye", "err", err)
			}
			g.list.Shutdown()
			return nil
		}
	}
}

// herd is about how many nodes at once look for a seed that seems to be gone. All together
// would bury it when it comes back, for each brings its list of all nodes.
const herd = 32

// ask exchanges what is known with one of those nodes; nil: with any that is alive.
func (g *Gossip) ask(ctx context.Context, those []Seed) {
	if those == nil {
		for _, m := range g.members.all() {
			if m.Alive && m.Name != g.cfg.Name {
				those = append(those, Seed{Name: m.Name, Addr: m.Addr})
			}
		}
	}
	g.visit(ctx, those, 1)
}

// meet joins a few random seeds that do not seem to be alive, and gives those it reached.
func (g *Gossip) meet(ctx context.Context, most int) []Seed {
	if g.cfg.Seeds == nil {
		return nil
	}
	seeds := slices.DeleteFunc(slices.Clone(g.cfg.Seeds()), func(s Seed) bool {
		_, alive := g.Alive(s.Name)
		return alive || s.Name == g.cfg.Name
	})
	return g.visit(ctx, seeds, most)
}

// visit joins a few of the nodes and gives those it reached.
func (g *Gossip) visit(ctx context.Context, nodes []Seed, most int) (met []Seed) {
	mrand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	for _, s := range nodes[:min(most, len(nodes))] {
		if ctx.Err() != nil {
			return met
		}
		if err := g.Join(ctx, s); err != nil {
			g.cfg.Log.Debug("gossip: node not reached", "node", s.Name, "addr", s.Addr, "err", err)
			continue
		}
		met = append(met, s)
	}
	return met
}

// Join meets a node and learns of the others from it. Resolving its address is bounded by
// ctx, the rest by the mesh's DialTimeout and 10 s.
func (g *Gossip) Join(ctx context.Context, seed Seed) error {
	addr, err := resolve(ctx, seed.Addr)
	if err != nil {
		return fmt.Errorf("gossip: join %s: %w", seed.Name, err)
	}
	if _, err := g.list.Join([]string{escape(seed.Name) + "/" + addr.String()}); err != nil {
		return fmt.Errorf("gossip: join %s: %w", seed.Name, err)
	}
	return nil
}

// Alive says whether a node seems to be alive, and its latest address: "" if the node was
// never heard of.
func (g *Gossip) Alive(name string) (addr string, alive bool) { return g.members.get(name) }

// Members lists the nodes heard of, this one included, by name.
func (g *Gossip) Members() []Member {
	out := g.members.all()
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Dropped counts the packets that were malformed, forged or of unknown senders.
func (g *Gossip) Dropped() uint64 {
	if t, ok := g.wire.(*transport); ok {
		return t.dropped.Load()
	}
	return 0
}

// escape makes a name fit for memberlist, which gives "/" a meaning in Join.
func escape(name string) string { return url.PathEscape(name) }

func unescape(name string) (string, bool) {
	s, err := url.PathUnescape(name)
	return s, err == nil && escape(s) == name && s != "" && len(s) <= maxName
}

// resolve finds an IP address and port.
func resolve(ctx context.Context, addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || n > math.MaxUint16 {
		return netip.AddrPort{}, fmt.Errorf("port %q of %q is no number from 1 to 65535", port, addr)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return netip.AddrPort{}, err
		}
		ip = slices.MinFunc(ips, func(a, b netip.Addr) int { // IPv4 first: everybody has it
			return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen())
		})
	}
	if ip.IsUnspecified() {
		return netip.AddrPort{}, fmt.Errorf("%q is no address that others can reach", addr)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}
