package sector

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// sourceAtOnce is how many subjects of a chunk a source is asked about beside each other.
const sourceAtOnce = 8

// ServeForwardLot answers what the managing body forwards of a chunk. The error is as
// ServeForward's.
func (m *Member) ServeForwardLot(ctx context.Context, from names.NodeID, f *nodepb.ForwardLot) (*nodepb.ForwardResponse, error) {
	if from.Institution != m.manager {
		return nil, ErrNotOfSector
	}
	x := &lotAnswering{Member: m, from: from, raw: f, hash: sum(f.GetPermission())}
	no := x.check()
	if no == nil {
		release, err := m.locks.acquire(ctx, string(x.permission.GetRequestHash()))
		if err != nil {
			return nil, err
		}
		defer release()
		var resp *nodepb.ForwardResponse
		if resp, no = m.answer(ctx, x.permission, x.hash, envelope.SectorLotAnswer, x); no == nil {
			return resp, nil
		}
	}
	e := x.entry(nodepb.Event_SECTOR_REFUSED, nil)
	for _, g := range e.GetLot().GetGroups() {
		g.Reason = no.reason
	}
	return nil, m.refused(ctx, from, e, no)
}

// lotAnswering is a share of a chunk being answered. Its goroutine owns it.
type lotAnswering struct {
	*Member
	from       names.NodeID
	raw        *nodepb.ForwardLot
	hash       []byte                      // of the permission's envelope
	permission *nodepb.SectorLotPermission // once its signature and form were checked
	read       *chunk.Presented            // the outline, once read
	checked    *chunk.Checked              // once it passed
	subjects   []lotSubject                // once each was found in the outline
	schema     string
}

// lotSubject is one subject of the share.
type lotSubject struct {
	number  string
	cleared *clearing.Checked
	queries []exchange.Query
}

func (x *lotAnswering) what() []byte { return hashLotParts(x.permission) }

func (x *lotAnswering) supplied(raw []byte) (*nodepb.Entry, error) {
	items, err := content.Read(raw, len(x.subjects))
	return x.entry(nodepb.Event_SECTOR_SUPPLIED, items), err
}

// fetch gives what the source says of each subject, cut to what is permitted.
func (x *lotAnswering) fetch(ctx context.Context) (*nodepb.KeptSectorContent, *refusal) {
	source, ok := x.sources[names.DatasetID(x.read.Order.Dataset)]
	if !ok {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "no source is configured for this dataset")
	}
	items := make([]content.Item, len(x.subjects))
	if no := x.ask(ctx, source, items); no != nil {
		return nil, no
	}
	c := &nodepb.KeptSectorContent{Status: summed(items)}
	for _, i := range items {
		c.Content = content.Append(c.Content, i)
	}
	if len(c.Content) > batch.MaxSectorContent {
		return nil, refuse(registrypb.Reason_CHUNK_TOO_LARGE, "the records of so many do not fit one answer")
	}
	return c, nil
}

// ask asks the source about every subject: at once if it can, else one by one, some beside
// each other. What fails for one subject fails for that one.
func (x *lotAnswering) ask(ctx context.Context, source exchange.Source, items []content.Item) *refusal {
	if m, can := source.(sources.Many); can {
		var queries []exchange.Query
		for _, s := range x.subjects {
			queries = append(queries, s.queries...)
		}
		found, ok, err := m.FetchMany(ctx, queries)
		if err != nil || ok && len(found) != len(queries) {
			x.warn(err)
			if errors.Is(err, exchange.ErrSourceUnavailable) || ctx.Err() != nil {
				return refuse(registrypb.Reason_SUPPLIER_UNAVAILABLE, "source unavailable")
			}
			return refuse(registrypb.Reason_SUPPLIER_ERROR, "source failed")
		}
		if ok {
			for i, s := range x.subjects {
				items[i] = x.item(s, found[:len(s.queries)])
				found = found[len(s.queries):]
			}
			return nil
		}
	}
	var all errgroup.Group
	all.SetLimit(sourceAtOnce)
	for i, s := range x.subjects {
		all.Go(func() error {
			items[i] = x.one(ctx, source, s)
			return nil
		})
	}
	_ = all.Wait()
	return nil
}

func (x *lotAnswering) one(ctx context.Context, source exchange.Source, s lotSubject) content.Item {
	var found [][]exchange.Record
	for _, q := range s.queries {
		records, err := source.Fetch(ctx, q)
		if err != nil {
			x.warn(err)
			return content.Item{Code: content.Failed}
		}
		found = append(found, records)
	}
	return x.item(s, found)
}

// item cuts what the source has on one subject, in one or more parts, to what is permitted.
func (x *lotAnswering) item(s lotSubject, found [][]exchange.Record) content.Item {
	all := slices.Concat(found...)
	if len(found) > 1 { // what lasts over two parts comes twice
		var once []exchange.Record
		for _, r := range all {
			if !slices.ContainsFunc(once, func(o exchange.Record) bool { return bytes.Equal(o, r) }) {
				once = append(once, r)
			}
		}
		all = once
	}
	if len(all) == 0 {
		return content.Item{Code: content.None}
	}
	array, _, err := x.content.Make(s.cleared.Dataset, x.schema, all, s.cleared.Fields)
	if err != nil {
		x.Log.Warn("source gave what must not leave", "ticket", x.permission.GetTicket(), "err", err)
		return content.Item{Code: content.Failed}
	}
	return content.Item{Code: content.Records, Records: array}
}

// warn logs why a source failed, without a subject's number.
func (x *lotAnswering) warn(err error) {
	if err == nil {
		err = errors.New("it gave answers to other questions")
	}
	text := err.Error()
	for _, s := range x.subjects {
		for _, q := range s.queries {
			text = strings.ReplaceAll(text, q.Subject.Number(), "***")
		}
	}
	x.Log.Warn("source failed", "dataset", x.read.Order.Dataset, "ticket", x.permission.GetTicket(), "err", text)
}

// entry begins an entry of the sector's journal at this node. Whom it is about is told of
// those alone of whom the outline says that they were cleared.
func (x *lotAnswering) entry(event nodepb.Event, items []content.Item) *nodepb.Entry {
	e := &nodepb.Entry{TimeUnixMs: x.Now().UnixMilli(), Role: nodepb.Role_COOPERATING, Event: event, Requester: nodeRef(x.from)}
	if x.checked != nil {
		e = lotEntry(x.Now(), nodepb.Role_COOPERATING, event, x.read, x.checked.Groups[0].Requester)
		e.ClearanceHash = x.permission.GetClearanceHash()
		if z := x.checked.Groups[0].Authorization; z != nil {
			e.Authorization, e.Deliberation = z.GetId(), z.GetDeliberation()
		}
		g := &grouping{scheme: subject.Scheme(x.read.Order.Scheme)}
		for i, s := range x.subjects {
			status, reason := nodepb.Status_NO_RESULT, registrypb.Reason_REASON_UNSPECIFIED
			if items != nil {
				status, reason = fate(items[i])
			}
			g.add(s.cleared, s.number, status, reason)
		}
		e.Lot = &nodepb.LotPart{Chunk: x.read.Clearance.Number, Groups: g.all()}
		e.Evidence = [][]byte{x.raw.GetPermission()}
	} else if x.permission != nil {
		e.Ticket = x.permission.GetTicket()
	}
	e.Supplier, e.Member, e.PermissionHash = nodeRef(x.Self), string(x.Self.Institution), x.hash
	if x.checked != nil {
		e.Evidence = append(e.Evidence, x.raw.GetOutline())
	}
	return e
}
