package node

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/batch/pace"
	"github.com/crossroads-mesh/crossroads/node/batch/spool"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The methods of lots.
const (
	methodClearChunk       = "clearing.clear-chunk"
	methodRedecideChunk    = "clearing.redecide-chunk"
	methodPresentChunk     = "lot.present"
	methodAcknowledgeChunk = "lot.acknowledge"
)

const (
	maxChunk       = 192 << 10 // a request, a demand or a clearance of a chunk
	maxChunkAnswer = 5 << 20
	// chunksCleared is how many chunks are decided beside each other: one fewer than what a
	// small machine can do, so that a consultation never waits for a chunk.
	chunksCleared = 1
)

// lots are what a node has for files of many subjects.
type lots struct {
	gate       pace.Gate // interactive traffic passes first
	consultant *batch.Consultant
	supplier   *batch.Supplier
	decisions  *batch.Decisions // nil on a node that is no member
	redecider  *chunk.Redecider // likewise
	drops      []*batch.Drop
}

func (n *Node) openLots() error {
	dir, err := disk.OpenDir(n.dir("lots"))
	if err != nil {
		return err
	}
	files, err := spool.Open(dir, n.keys.storage)
	if err != nil {
		return err
	}
	cfg := n.cfg.Lots
	zone, err := time.LoadLocation(cfg.Zone)
	if err != nil {
		return err
	}
	window, err := pace.ParseWindow(cfg.Window, zone)
	if err != nil {
		return err
	}
	bounds := n.keys.genesis.Bounds
	quota := func() *pace.Quota { return pace.NewQuota(cfg.SubjectsPerSecond, chunk.MaxSubjects) }
	n.lots = &lots{}
	n.lots.consultant, err = batch.NewConsultant(batch.ConsultantConfig{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Registry: n.past, Peers: n.peers, Journal: n.journal, Outbox: n.outbox,
		Spool: files, Bounds: bounds, ChunkLines: cfg.ChunkLines, MaxLines: uint64(cfg.MaxLines), MaxOpen: cfg.MaxOpen, AtOnce: cfg.AtOnce,
		Keep: cfg.Keep, Window: window, Gate: &n.lots.gate, Now: n.deps.Now, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.lots.supplier = batch.NewSupplier(batch.SupplierConfig{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Registry: n.past, Journal: n.journal, Outbox: n.outbox, Sources: n.deps.Sources,
		Sector: n.supplySectorLots(), Bounds: bounds, NotBefore: n.journal.Epoch().NotBefore(bounds.ReleaseLife, bounds.Skew), Life: n.cfg.Outbox.Life,
		Window: window, Quota: quota(), Gate: &n.lots.gate, Now: n.deps.Now, Log: n.log,
	})
	for _, d := range cfg.Drops {
		drop, err := batch.NewDrop(n.lots.consultant, d, n.deps.Now, n.log)
		if err != nil {
			return err
		}
		n.lots.drops = append(n.lots.drops, drop)
	}
	if n.cfg.Member {
		n.lots.decisions = &batch.Decisions{Journal: n.journal, Outbox: n.outbox, Quota: quota(), AtOnce: make(chan struct{}, chunksCleared), Now: n.deps.Now}
		n.lots.decisions.Decide = chunk.New(chunk.Config{
			Self: n.self, Mesh: n.cfg.Mesh, Signer: n.keys.signer, Registry: n.past, Journal: n.lots.decisions, Bounds: bounds,
			Schemes: subject.Belgian(), Pass: n.lots.gate.Pass, Now: n.deps.Now, Log: n.log,
		}).Clear
		n.lots.redecider = &chunk.Redecider{Self: n.self, Mesh: n.cfg.Mesh, Registry: n.registry, Decider: clearing.NewRedecider(clearing.RedeciderConfig{
			Self: n.self, Mesh: n.cfg.Mesh, Rules: n.registry.Rules(), Bounds: bounds, Registry: n.registry, Log: n.log,
		})}
	}
	return nil
}

func (n *Node) handleLots() {
	who := n.admission
	serve(n, methodPresentChunk, mesh.Limits{Request: 2 * maxChunk, Response: maxChunkAnswer}, who.listed, n.presentedChunk())
	serve(n, methodAcknowledgeChunk, mesh.Limits{Request: maxSmall, Response: maxSmall}, who.listed, n.lots.supplier.Acknowledge)
	if n.lots.decisions != nil {
		serve(n, methodClearChunk, mesh.Limits{Request: maxChunk, Response: 16 * maxChunk}, who.listed, n.lots.decisions.Clear)
		serve(n, methodRedecideChunk, mesh.Limits{Request: 2 * maxChunk, Response: 16 * maxSmall}, who.listed, batch.Redeciding(n.journal, n.lots.redecider, n.deps.Now))
	}
}

// runLots works on lots and on the folders they are dropped in, until ctx ends.
func (n *Node) runLots(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range n.lots.drops {
		g.Go(func() error { return d.Run(ctx) })
	}
	g.Go(func() error { return n.lots.consultant.Run(ctx) })
	return g.Wait()
}

// first lets interactive traffic go before lots.
func first[Req, Resp any](g *pace.Gate, h func(context.Context, names.NodeID, *Req) (*Resp, error)) func(context.Context, names.NodeID, *Req) (*Resp, error) {
	return func(ctx context.Context, from names.NodeID, req *Req) (*Resp, error) {
		defer g.Enter()()
		return h(ctx, from, req)
	}
}

// interactive lets consultations go before lots.
type interactive struct {
	api.Consultations
	gate *pace.Gate
}

// Consult asks.
func (i interactive) Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
	defer i.gate.Enter()()
	return i.Consultations.Consult(ctx, q)
}

var _ batch.Peers = (*peers)(nil)

// ClearChunk asks a clearing peer about a chunk.
func (p *peers) ClearChunk(ctx context.Context, to names.NodeID, req *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error) {
	resp := new(registrypb.ClearChunkResponse)
	return resp, busy(p.Call(ctx, to, methodClearChunk, req, resp))
}

// PresentChunk shows the clearance of a chunk to a supplier.
func (p *peers) PresentChunk(ctx context.Context, to names.NodeID, req *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error) {
	resp := new(nodepb.ChunkResponse)
	return resp, busy(p.Call(ctx, to, methodPresentChunk, req, resp))
}

// AcknowledgeChunk tells a supplier that its answer is held durably.
func (p *peers) AcknowledgeChunk(ctx context.Context, to names.NodeID, req *nodepb.ChunkAcknowledgement) (*nodepb.ChunkAcknowledgeResponse, error) {
	resp := new(nodepb.ChunkAcknowledgeResponse)
	return resp, p.Call(ctx, to, methodAcknowledgeChunk, req, resp)
}

// busy turns what a peer says that takes no chunk now into the room's own word.
func busy(err error) error {
	var e *mesh.Error
	if errors.As(err, &e) && e.Code == mesh.ResourceExhausted {
		return &batch.Busy{After: max(e.RetryAfter, 50*time.Millisecond)}
	}
	return err
}
