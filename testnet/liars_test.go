package testnet

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	merkle "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

// A liar speaks on the real network as a node that was stopped: with its identity, its
// signing key and at its address, but not with our code.
type liar struct {
	t        *testing.T
	n        *Network
	site     *site
	endpoint *mesh.Endpoint
}

// impersonate stops a node and has a liar take its place; hear says what it answers.
func impersonate(ctx context.Context, t *testing.T, n *Network, id names.InstitutionID, hear func(*mesh.Endpoint)) *liar {
	t.Helper()
	s := n.site(id)
	if err := n.StopNode(id); err != nil {
		t.Fatal(err)
	}
	identity, err := certs.OpenDir(s.svidDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenPacket("udp", s.ports.Mesh)
	if err != nil {
		t.Fatal(err)
	}
	anybody := func(spiffeid.ID) error { return nil }
	endpoint, err := mesh.Listen(mesh.Config{
		Packets: socket, Credentials: certs.NewTLS(identity, MeshName, anybody), Admit: anybody, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if hear != nil {
		hear(endpoint)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- endpoint.Run(running) }()
	t.Cleanup(func() {
		stop()
		<-done
		_ = endpoint.Close()
	})
	return &liar{t, n, s, endpoint}
}

func (l *liar) call(ctx context.Context, to names.InstitutionID, method string, req, resp proto.Message) error {
	peer := l.n.site(to)
	id, err := certs.NodeSPIFFE(MeshName, peer.id())
	if err != nil {
		l.t.Fatal(err)
	}
	return l.endpoint.Call(ctx, mesh.Peer{ID: id, Addr: peer.ports.Mesh}, method, req, resp)
}

// history is a journal's tree, and what a liar makes of it.
type history struct {
	origin string
	hashes []merkle.Hash
	size   int64
}

// ReadHashes implements merkle.HashReader.
func (h *history) ReadHashes(at []int64) ([]merkle.Hash, error) {
	list := make([]merkle.Hash, len(at))
	for i, n := range at {
		list[i] = h.hashes[n]
	}
	return list, nil
}

func (h *history) add(t *testing.T, leaf merkle.Hash) {
	t.Helper()
	more, err := merkle.StoredHashesForRecordHash(h.size, leaf, h)
	if err != nil {
		t.Fatal(err)
	}
	h.hashes, h.size = append(h.hashes, more...), h.size+1
}

// forge is the history with entries that the journal does not hold.
func (h *history) forge(t *testing.T, entries int, mark string) *history {
	forged := &history{origin: h.origin, hashes: append([]merkle.Hash(nil), h.hashes...), size: h.size}
	for i := range entries {
		forged.add(t, merkle.Hash(sha256.Sum256(fmt.Appendf(nil, "%s %d", mark, i))))
	}
	return forged
}

func (h *history) note(t *testing.T, s *site) *checkpoint.Note {
	t.Helper()
	root, err := merkle.TreeHash(h.size, h)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := checkpoint.Sign(h.origin, h.size, checkpoint.Hash(root), s.signer)
	if err != nil {
		t.Fatal(err)
	}
	n, err := checkpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// history reads the journal of a node that does not run.
func (l *liar) history() *history {
	l.t.Helper()
	cfg, err := config.Load(l.site.configFile())
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := journal.OpenReader(ownJournal(l.t, cfg))
	if err != nil {
		l.t.Fatal(err)
	}
	h := &history{origin: checkpoint.Origin(MeshName, l.site.id())}
	err = r.Commitments(l.t.Context(), 0, r.Next(), func(_ uint64, c [journal.CommitmentSize]byte) error {
		h.add(l.t, merkle.Hash(journal.LeafHash(c)))
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// show has a member cosign a history, proven from the one that it cosigned last, as any
// honest journal would prove it. It gives the cosigned note.
func (l *liar) show(ctx context.Context, member names.InstitutionID, h *history) *checkpoint.Note {
	l.t.Helper()
	note := h.note(l.t, l.site)
	ask := func(old int64) *registrypb.AddCheckpointResponse {
		req := &checkpoint.AddRequest{Old: old, Note: note.Bytes()}
		if old > 0 {
			proof, err := merkle.ProveTree(h.size, old, h)
			if err != nil {
				l.t.Fatal(err)
			}
			for _, p := range proof {
				req.Proof = append(req.Proof, checkpoint.Hash(p))
			}
		}
		resp := new(registrypb.AddCheckpointResponse)
		if err := l.call(ctx, member, witness.MethodAddCheckpoint, &registrypb.AddCheckpointRequest{Body: req.Bytes()}, resp); err != nil {
			l.t.Fatal(err)
		}
		return resp
	}
	resp := ask(0)
	if resp.Status == 409 {
		old, err := strconv.ParseInt(strings.TrimSpace(string(resp.Body)), 10, 64)
		if err != nil {
			l.t.Fatal(err)
		}
		resp = ask(old)
	}
	if resp.Status != 200 {
		l.t.Fatalf("%s does not cosign: %d %s", member, resp.Status, resp.Body)
	}
	if err := note.Add(resp.Body); err != nil {
		l.t.Fatal(err)
	}
	return note
}

// accused waits until a member holds evidence that names whoever is expected.
func accused(ctx context.Context, t *testing.T, n *Network, member names.InstitutionID, want ...string) {
	t.Helper()
	for {
		found, err := n.Client(member).Evidence(ctx)
		for _, e := range found.Items {
			named := true
			for _, w := range want {
				named = named && strings.Contains(e.Says, w)
			}
			if named && e.Certain {
				return
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("%s accuses nobody of %q: %+v, %v", member, want, found, err)
		}
		waitUntil(ctx, pollEvery)
	}
}

// TestTwoHistoriesShown: on the real network, a node that shows one history of its journal
// to one member and another to a second, each properly proven, is named by the members.
func TestTwoHistoriesShown(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	ctx := within(t)
	e := answered(n, "")[0]
	if _, err := n.Consult(ctx, e.Consultation, ""); err != nil {
		t.Fatal(err)
	}
	members := n.members()
	l := impersonate(ctx, t, n, e.Requester, nil)
	honest := l.history()
	l.show(ctx, members[0], honest.forge(t, 4, "for the first"))
	l.show(ctx, members[1], honest.forge(t, 4, "for the second"))
	accused(ctx, t, n, members[0], string(e.Requester)+"/n1 signed two histories")
	accused(ctx, t, n, members[1], string(e.Requester)+"/n1 signed two histories")
}

// TestMemberCosignsBoth: a member in league with a node cosigns both of its histories, gives
// one to be anchored and shows the other. Both are named, by every honest member.
func TestMemberCosignsBoth(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	ctx := within(t)
	e := answered(n, "")[0]
	if _, err := n.Consult(ctx, e.Consultation, ""); err != nil {
		t.Fatal(err)
	}
	members := n.members()
	accomplice := members[2]
	if accomplice == e.Requester {
		t.Fatal("the example is the accomplice's own")
	}
	l := impersonate(ctx, t, n, e.Requester, nil)
	honest := l.history()
	public, hidden := honest.forge(t, 3, "public"), honest.forge(t, 3, "hidden")
	cosign := func(note *checkpoint.Note) *checkpoint.Note {
		line, err := note.Cosign(n.site(accomplice).id(), time.Now(), n.site(accomplice).signer)
		if err == nil {
			err = note.Add(line)
		}
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	shown := cosign(hidden.note(t, l.site))
	impersonate(ctx, t, n, accomplice, func(e *mesh.Endpoint) {
		limits := mesh.Limits{Request: 64 << 10, Response: 1 << 20}
		mesh.Handle(e, witness.MethodLatest, limits, func(context.Context, spiffeid.ID, *registrypb.LatestRequest) (*registrypb.LatestResponse, error) {
			return &registrypb.LatestResponse{Notes: [][]byte{shown.Bytes()}}, nil
		})
	})
	anchored := cosign(l.show(ctx, members[0], public))
	for anchoring := true; anchoring; {
		resp := new(registrypb.AnchorResponse)
		err := l.call(ctx, members[0], witness.MethodAnchor, &registrypb.AnchorRequest{Notes: [][]byte{anchored.Bytes()}}, resp)
		list, lerr := n.Client(members[0]).Anchors(ctx)
		for _, a := range list.Items {
			if a.Size == anchored.Size && strings.HasPrefix(a.Journal, string(e.Requester)+"/") {
				anchoring = false
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("not anchored: %v, %v", err, lerr)
		}
		waitUntil(ctx, pollEvery)
	}
	for _, m := range members[:2] {
		accused(ctx, t, n, m, string(e.Requester)+"/n1 signed two histories", string(accomplice)+"/n1 cosigned both")
	}
}

func (n *Network) members() (ids []names.InstitutionID) {
	for _, s := range n.layout.sites {
		if s.member {
			ids = append(ids, s.ID)
		}
	}
	return ids
}
