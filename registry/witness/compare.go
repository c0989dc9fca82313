package witness

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// askFor bounds one question to another node.
const askFor = 3 * time.Second

// comparing is where the comparison goes on.
type comparing struct {
	turn  int
	after map[names.NodeID]string
}

// HandleLatest answers MethodLatest. Checkpoints are no secret: any node may ask.
func (w *Witness) HandleLatest(_ context.Context, _ names.NodeID, req *registrypb.LatestRequest) (*registrypb.LatestResponse, error) {
	leave, err := w.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	notes, next, err := w.page(req.GetAfter())
	if err != nil {
		return nil, err
	}
	return &registrypb.LatestResponse{Notes: notes, Next: next}, nil
}

// Compare asks the next member for its next page of notes and holds each against what
// this member knows. Run calls it every CompareEvery; it is not safe for concurrent use
// with itself.
func (w *Witness) Compare(ctx context.Context) {
	leave, err := w.enter()
	if err != nil {
		return
	}
	defer leave()
	others, err := w.others()
	if err != nil || len(others) == 0 {
		return
	}
	c := &w.compare
	if c.after == nil {
		c.after = make(map[names.NodeID]string)
	}
	m := others[c.turn%len(others)]
	c.turn++
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	resp := new(registrypb.LatestResponse)
	if err := w.cfg.Peers.Call(asking, m, MethodLatest, &registrypb.LatestRequest{After: c.after[m]}, resp); err != nil {
		w.cfg.Log.Debug("cannot compare checkpoints", "with", m.String(), "error", err)
		return
	}
	c.after[m] = resp.GetNext()
	for i, raw := range resp.GetNotes() {
		if i == pageSize || ctx.Err() != nil {
			return
		}
		if err := w.compareNote(ctx, raw); err != nil {
			w.cfg.Log.Debug("cannot compare a checkpoint", "with", m.String(), "error", err)
		}
	}
}

func (w *Witness) others() (members []names.NodeID, err error) {
	err = w.view(func(v record.View) error {
		members, err = v.Members()
		return err
	})
	return slices.DeleteFunc(members, func(m names.NodeID) bool { return m == w.cfg.Self }), err
}

// compareNote holds a note that another member cosigned against this member's own and
// against the anchored one. The error says why that could not be done.
func (w *Witness) compareNote(ctx context.Context, raw []byte) error {
	theirs, err := checkpoint.Parse(raw)
	if err != nil {
		return err
	}
	if err := w.check(theirs); err != nil {
		return err
	}
	own, err := w.latest(theirs.Origin)
	if err != nil {
		return err
	}
	anchored, err := w.anchored(theirs.Node)
	if err != nil {
		return err
	}
	for _, known := range []*checkpoint.Note{own, anchored} {
		if known != nil {
			err = errors.Join(err, w.join(ctx, known, theirs))
		}
	}
	return err
}

// join sees whether two checkpoints of a journal are of one history; if that takes a
// proof, it asks the journal's node, which must be able to give one.
func (w *Witness) join(ctx context.Context, a, b *checkpoint.Note) error {
	if a.Size > b.Size {
		a, b = b, a
	}
	switch {
	case a.Same(b), a.Size == 0, a.Epoch != b.Epoch:
		return nil
	case a.Size == b.Size:
		return w.accuse(a, b, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	resp := new(registrypb.ConsistencyResponse)
	if err := w.cfg.Peers.Call(ctx, a.Node, MethodConsistency, &registrypb.ConsistencyRequest{OldSize: a.Size, NewSize: b.Size}, resp); err != nil {
		return err
	}
	var proof []checkpoint.Hash
	for _, h := range resp.GetProof() {
		if len(h) != checkpoint.HashSize || len(proof) == checkpoint.MaxProof {
			proof = nil
			break
		}
		proof = append(proof, checkpoint.Hash(h))
	}
	if checkpoint.Compare(a, b, proof) == checkpoint.Consistent {
		return nil
	}
	return w.accuse(a, b, proof)
}
