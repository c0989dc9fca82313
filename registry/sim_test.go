package registry_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// simTuning is slower than that of nodes: virtual seconds cost nothing, messages do.
var simTuning = registry.Tuning{
	Heartbeat: 2 * time.Second, Election: 2 * time.Second, LeaderLease: time.Second, RPC: 2 * time.Second,
	SnapshotEvery: 24, SnapshotCheck: 3 * time.Second, TrailingLogs: 12,
	VerifyAfter: -1, VerifyRest: -1,
}

var simBounds = genesis.Bounds{Lease: 12 * time.Second, PresentLife: time.Second, ReleaseLife: 2 * time.Second, Skew: time.Second}

// sim is a mesh of members in a bubble, under the faults of one seed.
type sim struct {
	t       *testing.T
	seed    uint64
	file    *genesis.File
	dir     string
	net     *simNet
	members []*simMember
	log     *slog.Logger
	clock   atomic.Int64 // orders the events of the history
	// staleReads has clients read without asking whether that is the newest.
	staleReads bool

	mu      sync.Mutex
	history []porcupine.Operation
	took    map[string]int // faults that were played
}

type simMember struct {
	id    names.NodeID
	disk  *simDisk
	ahead time.Duration // its wall clock
	// watches: it follows the members, and is none
	watches bool
	tuning  registry.Tuning

	mu     sync.Mutex
	node   *simNode
	layer  *simLayer          // closed by the member when its log fails, and at its end
	reg    *registry.Registry // nil while it is down
	cancel context.CancelFunc
	done   chan error
}

// newSim starts members; before that, change may set them up otherwise.
func newSim(t *testing.T, seed uint64, members int, change ...func(*sim)) *sim {
	dice := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	s := &sim{t: t, seed: seed, dir: t.TempDir(), net: newSimNet(dice(1)), took: map[string]int{}, log: slog.New(slog.DiscardHandler)}
	if os.Getenv("REGISTRY_TEST_LOG") != "" {
		s.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	group := genesis.Group{Threshold: 1, Keys: groupKeys("operator")}
	s.file = &genesis.File{Mesh: "sim.example", Bounds: simBounds, RecoveryDelay: time.Hour, Operators: group,
		Committee: genesis.Group{Threshold: 1, Keys: groupKeys("committee")}, Recovery: genesis.Group{Threshold: 1, Keys: groupKeys("recovery")}}
	for i := range members {
		inst := fmt.Sprintf("m%d", i+1)
		s.file.Members = append(s.file.Members, genesis.Member{
			Institution: names.InstitutionID(inst), Node: "a", Name: inst, Type: "office", Address: "127.0.0.1:1", PublicKey: public(inst),
		})
		s.members = append(s.members, &simMember{id: node(inst), disk: newSimDisk(dice(uint64(10 + i)))})
	}
	for _, c := range change {
		c(s)
	}
	for _, m := range s.members {
		s.start(m)
	}
	return s
}

func (s *sim) start(m *simMember) {
	node, layer := s.net.join(m.id)
	m.disk.mu.Lock()
	m.disk.halted = func() { s.net.crash(node) }
	m.disk.mu.Unlock()
	cfg := registry.Config{
		Self: m.id, Genesis: s.file, Dir: s.dir + "/" + string(m.id.Institution), Disk: m.disk, Signer: key(string(m.id.Institution)),
		Peers: simPeers{s.net, node}, Log: s.log.With("node", m.id.String()), Tuning: m.tuning, Now: m.now,
	}
	if !m.watches {
		cfg.Raft = layer
	}
	if cfg.Tuning == (registry.Tuning{}) {
		cfg.Tuning = simTuning
	}
	r, err := registry.Open(cfg)
	if err != nil {
		s.t.Errorf("seed %d: %s does not start again: %v", s.seed, m.id, err)
		s.net.crash(node)
		return
	}
	s.net.mu.Lock()
	node.reg = r
	s.net.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		err := r.Run(ctx)
		if err != nil {
			s.log.Error("ended", "node", m.id.String(), "error", err)
		}
		s.net.crash(node) // a process whose registry ended has ended
		close(ended)
		done <- err
	}()
	go func() {
		select {
		case <-layer.closed:
		case <-ended:
			return
		}
		select {
		case <-ended:
		case <-time.After(simEnds):
			s.t.Errorf("seed %d: %s fell silent, and has not ended %v later", s.seed, m.id, simEnds)
		}
	}()
	m.mu.Lock()
	m.node, m.layer, m.reg, m.cancel, m.done = node, layer, r, cancel, done
	m.mu.Unlock()
}

// kill is kill -9 with a power loss: nothing is heard of the node any more, and its disk
// keeps what was synced. That its goroutines then end takes no time that anybody sees.
func (s *sim) kill(m *simMember) {
	m.mu.Lock()
	node, reg, cancel, done := m.node, m.reg, m.cancel, m.done
	m.reg = nil
	m.mu.Unlock()
	if reg == nil {
		return
	}
	s.net.crash(node)
	m.disk.losePower()
	cancel()
	<-done
}

// now is the member's wall clock.
func (m *simMember) now() time.Time { return time.Now().Add(m.ahead) }

func (m *simMember) running() *registry.Registry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reg == nil {
		return nil
	}
	select {
	case <-m.node.dead:
		return nil
	default:
		return m.reg
	}
}

func (s *sim) stop() {
	for _, m := range s.members {
		s.kill(m)
	}
}

// TestLinearizable plays seeds: clients write and read through members of a cluster whose
// nodes crash, freeze and cannot hear each other, whose disks are full, slow and fail; and
// what the clients saw must be explained by one order of the commands. A seed replays its
// schedule of faults and the network's dice (what the scheduler does between is not
// replayed). More: REGISTRY_SEEDS=10000 [REGISTRY_SEED_FROM=n] go test -run TestLinearizable
func TestLinearizable(t *testing.T) {
	t.Parallel()
	seeds, from := 200, 1
	if testing.Short() { // as under the race detector, which takes ten times as long
		seeds = 16
	}
	if n, err := strconv.Atoi(os.Getenv("REGISTRY_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.Atoi(os.Getenv("REGISTRY_SEED_FROM")); err == nil {
		from = n
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // every restart throws a database away
	total := map[string]int{}
	for seed := from; seed < from+seeds; seed++ {
		synctest.Test(t, func(t *testing.T) {
			members := 3
			if seed%6 == 0 {
				members = 5
			}
			s := newSim(t, uint64(seed), members)
			s.play()
			if err := s.judge(); err != nil {
				t.Error(err)
			}
			for k, n := range s.took {
				total[k] += n
			}
		})
		if t.Failed() {
			t.Fatalf("replay with REGISTRY_SEEDS=1 REGISTRY_SEED_FROM=%d", seed)
		}
	}
	t.Logf("%d seeds: %v", seeds, total)
}

const ( // virtual
	simClients = 4
	simLasts   = 14 * time.Second
	// simEnds is how long a member may take to end after it fell silent: a sync or two that
	// are slow.
	simEnds = time.Second
)

// play runs clients and faults, then heals everything and looks whether all agree.
func (s *sim) play() {
	ctx, cancel := context.WithTimeout(context.Background(), simLasts)
	defer cancel()
	var wg sync.WaitGroup
	for c := range simClients {
		wg.Go(func() { s.client(ctx, c, rand.New(rand.NewPCG(s.seed, uint64(100+c)))) })
	}
	s.faults(ctx, rand.New(rand.NewPCG(s.seed, 2)))
	wg.Wait()
	s.recover()
	s.settle()
	s.stop()
}

// simInput is one operation on the chain of an author: what is written, or a read.
type simInput struct {
	author   string
	read     bool
	sequence uint64
	value    string
}

// simOutput is what came of it. Whether a write that was not answered was decided, nobody
// knows.
type simOutput struct {
	known, accepted bool
	sequence        uint64
	value           string
	index           uint64
	hash            agree.CommandHash
}

func (s *sim) client(ctx context.Context, id int, dice *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-time.After(time.Duration(100+dice.IntN(900)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		r := s.members[dice.IntN(len(s.members))].running()
		if r == nil {
			continue
		}
		in := simInput{author: fmt.Sprintf("m%d", 1+dice.IntN(2)), read: dice.IntN(3) == 0}
		one, cancel := context.WithTimeout(ctx, time.Duration(2+dice.IntN(8))*time.Second)
		op := porcupine.Operation{ClientId: id, Call: s.clock.Add(1)}
		var out simOutput
		if in.read {
			out = s.read(one, r, in.author)
		} else {
			in.value = fmt.Sprintf("10.%d.%d.1:1", id, n)
			in.sequence, out = s.write(one, r, in)
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

func (s *sim) write(ctx context.Context, r *registry.Registry, in simInput) (uint64, simOutput) {
	sequence, hash, err := r.Head(ctx, in.author, registrypb.Chain_PUBLIC, 0)
	if err != nil {
		return 0, simOutput{}
	}
	payload, err := proto.Marshal(&registrypb.Command{
		Mesh: string(s.file.Mesh), Author: in.author, Sequence: sequence + 1, Previous: hash, TimeUnixMs: 1,
		Body: &registrypb.Command_SetNode{SetNode: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: in.author, Node: "x"}, Address: in.value}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.Command, payload, key(in.author))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := r.Submit(ctx, raw)
	if err != nil {
		return sequence + 1, simOutput{}
	}
	out := simOutput{known: true, accepted: resp.Accepted, index: resp.Index}
	if opened, err := envelope.Open(envelope.Command, raw); err == nil {
		out.hash = shaOf(opened.Payload)
	}
	return sequence + 1, out
}

func (s *sim) read(ctx context.Context, r *registry.Registry, author string) (out simOutput) {
	if !s.staleReads {
		if err := r.CatchUp(ctx); err != nil {
			return out
		}
	}
	err := r.View(func(v record.View) (err error) {
		if out.sequence, _, err = v.Head(author, registrypb.Chain_PUBLIC); err != nil {
			return err
		}
		n, err := v.Node(names.NodeID{Institution: names.InstitutionID(author), Node: "x"})
		out.value = n.GetAddress()
		return err
	})
	out.known = err == nil
	return out
}

type simState struct {
	sequence uint64
	value    string
}

// chainModel is one author's chain: a write is accepted if it is the next one.
var chainModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range history {
			a := op.Input.(simInput).author
			by[a] = append(by[a], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range by {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return simState{} },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(simState), input.(simInput), output.(simOutput)
		if in.read {
			return out.sequence == now.sequence && out.value == now.value, now
		}
		next := in.sequence == now.sequence+1
		if out.known && out.accepted != next {
			return false, now
		}
		if next {
			now = simState{in.sequence, in.value}
		}
		return true, now
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

// recover ends every fault, and starts again whoever was down or on the way there: from
// then on nobody may end any more.
func (s *sim) recover() {
	s.net.heal()
	for _, m := range s.members {
		m.disk.mu.Lock()
		m.disk.full, m.disk.failSyncs, m.disk.syncTakes = false, 0, 0
		m.disk.mu.Unlock()
	}
	synctest.Wait() // a member that was told of a failure this moment has fallen silent
	for _, m := range s.members {
		select {
		case <-m.layer.closed:
			select {
			case <-m.node.dead:
			case <-time.After(simEnds): // start complains
			}
		default:
		}
		if m.running() == nil {
			s.kill(m)
			s.start(m)
		}
	}
}

// settle waits until all members hold the same, and look whether they hold all that was
// acknowledged.
func (s *sim) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var end uint64
	for _, m := range s.members {
		r := m.running()
		if r == nil {
			s.t.Errorf("seed %d: %s is down at the end", s.seed, m.id)
			return
		}
		if err := r.CatchUp(ctx); err != nil {
			for ctx.Err() == nil && err != nil {
				time.Sleep(500 * time.Millisecond)
				err = r.CatchUp(ctx)
			}
			if err != nil {
				s.t.Errorf("seed %d: %s gets no standing after all is healed: %v", s.seed, m.id, err)
				return
			}
		}
		end = max(end, r.AppliedIndex())
	}
	if agreed, err := s.members[0].running().MajorityState(ctx, 0); err != nil {
		s.t.Errorf("seed %d: %v", s.seed, err)
	} else if agreed[0].Index < end {
		s.t.Errorf("seed %d: agreed at %d, before %d", s.seed, agreed[0].Index, end)
	}
	for _, m := range s.members {
		r := m.running()
		if err := r.WaitApplied(ctx, end); err != nil {
			s.t.Errorf("seed %d: %s: %v", s.seed, m.id, err)
			return
		}
		if err := r.View(s.holdsAll(m)); err != nil {
			s.t.Error(err)
		}
	}
	s.sameHash(ctx)
}

// holdsAll looks for every acknowledged write.
func (s *sim) holdsAll(m *simMember) func(record.View) error {
	return func(v record.View) error {
		for _, op := range s.history {
			out := op.Output.(simOutput)
			if !out.accepted {
				continue
			}
			if at, _, err := v.AcceptedAt(out.hash[:]); err != nil || at != out.index {
				s.t.Errorf("seed %d: %s lost %v, acknowledged at %d, found at %d: %v", s.seed, m.id, op.Input, out.index, at, err)
			}
		}
		return nil
	}
}

// sameHash wants all members, and not only most, to have one state.
func (s *sim) sameHash(ctx context.Context) {
	said := map[string][]string{}
	for ctx.Err() == nil {
		clear(said)
		for _, m := range s.members {
			now, err := m.running().Now()
			if err != nil {
				s.t.Error(err)
				return
			}
			k := fmt.Sprintf("%d %x", now.Index, now.Root)
			said[k] = append(said[k], m.id.String())
		}
		if len(said) == 1 {
			return
		}
		time.Sleep(time.Second)
	}
	s.t.Errorf("seed %d: the members' states differ: %v", s.seed, said)
}

// judge gives an error when no order of the commands explains what the clients saw.
func (s *sim) judge() error {
	slices.SortFunc(s.history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range s.history {
		if op.Output.(simOutput).accepted {
			s.took["acknowledged"]++
		}
	}
	s.took["operations"] += len(s.history)
	result := porcupine.CheckOperationsTimeout(chainModel, s.history, time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	var said strings.Builder
	for _, op := range s.history {
		fmt.Fprintf(&said, "\n%d-%d %s", op.Call, op.Return, chainModel.DescribeOperation(op.Input, op.Output))
	}
	return fmt.Errorf("seed %d: the history is not linearizable: %s%s", s.seed, result, &said)
}

// TestStaleReadsAreFound: the judge sees what would be wrong, so it can be believed.
func TestStaleReadsAreFound(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 20; seed++ {
		found := false
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, seed, 3)
			s.staleReads = true
			s.play()
			found = s.judge() != nil
		})
		if found {
			return
		}
	}
	t.Error("twenty clusters with stale reads, and nothing was wrong")
}
