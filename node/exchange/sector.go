package exchange

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Sector makes a supplier the managing body of its sector: it answers for
// institutions behind it, and nobody outside learns for which. Package node/sector
// implements it.
type Sector interface {
	// Resolves reports whether a dataset is found within the sector, and not in a
	// system of this institution's.
	Resolves(d names.DatasetID) bool
	// Resolve gives what the sector has. It has journaled for itself what it did, and
	// gives the seal of that also with an error. Whatever the error is, the peer is
	// told the same: SECTOR_FAILED.
	Resolve(ctx context.Context, c SectorCase) (SectorFound, error)
	// Settle returns when what came of a presentation may be written down. Whatever is
	// signed and journaled says when, and must not say how quick the sector was.
	Settle(ctx context.Context, arrived time.Time, failed bool)
	// Hold returns at the instant at which what came of a presentation may leave: a
	// bound of a time class, counted from its arrival; a later one if it failed. It
	// returns early only when ctx is done, and then nobody waits.
	Hold(ctx context.Context, arrived time.Time, failed bool)
}

// SectorCase is a presentation that stood, and what is to be found for it.
type SectorCase struct {
	From      names.NodeID // who presented
	Request   []byte       // envelope
	Clearance []byte       // envelope
	Checked   *clearing.Checked
	Presented time.Time // when the clearance was judged to be in time
	Arrived   time.Time // with its monotonic reading
}

// SectorFound is what a sector has on a subject.
type SectorFound struct {
	Records []Record // permitted fields only
	Seal    []byte   // for the journal entry
}

// resolve has the sector find the content.
func (x *presentation) resolve(ctx context.Context) ([]byte, int, *refusal) {
	x.resolved = true
	found, err := x.cfg.Sector.Resolve(ctx, SectorCase{
		From: x.from, Request: x.raw.GetRequest(), Clearance: x.raw.GetClearance(), Checked: x.checked,
		Presented: x.presented, Arrived: x.arrived,
	})
	x.seal = found.Seal
	if err == nil {
		err = checkRecords(found.Records)
	}
	var content []byte
	if err == nil {
		content, err = filter(found.Records, x.checked.Fields)
	}
	if err != nil {
		if errors.Is(err, ErrJournalUnavailable) {
			x.cfg.Log.Error("the sector's journal failed", "ticket", x.ticket(), "err", err)
		}
		return nil, 0, refuse(registrypb.Reason_SECTOR_FAILED, "the sector has no answer")
	}
	return content, len(found.Records), nil
}

// hold waits, at a managing body, until what came of x may leave. What was refused
// before the sector was asked depends on nothing within it, and leaves at once.
func (x *presentation) hold(ctx context.Context, failed bool) {
	if x.cfg.Sector != nil && (x.resolved || !failed) {
		x.cfg.Sector.Hold(ctx, x.arrived, failed)
	}
}

// settle waits, at a managing body, until what came of x may be written down.
func (x *presentation) settle(ctx context.Context, failed bool) {
	if x.cfg.Sector != nil && (x.resolved || !failed) {
		x.cfg.Sector.Settle(ctx, x.arrived, failed)
	}
}

// Contents makes and reads the content of answers, for packages that carry it by other
// ways. The zero value is ready and safe for concurrent use.
type Contents struct{ schemas schemas }

// Make checks what a source gave against its dataset's schema, and cuts it to the
// permitted fields. The error never repeats what a record holds.
func (c *Contents) Make(dataset names.DatasetID, schema string, records []Record, permitted []names.FieldName) ([]byte, nodepb.Status, error) {
	err := checkRecords(records)
	if err == nil {
		err = c.schemas.check(dataset, schema, records)
	}
	if err != nil {
		return nil, 0, err
	}
	content, err := filter(records, permitted)
	return content, statusOf(len(records)), err
}

// ReadContent takes content apart that a peer sent. It fails unless the content is what
// Make gives.
func ReadContent(content []byte, permitted []names.FieldName) (records []Record, status nodepb.Status, err error) {
	n, err := checkContent(content, permitted)
	if err != nil {
		return nil, 0, err
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	if _, err := dec.Token(); err != nil {
		return nil, 0, fmt.Errorf("%w: not JSON", errRecord)
	}
	for dec.More() {
		var r Record
		if err := dec.Decode(&r); err != nil {
			return nil, 0, fmt.Errorf("%w: not JSON", errRecord)
		}
		records = append(records, r)
	}
	return records, statusOf(n), nil
}

// Commitment is what journals keep of content.
func Commitment(blinding, content []byte) []byte { return commitment(blinding, content) }
