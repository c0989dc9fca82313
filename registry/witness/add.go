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
	return w.add(r, n, req.GetDeclaration())
}

// add decides on n and remembers it. The caller holds the journal's lock.
func (w *Witness) add(r *checkpoint.AddRequest, n *checkpoint.Note, declaration []byte) (*registrypb.AddCheckpointResponse, error) {
	last, err := w.last(n)
	if err != nil {
		return nil, err
	}
	if last != nil && n.Epoch < last.Epoch {
		return answer(http.StatusUnprocessableEntity, "a later epoch of the journal was declared"), nil
	}
	var begun *begun
	if n.Epoch > epochOf(last) {
		var refusal *registrypb.AddCheckpointResponse
		if begun, refusal, err = w.begin(r, n, declaration); refusal != nil || err != nil {
			return refusal, err
		}
	} else if refusal, err := w.consistent(r, n, last); refusal != nil || err != nil {
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
	if err := w.remember(kept, begun); err != nil {
		return nil, err
	}
	if begun != nil {
		w.cfg.Log.Warn("a journal declares a new epoch: its disk was restored, entries may be lost",
			"journal", n.Node.String(), "epoch", n.Epoch, "size", n.Size, "resumes", begun.declaration.ResumesAt)
	}
	return answer(http.StatusOK, string(line)), nil
}

// last gives what n must continue: the note that this member cosigned last, or what
// is anchored when it remembers none or the journal's epoch has gone on without it.
func (w *Witness) last(n *checkpoint.Note) (*checkpoint.Note, error) {
	own, err := w.latest(n.Origin)
	if err != nil {
		return nil, err
	}
	anchored, err := w.anchored(n.Node)
	if own == nil || anchored != nil && anchored.Epoch > own.Epoch {
		own = anchored
	}
	return own, err
}

// epochOf gives the epoch of a note; a journal of which nothing is known is in its first.
func epochOf(n *checkpoint.Note) int64 {
	if n == nil {
		return 1
	}
	return n.Epoch
}

// consistent gives nil when n continues last, of the same epoch, and else what to answer.
// What contradicts is kept before anything is answered.
func (w *Witness) consistent(r *checkpoint.AddRequest, n, last *checkpoint.Note) (*registrypb.AddCheckpointResponse, error) {
	if last != nil && n.Size == last.Size && n.Root != last.Root {
		return conflict(last.Size), w.accuse(last, n, nil)
	}
	refusal, forked := follows(r, n, last)
	if forked {
		return refusal, w.accuse(last, n, r.Proof)
	}
	return refusal, nil
}

// follows gives nil when the request proves that n continues last, nil: nothing, and
// else what to answer, and whether the proof is not one.
func follows(r *checkpoint.AddRequest, n, last *checkpoint.Note) (refusal *registrypb.AddCheckpointResponse, forked bool) {
	size := int64(0)
	if last != nil {
		size = last.Size
	}
	switch {
	case r.Old != size:
		return conflict(size), false
	case size == 0 && len(r.Proof) > 0:
		return answer(http.StatusUnprocessableEntity, "there is no proof from nothing"), false
	case last == nil || checkpoint.Compare(last, n, r.Proof) == checkpoint.Consistent:
		return nil, false
	}
	return answer(http.StatusUnprocessableEntity, "the proof does not join the checkpoints"), true
}

func answer(status uint32, body string) *registrypb.AddCheckpointResponse {
	return &registrypb.AddCheckpointResponse{Status: status, Body: []byte(body)}
}

// conflict tells the size last cosigned, from which the proof must begin.
func conflict(size int64) *registrypb.AddCheckpointResponse {
	return answer(http.StatusConflict, strconv.FormatInt(size, 10)+"\n")
}
