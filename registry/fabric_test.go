package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// fabric is the network between the registries of one test: TCP on loopback for
// raft, direct calls for the rest. Links can be cut, as by a dead cable, and what
// arrives at a node can be held back and then delivered late.
type fabric struct {
	mu    sync.Mutex
	nodes map[names.NodeID]*registry.Registry
	addrs map[names.NodeID]string
	cut   map[[2]names.NodeID]bool
	held  map[names.NodeID]*gates
	conns map[*fabricConn]struct{}
	// lie, if set, may change what a member sends to a watcher, or drop it; not to a member,
	// which also watches others while it hears no leader.
	lie func(member names.NodeID, e *registrypb.WatchEvent) *registrypb.WatchEvent
	// wire, if set, may change what one node writes on a consensus connection to another.
	wire func(from, to names.NodeID, b []byte) []byte
	// answer, if set, may change what a node answers.
	answer func(from, to names.NodeID, method string, req, resp any)
	// swallow, if set, says that a node does nothing of what it is asked, and answers as if.
	swallow func(to names.NodeID, req any) bool
	// lose, if set, says that an answer is lost on its way back.
	lose func(to names.NodeID, method string) bool
}

func newFabric() *fabric {
	return &fabric{
		nodes: map[names.NodeID]*registry.Registry{}, addrs: map[names.NodeID]string{},
		cut: map[[2]names.NodeID]bool{}, held: map[names.NodeID]*gates{}, conns: map[*fabricConn]struct{}{},
	}
}

var errCut = errors.New("no route")

func (f *fabric) isCut(a, b names.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut[[2]names.NodeID{a, b}]
}

// isolate cuts n from everybody, or heals that.
func (f *fabric) isolate(n names.NodeID, from []names.NodeID, cut bool) {
	f.mu.Lock()
	var broken []*fabricConn
	for _, o := range from {
		if o == n {
			continue
		}
		f.cut[[2]names.NodeID{n, o}], f.cut[[2]names.NodeID{o, n}] = cut, cut
		for c := range f.conns {
			if !cut && c.lost && (c.self == n && c.peer == o || c.self == o && c.peer == n) {
				broken = append(broken, c)
			}
		}
	}
	f.mu.Unlock()
	for _, c := range broken { // bytes are missing from these
		c.Close()
	}
}

// hold keeps back all that arrives at n, until it is released: the answers to what
// n asked, and then all the rest.
func (f *fabric) hold(n names.NodeID) (answers, rest func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &gates{make(chan struct{}), make(chan struct{})}
	f.held[n] = g
	answers = sync.OnceFunc(func() { close(g.answers) })
	return answers, sync.OnceFunc(func() {
		f.mu.Lock()
		delete(f.held, n)
		f.mu.Unlock()
		answers()
		close(g.rest)
	})
}

type gates struct{ answers, rest chan struct{} }

// layer is a raft.StreamLayer of one node.
type layer struct {
	net.Listener
	f    *fabric
	self names.NodeID
}

func (f *fabric) layer(self names.NodeID) (*layer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs[self] = l.Addr().String()
	return &layer{l, f, self}, nil
}

type nodeAddr names.NodeID

func (a nodeAddr) Network() string { return "fabric" }
func (a nodeAddr) String() string  { return names.NodeID(a).String() }

func (l *layer) Addr() net.Addr { return nodeAddr(l.self) }

func (l *layer) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := bufio.NewReaderSize(c, 64)
		line, err := r.ReadString('\n')
		if err != nil {
			c.Close()
			continue
		}
		peer, err := names.ParseNodeID(strings.TrimSpace(line))
		if err != nil {
			c.Close()
			continue
		}
		return l.f.wrap(c, r, l.self, peer, false), nil
	}
}

func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	peer, err := names.ParseNodeID(string(to))
	if err != nil {
		return nil, err
	}
	if l.f.isCut(l.self, peer) {
		time.Sleep(min(timeout, 50*time.Millisecond)) // as a dial that nobody answers
		return nil, errCut
	}
	l.f.mu.Lock()
	addr := l.f.addrs[peer]
	l.f.mu.Unlock()
	c, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "%s\n", l.self); err != nil {
		c.Close()
		return nil, err
	}
	return l.f.wrap(c, bufio.NewReader(c), l.self, peer, true), nil
}

type fabricConn struct {
	net.Conn
	f          *fabric
	r          *bufio.Reader
	self, peer names.NodeID
	dialed     bool // by self
	lost       bool // guarded by f.mu
	closed     chan struct{}
	once       sync.Once
}

func (f *fabric) wrap(c net.Conn, r *bufio.Reader, self, peer names.NodeID, dialed bool) *fabricConn {
	w := &fabricConn{Conn: c, f: f, r: r, self: self, peer: peer, dialed: dialed, closed: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[w] = struct{}{}
	return w
}

func (c *fabricConn) RemoteAddr() net.Addr { return nodeAddr(c.peer) }

func (c *fabricConn) Read(b []byte) (int, error) {
	for {
		n, err := c.r.Read(b)
		if err != nil {
			return n, err
		}
		c.f.mu.Lock()
		held := c.f.held[c.self]
		cut := c.f.cut[[2]names.NodeID{c.peer, c.self}]
		c.lost = c.lost || cut
		c.f.mu.Unlock()
		if held != nil {
			gate := held.rest
			if c.dialed {
				gate = held.answers
			}
			select {
			case <-gate:
			case <-c.closed:
				return 0, net.ErrClosed
			}
		}
		if !cut {
			return n, nil
		}
	}
}

func (c *fabricConn) Write(b []byte) (int, error) {
	c.f.mu.Lock()
	cut := c.f.cut[[2]names.NodeID{c.self, c.peer}]
	c.lost = c.lost || cut
	wire := c.f.wire
	c.f.mu.Unlock()
	if cut {
		return len(b), nil
	}
	if wire != nil {
		b = wire(c.self, c.peer, b)
	}
	return c.Conn.Write(b)
}

func (c *fabricConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.f.mu.Lock()
	delete(c.f.conns, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

// peers is registry.Peers of one node.
type peers struct {
	f    *fabric
	self names.NodeID
}

// reach gives the registry of to, or waits as for an answer that does not come.
func (p peers) reach(ctx context.Context, to names.NodeID) (*registry.Registry, error) {
	if p.f.isCut(p.self, to) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	p.f.mu.Lock()
	r := p.f.nodes[to]
	p.f.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("%s: connection refused", to)
	}
	return r, nil
}

func (p peers) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error {
	r, err := p.reach(ctx, to)
	if err != nil {
		return err
	}
	var out proto.Message
	p.f.mu.Lock()
	swallow := p.f.swallow
	p.f.mu.Unlock()
	if swallow != nil && swallow(to, req) {
		out = proto.Clone(resp)
		req = nil
	}
	switch q := cloneOf(req).(type) {
	case *registrypb.SubmitRequest:
		out, err = r.HandleSubmit(ctx, p.self, q)
	case *registrypb.GrantRequest:
		out, err = r.HandleGrant(ctx, p.self, q)
	case *registrypb.HeadRequest:
		out, err = r.HandleHead(ctx, p.self, q)
	case *registrypb.StateRequest:
		out, err = r.HandleState(ctx, p.self, q)
	case *registrypb.StateRowsRequest:
		out, err = r.HandleStateRows(ctx, p.self, q)
	case *registrypb.RemovalsRequest:
		out, err = r.HandleRemovals(ctx, p.self, q)
	case *registrypb.StatusRequest:
		out, err = r.HandleStatus(ctx, p.self, q)
	}
	p.f.mu.Lock()
	held, lose, answer := p.f.held[p.self], p.f.lose, p.f.answer
	p.f.mu.Unlock()
	if answer != nil && err == nil {
		answer(p.self, to, method, req, out)
	}
	if held != nil {
		select {
		case <-held.rest:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if p.f.isCut(p.self, to) {
		<-ctx.Done()
		return ctx.Err()
	}
	if lose != nil && lose(to, method) {
		return errors.New("connection reset")
	}
	if err != nil {
		return err
	}
	proto.Merge(resp, out)
	return nil
}

func (p peers) Watch(ctx context.Context, to names.NodeID, req *registrypb.WatchRequest) (registry.WatchStream, error) {
	r, err := p.reach(ctx, to)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{ctx: ctx, cancel: cancel, events: make(chan *registrypb.WatchEvent), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		cancel(r.HandleWatch(ctx, p.self, req, func(e *registrypb.WatchEvent) error {
			if p.f.isCut(p.self, to) {
				<-ctx.Done()
				return ctx.Err()
			}
			p.f.mu.Lock()
			lie, member := p.f.lie, p.f.addrs[p.self] != ""
			p.f.mu.Unlock()
			if lie != nil && !member {
				if e = lie(to, e); e == nil {
					return nil
				}
			}
			select {
			case s.events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}))
	}()
	return s, nil
}

type stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	events chan *registrypb.WatchEvent
	done   chan struct{}
}

func (s *stream) Receive() (*registrypb.WatchEvent, error) {
	select {
	case e := <-s.events:
		return e, nil
	case <-s.ctx.Done():
		return nil, context.Cause(s.ctx)
	}
}

func (s *stream) Close() {
	s.cancel(errors.New("closed"))
	<-s.done
}

func cloneOf(m proto.Message) proto.Message {
	if m == nil {
		return nil
	}
	return proto.Clone(m)
}
