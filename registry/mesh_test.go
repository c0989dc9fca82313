package registry_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// perCore is how many tests run at once for each core, where -parallel does not say. Most
// wait more than they compute: for elections, leases, and disks.
const perCore = 2

func TestMain(m *testing.M) {
	if said := os.Getenv(procEnv); said != "" { // a member of TestLinearizableProcesses
		var setup procSetup
		if err := json.Unmarshal([]byte(said), &setup); err != nil {
			panic(err)
		}
		fmt.Fprintln(os.Stderr, procMain(setup))
		os.Exit(1)
	}
	if err := flag.Set("test.parallel", strconv.Itoa(perCore*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	flag.Parse()         // what the command line says goes before
	if testing.Short() { // as under the race detector, where they do compute
		if err := flag.Set("test.parallel", strconv.Itoa(runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m,
		// Badger leaves these two behind when it refuses to open, here with a wrong key.
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

// key gives the same signer for the same name.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(name string) ed25519.PublicKey { return key(name).Public().(ed25519.PublicKey) }

func node(inst string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(inst), Node: "a"}
}

// quick are timeouts for tests that wait for elections; the mesh is on loopback.
var quick = registry.Tuning{
	Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, LeaderLease: 300 * time.Millisecond,
	RPC: time.Second, WatchKeepalive: 200 * time.Millisecond, CompareEvery: 100 * time.Millisecond,
	VerifyAfter: -1, VerifyRest: -1,
}

// bounds are short: an acknowledged revocation takes 1.8 s.
var bounds = genesis.Bounds{Lease: 800 * time.Millisecond, PresentLife: 300 * time.Millisecond, ReleaseLife: 600 * time.Millisecond, Skew: 200 * time.Millisecond}

// patience is how long a test waits for anything before it calls it hung. What is tested
// does not depend on it: a machine with much else to do may take long.
const patience = 3 * time.Minute

// mesh is a whole registry on real disks: members m1, m2, m3 and any watchers.
type mesh struct {
	t       *testing.T
	f       *fabric
	file    *genesis.File
	dir     string
	tuning  map[names.NodeID]registry.Tuning
	now     map[names.NodeID]func() time.Time
	members []names.NodeID
	nodes   map[names.NodeID]*running
	log     *slog.Logger
}

type running struct {
	*registry.Registry
	id     names.NodeID
	cancel context.CancelFunc
	done   chan error
}

func newMesh(t *testing.T, watchers ...string) *mesh {
	t.Helper()
	return newMeshAt(t, record.Level, watchers...)
}

// newMeshAt begins at a feature level; 0: the first.
func newMeshAt(t *testing.T, level uint32, watchers ...string) *mesh {
	t.Helper()
	return newMeshOf(t, level, []string{"m1", "m2", "m3"}, watchers...)
}

// newMeshOf begins with the given members.
func newMeshOf(t *testing.T, level uint32, members []string, watchers ...string) *mesh {
	t.Helper()
	m := &mesh{
		t: t, f: newFabric(), dir: t.TempDir(), nodes: map[names.NodeID]*running{},
		tuning: map[names.NodeID]registry.Tuning{}, now: map[names.NodeID]func() time.Time{},
	}
	group := func(role string) genesis.Group {
		return genesis.Group{Threshold: 2, Keys: []ed25519.PublicKey{public(role + "1"), public(role + "2"), public(role + "3")}}
	}
	m.file = &genesis.File{
		Mesh: "test.example", Bounds: bounds, RecoveryDelay: time.Hour, FeatureLevel: level,
		Operators: group("operator"), Committee: group("committee"), Recovery: group("recovery"),
	}
	for _, inst := range members {
		m.members = append(m.members, node(inst))
		m.file.Members = append(m.file.Members, genesis.Member{
			Institution: names.InstitutionID(inst), Node: "a", Name: inst, Type: "office", Address: "127.0.0.1:1", PublicKey: public(inst),
		})
	}
	t.Cleanup(m.stopAll)
	for _, n := range m.members {
		m.start(n)
	}
	for _, w := range watchers {
		m.admit(w)
		m.start(node(w))
	}
	return m
}

func (m *mesh) logger(n names.NodeID) *slog.Logger {
	if os.Getenv("REGISTRY_TEST_LOG") == "" {
		return m.log
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", n.String())
}

func (m *mesh) config(n names.NodeID) registry.Config {
	m.t.Helper()
	storageKey := sha256.Sum256([]byte("disk of " + n.String()))
	tuning, ok := m.tuning[n]
	if !ok {
		tuning = quick
	}
	cfg := registry.Config{
		Self: n, Genesis: m.file, Dir: filepath.Join(m.dir, string(n.Institution)), StorageKey: storageKey[:],
		Signer: key(string(n.Institution)), Peers: peers{m.f, n}, Now: m.now[n], Log: m.logger(n), Tuning: tuning,
	}
	for _, member := range m.members {
		if member == n {
			l, err := m.f.layer(n)
			if err != nil {
				m.t.Fatal(err)
			}
			cfg.Raft = l
		}
	}
	return cfg
}

func (m *mesh) start(n names.NodeID) *running {
	m.t.Helper()
	r, err := registry.Open(m.config(n))
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{Registry: r, id: n, cancel: cancel, done: make(chan error, 1)}
	go func() { run.done <- r.Run(ctx) }()
	m.f.mu.Lock()
	m.f.nodes[n] = r
	m.f.mu.Unlock()
	m.nodes[n] = run
	return run
}

// stop ends a node; err is what its Run gave.
func (m *mesh) stop(n names.NodeID) error {
	run := m.nodes[n]
	m.f.mu.Lock()
	delete(m.f.nodes, n)
	m.f.mu.Unlock()
	delete(m.nodes, n)
	run.cancel()
	return <-run.done
}

// ended waits until a node's Run ends by itself, and gives its error.
func (m *mesh) ended(n names.NodeID) error {
	m.t.Helper()
	run := m.nodes[n]
	select {
	case err := <-run.done:
		run.done <- err
		_ = m.stop(n)
		return err
	case <-time.After(patience):
		m.t.Fatalf("%s still runs", n)
		return nil
	}
}

func (m *mesh) stopAll() {
	for n := range m.nodes {
		m.nodes[n].cancel()
	}
	for n := range m.nodes {
		if err := m.stop(n); err != nil {
			m.t.Errorf("%s: %v", n, err)
		}
	}
}

func (m *mesh) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	m.t.Cleanup(cancel)
	return ctx
}

// leader waits until some member of among leads with a standing, and gives it.
func (m *mesh) leader(among ...names.NodeID) names.NodeID {
	m.t.Helper()
	if among == nil {
		among = m.members
	}
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, n := range among {
			run := m.nodes[n]
			if run == nil {
				continue
			}
			if l, ok := run.Leader(); ok && l == n {
				if s, err := run.Status(); err == nil && s.State == "leader" {
					return n
				}
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			m.t.Fatal("no leader")
		}
	}
}

// handOver has a leader hand the lead to another member, which has an election's time to
// take it, until from leads no more.
func (m *mesh) handOver(from, to names.NodeID) {
	m.t.Helper()
	eventually(m.t, "another leads", func() bool {
		now, known := m.at(to).Leader()
		return known && now != from || m.at(from).HandOver(to) == nil
	})
}

func (m *mesh) others(n names.NodeID) (o []names.NodeID) {
	for _, x := range m.members {
		if x != n {
			o = append(o, x)
		}
	}
	return o
}

func (m *mesh) at(n names.NodeID) *running { return m.nodes[n] }

func (m *mesh) operators(n names.NodeID) *registry.Author {
	return registry.NewAuthor(m.at(n), m.file.Mesh, record.Operators, key("operator1"), key("operator3"))
}

// do has a command decided through n and expects it to be accepted.
func (m *mesh) do(a *registry.Author, cmd *registrypb.Command) *registrypb.SubmitResponse {
	m.t.Helper()
	resp, err := a.Do(m.ctx(patience), cmd)
	if err != nil {
		m.t.Fatal(err)
	}
	if !resp.Accepted {
		m.t.Fatalf("refused: %s", resp.Refusal)
	}
	return resp
}

func institution(id string) *registrypb.Command {
	pub := public(id)
	return &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{
		Id: id, Name: id, Type: "office",
		FirstKey: &registrypb.Key{Institution: id, Id: string(envelope.KeyID(pub)), PublicKey: pub},
	}}}
}

func setNode(id string) *registrypb.Command {
	return &registrypb.Command{Body: &registrypb.Command_SetNode{SetNode: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: id, Node: "a"}, Address: "127.0.0.1:9"}}}
}

func suspend(id string, yes bool) *registrypb.Command {
	return &registrypb.Command{Body: &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: id, Suspended: yes}}}
}

func references(numbers ...string) *registrypb.Command {
	rows := new(registrypb.References)
	for _, n := range numbers {
		rows.References = append(rows.References, &registrypb.Reference{
			Subject: &registrypb.Subject{Scheme: "ssin", Number: n}, Quality: "insured", Period: &registrypb.Period{From: 1, Until: 30000},
		})
	}
	return &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_DeclareReferences{DeclareReferences: rows}}
}

// admit makes an institution known, through some member.
func (m *mesh) admit(id string) *registrypb.SubmitResponse {
	m.t.Helper()
	return m.admitThrough(m.members[0], id)
}

func (m *mesh) admitThrough(through names.NodeID, id string) *registrypb.SubmitResponse {
	m.t.Helper()
	return m.do(m.operators(through), institution(id))
}

// has reports whether n's view holds the institution.
func (m *mesh) has(n names.NodeID, id string) bool {
	m.t.Helper()
	var found bool
	err := m.at(n).View(func(v record.View) error {
		i, err := v.Institution(names.InstitutionID(id))
		found = i != nil
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return found
}

func (m *mesh) waitApplied(n names.NodeID, index uint64) {
	m.t.Helper()
	if err := m.at(n).WaitApplied(m.ctx(patience), index); err != nil {
		m.t.Fatalf("%s: index %d: %v", n, index, err)
	}
}

// eventually waits for what has no event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

func signed(t *testing.T, cmd *registrypb.Command, signers ...crypto.Signer) []byte {
	t.Helper()
	payload, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.Command, payload, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// nextCommand fills in a command of author as the present head in n's view demands.
func (m *mesh) nextCommand(n names.NodeID, author string, cmd *registrypb.Command) *registrypb.Command {
	m.t.Helper()
	seq, hash, err := m.at(n).Head(context.Background(), author, cmd.Chain, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Mesh, cmd.Author, cmd.Sequence, cmd.Previous, cmd.TimeUnixMs = string(m.file.Mesh), author, seq+1, hash, 1
	return cmd
}

// history gives a hash of all accepted commands and the counts at a member.
func (m *mesh) history(n names.NodeID) [32]byte {
	m.t.Helper()
	h := sha256.New()
	err := m.at(n).View(func(v record.View) error {
		c, err := v.Counts()
		if err != nil {
			return err
		}
		fmt.Fprint(h, c)
		return v.History(0, func(index uint64, envelope []byte) error {
			fmt.Fprintf(h, "%d %x\n", index, envelope)
			return nil
		})
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}
