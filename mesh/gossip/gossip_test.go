package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

// registry stands in for what the real one publishes of nodes.
type registry struct {
	mu   sync.RWMutex
	keys map[string]*[32]byte
	sign map[string]ed25519.PublicKey
}

func (r *registry) key(name string) (*[32]byte, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k, ok := r.keys[name]
	return k, ok
}

func (r *registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, name)
}

func (r *registry) verify(name string, statement, signature []byte) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !ed25519.Verify(r.sign[name], statement, signature) {
		return errors.New("not signed by it")
	}
	return nil
}

type world struct {
	t   *testing.T
	nw  *meshtest.Network
	ca  *meshtest.CA
	reg *registry
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, nw: meshtest.New(3), ca: meshtest.NewCA(t), reg: &registry{keys: map[string]*[32]byte{}, sign: map[string]ed25519.PublicKey{}}}
	w.nw.SetDelay(meshtest.Any, meshtest.Any, 2*time.Millisecond)
	return w
}

// gossiper is one node.
type gossiper struct {
	*Gossip
	name, addr string
	key        *[32]byte
	signer     ed25519.PrivateKey
	endpoint   *mesh.Endpoint
	stop       func() // with a goodbye
	kill       func() // without
}

func nodeID(name string) (spiffeid.ID, error) {
	return spiffeid.FromString("spiffe://mesh.test/institution/" + name)
}

func seedOf(g *gossiper) Seed { return Seed{Name: g.name, Addr: g.addr} }

// start brings up node i; the registry knows it unless the name begins with "stranger".
func (w *world) start(name, addr string, change func(*Config), seeds ...Seed) *gossiper {
	w.t.Helper()
	return w.restart(w.prepare(name, addr), change, seeds...)
}

// prepare makes a node's keys and publishes them.
func (w *world) prepare(name, addr string) *gossiper {
	w.t.Helper()
	public, private, err := NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	vk, sk, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if !strings.HasPrefix(name, "stranger") {
		w.reg.mu.Lock()
		w.reg.keys[name], w.reg.sign[name] = public, vk
		w.reg.mu.Unlock()
	}
	return &gossiper{name: name, addr: addr, key: private, signer: sk}
}

func (w *world) restart(g *gossiper, change func(*Config), seeds ...Seed) *gossiper {
	w.t.Helper()
	id, err := nodeID(g.name)
	if err != nil {
		w.t.Fatal(err)
	}
	g.endpoint, err = mesh.Listen(mesh.Config{
		Packets: w.nw.Listen(g.addr), Credentials: w.ca.Credentials(id.String()), StreamProtocols: []string{Protocol},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := Config{
		Name: g.name, Addr: g.addr, Key: g.key, Endpoint: g.endpoint, ID: nodeID,
		Keys: w.reg.key, VerifyMeta: w.reg.verify,
		SignMeta: func(b []byte) ([]byte, error) { return ed25519.Sign(g.signer, b), nil },
		Seeds:    func() []Seed { return seeds },
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.endpoint.Run(context.Background()) })
	if g.Gossip, err = Open(cfg); err != nil {
		w.t.Fatal(err)
	}
	wg.Go(func() { g.Run(ctx) })
	g.stop = sync.OnceFunc(func() { cancel(); time.Sleep(2 * time.Second); g.endpoint.Close(); wg.Wait() })
	g.kill = func() { g.endpoint.Close(); g.stop() }
	w.t.Cleanup(g.stop)
	return g
}

func addrOf(i int) string { return fmt.Sprintf("10.1.0.%d:7000", i) }

func (w *world) cluster(n int) []*gossiper {
	w.t.Helper()
	var all []*gossiper
	for i := range n {
		var seeds []Seed
		if i > 0 {
			seeds = []Seed{seedOf(all[0])}
		}
		all = append(all, w.start(fmt.Sprintf("inst-%d/node", i), addrOf(i+1), nil, seeds...))
	}
	return all
}

// until waits for a condition, in the bubble's time.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(start)
}

func sees(g *gossiper, want ...*gossiper) bool {
	for _, o := range want {
		if addr, alive := g.Alive(o.name); !alive || addr != o.addr {
			return false
		}
	}
	alive := 0
	for _, m := range g.Members() {
		if m.Alive {
			alive++
		}
	}
	return alive == len(want)
}

func converged(all []*gossiper) func() bool {
	return func() bool {
		return !slices.ContainsFunc(all, func(g *gossiper) bool { return !sees(g, all...) })
	}
}

func TestFiveNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.cluster(5)
		t.Logf("converged after %s", until(t, 10*time.Second, "five nodes converge", converged(all)))
		all[4].kill()
		d := until(t, 30*time.Second, "the killed node is noticed", converged(all[:4]))
		t.Logf("a killed node was noticed after %s", d)
		if addr, _ := all[0].Alive(all[4].name); addr != all[4].addr {
			t.Errorf("its last address is forgotten: %q", addr)
		}
		all[3].stop()
		if d := until(t, 5*time.Second, "a goodbye is heard", converged(all[:3])); d > 2*time.Second {
			t.Errorf("a goodbye took %s", d)
		}
		// Back on the same address, and on another.
		w.restart(all[3], nil, seedOf(all[0]))
		all[4].addr = addrOf(9)
		w.restart(all[4], nil, seedOf(all[1]))
		t.Logf("back after %s", until(t, 90*time.Second, "the two are back", converged(all)))
	})
}

// Two halves that each believed the other dead find together again.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var seeds []Seed
		for i := range 4 {
			seeds = append(seeds, Seed{fmt.Sprintf("inst-%d/node", i), addrOf(i + 1)})
		}
		var all []*gossiper
		for _, s := range seeds {
			all = append(all, w.start(s.Name, s.Addr, nil, seeds...))
		}
		until(t, 30*time.Second, "four nodes converge", converged(all))
		for _, a := range all[:2] {
			for _, b := range all[2:] {
				w.nw.Cut(a.addr, b.addr)
			}
		}
		until(t, time.Minute, "the halves part", func() bool { return converged(all[:2])() && converged(all[2:])() })
		time.Sleep(5 * time.Minute)
		for _, a := range all[:2] {
			for _, b := range all[2:] {
				w.nw.Heal(a.addr, b.addr)
			}
		}
		t.Logf("healed after %s", until(t, time.Minute, "the halves join", converged(all)))
	})
}

// A node that the registry does not know, though it has a good certificate, is nobody.
func TestStrangerIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.cluster(3)
		until(t, 10*time.Second, "three nodes converge", converged(all))
		w.start("stranger/node", addrOf(66), nil, seedOf(all[0]), seedOf(all[1]))
		time.Sleep(time.Minute)
		if !converged(all)() {
			t.Errorf("got %v", all[0].Members())
		}
	})
}

// A node whose key is taken away falls out.
func TestRemovedNodeFallsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.cluster(4)
		until(t, 10*time.Second, "four nodes converge", converged(all))
		w.reg.remove(all[3].name)
		until(t, time.Minute, "it is out", func() bool {
			return !slices.ContainsFunc(all[:3], func(g *gossiper) bool { return !sees(g, all[:3]...) })
		})
	})
}

// An admitted node that lies about itself: its metadata is unsigned, or signed by itself
// in another's name, or for another address.
func TestLyingMetadata(t *testing.T) {
	addr, elsewhere := netip.MustParseAddrPort(addrOf(66)), netip.MustParseAddrPort(addrOf(200))
	lies := map[string]func(g *gossiper, honest []byte) []byte{
		"unsigned": func(*gossiper, []byte) []byte { return make([]byte, 64) },
		"other key": func(_ *gossiper, honest []byte) []byte {
			_, sk, _ := ed25519.GenerateKey(nil)
			return ed25519.Sign(sk, honest)
		},
		"another address": func(g *gossiper, honest []byte) []byte {
			return ed25519.Sign(g.signer, statement(g.name, elsewhere, issuedIn(honest)))
		},
		"another name": func(g *gossiper, honest []byte) []byte {
			return ed25519.Sign(g.signer, statement("inst-0/node", addr, issuedIn(honest)))
		},
		"another time": func(g *gossiper, honest []byte) []byte {
			return ed25519.Sign(g.signer, statement(g.name, addr, issuedIn(honest)+1))
		},
		"none": func(*gossiper, []byte) []byte { return nil },
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				all := w.cluster(3)
				until(t, 10*time.Second, "three nodes converge", converged(all))
				public, private, _ := NewKey()
				vk, sk, _ := ed25519.GenerateKey(nil)
				liar := &gossiper{name: "liar/node", addr: addrOf(66), key: private, signer: sk}
				w.reg.mu.Lock()
				w.reg.keys[liar.name], w.reg.sign[liar.name] = public, vk
				w.reg.mu.Unlock()
				w.restart(liar, func(c *Config) {
					c.SignMeta = func(b []byte) ([]byte, error) { return lie(liar, b), nil }
				}, seedOf(all[0]), seedOf(all[1]), seedOf(all[2]))
				time.Sleep(time.Minute)
				if !converged(all)() {
					t.Errorf("got %v", all[0].Members())
				}
			})
		})
	}
}

// What strangers send to the port changes nothing, whatever it is.
func TestForgedPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.cluster(3)
		until(t, 10*time.Second, "three nodes converge", converged(all))
		stranger := w.nw.Listen(addrOf(66))
		defer stranger.Close()
		_, private, _ := NewKey()
		forger := newSealer(all[1].name, agreeWith(private), w.reg.key) // the name of another, not its key
		forged, err := forger.seal(all[0].name, []byte("\x05whatever"))
		if err != nil {
			t.Fatal(err)
		}
		honest := newSealer(all[1].name, agreeWith(all[1].key), w.reg.key)
		toOther, err := honest.seal(all[2].name, []byte("\x05whatever"))
		if err != nil {
			t.Fatal(err)
		}
		turned, err := newSealer(all[0].name, agreeWith(all[0].key), w.reg.key).seal(all[1].name, []byte("\x05whatever"))
		if err != nil {
			t.Fatal(err)
		}
		// As all[0] sealed it for all[1], now sent back as if from all[1].
		if len(all[0].name) != len(all[1].name) {
			t.Fatal("names of one length are needed")
		}
		copy(turned[2:], all[1].name)
		unknown := append([]byte{packetByte, 3, 'x', 'y', 'z'}, make([]byte, 100)...)
		packets := [][]byte{forged, toOther, turned, unknown, {packetByte}, {packetByte, 0}, {0x01, 2, 3}, {0xf4}, make([]byte, 1400)}
		to := all[0].endpoint.Addr()
		before := all[0].Dropped()
		sent := uint64(0)
		for _, p := range packets {
			stranger.WriteTo(p, to)
			time.Sleep(10 * time.Millisecond)
			if p[0] < 0x40 {
				sent++
			}
		}
		time.Sleep(time.Minute)
		if got := all[0].Dropped() - before; got != sent {
			t.Errorf("%d of %d bad packets dropped", got, sent)
		}
		if !converged(all)() {
			t.Errorf("got %v", all[0].Members())
		}
	})
}

// Metadata once replaced does not come back.
func TestOldMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.cluster(2)
		until(t, 10*time.Second, "two nodes converge", converged(all))
		g := all[0].Gossip
		g.members.mu.Lock()
		old := g.members.nodes[all[1].name].meta
		g.members.mu.Unlock()
		all[1].kill()
		until(t, time.Minute, "it is gone", func() bool { return sees(all[0], all[0]) })
		all[1].addr = addrOf(99)
		w.restart(all[1], nil, seedOf(all[0]))
		until(t, time.Minute, "it is back elsewhere", converged(all))
		replayed := g.list.Members()[0]
		for _, p := range g.list.Members() {
			if p.Name == escape(all[1].name) {
				replayed = p
			}
		}
		forged := *replayed
		forged.Meta = old
		forged.Addr, forged.Port = []byte{10, 1, 0, 2}, 7000
		if err := g.members.NotifyAlive(&forged); !errors.Is(err, errOldMeta) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenChecksItsConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		good := w.cluster(1)[0].cfg
		for name, change := range map[string]func(*Config){
			"no name":     func(c *Config) { c.Name = "" },
			"long name":   func(c *Config) { c.Name = strings.Repeat("n", 256) },
			"no key":      func(c *Config) { c.Key = nil },
			"no address":  func(c *Config) { c.Addr = "" },
			"port 0":      func(c *Config) { c.Addr = "10.0.0.1:0" },
			"unspecified": func(c *Config) { c.Addr = "0.0.0.0:1" },
			"signing":     func(c *Config) { c.SignMeta = func([]byte) ([]byte, error) { return nil, errors.New("no") } },
			"large meta":  func(c *Config) { c.SignMeta = func([]byte) ([]byte, error) { return make([]byte, 257), nil } },
		} {
			cfg := good
			change(&cfg)
			if _, err := Open(cfg); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}

func FuzzOpenPacket(f *testing.F) {
	aPub, aKey, _ := NewKey()
	bPub, bKey, _ := NewKey()
	keys := func(name string) (*[32]byte, bool) {
		k, ok := map[string]*[32]byte{"a": aPub, "b": bPub}[name]
		return k, ok
	}
	a, b := newSealer("a", agreeWith(aKey), keys), newSealer("b", agreeWith(bKey), keys)
	good, err := a.seal("b", []byte("payload"))
	if err != nil {
		f.Fatal(err)
	}
	if got, err := b.open(good); err != nil || string(got) != "payload" {
		f.Fatalf("%q, %v", got, err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{packetByte, 255})
	f.Add([]byte{packetByte, 0})
	f.Add(append(bytes.Clone(good), 0))
	f.Add(append(bytes.Clone(good), make([]byte, 64<<10)...))
	self, err := b.seal("a", []byte("payload"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	turned := bytes.Clone(self)
	turned[2] = 'a'
	f.Add(turned)
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := b.open(p)
		if err == nil && string(got) != "payload" {
			t.Fatalf("forged: %q", got)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	good := packMeta(1, ed25519.Sign(key, statement("b", netip.MustParseAddrPort("10.0.0.1:1"), 1)))
	f.Add(good, []byte{10, 0, 0, 1}, uint16(1))
	f.Add(good, []byte{10, 0, 0, 1}, uint16(2))
	f.Add(good, append(make([]byte, 10), 255, 255, 10, 0, 0, 1), uint16(1))
	f.Add(good[:issuedSize], []byte{10, 0, 0, 1}, uint16(1))
	f.Add(append(good, make([]byte, maxSignature)...), []byte{10, 0, 0, 1}, uint16(1))
	f.Fuzz(func(t *testing.T, meta, ip []byte, port uint16) {
		m := newMembers(Config{
			Name: "a",
			Keys: func(string) (*[32]byte, bool) { return new([32]byte), true },
			VerifyMeta: func(_ string, statement, signature []byte) error {
				if !ed25519.Verify(key.Public().(ed25519.PublicKey), statement, signature) {
					return errors.New("not signed")
				}
				return nil
			},
		}, []byte("own"), netip.MustParseAddrPort("10.0.0.9:1"))
		p := meshNode("b", meta, ip, port)
		if m.NotifyAlive(p) == nil {
			if addr, _ := m.get("b"); !bytes.Equal(meta, good) || addr != "10.0.0.1:1" || port != 1 {
				t.Errorf("took %x at %v:%d", meta, ip, port)
			}
		}
	})
}

// issuedIn gives the time at the end of a statement.
func issuedIn(statement []byte) int64 {
	return int64(binary.BigEndian.Uint64(statement[len(statement)-issuedSize:]))
}

func meshNode(name string, meta, ip []byte, port uint16) *memberlist.Node {
	return &memberlist.Node{Name: escape(name), Meta: meta, Addr: ip, Port: port}
}
