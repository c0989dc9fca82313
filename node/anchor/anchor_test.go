package anchor_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/anchor"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

func node(inst string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(inst), Node: "n1"}
}

// world is a registry, three real witnesses, and the ways to them.
type world struct {
	t       testing.TB
	mu      sync.Mutex
	rules   *recordtest.World
	state   record.MapState
	members map[names.NodeID]*witness.Witness
	fault   map[names.NodeID]string // "down", "hang", "forge"

	allAnswer bool // nobody will be at fault: each member is waited for, however slow
}

func newWorld(t testing.TB, members ...string) *world {
	w := &world{t: t, rules: recordtest.New(t, members...), members: map[names.NodeID]*witness.Witness{}, fault: map[names.NodeID]string{}}
	if err := record.Bootstrap(&w.state, w.rules.Rules); err != nil {
		t.Fatal(err)
	}
	for i, raw := range [][]byte{
		w.rules.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"}),
		w.rules.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")}),
	} {
		if res, err := record.Apply(&w.state, w.rules.Rules, uint64(i+1), raw); err != nil || !res.Accepted {
			t.Fatal(res, err)
		}
	}
	for _, m := range members {
		var err error
		w.members[node(m)], err = witness.Open(witness.Config{Mesh: recordtest.Mesh, Self: node(m), Signer: recordtest.Key(m), Registry: w})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.members[node(m)].Close() })
	}
	return w
}

func (w *world) View(fn func(record.View) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fn(record.NewView(&w.state))
}
func (w *world) Leader() (names.NodeID, bool) { return names.NodeID{}, false }
func (w *world) Submit(context.Context, []byte) (*registrypb.SubmitResponse, error) {
	return nil, errors.New("no leader")
}

func (w *world) set(m, fault string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault[node(m)] = fault
}

// Call is of the office.
func (w *world) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) (err error) {
	w.mu.Lock()
	fault := w.fault[to]
	w.mu.Unlock()
	switch fault {
	case "down":
		return errors.New("connection refused")
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	}
	var out proto.Message
	switch q := req.(type) {
	case *registrypb.AddCheckpointRequest:
		r, err := w.members[to].HandleAddCheckpoint(ctx, node("office"), q)
		if err != nil {
			return err
		}
		if fault == "forge" { // somebody else's key in its name
			a, _ := checkpoint.ParseAddRequest(q.Body)
			n, _ := checkpoint.Parse(a.Note)
			r.Status = 200
			r.Body, _ = n.Cosign(to, time.Now(), recordtest.Key("office"))
		}
		out = r
	case *registrypb.AnchorRequest:
		out, err = w.members[to].HandleAnchor(ctx, node("office"), q)
	}
	if err == nil {
		proto.Merge(resp, out)
	}
	return err
}

// growing is a log of the reference implementation.
type growing struct {
	mu      sync.Mutex
	hashes  []tlog.Hash
	size    int64
	note    []byte
	changed chan struct{}
}

func (g *growing) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, x := range at {
		out[i] = g.hashes[x]
	}
	return out, nil
}

func newLog() *growing { return &growing{changed: make(chan struct{})} }

func (g *growing) grow(t testing.TB, n int, mark string) int64 {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for range n {
		h, err := tlog.StoredHashes(g.size, []byte(fmt.Sprint(mark, g.size)), g)
		if err != nil {
			t.Fatal(err)
		}
		g.hashes = append(g.hashes, h...)
		g.size++
	}
	root, err := tlog.TreeHash(g.size, g)
	if err != nil {
		t.Fatal(err)
	}
	if g.note, err = checkpoint.Sign(checkpoint.Origin(recordtest.Mesh, node("office")), g.size, checkpoint.Hash(root), recordtest.Key("office")); err != nil {
		t.Fatal(err)
	}
	close(g.changed)
	g.changed = make(chan struct{})
	return g.size
}

func (g *growing) Checkpoint() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.note
}

func (g *growing) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *growing) ConsistencyProof(older, newer int64) ([]tlog.Hash, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if newer > g.size {
		return nil, errors.New("not in the tree yet")
	}
	return tlog.ProveTree(newer, older, g)
}

// start runs an anchorer of the office until the test ends, or stop.
func (w *world) start(log anchor.Log, dir string) (a *anchor.Anchorer, stop func()) {
	w.t.Helper()
	cfg := anchor.Config{
		Mesh: recordtest.Mesh, Self: node("office"), Log: log, Registry: w, Peers: w, Dir: dir,
		AskFor: 500 * time.Millisecond, Grace: 30 * time.Millisecond, HandOver: 20 * time.Millisecond,
	}
	if w.allAnswer {
		cfg.AskFor, cfg.Grace = within, within
	}
	a, err := anchor.Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return a, stop
}

// wait insists that size is anchored within a time, by so many members, and well.
func (w *world) wait(a *anchor.Anchorer, size int64, within time.Duration, least int) anchor.Anchored {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	got, err := a.Wait(ctx, size)
	if err != nil {
		w.t.Fatalf("size %d is not anchored within %v: %+v", size, within, a.Stats())
	}
	err = w.View(func(v record.View) error {
		n, err := v.CheckAnchor(recordtest.Mesh, got.Note)
		if err == nil && len(n.Witnesses()) < least {
			w.t.Errorf("%d members cosigned, want %d", len(n.Witnesses()), least)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
	return got
}

// within only guards against hanging: how fast it goes is the machine's matter.
const within = 2 * time.Minute

func TestAnchors(t *testing.T) {
	w, log, dir := newWorld(t, "alpha", "beta", "gamma"), newLog(), t.TempDir()
	w.allAnswer = true
	a, stop := w.start(log, dir)
	if _, ok := a.Anchored(); ok {
		t.Error("something is anchored before anything was")
	}
	for range 5 {
		w.wait(a, log.grow(t, 7, ""), within, 3) // all are asked, not only a majority
	}
	if s := a.Stats(); s.Size != 35 || s.Anchored != 35 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	stop()
	// After a restart it is there at once, and goes on.
	last, _ := a.Anchored()
	a, _ = w.start(log, dir)
	if again, ok := a.Anchored(); !ok || string(again.Note) != string(last.Note) || !again.Time.Equal(last.Time) {
		t.Error("what was anchored is lost")
	}
	w.wait(a, log.grow(t, 1, ""), within, 3)
}

// waitAll grows the log, step by step, until all three members cosign: one may answer late.
func (w *world) waitAll(a *anchor.Anchorer, log *growing, step int) {
	w.t.Helper()
	for deadline := time.Now().Add(within); ; {
		got := w.wait(a, log.grow(w.t, step, ""), within, 2)
		if n, _ := checkpoint.Parse(got.Note); len(n.Witnesses()) == 3 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("a member that is well does not cosign")
		}
	}
}

// One member of three down, hanging or forging holds nobody up; when it comes back it
// is brought up from wherever it was.
func TestOneBadMember(t *testing.T) {
	for _, fault := range []string{"down", "hang", "forge"} {
		t.Run(fault, func(t *testing.T) {
			w, log := newWorld(t, "alpha", "beta", "gamma"), newLog()
			a, _ := w.start(log, t.TempDir())
			w.waitAll(a, log, 2)
			w.set("beta", fault)
			for range 4 {
				w.wait(a, log.grow(t, 5, ""), within, 2)
			}
			w.set("beta", "")
			w.waitAll(a, log, 2)
		})
	}
}

func TestNoMajorityNoAnchor(t *testing.T) {
	w, log := newWorld(t, "alpha", "beta", "gamma"), newLog()
	w.set("beta", "forge")
	w.set("gamma", "down")
	a, _ := w.start(log, t.TempDir())
	size := log.grow(t, 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx, size); err == nil {
		t.Fatal("anchored by one of three")
	}
	if s := a.Stats(); s.Anchored != 0 || s.Waiting < 500*time.Millisecond {
		t.Errorf("%+v", s)
	}
	w.set("gamma", "")
	w.wait(a, size, within, 2)
}

// While the log grows all the time every entry is anchored, and what
// was anchored reaches a member for the registry.
func TestUnderLoad(t *testing.T) {
	w, log := newWorld(t, "alpha", "beta", "gamma"), newLog()
	w.set("gamma", "hang")
	a, _ := w.start(log, t.TempDir())
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 60 {
		size := log.grow(t, 50, "")
		wg.Go(func() { w.wait(a, size, within, 2) })
		time.Sleep(20 * time.Millisecond) // the pace of the load, no synchronisation
	}
}

// A journal whose disk was rolled back is not anchored, and does not spin.
func TestRolledBackIsNotAnchored(t *testing.T) {
	w, log := newWorld(t, "alpha", "beta", "gamma"), newLog()
	a, stop := w.start(log, t.TempDir())
	w.waitAll(a, log, 9)
	stop()
	other := newLog()
	other.grow(t, 5, "")
	size := other.grow(t, 8, "!")
	a, _ = w.start(other, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if got, err := a.Wait(ctx, size); err == nil {
		t.Errorf("anchored: %s", got.Note)
	}
}

func TestConsistencyIsProved(t *testing.T) {
	w, log := newWorld(t, "alpha"), newLog()
	log.grow(t, 9, "")
	a, _ := w.start(log, t.TempDir())
	resp, err := a.HandleConsistency(t.Context(), node("alpha"), &registrypb.ConsistencyRequest{OldSize: 5, NewSize: 9})
	if err != nil || len(resp.Proof) == 0 {
		t.Fatal(resp, err)
	}
	for _, bad := range [][2]int64{{0, 5}, {-1, 5}, {6, 5}, {5, 10}, {1 << 60, 1 << 61}} {
		if _, err := a.HandleConsistency(t.Context(), node("alpha"), &registrypb.ConsistencyRequest{OldSize: bad[0], NewSize: bad[1]}); !errors.Is(err, anchor.ErrNoProof) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
