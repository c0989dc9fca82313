package batch

import (
	"context"
	"errors"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Sector makes a supplier of chunks the managing body of its sector, as exchange.Sector
// does for consultations. Package node/sector implements it.
type Sector interface {
	// Resolves reports whether a dataset is found within the sector.
	Resolves(d names.DatasetID) bool
	// ResolveChunk gives what the sector has on each subject. It has journaled for itself
	// what it did. ErrSectorTooMuch: asked about fewer, it may have an answer; whatever
	// else the error is, the peer is told the same, SECTOR_FAILED.
	ResolveChunk(ctx context.Context, c SectorChunk) (SectorChunkFound, error)
	// Settle and Hold are those of exchange.Sector.
	Settle(ctx context.Context, arrived time.Time, failed bool)
	Hold(ctx context.Context, arrived time.Time, failed bool)
}

// ErrSectorTooMuch means that the records of so many subjects are more than a sector sends.
var ErrSectorTooMuch = errors.New("the sector's records of so many do not fit one answer")

// MaxSectorContent bounds the content of a managing body's answer, so that its size class is
// one of a sector's.
const MaxSectorContent = 2<<20 - 32<<10

// SectorChunk is a presentation of a chunk that stood.
type SectorChunk struct {
	From         names.NodeID // who presented
	Presentation *nodepb.ChunkPresentation
	Checked      *chunk.Checked
	Presented    time.Time // when the clearance was judged to be in time
	Arrived      time.Time // with its monotonic reading
}

// SectorChunkFound is what a sector has on the subjects of a chunk, in the clearance's order.
type SectorChunkFound struct {
	Subjects []SectorSubject
	Seal     []byte // for the journal entry
}

// SectorSubject is what a sector has on one of them.
type SectorSubject struct {
	Records []exchange.Record // permitted fields only
	Failed  bool              // the sector has no answer
}

// resolves reports whether the content is found within the sector.
func (x *supply) resolves() bool {
	return x.cfg.Sector != nil && x.cfg.Sector.Resolves(names.DatasetID(x.Order.Dataset))
}

// resolve has the sector find what there is on each subject.
func (x *supply) resolve(ctx context.Context, g *guarded, presented time.Time) ([]content.Item, *clearing.Refusal) {
	if x.count() > chunk.MaxOutlined {
		return nil, refusal(registrypb.Reason_CHUNK_TOO_LARGE, "a sector is asked about fewer at once")
	}
	if len(x.Clearance.Outline) == 0 {
		return nil, refusal(registrypb.Reason_CLEARANCE_INVALID, "it holds no outline, so nobody in the sector could check it")
	}
	x.resolved = true
	found, err := x.cfg.Sector.ResolveChunk(ctx, SectorChunk{
		From: x.from, Presentation: x.raw, Checked: x.checked, Presented: presented, Arrived: x.arrived,
	})
	x.sectorSeal = found.Seal
	switch {
	case errors.Is(err, ErrSectorTooMuch):
		return nil, refusal(registrypb.Reason_CHUNK_TOO_LARGE, err.Error())
	case err != nil || len(found.Subjects) != len(g.queries):
		x.cfg.Log.Error("the sector could not be asked about a chunk", "ticket", x.Clearance.Ticket, "err", err)
		return nil, refusal(registrypb.Reason_SECTOR_FAILED, "the sector has no answer")
	}
	items := make([]content.Item, len(g.queries))
	place, size := 0, 0
	for i, group := range x.Clearance.Groups {
		c := &cutting{sector: true, fields: x.checked.Groups[i].Fields, yesNo: group.YesNo}
		for range packed.Len(group.Subjects) {
			switch s := found.Subjects[place]; {
			case len(g.queries[place]) == 0:
				items[place] = content.Item{Code: content.Revoked}
			case s.Failed:
				items[place] = content.Item{Code: content.Unresolved}
			default:
				items[place] = c.item(s.Records)
			}
			if size += 8 + len(items[place].Records); size > MaxSectorContent {
				return nil, refusal(registrypb.Reason_CHUNK_TOO_LARGE, ErrSectorTooMuch.Error())
			}
			place++
		}
	}
	return items, nil
}

// settle waits, at a managing body, until what came of a chunk may be written down, and hold
// until it may leave. A chunk has one time class, the later one, whether subjects failed or
// not: what is said of many, and how soon, must not depend on whose they are. What is kept
// from before depends on nothing within the sector, and leaves at the first.
func (x *supply) settle(ctx context.Context) {
	if x.cfg.Sector != nil && x.resolved {
		x.cfg.Sector.Settle(ctx, x.arrived, !x.kept)
	}
}

func (x *supply) hold(ctx context.Context) {
	if x.cfg.Sector != nil && x.resolved {
		x.cfg.Sector.Hold(ctx, x.arrived, !x.kept)
	}
}
