package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// guardedStream is the given stream layer, open to voters only, with every
// connection accounted for: raft's own transport leaves those it accepted running
// when it is closed.
type guardedStream struct {
	raft.StreamLayer
	voter func(names.NodeID) bool
	log   *slog.Logger

	mu     sync.Mutex
	closed bool
	conns  map[*trackedConn]struct{}
	idle   sync.Cond // conns became empty
}

func newGuardedStream(s raft.StreamLayer, voter func(names.NodeID) bool, log *slog.Logger) *guardedStream {
	g := &guardedStream{StreamLayer: s, voter: voter, log: log, conns: make(map[*trackedConn]struct{})}
	g.idle.L = &g.mu
	return g
}

// Accept gives the next connection that comes from a voter. The connection's
// remote address is the authenticated NodeID of its other end.
func (g *guardedStream) Accept() (net.Conn, error) {
	for {
		c, err := g.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		from, err := names.ParseNodeID(c.RemoteAddr().String())
		if err != nil || !g.voter(from) {
			g.log.Warn("consensus connection refused: not from a voter of the members record", "from", c.RemoteAddr().String())
			c.Close()
			continue
		}
		return g.track(c)
	}
}

// Dial connects to a voter.
func (g *guardedStream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := names.ParseNodeID(string(to))
	if err != nil {
		return nil, err
	}
	if !g.voter(id) {
		return nil, fmt.Errorf("%s is no voter of the members record", id)
	}
	c, err := g.StreamLayer.Dial(to, timeout)
	if err != nil {
		return nil, err
	}
	return g.track(c)
}

func (g *guardedStream) track(c net.Conn) (net.Conn, error) {
	t := &trackedConn{Conn: c, of: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	g.conns[t] = struct{}{}
	return t, nil
}

// Close closes the layer and cuts every connection.
func (g *guardedStream) Close() error {
	g.mu.Lock()
	g.closed = true
	var open []*trackedConn
	for c := range g.conns {
		open = append(open, c)
	}
	g.mu.Unlock()
	err := g.StreamLayer.Close()
	for _, c := range open {
		c.Conn.Close() // whoever uses it fails, and then closes the trackedConn
	}
	return err
}

// drop cuts the connections with peers that are voters no longer.
func (g *guardedStream) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if id, err := names.ParseNodeID(c.RemoteAddr().String()); err != nil || !g.voter(id) {
			c.Conn.Close()
		}
	}
}

// join waits until every user of a connection has let go of it.
func (g *guardedStream) join() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.conns) > 0 {
		g.idle.Wait()
	}
}

type trackedConn struct {
	net.Conn
	of *guardedStream
}

func (c *trackedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	if len(c.of.conns) == 0 {
		c.of.idle.Broadcast()
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// witnessTransport is raft's network transport that remembers, for every follower,
// when the last heartbeat was SENT that it answered with yes. See confirm for why
// raft's own VerifyLeader is not enough.
type witnessTransport struct {
	*raft.NetworkTransport // with pre-vote and close

	mayVote func() bool
	rpcs    chan raft.RPC
	stop    context.CancelFunc
	passing sync.WaitGroup

	mu   sync.Mutex
	last map[raft.ServerID]witness
}

type witness struct {
	term uint64
	sent time.Time // monotonic
}

var (
	_ raft.WithPreVote = (*witnessTransport)(nil)
	_ raft.WithClose   = (*witnessTransport)(nil)
)

// newWitnessTransport begins to pass on what comes in; Close ends and joins that.
func newWitnessTransport(t *raft.NetworkTransport, mayVote func() bool) *witnessTransport {
	ctx, stop := context.WithCancel(context.Background())
	w := &witnessTransport{NetworkTransport: t, mayVote: mayVote, rpcs: make(chan raft.RPC), stop: stop, last: make(map[raft.ServerID]witness)}
	w.passing.Go(func() { w.pass(ctx) })
	return w
}

// Consumer gives what raft is asked.
func (w *witnessTransport) Consumer() <-chan raft.RPC { return w.rpcs }

// Close closes the transport.
func (w *witnessTransport) Close() error {
	err := w.NetworkTransport.Close()
	w.stop()
	w.passing.Wait()
	return err
}

var errForgot = errors.New("this member's log is not whole yet: it may have forgotten how it voted")

// pass hands raft what comes in, except that a member that may not vote is not asked to.
func (w *witnessTransport) pass(ctx context.Context) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-w.NetworkTransport.Consumer():
		case <-ctx.Done():
			return
		}
		switch rpc.Command.(type) {
		case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
			if !w.mayVote() {
				rpc.Respond(nil, errForgot)
				continue
			}
		}
		select {
		case w.rpcs <- rpc:
		case <-ctx.Done():
			rpc.Respond(nil, raft.ErrTransportShutdown)
			return
		}
	}
}

// AppendEntries passes on to the network and notes a follower's consent.
func (w *witnessTransport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	// raft reuses resp for every heartbeat; an answer that leaves a field out must
	// not inherit the last one's.
	*resp = raft.AppendEntriesResponse{}
	if err := w.NetworkTransport.AppendEntries(id, to, req, resp); err != nil {
		return err
	}
	if resp.Success && resp.Term == req.Term {
		w.note(id, witness{req.Term, sent})
	}
	return nil
}

func (w *witnessTransport) note(id raft.ServerID, seen witness) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was := w.last[id]; was.term < seen.term || was.term == seen.term && was.sent.Before(seen.sent) {
		w.last[id] = seen
	}
}

// majority reports whether self and those servers that consented, in term, to a
// heartbeat sent after since are a majority of the voters.
func (w *witnessTransport) majority(voters []raft.ServerID, self raft.ServerID, term uint64, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	yes := 0
	for _, id := range voters {
		if id == self {
			yes++
		} else if seen := w.last[id]; seen.term == term && seen.sent.After(since) {
			yes++
		}
	}
	return yes > len(voters)/2
}
