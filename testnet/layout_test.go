package testnet

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLayoutIsKept: a folder gives the network that it was made for, with whoever was made
// a member since, and no other.
func TestLayoutIsKept(t *testing.T) {
	o, err := Options{Nodes: 4, Members: 3, Persons: 100, Dir: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	made, err := openLayout(o)
	if err != nil {
		t.Fatal(err)
	}
	made.sites[3].member = true
	if err := made.writeNetwork(o, true); err != nil {
		t.Fatal(err)
	}
	kept, err := openLayout(o)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range kept.sites {
		if !s.member || s.token != made.sites[i].token || s.ports != made.sites[i].ports {
			t.Errorf("%s came back otherwise: %+v", s.ID, s)
		}
	}
	o.Careers = true
	if _, err := openLayout(o); !errors.Is(err, ErrOptions) {
		t.Errorf("with other records: %v", err)
	}
}

// TestPortsAreKept: the ports of networks that are up at once differ, and lie where no
// connection takes one; they are free again when a network is gone.
func TestPortsAreKept(t *testing.T) {
	low, end := ephemeral()
	seen := map[string]bool{}
	var kept []claims
	for range 20 {
		sites := make([]*site, 30)
		for i := range sites {
			sites[i] = new(site)
		}
		c, err := choosePorts(sites)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, c)
		for _, s := range sites {
			for network, addr := range map[string]string{"udp": s.ports.Mesh, "tcp": s.ports.API} {
				at := network + addr
				_, text, err := net.SplitHostPort(addr)
				if err != nil {
					t.Fatal(err)
				}
				port, err := strconv.Atoi(text)
				if err != nil || port >= low && port < end {
					t.Errorf("%s lies from %d to %d", addr, low, end)
				}
				if seen[at] {
					t.Errorf("%s is given twice", at)
				}
				seen[at] = true
				if c, ok := claim(network, addr); ok {
					_ = c.Close()
					t.Errorf("%s can be claimed again", at)
				}
			}
		}
	}
	for _, c := range kept {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, ok := claim("tcp", taken.Addr().String()); ok {
		t.Error("a port that is bound is claimed")
	}
	for at := range seen {
		c, ok := claim(at[:3], at[3:])
		if !ok {
			t.Fatalf("%s is not free again", at)
		}
		_ = c.Close()
		break
	}
}

// TestEndedNodeSaysWhy: the error of a node that ended carries the end of its log.
func TestEndedNodeSaysWhy(t *testing.T) {
	s := &site{dir: t.TempDir()}
	before := strings.Repeat("an older line\n", 1000)
	if err := os.WriteFile(filepath.Join(s.dir, "node.log"), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := startProcess(Options{Binary: "/bin/ls"}, s) // has no file "node"
	if err != nil {
		t.Fatal(err)
	}
	<-r.done()
	if err := r.err(); err == nil || !strings.Contains(err.Error(), "exit status") || !strings.Contains(err.Error(), "config") || len(err.Error()) > 2*logTail {
		t.Errorf("%v", err)
	}
}
