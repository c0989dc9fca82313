package testnet

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
)

// ports are the loopback addresses of a node.
type ports struct {
	Mesh string `json:"mesh"`
	API  string `json:"api"`
}

// Systems give ports of this span to whoever connects or asks for any: a port in it can be
// taken between its choice and the node's binding it, and again while the node is down.
const (
	ephemeralFile              = "/proc/sys/net/ipv4/ip_local_port_range"
	ephemeralLow, ephemeralEnd = 32768, 61000 // where that cannot be read
	firstPort, endPort         = 10000, 65536
	portTries                  = 2000
)

// claims are ports that this process keeps for a network: no other network on this machine
// is given them until they are closed.
type claims []io.Closer

func (c claims) Close() (err error) {
	for _, h := range c {
		err = errors.Join(err, h.Close())
	}
	return err
}

// choosePorts gives every site two ports that nobody has, outside the span that systems
// give away by themselves.
func choosePorts(sites []*site) (kept claims, err error) {
	low, end := ephemeral()
	defer func() {
		if err != nil {
			err = errors.Join(err, kept.Close())
			kept = nil
		}
	}()
	next := func(network string) (string, error) {
		for range portTries {
			port := firstPort + rand.IntN(endPort-firstPort)
			if port >= low && port < end {
				continue
			}
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			if c, ok := claim(network, addr); ok {
				kept = append(kept, c)
				return addr, nil
			}
		}
		return "", fmt.Errorf("no free %s port outside %d to %d, which connections take", network, low, end-1)
	}
	for _, s := range sites {
		if s.ports.Mesh, err = next("udp"); err != nil {
			return kept, err
		}
		if s.ports.API, err = next("tcp"); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// claim keeps a port for this process if nobody else did, and nobody has it bound. The
// mark is a socket of the kernel's, which goes when this process does.
func claim(network, addr string) (io.Closer, bool) {
	mark, err := net.Listen("unix", "@crossroads-testnet/"+network+"/"+addr)
	if err != nil {
		return nil, false
	}
	var bound io.Closer
	if network == "udp" {
		bound, err = net.ListenPacket(network, addr)
	} else {
		bound, err = net.Listen(network, addr)
	}
	if err == nil {
		err = bound.Close()
	}
	if err != nil {
		_ = mark.Close()
		return nil, false
	}
	return mark, true
}

// ephemeral gives the span of ports that the system gives away, its end not included.
func ephemeral() (low, end int) {
	b, err := os.ReadFile(ephemeralFile)
	if err == nil {
		var last int
		if n, _ := fmt.Sscan(string(b), &low, &last); n == 2 && low <= last {
			return low, last + 1
		}
	}
	return ephemeralLow, ephemeralEnd
}
