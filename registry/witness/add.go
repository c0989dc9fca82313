package witness

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// HandleAddCheckpoint answers MethodAddCheckpoint as C2SP tlog-witness says. An error
// is this member's own trouble, and then nothing was cosigned.
func (w *Witness) HandleAddCheckpoint(_ context.Context, from names.NodeID, req *registrypb.AddCheckpointRequest) (*registrypb.AddCheckpointResponse, error) {
	leave, err := w.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	r, err := checkpoint.ParseAddRequest(req.GetBody())
	if err != nil {
		return answer(http.StatusBadRequest, err.Error()), nil
	}
	n, err := checkpoint.Parse(r.Note)
	if err != nil {
		return answer(http.StatusBadRequest, err.Error()), nil
	}
	if n.Mesh != w.cfg.Mesh || n.Node != from {
		return answer(http.StatusNotFound, "the journal is not the caller's"), nil
	}
	switch err := w.check(n); {
	case errors.Is(err, record.ErrNotAnchored):
		return answer(http.StatusForbidden, err.Error()), nil
	case err != nil:
		return nil, err
	case r.Old > n.Size:
		return answer(http.StatusBadRequest, "the old size is above that of the checkpoint"), nil
	}
	mu := w.lock(n.Origin)
	defer mu.Unlock()
	return w.add(r, n)
}

// add decides on n and remembers it. The caller holds the journal's lock.
func (w *Witness) add(r *checkpoint.AddRequest, n *checkpoint.Note) (*registrypb.AddCheckpointResponse, error) {
	last, err := w.latest(n.Origin)
	if err == nil && last == nil {
		last, err = w.anchored(n.Node)
	}
	if err != nil {
		return nil, err
	}
	if refusal, err := w.consistent(r, n, last); refusal != nil || err != nil {
		return refusal, err
	}
	line, err := n.Cosign(w.cfg.Self, w.cfg.Now(), w.cfg.Signer)
	if err != nil {
		return nil, err
	}
	kept := n.Only(0, nil)
	if err := kept.Add(line); err != nil {
		return nil, err
	}
	if err := w.remember(kept); err != nil {
		return nil, err
	}
	if n.Epoch > 1 && (last == nil || last.Epoch < n.Epoch) {
		w.cfg.Log.Warn("a journal declares a new epoch: its disk was restored, entries may be lost",
			"journal", n.Node.String(), "epoch", n.Epoch, "size", n.Size)
	}
	return answer(http.StatusOK, string(line)), nil
}

// consistent gives nil when n continues last, and else what to answer. What
// contradicts is kept before anything is answered.
func (w *Witness) consistent(r *checkpoint.AddRequest, n, last *checkpoint.Note) (*registrypb.AddCheckpointResponse, error) {
	if last != nil && n.Epoch < last.Epoch {
		return answer(http.StatusUnprocessableEntity, "a later epoch of the journal was declared"), nil
	}
	if last != nil && n.Epoch > last.Epoch {
		last = nil // a declared restore: what was lost is told, and the new epoch begins anew
	}
	size := int64(0)
	if last != nil {
		size = last.Size
	}
	switch {
	case last != nil && n.Size == size && n.Root != last.Root:
		return conflict(size), w.accuse(last, n, nil)
	case r.Old != size:
		return conflict(size), nil
	case size == 0 && len(r.Proof) > 0:
		return answer(http.StatusUnprocessableEntity, "there is no proof from nothing"), nil
	case last == nil:
		return nil, nil
	}
	if checkpoint.Compare(last, n, r.Proof) == checkpoint.Consistent {
		return nil, nil
	}
	return answer(http.StatusUnprocessableEntity, "the proof does not join the checkpoints"), w.accuse(last, n, r.Proof)
}

func answer(status uint32, body string) *registrypb.AddCheckpointResponse {
	return &registrypb.AddCheckpointResponse{Status: status, Body: []byte(body)}
}

// conflict tells the size last cosigned, from which the proof must begin.
func conflict(size int64) *registrypb.AddCheckpointResponse {
	return answer(http.StatusConflict, strconv.FormatInt(size, 10)+"\n")
}
