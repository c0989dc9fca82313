package batch

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// step is how many subjects are worked on before interactive traffic is let through, and
// fetchStep about how many a source is asked between.
const (
	step      = 64
	fetchStep = 256
)

// guarded is what a passed guard found.
type guarded struct {
	queries [][]exchange.Query // of each subject, over all groups; none: no own file in force
	schema  string
	index   uint64 // of the registry, up to which nothing forbids
}

// answer checks everything, gets the content, and lets it out once it is kept and
// journaled.
func (x *supply) answer(ctx context.Context) (*nodepb.ChunkResponse, *clearing.Refusal) {
	hash := x.Clearance.RequestHash
	mark := new(nodepb.KeptChunkAnswer)
	seen, err := load(x.cfg.Outbox, markKey(hash), mark)
	if err != nil {
		return nil, unavailable(err)
	}
	same := seen && slices.Equal(mark.ClearanceHash, x.Hash)
	presented := x.cfg.Now()
	if same { // it was judged to be in time when it first came
		presented = time.UnixMilli(mark.PresentedUnixMs)
	}
	g, no := x.guard(presented, func() error { return x.pass(ctx) })
	if no != nil {
		return nil, no
	}
	groups := x.groupsHash()
	if seen {
		if record.NodeID(mark.Requester) != x.from || mark.Acknowledged || !slices.Equal(mark.GroupsHash, groups) {
			return nil, refusal(registrypb.Reason_CLEARANCE_REPLAYED, "this request was answered, and its answer is not kept for these subjects")
		}
		return x.again(ctx, g, mark, same)
	}
	var items []content.Item
	if x.resolves() {
		items, no = x.resolve(ctx, g, presented)
	} else {
		items, no = x.items(ctx, g)
	}
	if no != nil {
		return nil, no
	}
	x.settle(ctx)
	if g, no = x.stillStands(g, presented); no != nil {
		return nil, no
	}
	if x.anyRevoked(g, items) { // a reference was withdrawn meanwhile: it would tell less than was found
		return nil, refusal(registrypb.Reason_REVOKED, "an own reference was withdrawn while the source was asked")
	}
	resp, no := x.seal(items, content.Seed())
	if no != nil {
		return nil, no
	}
	mark = &nodepb.KeptChunkAnswer{SectorSeal: x.sectorSeal, ClearanceHash: x.Hash, Requester: nodeRef(x.from), PresentedUnixMs: presented.UnixMilli(), GroupsHash: groups}
	if no := x.keep(mark, resp); no != nil {
		return nil, no
	}
	if err := appendEntry(ctx, x.cfg.Journal, x.supplied(items, resp)); err != nil {
		return nil, refusal(registrypb.Reason_JOURNAL_UNAVAILABLE, "SUPPLIED could not be journaled")
	}
	x.hold(ctx) // and only then looks once more
	_, no = x.stillStands(g, presented)
	return resp, no
}

// again gives the answer that is kept: for the same clearance the same bytes, for another
// one on the same subjects the same content, signed for that. The journal has one full
// account of it, SUPPLIED, which is made up for here if a crash came before; all further
// sending is RESENT and names nobody.
func (x *supply) again(ctx context.Context, g *guarded, mark *nodepb.KeptChunkAnswer, same bool) (*nodepb.ChunkResponse, *clearing.Refusal) {
	resp := new(nodepb.ChunkResponse)
	ok, err := load(x.cfg.Outbox, answerKey(x.Clearance.RequestHash), resp)
	if err != nil {
		return nil, unavailable(err)
	}
	if !ok {
		return nil, refusal(registrypb.Reason_CLEARANCE_REPLAYED, "this request was answered, and its answer is no longer kept")
	}
	x.kept, x.resolved, x.sectorSeal = true, x.resolves(), mark.SectorSeal
	x.settle(ctx)
	items, err := content.Read(resp.Content, x.count())
	if err != nil {
		return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "the kept answer cannot be read")
	}
	if !same {
		var no *clearing.Refusal
		if resp, no = x.seal(items, resp.Seed); no != nil {
			return nil, no
		}
		mark.ClearanceHash, mark.PresentedUnixMs = x.Hash, x.cfg.Now().UnixMilli()
		if no := x.keep(mark, resp); no != nil {
			return nil, no
		}
	}
	there, err := stands(ctx, x.cfg.Journal, x.Clearance.Ticket, x.Clearance.RequestHash, time.UnixMilli(x.Clearance.RequestTimeUnixMs),
		func(e *nodepb.Entry) bool { return e.Role == nodepb.Role_SUPPLIER && e.Event == nodepb.Event_SUPPLIED })
	if err != nil {
		return nil, unavailable(err)
	}
	e := x.supplied(items, resp)
	if there {
		e.Event, e.Lot.Groups, e.Detail = nodepb.Event_RESENT, nil, "the answer kept from before: the source was not asked again"
	}
	if err := appendEntry(ctx, x.cfg.Journal, e); err != nil {
		return nil, refusal(registrypb.Reason_JOURNAL_UNAVAILABLE, "the answer could not be journaled")
	}
	x.hold(ctx)
	_, no := x.stillStands(g, time.UnixMilli(mark.PresentedUnixMs))
	return resp, no
}

func (x *supply) groupsHash() []byte {
	var parts [][]byte
	for _, g := range x.Clearance.Groups {
		b := marshalled(g)
		parts = append(parts, []byte{byte(len(b) >> 24), byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b)
	}
	return sum(parts...)
}

// guard checks the clearance, the time and every right, and each subject's own reference, in
// this node's own view as it is now. pass lets others go first; it is nil where what was
// found is to be told at once.
func (x *supply) guard(presented time.Time, pass func() error) (g *guarded, no *clearing.Refusal) {
	standing, err := x.cfg.Registry.Standing()
	if err != nil {
		return nil, refusal(registrypb.Reason_REGISTRY_STALE, err.Error())
	}
	err = x.cfg.Registry.View(func(v record.View) (err error) {
		g, no, err = x.guardIn(v.Remembering(), presented, pass)
		return err
	})
	if err != nil {
		return nil, refusal(registrypb.Reason_REGISTRY_STALE, "the registry cannot be read")
	}
	if no != nil {
		return nil, no
	}
	g.index = standing.Index
	return g, nil
}

func (x *supply) guardIn(v record.View, presented time.Time, pass func() error) (*guarded, *clearing.Refusal, error) {
	var bad *clearing.Refusal
	if x.checked == nil {
		x.checked, bad = x.checker.Check(v, presented, x.cfg.Bounds, x.cfg.Mesh, x.cfg.Self, x.from, x.Presented)
	} else {
		bad = x.checked.Recheck(v, x.cfg.Now(), x.cfg.Mesh)
	}
	if bad != nil {
		return nil, bad, nil
	}
	if no := x.expired(); no != nil {
		return nil, no, nil
	}
	if time.UnixMilli(x.Clearance.IssuedUnixMs).Before(x.cfg.NotBefore) {
		return nil, refusal(registrypb.Reason_CLEARANCE_EXPIRED, "issued before this node can know which it has seen: its disk was restored"), nil
	}
	dataset, err := v.Dataset(names.DatasetID(x.Order.Dataset))
	if err != nil {
		return nil, nil, err
	}
	if dataset == nil {
		return nil, refusal(registrypb.Reason_CLEARANCE_INVALID, "no such dataset"), nil
	}
	member, err := v.IsMember(x.cfg.Self)
	if err != nil {
		return nil, nil, err
	}
	g := &guarded{schema: dataset.Schema, queries: make([][]exchange.Query, 0, x.count())}
	for i, group := range x.Clearance.Groups {
		for at, number := range packed.All(group.Subjects) {
			if len(g.queries)%step == 0 && pass != nil {
				if pass() != nil {
					return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "the requester did not wait"), nil
				}
			}
			q, ok, err := x.queries(v, x.checked.Groups[i], number, chunk.FiledUnder(group, at), member)
			if err != nil {
				return nil, nil, err
			}
			if !ok {
				return nil, refusal(registrypb.Reason_CLEARANCE_INVALID, "it names numbers that are not of its subject"), nil
			}
			g.queries = append(g.queries, q)
		}
	}
	return g, nil, nil
}

// queries are what the source is asked about one subject: one for each number under which
// this institution has a file that gave the route. A member holds the other numbers against
// the history; any other node believes the clearing peer.
func (x *supply) queries(v record.View, c *clearing.Checked, number string, filedUnder []string, member bool) (queries []exchange.Query, ok bool, err error) {
	id := subject.Raw(subject.Scheme(x.Order.Scheme), number)
	ids := []subject.ID{id}
	for _, n := range filedUnder {
		ids = append(ids, subject.Raw(id.Scheme(), n))
	}
	if member && len(filedUnder) > 0 {
		family, err := v.Family(id)
		if err != nil {
			return nil, false, err
		}
		if slices.ContainsFunc(ids, func(i subject.ID) bool { return !slices.Contains(family, i) }) {
			return nil, false, nil
		}
	}
	for _, id := range ids {
		refs, err := v.References(id)
		if err != nil {
			return nil, false, err
		}
		for _, r := range refs {
			if r.Institution != x.cfg.Self.Institution || !r.Period.Overlaps(c.Period) || !slices.Contains(c.Qualities, r.Quality) {
				continue
			}
			at := slices.IndexFunc(queries, func(q exchange.Query) bool { return q.Subject == r.Filed })
			if at < 0 {
				at = len(queries)
				queries = append(queries, exchange.Query{Dataset: c.Dataset, Subject: r.Filed, Period: c.Period, Fields: c.Fields})
			}
			if q := &queries[at]; !slices.Contains(q.Qualities, r.Quality) {
				q.Qualities = append(q.Qualities, r.Quality)
			}
		}
	}
	return queries, true, nil
}

// stillStands looks once more, cheaply if the registry has not moved on.
func (x *supply) stillStands(g *guarded, presented time.Time) (*guarded, *clearing.Refusal) {
	standing, err := x.cfg.Registry.Standing()
	if err != nil {
		return nil, refusal(registrypb.Reason_REGISTRY_STALE, err.Error())
	}
	if standing.Index != g.index {
		return x.guard(presented, nil)
	}
	return g, x.expired()
}

// anyRevoked reports whether a subject was answered about on whom there is no file in force
// any more.
func (x *supply) anyRevoked(g *guarded, items []content.Item) bool {
	for i, item := range items {
		if len(g.queries[i]) == 0 && item.Code != content.Revoked {
			return true
		}
	}
	return false
}

func (x *supply) expired() *clearing.Refusal {
	if x.cfg.Now().After(x.checked.ReleaseBy) {
		return refusal(registrypb.Reason_CLEARANCE_EXPIRED, "data had to leave by "+x.checked.ReleaseBy.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// items asks the source about every subject at once and makes of the records what may leave.
func (x *supply) items(ctx context.Context, g *guarded) ([]content.Item, *clearing.Refusal) {
	source, ok := x.cfg.Sources[names.DatasetID(x.Order.Dataset)]
	if !ok {
		return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "no source is configured for this dataset")
	}
	limited, cancel := context.WithTimeout(ctx, x.checked.ReleaseBy.Sub(x.cfg.Now()))
	defer cancel()
	var queries []exchange.Query
	for _, q := range g.queries {
		queries = append(queries, q...)
	}
	found, err := x.fetch(limited, source, queries)
	if err != nil {
		text := err.Error()
		for _, q := range queries { // a source should not name a subject; should it do so, the log does not
			if n := q.Subject.Number(); strings.Contains(text, n) {
				text = strings.ReplaceAll(text, n, "***")
			}
		}
		x.cfg.Log.Warn("source failed", "dataset", x.Order.Dataset, "ticket", x.Clearance.Ticket, "err", text)
		switch {
		case limited.Err() != nil && ctx.Err() == nil:
			return nil, refusal(registrypb.Reason_CHUNK_TOO_LARGE, "the source did not answer about so many in time")
		case errors.Is(err, exchange.ErrSourceUnavailable), ctx.Err() != nil:
			return nil, refusal(registrypb.Reason_SUPPLIER_UNAVAILABLE, "source unavailable")
		}
		return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "source failed")
	}
	return x.cut(ctx, g, found)
}

// pass lets interactive traffic go first, as long as there is time enough for the rest.
func (x *supply) pass(ctx context.Context) error {
	if x.cfg.Now().Sub(time.UnixMilli(x.Clearance.IssuedUnixMs)) > x.cfg.Bounds.ReleaseLife/2 {
		return ctx.Err()
	}
	return x.cfg.Gate.Pass(ctx)
}

// fetch asks the source about some subjects after others, and lets interactive traffic go
// before each.
func (x *supply) fetch(ctx context.Context, source exchange.Source, queries []exchange.Query) (found [][]exchange.Record, err error) {
	for some := range slices.Chunk(queries, fetchStep) {
		if err := x.pass(ctx); err != nil {
			return nil, err
		}
		records, err := sources.Fetch(ctx, source, some)
		if err != nil {
			return nil, err
		}
		found = append(found, records...)
	}
	return found, nil
}

// cut takes out what may not leave. A source that gives what must not leave about one
// subject fails for that one.
func (x *supply) cut(ctx context.Context, g *guarded, found [][]exchange.Record) ([]content.Item, *clearing.Refusal) {
	items := make([]content.Item, len(g.queries))
	done, size, place := 0, 0, 0
	for i, group := range x.Clearance.Groups {
		c := &cutting{records: &x.records, dataset: names.DatasetID(x.Order.Dataset), schema: g.schema, fields: x.checked.Groups[i].Fields, yesNo: group.YesNo}
		for range packed.Len(group.Subjects) {
			if place%step == 0 {
				if err := x.pass(ctx); err != nil {
					return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "the requester did not wait")
				}
			}
			n := len(g.queries[place])
			if n == 0 {
				items[place] = content.Item{Code: content.Revoked}
			} else {
				var records []exchange.Record
				for _, r := range found[done : done+n] {
					records = append(records, r...)
				}
				items[place] = c.item(records)
			}
			size += 8 + len(items[place].Records)
			if size > content.MaxSize {
				return nil, refusal(registrypb.Reason_CHUNK_TOO_LARGE, "the records of so many do not fit one answer")
			}
			done += n
			place++
		}
	}
	return items, nil
}

// seal signs the items for the clearance at hand.
func (x *supply) seal(items []content.Item, seed []byte) (*nodepb.ChunkResponse, *clearing.Refusal) {
	root, err := content.Root(seed, numbersOf(x.Clearance), items)
	if err != nil {
		return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "the answer could not be committed to")
	}
	resp := &nodepb.ChunkResponse{Seed: seed}
	for _, i := range items {
		resp.Content = content.Append(resp.Content, i)
	}
	var no *clearing.Refusal
	resp.Answer, no = x.sign(envelope.LotAnswer, &nodepb.ChunkAnswer{
		Mesh: string(x.cfg.Mesh), Ticket: x.Clearance.Ticket, Supplier: nodeRef(x.cfg.Self), RequestHash: x.Clearance.RequestHash,
		ClearanceHash: x.Hash, Subjects: uint32(len(items)), Root: root[:], TimeUnixMs: x.cfg.Now().UnixMilli(),
	})
	return resp, no
}

// numbersOf gives the numbers of a clearance's subjects, over all groups.
func numbersOf(c *registrypb.ChunkClearance) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, g := range c.Groups {
			for _, n := range packed.All(g.Subjects) {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// keep writes mark and answer in one step.
func (x *supply) keep(mark *nodepb.KeptChunkAnswer, resp *nodepb.ChunkResponse) *clearing.Refusal {
	b := x.cfg.Bounds
	until := time.UnixMilli(x.Clearance.RequestTimeUnixMs).Add(clearing.RequestLife + b.PresentLife + 2*b.Skew + marginSeen)
	kept := x.cfg.Now().Add(x.cfg.Life)
	if kept.After(until) {
		until = kept
	}
	mark.UntilUnixMs = until.UnixMilli()
	err := x.cfg.Outbox.Write(
		outbox.Change{Key: markKey(x.Clearance.RequestHash), Value: marshalled(mark), Until: until},
		outbox.Change{Key: answerKey(x.Clearance.RequestHash), Value: marshalled(resp), Until: kept},
	)
	if err != nil {
		return refusal(registrypb.Reason_JOURNAL_UNAVAILABLE, "outbox: "+err.Error())
	}
	return nil
}

// supplied is the full account of an answer: how each subject fared.
func (x *supply) supplied(items []content.Item, resp *nodepb.ChunkResponse) *nodepb.Entry {
	e := orderEntry(x.cfg.Now(), nodepb.Role_SUPPLIER, nodepb.Event_SUPPLIED, x.Order)
	addClearance(e, x.Clearance, x.Hash)
	e.Supplier, e.SectorSeal = nodeRef(x.cfg.Self), x.sectorSeal
	e.Evidence = [][]byte{x.raw.Demand, x.raw.Clearance, resp.Answer}
	e.AnswerCommitment = rootOf(resp.Answer)
	e.Lot = &nodepb.LotPart{Chunk: x.Clearance.Number, Groups: fared(x.Clearance, items)}
	e.Status = statusOver(items)
	deliberations(x.cfg.Registry, e)
	return e
}
