package gossip

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/edwards25519"
	//lint:ignore SA1019 see agreement
	"golang.org/x/crypto/salsa20/salsa"

	"github.com/crossroads-mesh/crossroads/mesh"
)

// crowd is many nodes in one process, on a network in memory, in virtual time: the real
// memberlist over our transport, with packets authenticated between each two.
//
// Two things are not as in life, or a run of thousands would take hours: a statement that one
// node verified is not verified again by the others, and the secret of two nodes, though the
// same, is computed by who holds both private keys, which is quicker. How often either
// happens is counted, and reports add what it would have cost.
type crowd struct {
	*world
	nodes   []*gossiper // that run
	loss    float64
	split   atomic.Bool // halves do not hear each other
	silent  atomic.Bool // nobody hears anybody
	secrets *secrets
	post    *post // nil: packets are sealed, and streams are QUIC's

	bytes, packets      atomic.Int64
	verified            sync.Map // what was said, and its signature
	verifies            atomic.Int64
	suspected, declared atomic.Int64 // living nodes that contradicted it
	overflows, refused  atomic.Int64

	verifying, agreeing time.Duration // what the crowd saves of the processor each time

	since time.Time // the last report
	used  time.Duration
}

func newCrowd(t *testing.T, loss float64) *crowd {
	c := &crowd{world: newWorld(t), loss: loss, secrets: &secrets{scalars: make(map[[32]byte]*edwards25519.Scalar)}}
	c.nw.SetGrain(time.Millisecond)
	c.verifying, c.agreeing = savings(t)
	c.since, c.used = time.Now(), cpu()
	return c
}

// port counts what a node sends, and loses some of it.
type port struct {
	net.PacketConn
	of   *crowd
	half byte
}

func halfOf(a net.Addr) byte {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return 0
	}
	return u.IP[len(u.IP)-1] & 1
}

func (p *port) WriteTo(b []byte, to net.Addr) (int, error) {
	if !p.of.sends(len(b), p.half, halfOf(to)) {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

// sends counts a packet, and says whether it arrives.
func (c *crowd) sends(size int, from, to byte) bool {
	c.bytes.Add(int64(size))
	c.packets.Add(1)
	return c.hears(from, to) && (c.loss == 0 || rand.Float64() >= c.loss)
}

func (c *crowd) hears(from, to byte) bool {
	return !c.silent.Load() && (from == to || !c.split.Load())
}

// listen opens the endpoint of a node of one half.
func (c *crowd) listen(g *gossiper, half byte) {
	id, err := nodeID(g.name)
	if err != nil {
		c.t.Fatal(err)
	}
	g.endpoint, err = mesh.Listen(mesh.Config{
		Packets: &port{c.nw.Listen(g.addr), c, half}, Credentials: c.ca.Credentials(id.String()), StreamProtocols: []string{Protocol},
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) verify(name string, statement, signature []byte) error {
	c.verifies.Add(1)
	key := name + string(statement) + string(signature)
	if _, ok := c.verified.Load(key); ok {
		return nil
	}
	err := c.reg.verify(name, statement, signature)
	if err == nil {
		c.verified.Store(key, nil)
	}
	return err
}

// ear counts what the nodes log of themselves.
func (c *crowd) ear() *slog.Logger { return slog.New(ear{c}) }

type ear struct{ of *crowd }

// Enabled implements slog.Handler.
func (ear) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements slog.Handler.
func (e ear) Handle(_ context.Context, r slog.Record) error {
	for part, count := range map[string]*atomic.Int64{
		"Refuting a suspect": &e.of.suspected, "Refuting a dead": &e.of.declared,
		"queue full": &e.of.overflows, "Too many pending": &e.of.refused,
	} {
		if strings.Contains(r.Message, part) {
			count.Add(1)
		}
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (e ear) WithAttrs([]slog.Attr) slog.Handler { return e }

// WithGroup implements slog.Handler.
func (e ear) WithGroup(string) slog.Handler { return e }

// secrets holds all private keys, so that what two of them share is a product of a number
// and the base point.
type secrets struct {
	mu      sync.RWMutex
	scalars map[[32]byte]*edwards25519.Scalar // by public key
	made    atomic.Int64
}

func scalarOf(private *[32]byte) *edwards25519.Scalar {
	s, err := new(edwards25519.Scalar).SetBytesWithClamping(private[:])
	if err != nil {
		panic(err)
	}
	return s
}

func (s *secrets) add(private *[32]byte) {
	scalar := scalarOf(private)
	public := [32]byte(new(edwards25519.Point).ScalarBaseMult(scalar).BytesMontgomery())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scalars[public] = scalar
}

func (s *secrets) agreement(private *[32]byte) agreement {
	own := scalarOf(private)
	return func(public *[32]byte) (shared [32]byte) {
		s.made.Add(1)
		s.mu.RLock()
		other := s.scalars[*public]
		s.mu.RUnlock()
		if other == nil {
			panic("a key that no node of the crowd has")
		}
		both := new(edwards25519.Scalar).Multiply(own, other)
		secret := [32]byte(new(edwards25519.Point).ScalarBaseMult(both).BytesMontgomery())
		// box.Precompute ends with this, and gives no access to it.
		salsa.HSalsa20(&shared, new([16]byte), &secret, &salsa.Sigma)
		return shared
	}
}

func TestQuickSecrets(t *testing.T) {
	s := &secrets{scalars: make(map[[32]byte]*edwards25519.Scalar)}
	for range 20 {
		public, private, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		_, other, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		s.add(private)
		if quick, slow := s.agreement(other)(public), agreeWith(other)(public); quick != slow {
			t.Fatalf("%x is not %x", quick, slow)
		}
	}
}

// savings measures a verification, and by how much an agreement between strangers takes
// longer than one of the crowd.
func savings(t *testing.T) (verifying, agreeing time.Duration) {
	const rounds = 100
	mean := func(do func()) time.Duration {
		began := cpu()
		for range rounds {
			do()
		}
		return (cpu() - began) / rounds
	}
	vk, sk, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 64)
	signature := ed25519.Sign(sk, said)
	public, private, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &secrets{scalars: make(map[[32]byte]*edwards25519.Scalar)}
	s.add(private)
	slow, quick := agreeWith(private), s.agreement(private)
	verifying = mean(func() { ed25519.Verify(vk, said, signature) })
	agreeing = mean(func() { slow(public) }) - mean(func() { quick(public) })
	return verifying, max(agreeing, 0)
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
