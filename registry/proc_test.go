package registry_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The members of TestLinearizableProcesses are processes: this binary again, told by
// procEnv to be one. Consensus runs over TCP, questions are a line of JSON each way.
const procEnv = "REGISTRY_TEST_PROCESS"

type procSetup struct {
	Self  int
	Dir   string
	Raft  []string
	Calls []string
}

type procCall struct {
	From, Method, Err string
	Body              []byte
}

func procGenesis(members int) *genesis.File {
	group := func(role string) genesis.Group { return genesis.Group{Threshold: 1, Keys: groupKeys(role)} }
	f := &genesis.File{Mesh: "sim.example", Bounds: bounds, RecoveryDelay: time.Hour, Operators: group("operator"), Committee: group("committee"), Recovery: group("recovery")}
	for i := range members {
		inst := fmt.Sprintf("m%d", i+1)
		f.Members = append(f.Members, genesis.Member{Institution: names.InstitutionID(inst), Node: "a", Name: inst, Type: "office", Address: "127.0.0.1:1", PublicKey: public(inst)})
	}
	return f
}

type procLayer struct {
	net.Listener
	setup procSetup
}

func (s procSetup) id(i int) names.NodeID { return node(fmt.Sprintf("m%d", i+1)) }

func (l *procLayer) Addr() net.Addr { return nodeAddr(l.setup.id(l.setup.Self)) }

func (l *procLayer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	peer, err2 := names.ParseNodeID(strings.TrimSpace(line))
	if err != nil || err2 != nil {
		c.Close()
		return l.Accept()
	}
	return procConn{c, r, peer}, nil
}

func (l *procLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	for i, addr := range l.setup.Raft {
		if id := l.setup.id(i); id.String() == string(to) {
			c, err := net.DialTimeout("tcp", addr, timeout)
			if err != nil {
				return nil, err
			}
			_, err = fmt.Fprintf(c, "%s\n", l.setup.id(l.setup.Self))
			return procConn{c, bufio.NewReader(c), id}, err
		}
	}
	return nil, errNoAnswer
}

type procConn struct {
	net.Conn
	r    *bufio.Reader
	peer names.NodeID
}

func (c procConn) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c procConn) RemoteAddr() net.Addr       { return nodeAddr(c.peer) }

func procAsk(ctx context.Context, addr string, q procCall) ([]byte, error) {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })()
	var a procCall
	if err := errors.Join(json.NewEncoder(c).Encode(q), json.NewDecoder(c).Decode(&a)); err != nil {
		return nil, err
	}
	if a.Err != "" {
		return nil, errors.New(a.Err)
	}
	return a.Body, nil
}

type procPeers struct{ setup procSetup }

func (p procPeers) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	for i, addr := range p.setup.Calls {
		if p.setup.id(i) == to {
			if body, err = procAsk(ctx, addr, procCall{From: p.setup.id(p.setup.Self).String(), Method: method, Body: body}); err != nil {
				return err
			}
			return proto.Unmarshal(body, resp)
		}
	}
	return errNoAnswer
}

func (procPeers) Watch(context.Context, names.NodeID, *registrypb.WatchRequest) (registry.WatchStream, error) {
	return nil, errNoAnswer
}

// procMain is a member.
func procMain(setup procSetup) error {
	l, err := net.Listen("tcp", setup.Raft[setup.Self])
	if err != nil {
		return err
	}
	calls, err := net.Listen("tcp", setup.Calls[setup.Self])
	if err != nil {
		return err
	}
	self := setup.id(setup.Self)
	r, err := registry.Open(registry.Config{
		Self: self, Genesis: procGenesis(len(setup.Raft)), Dir: setup.Dir, Signer: key(string(self.Institution)), StorageKey: make([]byte, 32),
		Raft: &procLayer{l, setup}, Peers: procPeers{setup}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := calls.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var q procCall
				if json.NewDecoder(c).Decode(&q) == nil {
					body, err := procServe(r, q)
					a := procCall{Body: body}
					if err != nil {
						a.Err = err.Error()
					}
					_ = json.NewEncoder(c).Encode(a)
				}
			}()
		}
	}()
	return r.Run(context.Background())
}

func procServe(r *registry.Registry, q procCall) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch q.Method {
	case "submit":
		resp, err := r.Submit(ctx, q.Body)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(resp)
	case "head":
		seq, hash, err := r.Head(ctx, string(q.Body), registrypb.Chain_PUBLIC, 0)
		if err != nil {
			return nil, err
		}
		return json.Marshal(&registrypb.HeadResponse{Sequence: seq, Hash: hash})
	case "read":
		if err := r.CatchUp(ctx); err != nil {
			return nil, err
		}
		var out registrypb.HeadResponse
		err := r.View(func(v record.View) (err error) {
			if out.Sequence, _, err = v.Head(string(q.Body), registrypb.Chain_PUBLIC); err != nil {
				return err
			}
			n, err := v.Node(names.NodeID{Institution: names.InstitutionID(q.Body), Node: "x"})
			out.Hash = []byte(n.GetAddress())
			return err
		})
		if err != nil {
			return nil, err
		}
		return json.Marshal(&out)
	}
	from, err := names.ParseNodeID(q.From)
	if err != nil {
		return nil, err
	}
	req := map[string]proto.Message{
		registry.MethodSubmit: &registrypb.SubmitRequest{}, registry.MethodGrant: &registrypb.GrantRequest{}, registry.MethodHead: &registrypb.HeadRequest{},
		registry.MethodState: &registrypb.StateRequest{}, registry.MethodStatus: &registrypb.StatusRequest{}, registry.MethodStateRows: &registrypb.StateRowsRequest{},
		registry.MethodRemovals: &registrypb.RemovalsRequest{},
	}[q.Method]
	if req == nil {
		return nil, errNoAnswer
	}
	if err := proto.Unmarshal(q.Body, req); err != nil {
		return nil, err
	}
	if s, ok := req.(*registrypb.StatusRequest); ok {
		resp, err := r.HandleStatus(ctx, from, s)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(resp)
	}
	resp, err := simServe(ctx, r, from, req)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(resp)
}

// TestLinearizableProcesses is the same judgement over real processes with real disks,
// killed with kill -9 and frozen with SIGSTOP, for ten seconds or
// REGISTRY_PROCESSES=60.
func TestLinearizableProcesses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it starts processes, which are not under it")
	}
	lasts, err := strconv.Atoi(cmp.Or(os.Getenv("REGISTRY_PROCESSES"), "10"))
	if err != nil {
		t.Fatal(err)
	}
	const members = 3
	dice := rand.New(rand.NewPCG(uint64(lasts), 1))
	dir := t.TempDir()
	setup := procSetup{}
	for range 2 * members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if len(setup.Raft) < members {
			setup.Raft = append(setup.Raft, l.Addr().String())
		} else {
			setup.Calls = append(setup.Calls, l.Addr().String())
		}
	}
	procs := make([]*exec.Cmd, members)
	start := func(i int) {
		one := setup
		one.Self, one.Dir = i, filepath.Join(dir, strconv.Itoa(i))
		said, _ := json.Marshal(one)
		procs[i] = exec.Command(os.Args[0])
		procs[i].Env = append(os.Environ(), procEnv+"="+string(said))
		log, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		procs[i].Stderr = log
		if err := procs[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range members {
		start(i)
	}
	defer func() {
		for _, p := range procs {
			p.Process.Kill()
			p.Wait()
		}
	}()
	s := &sim{t: t, took: map[string]int{}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(lasts)*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() { s.procClient(ctx, c, setup.Calls, rand.New(rand.NewPCG(7, uint64(c)))) })
	}
	for ctx.Err() == nil {
		s.wait(ctx, time.Duration(500+dice.IntN(3000))*time.Millisecond)
		i := dice.IntN(members)
		switch dice.IntN(3) {
		case 0, 1:
			s.took["kill -9"]++
			procs[i].Process.Kill()
			procs[i].Wait()
			s.wait(ctx, time.Duration(dice.IntN(1500))*time.Millisecond)
			start(i)
		case 2:
			s.took["SIGSTOP"]++
			procs[i].Process.Signal(syscall.SIGSTOP)
			s.wait(ctx, time.Duration(500+dice.IntN(4000))*time.Millisecond)
			procs[i].Process.Signal(syscall.SIGCONT)
		}
	}
	wg.Wait()
	// At the end every author's chain is read once more, from each member.
	for i := range members {
		for _, author := range []string{"m1", "m2"} {
			eventually(t, "the end is read", func() bool {
				op := porcupine.Operation{ClientId: 9, Call: s.clock.Add(1)}
				out := procRead(context.Background(), setup.Calls[i], author)
				op.Input, op.Output, op.Return = simInput{author: author, read: true}, out, s.clock.Add(1)
				if out.known {
					s.history = append(s.history, op)
				}
				return out.known
			})
		}
	}
	if err := s.judge(); err != nil {
		t.Error(err)
	}
	t.Log(s.took)
}

func procRead(ctx context.Context, addr, author string) (out simOutput) {
	body, err := procAsk(ctx, addr, procCall{Method: "read", Body: []byte(author)})
	var head registrypb.HeadResponse
	if err == nil && json.Unmarshal(body, &head) == nil {
		out = simOutput{known: true, sequence: head.Sequence, value: string(head.Hash)}
	}
	return out
}

func (s *sim) procClient(ctx context.Context, id int, addrs []string, dice *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		s.wait(ctx, time.Duration(dice.IntN(200))*time.Millisecond)
		addr := addrs[dice.IntN(len(addrs))]
		in := simInput{author: fmt.Sprintf("m%d", 1+dice.IntN(2)), read: dice.IntN(3) == 0}
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		op := porcupine.Operation{ClientId: id, Call: s.clock.Add(1)}
		var out simOutput
		if in.read {
			out = procRead(one, addr, in.author)
		} else {
			in.value = fmt.Sprintf("10.%d.%d.%d:1", id, n>>8, n&255)
			in.sequence, out = procWrite(one, addr, in)
		}
		cancel()
		if in.read && !out.known || in.sequence == 0 && !in.read {
			continue
		}
		op.Return = s.clock.Add(1)
		if !out.known {
			op.Return = 1 << 62
		}
		op.Input, op.Output = in, out
		s.mu.Lock()
		s.history = append(s.history, op)
		s.mu.Unlock()
	}
}

func procWrite(ctx context.Context, addr string, in simInput) (uint64, simOutput) {
	body, err := procAsk(ctx, addr, procCall{Method: "head", Body: []byte(in.author)})
	var head registrypb.HeadResponse
	if err != nil || json.Unmarshal(body, &head) != nil {
		return 0, simOutput{}
	}
	payload, err := proto.Marshal(&registrypb.Command{Mesh: "sim.example", Author: in.author, Sequence: head.Sequence + 1, Previous: head.Hash, TimeUnixMs: 1,
		Body: &registrypb.Command_SetNode{SetNode: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: in.author, Node: "x"}, Address: in.value}}})
	if err != nil {
		return 0, simOutput{}
	}
	raw, err := envelope.Sign(envelope.Command, payload, key(in.author))
	if err != nil {
		return 0, simOutput{}
	}
	resp := new(registrypb.SubmitResponse)
	body, err = procAsk(ctx, addr, procCall{Method: "submit", Body: raw})
	if err != nil || proto.Unmarshal(body, resp) != nil {
		return head.Sequence + 1, simOutput{}
	}
	return head.Sequence + 1, simOutput{known: true, accepted: resp.Accepted, index: resp.Index, hash: shaOf(payload)}
}
