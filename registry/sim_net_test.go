package registry_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// simNet is a network in memory that keeps time with timers, and so costs no time in a
// bubble. Ways may be cut, each direction by itself, and lose messages; those of a
// connection are sent again a little later, questions and answers are gone. It is safe
// for concurrent use.
type simNet struct {
	mu    sync.Mutex
	dice  *rand.Rand
	nodes map[names.NodeID]*simNode
	cut   map[[2]names.NodeID]bool
	loss  float64
	held  map[names.NodeID]*simHeld
	// lie, if set, may change what a member sends to a watcher; not to a member, which also
	// watches others while it hears no leader.
	lie func(member names.NodeID, e *registrypb.WatchEvent) *registrypb.WatchEvent
	// answer, if set, gives what the node to answers, in place of resp and err.
	answer func(from, to names.NodeID, req, resp proto.Message, err error) (proto.Message, error)
	// watched, if set, is told who begins to follow whom.
	watched func(from, to names.NodeID)
}

// simHeld is what waits to arrive at a node: answers on connections that it opened, and
// the rest.
type simHeld struct{ answers, rest simGate }

type simGate struct {
	open    bool
	waiting []func()
}

type simNode struct {
	id     names.NodeID
	reg    *registry.Registry
	accept chan *simConn
	conns  map[*simConn]struct{}
	dead   chan struct{} // closed at the moment of a crash
}

const (
	resend     = 200 * time.Millisecond
	giveUp     = 3 * time.Second // of a question that is not answered
	simLatency = 2 * time.Millisecond
)

func newSimNet(dice *rand.Rand) *simNet {
	return &simNet{dice: dice, nodes: map[names.NodeID]*simNode{}, cut: map[[2]names.NodeID]bool{}, held: map[names.NodeID]*simHeld{}}
}

// hold keeps back all that arrives at a node on consensus connections, until answers lets
// the answers to what it asked go.
func (n *simNet) hold(id names.NodeID) (answers, rest func()) {
	h := new(simHeld)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held[id] = h
	release := func(g *simGate) func() {
		return func() {
			n.mu.Lock()
			g.open = true
			waiting := g.waiting
			g.waiting = nil
			n.mu.Unlock()
			for _, deliver := range waiting {
				deliver()
			}
		}
	}
	return release(&h.answers), release(&h.rest)
}

// keptBack reports whether deliver waits for the node to be let go.
func (n *simNet) keptBack(c *simConn, deliver func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.held[c.self.id]
	if h == nil {
		return false
	}
	g := &h.rest
	if c.dialed {
		g = &h.answers
	}
	if g.open {
		return false
	}
	g.waiting = append(g.waiting, deliver)
	return true
}

// passes tells whether a message gets through now, and how long it takes.
func (n *simNet) passes(from, to names.NodeID) (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	latency := simLatency/2 + time.Duration(n.dice.Int64N(int64(simLatency)))
	return latency, !n.cut[[2]names.NodeID{from, to}] && n.dice.Float64() >= n.loss
}

func (n *simNet) setCut(from, to names.NodeID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]names.NodeID{from, to}] = cut
}

func (n *simNet) setLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

func (n *simNet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.loss = 0
}

// join opens a node's end; layer is its consensus connections.
func (n *simNet) join(id names.NodeID) (*simNode, *simLayer) {
	node := &simNode{id: id, accept: make(chan *simConn), conns: map[*simConn]struct{}{}, dead: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[id] = node
	return node, &simLayer{n, node, make(chan struct{}), sync.Once{}}
}

// crash ends what a node says, at once.
func (n *simNet) crash(node *simNode) {
	n.mu.Lock()
	select {
	case <-node.dead:
	default:
		close(node.dead)
	}
	if n.nodes[node.id] == node {
		delete(n.nodes, node.id)
	}
	var open []*simConn
	for c := range node.conns {
		open = append(open, c)
	}
	n.mu.Unlock()
	for _, c := range open {
		c.peer.end(io.EOF)
		c.end(net.ErrClosed)
	}
}

func (n *simNet) node(id names.NodeID) *simNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[id]
}

// simLayer is a raft.StreamLayer.
type simLayer struct {
	net    *simNet
	self   *simNode
	closed chan struct{}
	once   sync.Once
}

func (l *simLayer) Addr() net.Addr { return nodeAddr(l.self.id) }

func (l *simLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *simLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.self.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	peer, err := names.ParseNodeID(string(to))
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		there, back := l.net.node(peer), true
		if _, ok := l.net.passes(l.self.id, peer); !ok {
			there = nil
		} else if _, back = l.net.passes(peer, l.self.id); !back {
			there = nil
		}
		if there != nil {
			a, b := l.net.pipe(l.self, there)
			select {
			case there.accept <- b:
				return a, nil
			case <-there.dead:
			case <-l.closed:
			case <-timer.C:
			}
			a.Close()
			return nil, errCut
		}
		select {
		case <-time.After(resend):
		case <-l.closed:
			return nil, net.ErrClosed
		case <-l.self.dead:
			return nil, net.ErrClosed
		case <-timer.C:
			return nil, errCut
		}
	}
}

// simConn is one end of a connection; what is written arrives at the other, in order.
type simConn struct {
	net      *simNet
	self     *simNode
	peer     *simConn
	mu       sync.Mutex
	in       []byte
	err      error         // that reading ends with
	sent     time.Time     // when the last message arrives
	wake     chan struct{} // buffered
	deadline time.Time
	closed   chan struct{}
	once     sync.Once
	dialed   bool // by self
}

func (n *simNet) pipe(a, b *simNode) (*simConn, *simConn) {
	one := func(self *simNode) *simConn {
		return &simConn{net: n, self: self, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	}
	x, y := one(a), one(b)
	x.peer, y.peer, x.dialed = y, x, true
	n.mu.Lock()
	defer n.mu.Unlock()
	a.conns[x], b.conns[y] = struct{}{}, struct{}{}
	return x, y
}

func (c *simConn) LocalAddr() net.Addr  { return nodeAddr(c.self.id) }
func (c *simConn) RemoteAddr() net.Addr { return nodeAddr(c.peer.self.id) }

func (c *simConn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.send(append([]byte(nil), b...), time.Now())
	return len(b), nil
}

// send brings b to the other end, after what was sent before, at the first try that is
// neither cut nor lost.
func (c *simConn) send(b []byte, from time.Time) {
	c.mu.Lock()
	latency, ok := c.net.passes(c.self.id, c.peer.self.id)
	at := from.Add(latency)
	for tries := 0; !ok && tries < 4; tries++ { // lost, and lost again; a cut is looked at then
		at = at.Add(resend)
		_, ok = c.net.passes(c.self.id, c.peer.self.id)
	}
	if !at.After(c.sent) {
		at = c.sent.Add(time.Microsecond)
	}
	c.sent = at
	c.mu.Unlock()
	time.AfterFunc(time.Until(at), func() { c.arrive(b) })
}

// arrive hands b over, or, while the way is cut, tries again: bytes behind it wait as well,
// since each waits for the one before.
func (c *simConn) arrive(b []byte) {
	select {
	case <-c.closed:
		return
	default:
	}
	c.net.mu.Lock()
	cut := c.net.cut[[2]names.NodeID{c.self.id, c.peer.self.id}]
	c.net.mu.Unlock()
	if cut { // bytes are missing from now on: the connection is of no use any more
		c.peer.end(errors.New("connection lost"))
		return
	}
	p := c.peer
	deliver := func() {
		p.mu.Lock()
		if p.err == nil {
			p.in = append(p.in, b...)
		}
		p.mu.Unlock()
		p.rouse()
	}
	if !c.net.keptBack(p, deliver) {
		deliver()
	}
}

func (c *simConn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *simConn) end(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.rouse()
}

func (c *simConn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		if len(c.in) > 0 {
			n := copy(b, c.in)
			c.in = c.in[n:]
			c.mu.Unlock()
			return n, nil
		}
		err, deadline := c.err, c.deadline
		c.mu.Unlock()
		if err != nil {
			c.rouse()
			return 0, err
		}
		var late <-chan time.Time
		var timer *time.Timer
		if !deadline.IsZero() {
			if !time.Now().Before(deadline) {
				return 0, os.ErrDeadlineExceeded
			}
			timer = time.NewTimer(time.Until(deadline))
			late = timer.C
		}
		select {
		case <-c.wake:
		case <-late:
		case <-c.closed:
			if timer != nil {
				timer.Stop()
			}
			return 0, net.ErrClosed
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

func (c *simConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.net.mu.Lock()
		delete(c.self.conns, c)
		c.net.mu.Unlock()
		time.AfterFunc(simLatency, func() { c.peer.end(io.EOF) })
	})
	return nil
}

func (c *simConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	c.rouse()
	return nil
}

func (c *simConn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *simConn) SetWriteDeadline(t time.Time) error { return nil }

// simPeers is registry.Peers of one node.
type simPeers struct {
	net  *simNet
	self *simNode
}

var errNoAnswer = errors.New("no answer")

// travel takes a message's time, or fails when it is lost.
func (p simPeers) travel(ctx context.Context, from, to names.NodeID) error {
	takes, ok := p.net.passes(from, to)
	if !ok {
		takes = giveUp
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	case <-p.self.dead:
		return net.ErrClosed
	}
	if !ok {
		return errNoAnswer
	}
	return nil
}

func (p simPeers) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error {
	if err := p.travel(ctx, p.self.id, to); err != nil {
		return err
	}
	there := p.net.node(to)
	if there == nil {
		return errNoAnswer
	}
	out, err := simServe(ctx, there.reg, p.self.id, proto.Clone(req))
	select {
	case <-there.dead: // what it did then it told nobody
		return errNoAnswer
	default:
	}
	if err := p.travel(ctx, to, p.self.id); err != nil {
		return err
	}
	p.net.mu.Lock()
	answer := p.net.answer
	p.net.mu.Unlock()
	if answer != nil {
		out, err = answer(p.self.id, to, req, out, err)
	}
	if err != nil {
		return err
	}
	proto.Merge(resp, out)
	return nil
}

func simServe(ctx context.Context, r *registry.Registry, from names.NodeID, req proto.Message) (proto.Message, error) {
	switch q := req.(type) {
	case *registrypb.SubmitRequest:
		return r.HandleSubmit(ctx, from, q)
	case *registrypb.GrantRequest:
		return r.HandleGrant(ctx, from, q)
	case *registrypb.HeadRequest:
		return r.HandleHead(ctx, from, q)
	case *registrypb.StateRequest:
		return r.HandleState(ctx, from, q)
	case *registrypb.RemovalsRequest:
		return r.HandleRemovals(ctx, from, q)
	}
	if q, ok := req.(*registrypb.StateRowsRequest); ok {
		return r.HandleStateRows(ctx, from, q)
	}
	return nil, errors.New("no such method")
}

// Watch brings events one after another; one that is lost ends it.
func (p simPeers) Watch(ctx context.Context, to names.NodeID, req *registrypb.WatchRequest) (registry.WatchStream, error) {
	if err := p.travel(ctx, p.self.id, to); err != nil {
		return nil, err
	}
	there := p.net.node(to)
	if there == nil {
		return nil, errNoAnswer
	}
	p.net.mu.Lock()
	if p.net.watched != nil {
		p.net.watched(p.self.id, to)
	}
	p.net.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{ctx: ctx, cancel: cancel, events: make(chan *registrypb.WatchEvent), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		cancel(there.reg.HandleWatch(ctx, p.self.id, req, func(e *registrypb.WatchEvent) error {
			if err := p.travel(ctx, to, p.self.id); err != nil {
				return err
			}
			p.net.mu.Lock()
			lie := p.net.lie
			p.net.mu.Unlock()
			if there := p.net.node(p.self.id); lie != nil && there != nil && !there.reg.IsMember() {
				e = lie(to, e)
			}
			select {
			case s.events <- e:
				return nil
			case <-there.dead:
				return errNoAnswer
			case <-ctx.Done():
				return ctx.Err()
			}
		}))
	}()
	return s, nil
}
