package batch

import (
	"context"
	"errors"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Redeciding decides some subjects of a chunk again for another node. The reading is
// journaled before it is answered, also when it is refused.
func Redeciding(j Journal, r *chunk.Redecider, now func() time.Time) func(context.Context, names.NodeID, *registrypb.RedecideChunkRequest) (*registrypb.RedecideChunkResponse, error) {
	return func(ctx context.Context, from names.NodeID, req *registrypb.RedecideChunkRequest) (*registrypb.RedecideChunkResponse, error) {
		resp, err := r.Redecide(ctx, from, req)
		detail := "subjects of a lot decided again for " + from.String()
		if err != nil {
			detail += ": refused"
		}
		e := &nodepb.Entry{TimeUnixMs: now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ, Requester: nodeRef(from), Detail: detail}
		if jerr := appendEntry(ctx, j, e); jerr != nil {
			return nil, errors.Join(clearing.ErrJournal, jerr)
		}
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}
