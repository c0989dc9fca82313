package batch

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/pace"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Decisions is a clearing peer's memory of what it decided on chunks: kept and journaled
// before it is given, and given again, rather than decided and journaled once more, to a
// requester that does not know whether it was. It is safe for concurrent use.
type Decisions struct {
	Journal Journal
	Outbox  exchange.Outbox
	// Quota bounds the subjects of each institution. Nil: nothing does.
	Quota *pace.Quota
	// AtOnce is how many chunks are decided beside each other. Nil: any number.
	AtOnce chan struct{}
	Now    func() time.Time
	// Decide is chunk.Service's.
	Decide func(ctx context.Context, from names.NodeID, cr *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error)

	locks keyed
}

var _ chunk.Journal = (*Decisions)(nil)

// Clear decides, or gives what was decided before on the same question while it can be
// used. The errors are those of chunk.Service.Clear, or a *Busy.
func (d *Decisions) Clear(ctx context.Context, from names.NodeID, cr *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error) {
	key := askedKey(cr)
	release, err := d.locks.acquire(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	if cr.GetAgain() {
		if resp, err := d.before(ctx, from, key, cr); resp != nil || err != nil {
			return resp, err
		}
	}
	if d.Quota != nil {
		n := 1 // what is malformed costs little, and is told by whoever reads it
		if o, err := envelope.Open(envelope.LotChunk, cr.GetRequest()); err == nil {
			r := new(registrypb.ChunkRequest)
			if proto.Unmarshal(o.Payload, r) == nil {
				n = max(1, min(packed.Len(r.Subjects), chunk.MaxSubjects))
			}
		}
		if wait := d.Quota.Take(from.Institution, n, d.Now()); wait > 0 {
			return nil, &Busy{wait}
		}
	}
	if d.AtOnce != nil {
		select {
		case d.AtOnce <- struct{}{}:
			defer func() { <-d.AtOnce }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return d.Decide(ctx, from, cr)
}

// askedKey names a question: what is still pending, and what others cleared, belongs to it.
func askedKey(cr *registrypb.ClearChunkRequest) outbox.Key {
	h := sha256.New()
	for _, s := range append([]string{string(cr.GetRequest()), string(cr.GetPending())}, cr.GetCleared()...) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	return outbox.Key{Table: decided, ID: string(h.Sum(nil))}
}

// before gives what was decided, once its entries stand in the journal; nil: nothing that
// can still be used.
func (d *Decisions) before(ctx context.Context, from names.NodeID, key outbox.Key, cr *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error) {
	kept := new(nodepb.KeptDecision)
	ok, err := load(d.Outbox, key, kept)
	if !ok || err != nil || kept.GetRequester().GetInstitution() != string(from.Institution) || kept.Requester.Node != string(from.Node) {
		return nil, err
	}
	for _, e := range kept.Entries {
		// What a crash left between the two writes is made up for here.
		there, err := stands(ctx, d.Journal, e.Ticket, e.RequestHash, time.UnixMilli(e.TimeUnixMs), func(f *nodepb.Entry) bool {
			return f.Event == nodepb.Event_DECIDED && string(f.ClearanceId) == string(e.ClearanceId) && f.TimeUnixMs == e.TimeUnixMs
		})
		if err == nil && !there {
			err = appendEntry(ctx, d.Journal, e)
		}
		if err != nil {
			return nil, err
		}
	}
	return kept.Response, nil
}

// RecordChunk keeps what was decided, writes it down, and returns when both are durable.
func (d *Decisions) RecordChunk(ctx context.Context, what *chunk.Decided) error {
	kept := &nodepb.KeptDecision{Requester: what.Request.Order.Requester, Response: what.Response, Entries: decisionEntries(what)}
	// It is of use as long as its clearances can be presented.
	until := what.Time.Add(time.Minute)
	for _, c := range what.Clearances {
		until = time.UnixMilli(c.PresentByUnixMs)
	}
	err := d.Outbox.Write(outbox.Change{Key: askedKey(what.Asked), Value: marshalled(kept), Until: until})
	if err != nil {
		return fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	errs := make(chan error, len(kept.Entries))
	for _, e := range kept.Entries { // at the same time, so that they share a sync
		go func() { errs <- appendEntry(ctx, d.Journal, e) }()
	}
	for range kept.Entries {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// decisionEntries are an entry for each clearance, and one on the chunk as a whole with those
// who were refused. The request, which names everybody, is the evidence of the latter alone:
// the others may be shown to their supplier.
func decisionEntries(d *chunk.Decided) (all []*nodepb.Entry) {
	o := d.Request.Order
	begin := func() *nodepb.Entry {
		e := orderEntry(d.Time, nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED, o)
		e.Clearer, e.RequestHash, e.RegistryIndex = nodeRef(d.Clearer), d.Request.Hash, d.RegistryIndex
		e.Lot = &nodepb.LotPart{Chunk: d.Request.Number}
		return e
	}
	for _, c := range d.Clearances {
		e := begin()
		addClearance(e, c.ChunkClearance, c.Hash)
		e.Evidence = [][]byte{c.Envelope}
		for _, g := range c.Groups {
			k := groupOf(g)
			k.Deliberation = d.Deliberations[g.Authorization]
			e.Lot.Groups = append(e.Lot.Groups, k)
		}
		e.Deliberation = d.Deliberations[e.Authorization]
		all = append(all, e)
	}
	e := begin()
	e.Evidence = [][]byte{d.Envelope}
	if d.Decision != nil {
		e.Evidence = append(e.Evidence, d.Signed)
	}
	for _, g := range d.Decision.GetGroups() {
		k := refusedGroup(g)
		k.Deliberation = d.Deliberations[g.Authorization]
		e.Lot.Groups = append(e.Lot.Groups, k)
	}
	if len(e.Lot.Groups) == 1 { // more differ
		e.Outcome, e.Reason = e.Lot.Groups[0].Outcome, e.Lot.Groups[0].Reason
	}
	return append(all, e)
}
