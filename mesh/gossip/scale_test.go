package gossip

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestScale measures sixteen nodes, or
//
//	GOSSIP_NODES=300,1000 GOSSIP_MINUTES=10 GOSSIP_LOSS=0.01 go test ./mesh/gossip -run TestScale -v -timeout 0
//
// With GOSSIP_LIGHT=1 packets are not sealed, and there is no QUIC (see post).
//
// They join, one each 20 ms; 1 % of them fail in each of so many minutes (1 unless told); they
// are cut in halves for two minutes, and healed. How many messages there are grows with the
// square of the nodes, and so do memory and the time that a run takes: see docs/proof.md.
func TestScale(t *testing.T) {
	minutes, err := strconv.Atoi(cmp.Or(os.Getenv("GOSSIP_MINUTES"), "1"))
	if err != nil {
		t.Fatal(err)
	}
	loss, err := strconv.ParseFloat(cmp.Or(os.Getenv("GOSSIP_LOSS"), "0"), 64)
	if err != nil {
		t.Fatal(err)
	}
	for s := range strings.SplitSeq(cmp.Or(os.Getenv("GOSSIP_NODES"), "16"), ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(s, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { scale(t, n, minutes, loss) })
		})
	}
}

func scale(t *testing.T, n, minutes int, loss float64) {
	c := newCrowd(t, loss)
	if os.Getenv("GOSSIP_LIGHT") != "" {
		c.post = newPost()
		defer c.post.close()
	}
	fail := max(1, n/100)
	var seeds []Seed
	for i := range n {
		g := c.join(i+2, seeds)
		c.nodes = append(c.nodes, g)
		if len(seeds) < 5 {
			seeds = append(seeds, seedOf(g))
		}
		time.Sleep(20 * time.Millisecond)
	}
	joined := c.settled(10 * time.Minute)
	if joined == 0 {
		t.Errorf("%d nodes did not find each other", n)
	}
	c.know()
	c.report("join", n, "all know all %s after the last joined", joined)

	noticed := c.failing(minutes, fail)
	c.know()
	c.report("failures", n, "%d failed; until all had noticed one: half of them %s, the last %s", len(noticed), noticed[len(noticed)/2], noticed[len(noticed)-1])

	c.split.Store(true)
	time.Sleep(2 * time.Minute)
	if got := c.nodes[0].list.NumMembers(); got > len(c.nodes)*3/4 {
		t.Errorf("%d of %d nodes were not noticed to be cut off", got, len(c.nodes))
	}
	c.report("halves", len(c.nodes), "cut for two minutes; the first node counts %d of %d", c.nodes[0].list.NumMembers(), len(c.nodes))
	c.split.Store(false)
	healed := c.settled(10 * time.Minute)
	if healed == 0 {
		t.Errorf("%d nodes did not come together again", n)
	}
	c.know()
	c.report("heal", len(c.nodes), "all know all %s after the halves hear each other", healed)

	c.silent.Store(true)
	var ending sync.WaitGroup
	for _, g := range c.nodes {
		ending.Go(g.kill)
	}
	ending.Wait()
	time.Sleep(time.Minute) // memberlist's probes end by themselves
}

// join starts a node.
func (c *crowd) join(i int, seeds []Seed) *gossiper {
	addr := fmt.Sprintf("10.%d.%d.%d:7000", 1+i>>16, i>>8&255, i&255)
	g := c.prepare(fmt.Sprintf("inst-%04d.n1", i), addr)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	cfg := Config{
		Name: g.name, Addr: addr, Key: g.key, ID: nodeID, Keys: c.reg.key, VerifyMeta: c.verify,
		SignMeta: func(b []byte) ([]byte, error) { return ed25519.Sign(g.signer, b), nil }, Seeds: func() []Seed { return seeds },
		Log: c.ear(),
	}
	var leave func()
	if c.post != nil {
		cfg.wire, leave = c.post.open(c, g.name, addr, byte(i&1))
	} else {
		c.secrets.add(g.key)
		c.listen(g, byte(i&1))
		wg.Go(func() { g.endpoint.Run(context.Background()) })
		cfg.Endpoint, cfg.agree = g.endpoint, c.secrets.agreement(g.key)
		leave = func() { g.endpoint.Close() }
	}
	var err error
	if g.Gossip, err = Open(cfg); err != nil {
		c.t.Fatal(err)
	}
	wg.Go(func() { g.Run(ctx) })
	g.kill = sync.OnceFunc(func() { leave(); cancel(); wg.Wait() })
	return g
}

// failing has nodes fail at even distances and gives how long it took until every other one
// had noticed, the shortest first.
func (c *crowd) failing(minutes, perMinute int) (noticed []time.Duration) {
	const step = 100 * time.Millisecond
	every := time.Minute / time.Duration(perMinute)
	type failure struct {
		name  string
		at    time.Time
		asked int // the nodes before this one have noticed
	}
	var open []*failure
	var ending sync.WaitGroup
	began := time.Now()
	for left := minutes * perMinute; time.Since(began) < time.Duration(minutes)*time.Minute || len(open) > 0; time.Sleep(step) {
		if failed := minutes*perMinute - left; left > 0 && time.Since(began) >= time.Duration(failed)*every {
			last := len(c.nodes) - 1
			open = append(open, &failure{name: c.nodes[last].name, at: time.Now()})
			ending.Go(c.nodes[last].kill)
			c.nodes = c.nodes[:last]
			left--
		}
		open = slices.DeleteFunc(open, func(f *failure) bool {
			for ; f.asked < len(c.nodes); f.asked++ {
				if _, alive := c.nodes[f.asked].Alive(f.name); alive {
					return false
				}
			}
			noticed = append(noticed, time.Since(f.at))
			return true
		})
		if len(open) > 0 && time.Since(open[0].at) > 5*time.Minute {
			c.t.Errorf("not all noticed that %s had failed", open[0].name)
			break
		}
	}
	ending.Wait()
	slices.Sort(noticed)
	return noticed
}

// settled gives how long it takes until every node counts all alive; 0: it did not happen.
func (c *crowd) settled(most time.Duration) time.Duration {
	began, want := time.Now(), len(c.nodes)
	for seen, next := 0, 0; time.Since(began) < most; {
		// From the one that missed somebody the last time, until all in turn missed nobody.
		for seen = 0; seen < want && c.nodes[next].list.NumMembers() == want; seen++ {
			next = (next + 1) % want
		}
		if seen == want {
			return max(time.Since(began), 1)
		}
		time.Sleep(250 * time.Millisecond)
	}
	return 0
}

// know checks that every node knows exactly the ones that run, and where.
func (c *crowd) know() {
	addrs := make(map[string]string, len(c.nodes))
	for _, g := range c.nodes {
		addrs[g.name] = g.addr
	}
	for _, g := range c.nodes {
		alive := 0
		for _, m := range g.Members() {
			if m.Alive && addrs[m.Name] == m.Addr {
				alive++
			} else if m.Alive {
				c.t.Fatalf("%s takes %s for alive at %s", g.name, m.Name, m.Addr)
			}
		}
		if alive != len(c.nodes) {
			c.t.Errorf("%s takes %d of %d for alive", g.name, alive, len(c.nodes))
			return
		}
	}
}

// report says what the time since the last report was like.
func (c *crowd) report(phase string, n int, how string, args ...any) {
	now, used := time.Now(), cpu()
	lasted, per := now.Sub(c.since).Seconds(), float64(n)
	sent, packets := float64(c.bytes.Swap(0))/1024/per, float64(c.packets.Swap(0))/per
	spent := (used - c.used).Seconds() * 1000 / per
	made, verifies := c.secrets.made.Swap(0), c.verifies.Swap(0)
	saved := (time.Duration(made)*c.agreeing + time.Duration(verifies)*c.verifying).Seconds() * 1000 / per
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c.t.Logf("%d %s: "+how, append([]any{n, phase}, args...)...)
	c.t.Logf("  %.1f s; each node sent %.0f KB in %.0f packets, %.2f KB/s, spent %.1f ms of CPU, and %.1f more in life for %.0f agreements and %.0f verifications, %.2f ms/s",
		lasted, sent, packets, sent/lasted, spent, saved, float64(made)/per, float64(verifies)/per, (spent+saved)/lasted)
	c.t.Logf("  contradicted: %d suspicions, %d deaths; %d messages lost to full queues, %d states refused; heap %d MB, of the system %d MB; CPU so far %.0f s",
		c.suspected.Swap(0), c.declared.Swap(0), c.overflows.Swap(0), c.refused.Swap(0), mem.HeapInuse>>20, mem.Sys>>20, used.Seconds())
	c.since, c.used = now, used
}
