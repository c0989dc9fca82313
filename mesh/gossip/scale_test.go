package gossip

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/mesh"
)

// crowd is many nodes in one process, on a network in memory, in virtual time: the real
// memberlist over our transport, with packets authenticated between each two.
//
// One thing is not as in life: a statement that one node verified is not verified again by
// the others, or a run of thousands would take hours. How often they would is counted.
type crowd struct {
	*world
	split    atomic.Bool // halves do not hear each other
	bytes    atomic.Int64
	packets  atomic.Int64
	verified sync.Map // signed statement: its payload
	verifies atomic.Int64
}

// port counts what a node sends, and loses it between halves.
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
	ip, _ := netip.AddrFromSlice(u.IP)
	b := ip.Unmap().As4()
	return b[3] & 1
}

func (p *port) WriteTo(b []byte, to net.Addr) (int, error) {
	p.of.bytes.Add(int64(len(b)))
	p.of.packets.Add(1)
	if p.of.split.Load() && halfOf(to) != p.half {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

func (c *crowd) verify(name string, signed []byte) ([]byte, error) {
	c.verifies.Add(1)
	if known, ok := c.verified.Load(name + string(signed)); ok {
		return known.([]byte), nil
	}
	payload, err := c.reg.verify(name, signed)
	if err == nil {
		c.verified.Store(name+string(signed), payload)
	}
	return payload, err
}

func (c *crowd) join(i int, seeds []Seed) *gossiper {
	addr := fmt.Sprintf("10.%d.%d.%d:7000", 1+i>>16, i>>8&255, i&255)
	g := c.prepare(fmt.Sprintf("n%d", i), addr)
	id, err := nodeID(g.name)
	if err != nil {
		c.t.Fatal(err)
	}
	conn := &port{c.nw.Listen(addr), c, byte(i & 1)}
	if g.endpoint, err = mesh.Listen(mesh.Config{Packets: conn, Credentials: c.ca.Credentials(id.String()), StreamProtocols: []string{Protocol}}); err != nil {
		c.t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { g.endpoint.Run(context.Background()) })
	if g.Gossip, err = Open(Config{
		Name: g.name, Addr: addr, Key: g.key, Endpoint: g.endpoint, ID: nodeID, Keys: c.reg.key, VerifyMeta: c.verify,
		SignMeta: func(b []byte) ([]byte, error) { return signMeta(g, b), nil }, Seeds: func() []Seed { return seeds },
	}); err != nil {
		c.t.Fatal(err)
	}
	wg.Go(func() { g.Run(ctx) })
	g.kill = sync.OnceFunc(func() { g.endpoint.Close(); cancel(); wg.Wait() })
	return g
}

// settled gives how long it takes until every node counts want alive; 0: it did not happen.
func settled(nodes []*gossiper, want int, most time.Duration) time.Duration {
	began := time.Now()
	for time.Since(began) < most {
		all := true
		for _, g := range nodes {
			if g.list.NumMembers() != want {
				all = false
				break
			}
		}
		if all {
			return time.Since(began)
		}
		time.Sleep(250 * time.Millisecond)
	}
	return 0
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestScale measures sixteen nodes, or GOSSIP_NODES=150,500,1000 go test ./mesh/gossip
// -run TestScale -v (about 2 GB and 5 minutes of CPU for each thousand).
func TestScale(t *testing.T) {
	sizes := cmp.Or(os.Getenv("GOSSIP_NODES"), "16")
	fmt.Println("nodes | all know all | CPU/join | KB/join | 1 %/min fail: noticed by all | halves healed after | KB/s/node | CPU/s/node | verifications/join")
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) { scale(t, n) })
	}
}

func scale(t *testing.T, n int) {
	c := &crowd{world: newWorld(t)}
	var seeds []Seed
	var nodes []*gossiper
	began, used := time.Now(), cpu()
	for i := range n {
		g := c.join(i+2, seeds)
		nodes = append(nodes, g)
		if len(seeds) < 5 {
			seeds = append(seeds, seedOf(g))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if settled(nodes, n, 10*time.Minute) == 0 {
		t.Errorf("%d nodes did not find each other", n)
	}
	joined, joinCPU, joinBytes, joinVerifies := time.Since(began), cpu()-used, c.bytes.Load(), c.verifies.Load()

	// A minute in which 1 % fail, spread over it; from the last one, until all have noticed.
	c.bytes.Store(0)
	used = cpu()
	began = time.Now()
	fail := max(1, n/100)
	for range fail {
		time.Sleep(time.Minute / time.Duration(fail))
		nodes[len(nodes)-1].kill()
		nodes = nodes[:len(nodes)-1]
	}
	noticed := settled(nodes, len(nodes), 5*time.Minute)
	lasted := time.Since(began).Seconds()
	steadyCPU, steadyBytes := cpu()-used, c.bytes.Load()
	if noticed == 0 {
		t.Errorf("%d nodes did not notice that %d had failed", n, fail)
	}

	c.split.Store(true)
	time.Sleep(2 * time.Minute)
	if got := nodes[0].list.NumMembers(); got > len(nodes)*3/4 {
		t.Errorf("%d of %d nodes were not noticed to be cut off", got, len(nodes))
	}
	c.split.Store(false)
	healed := settled(nodes, len(nodes), 10*time.Minute)
	if healed == 0 {
		t.Errorf("%d nodes did not come together again", n)
	}
	per := float64(n)
	fmt.Printf("%5d | %7.1f s | %6.1f ms | %7.0f | %6.1f s | %6.1f s | %6.2f | %6.2f ms | %8.0f\n", n, joined.Seconds(),
		float64(joinCPU.Microseconds())/1000/per, float64(joinBytes)/1024/per, noticed.Seconds(), healed.Seconds(),
		float64(steadyBytes)/1024/per/lasted, float64(steadyCPU.Microseconds())/1000/per/lasted, float64(joinVerifies)/per)
	for _, g := range nodes {
		g.kill()
	}
	time.Sleep(2 * time.Minute) // memberlist's probes end by themselves
}
