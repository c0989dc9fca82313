package node

import (
	"context"
	"errors"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/anchor"
	"github.com/crossroads-mesh/crossroads/node/metrics"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

// openAnchoring opens what gets this node's checkpoints cosigned and, on a member, what
// cosigns those of all.
func (n *Node) openAnchoring() (err error) {
	cfg := anchor.Config{
		Mesh: n.cfg.Mesh, Self: n.self, Log: n.tree, Registry: n.registry, Peers: n.peers,
		Declaration: n.declaration, Dir: n.dir("anchor"), Now: n.deps.Now, Logger: n.log,
	}
	if n.cfg.Member {
		n.witness, err = witness.Open(witness.Config{
			Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Dir: n.dir("witness"), StorageKey: n.keys.storage,
			Registry: n.registry, Peers: n.peers, Now: n.deps.Now, Log: n.log,
		})
		if err != nil {
			return err
		}
		n.opened = append(n.opened, n.witness)
		cfg.Local = n.witness
	}
	n.anchor, err = anchor.Open(cfg)
	return err
}

// runWitness cosigns until ctx ends, on a member.
func (n *Node) runWitness(ctx context.Context) error {
	if n.witness == nil {
		return nil
	}
	return n.witness.Run(ctx)
}

func (n *Node) handleAnchoring() {
	who := n.admission
	small := mesh.Limits{Request: maxSmall, Response: maxSmall}
	serve(n, witness.MethodConsistency, small, who.listed, n.anchor.HandleConsistency)
	if n.witness == nil {
		return
	}
	notes := witness.MaxAnchorBytes
	serve(n, witness.MethodAddCheckpoint, small, who.listed, n.witness.HandleAddCheckpoint)
	serve(n, witness.MethodLatest, mesh.Limits{Request: maxSmall, Response: notes}, who.listed, n.witness.HandleLatest)
	serve(n, witness.MethodAnchor, mesh.Limits{Request: notes, Response: maxSmall}, who.listed, n.witness.HandleAnchor)
	serve(n, witness.MethodAnchors, mesh.Limits{Request: maxSmall, Response: notes}, who.listed, n.witness.HandleAnchors)
}

func (n *Node) openMetrics() error {
	cfg := metrics.Config{
		Raft:    n.registry.RaftStats,
		Version: n.deps.Version, Registry: n.registry, Entries: n.journal.Next, Anchoring: n.anchor.Stats,
		Examined: func() (examined, wrong uint64) {
			c := n.audit.Counts()
			return c.Examined, c.Wrong
		},
	}
	if n.witness != nil {
		cfg.Evidence = func() (int, error) {
			all, err := n.witness.Evidence()
			return len(all), err
		}
	}
	n.metrics = metrics.New(cfg)
	return nil
}

// witnessing is what this node knows of the checkpoints of the mesh.
type witnessing struct{ n *Node }

// Anchors gives the last anchored checkpoint of every journal: from the registry, on a
// member; else from the first member that answers.
func (w witnessing) Anchors(ctx context.Context) ([]*checkpoint.Note, error) {
	return w.n.anchors(ctx, names.NodeID{})
}

// Evidence gives what this member holds; a node that is none holds nothing.
func (w witnessing) Evidence() ([]*checkpoint.Evidence, error) {
	if w.n.witness == nil {
		return nil, nil
	}
	return w.n.witness.Evidence()
}

// anchors gives the anchored checkpoint of one journal, or with no name of all.
func (n *Node) anchors(ctx context.Context, journal names.NodeID) (notes []*checkpoint.Note, err error) {
	var members []names.NodeID
	err = n.registry.View(func(v record.View) error {
		if n.witness == nil {
			members, err = v.Members()
			return err
		}
		return v.Anchors(names.NodeID{}, func(a *record.Anchor) error {
			if journal == (names.NodeID{}) || a.Checkpoint.Node == journal {
				notes = append(notes, a.Checkpoint)
			}
			return nil
		})
	})
	if err != nil || n.witness != nil {
		return notes, err
	}
	failed := errors.New("the registry names no members")
	for _, m := range n.peers.Order(members) {
		notes, err := witness.FetchAnchors(ctx, n.peers, m, journal, n.cfg.Mesh, n.registry.View)
		if err == nil || ctx.Err() != nil {
			return notes, err
		}
		failed = err
	}
	return nil, failed
}
