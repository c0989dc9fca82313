package node

import (
	"context"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// maxProofs bounds the bytes of the proofs in one reply; entries beyond have none.
const maxProofs = 1 << 20

// prove shows of each entry that it is in the log that this node published: under its
// last anchored checkpoint, or else under its last; empty where neither holds it yet.
func (n *Node) prove(found []journal.Stored) [][]byte {
	latest := n.tree.Latest()
	anchored, ok := n.anchor.Anchored()
	proofs := make([][]byte, len(found))
	size := 0
	for i, e := range found {
		seq := int64(e.Sequence)
		p := tlog.Proof{Index: seq, Checkpoint: latest.Note}
		under := latest.Size
		if ok && seq < anchored.Size {
			p.Checkpoint, under = anchored.Note, anchored.Size
		}
		if seq >= under {
			continue
		}
		path, err := n.tree.InclusionProof(under, seq)
		if err != nil {
			n.log.Error("an entry cannot be proved to be in the log", "sequence", e.Sequence, "err", err)
			continue
		}
		p.Path = path
		b := p.Marshal()
		if size += len(b); size > maxProofs {
			break
		}
		proofs[i] = b
	}
	return proofs
}

// means is what this node judges stories with. known may be nil.
func (t tracer) means(known map[names.NodeID]int64) trace.Means {
	return trace.Means{Keys: t.keysOf, Known: known, Anchored: func(note *checkpoint.Note) (bool, error) {
		var members []names.NodeID
		err := t.n.registry.View(func(v record.View) (err error) {
			members, err = v.Members()
			return err
		})
		if err != nil {
			return false, err
		}
		return trace.Majority(note, members, t.keysOf)
	}}
}

// known gives how many entries the journals of nodes are known to have had, as far as
// members can be asked.
func (t tracer) known(ctx context.Context, nodes []names.NodeID) map[names.NodeID]int64 {
	known := map[names.NodeID]int64{}
	for _, id := range nodes {
		notes, err := t.n.anchors(ctx, id)
		if err != nil {
			t.n.log.Info("anchored checkpoints could not be fetched", "journal", id.String(), "err", err)
			return known
		}
		for _, note := range notes {
			known[note.Node] = max(known[note.Node], note.Size)
		}
	}
	return known
}
