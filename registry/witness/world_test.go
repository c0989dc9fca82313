package witness_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

const mesh = recordtest.Mesh

func node(inst string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(inst), Node: "n1"}
}

// world is a registry that all share, three members, and the journals of institutions.
type world struct {
	t        testing.TB
	w        *recordtest.World
	now      atomic.Int64 // Unix seconds
	mu       sync.Mutex   // guards state, index, leader and proposals
	state    record.MapState
	index    uint64
	leader   names.NodeID
	proposed [][]byte

	members  map[names.NodeID]*witness.Witness
	journals map[names.NodeID]*journal // as they answer MethodConsistency
}

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, w: recordtest.New(t, "alpha", "beta", "gamma"), leader: node("alpha"),
		members: map[names.NodeID]*witness.Witness{}, journals: map[names.NodeID]*journal{},
	}
	w.now.Store(1_780_000_000)
	if err := record.Bootstrap(&w.state, w.w.Rules); err != nil {
		t.Fatal(err)
	}
	w.do(w.w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"}))
	w.do(w.w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")}))
	for _, m := range []string{"alpha", "beta", "gamma"} {
		w.open(m, "")
	}
	return w
}

func (w *world) open(member, dir string) *witness.Witness {
	w.t.Helper()
	m, err := witness.Open(witness.Config{
		Mesh: mesh, Self: node(member), Signer: recordtest.Key(member), Dir: dir, Registry: w, Peers: peers{w, node(member)},
		Now: w.clock, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.members[node(member)] = m
	return m
}

func (w *world) do(raw []byte) *registrypb.SubmitResponse {
	w.t.Helper()
	w.index++
	res, err := record.Apply(&w.state, w.w.Rules, w.index, raw)
	if err != nil {
		w.t.Fatal(err)
	}
	return &registrypb.SubmitResponse{Index: w.index, Accepted: res.Accepted, Refusal: res.Refusal}
}

func (w *world) View(fn func(record.View) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fn(record.NewView(&w.state))
}

func (w *world) clock() time.Time { return time.Unix(w.now.Load(), 0) }

func (w *world) pass(d time.Duration) { w.now.Add(int64(d / time.Second)) }

func (w *world) Leader() (names.NodeID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leader, w.leader != names.NodeID{}
}

func (w *world) Submit(_ context.Context, raw []byte) (*registrypb.SubmitResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proposed = append(w.proposed, raw)
	return w.do(raw), nil
}

// peers are the calls of one node.
type peers struct {
	w    *world
	self names.NodeID
}

func (p peers) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) (err error) {
	var out proto.Message
	m := p.w.members[to]
	switch q := req.(type) {
	case *registrypb.AddCheckpointRequest:
		out, err = m.HandleAddCheckpoint(ctx, p.self, q)
	case *registrypb.LatestRequest:
		out, err = m.HandleLatest(ctx, p.self, q)
	case *registrypb.AnchorRequest:
		out, err = m.HandleAnchor(ctx, p.self, q)
	case *registrypb.AnchorsRequest:
		out, err = m.HandleAnchors(ctx, p.self, q)
	case *registrypb.ConsistencyRequest:
		j := p.w.journals[to]
		if j == nil || int64(j.size) < q.NewSize {
			return errors.New("connection refused")
		}
		r := new(registrypb.ConsistencyResponse)
		for _, h := range j.proof(int(q.OldSize), int(q.NewSize)) {
			r.Proof = append(r.Proof, h[:])
		}
		out = r
	default:
		return fmt.Errorf("no method %s", method)
	}
	if err == nil {
		proto.Merge(resp, out)
	}
	return err
}

func keys(inst names.InstitutionID) []ed25519.PublicKey {
	return []ed25519.PublicKey{recordtest.Public(string(inst))}
}

// journal is a tree by the reference implementation, of leaves that differ from a
// given one on by a mark.
type journal struct {
	t      testing.TB
	inst   string
	size   int
	hashes []tlog.Hash
}

func newJournal(t testing.TB, inst string, size, from int, mark string) *journal {
	j := &journal{t: t, inst: inst, size: size}
	for i := range size {
		leaf := fmt.Sprint("leaf ", i)
		if i >= from {
			leaf += mark
		}
		h, err := tlog.StoredHashes(int64(i), []byte(leaf), j)
		if err != nil {
			t.Fatal(err)
		}
		j.hashes = append(j.hashes, h...)
	}
	return j
}

func (j *journal) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, x := range at {
		out[i] = j.hashes[x]
	}
	return out, nil
}

func (j *journal) note(size int) []byte {
	j.t.Helper()
	root, err := tlog.TreeHash(int64(size), j)
	if err != nil {
		j.t.Fatal(err)
	}
	raw, err := checkpoint.Sign(checkpoint.Origin(mesh, node(j.inst)), int64(size), checkpoint.Hash(root), recordtest.Key(j.inst))
	if err != nil {
		j.t.Fatal(err)
	}
	return raw
}

func (j *journal) proof(old, size int) (proof []checkpoint.Hash) {
	j.t.Helper()
	if old == 0 {
		return nil
	}
	p, err := tlog.ProveTree(int64(size), int64(old), j)
	if err != nil {
		j.t.Fatal(err)
	}
	for _, h := range p {
		proof = append(proof, checkpoint.Hash(h))
	}
	return proof
}

// show shows a checkpoint to a member, as the journal's own node.
func (w *world) show(member string, j *journal, old, size int) *registrypb.AddCheckpointResponse {
	w.t.Helper()
	return w.showRaw(member, j.inst, (&checkpoint.AddRequest{Old: int64(old), Proof: j.proof(old, size), Note: j.note(size)}).Bytes())
}

func (w *world) showRaw(member, from string, body []byte) *registrypb.AddCheckpointResponse {
	w.t.Helper()
	resp, err := w.members[node(member)].HandleAddCheckpoint(w.t.Context(), node(from), &registrypb.AddCheckpointRequest{Body: body})
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

func (w *world) cosigned(member string, j *journal, old, size int) []byte {
	w.t.Helper()
	resp := w.show(member, j, old, size)
	if resp.Status != 200 {
		w.t.Fatalf("%s answers %d %s", member, resp.Status, resp.Body)
	}
	return resp.Body
}

// anchored gives a note of j with the cosignatures of members that saw it first.
func (w *world) anchored(j *journal, size int, members ...string) []byte {
	raw := j.note(size)
	for _, m := range members {
		raw = append(raw, w.cosigned(m, j, 0, size)...)
	}
	return raw
}

func (w *world) findings(member string) (all []string) {
	w.t.Helper()
	evidence, err := w.members[node(member)].Evidence()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range evidence {
		back, err := checkpoint.ParseEvidence(e.Text())
		if err != nil {
			w.t.Fatal(err)
		}
		f, err := back.Verify(keys)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, f.String())
	}
	return all
}
