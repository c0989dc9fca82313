package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// part is one request about some lines of a chunk, being carried out.
type part struct {
	*work
	at      int // among the chunk's parts
	kept    *nodepb.KeptPart
	request *chunk.Request
	places  map[string]int // of each number in the request
	again   bool           // something of it may have happened before

	permits []*permit
	refused []*decision
	left    packed.Bits       // on whom nobody decided
	why     registrypb.Reason // likewise
}

// permit is a clearance that was verified.
type permit struct {
	*registrypb.ChunkClearance
	envelope, hash []byte
}

// decision is a refusal that was verified.
type decision struct {
	*registrypb.ChunkDecision
	envelope []byte
}

// reply is what came of one permit.
type reply struct {
	permit *permit
	by     names.NodeID // zero: nobody replied
	resp   *nodepb.ChunkResponse
	items  []content.Item
	reason registrypb.Reason // with neither
	detail string
	later  *later // it may come yet
}

// part carries out the i-th request of a chunk.
func (x *work) part(ctx context.Context, i int) error {
	p := &part{work: x, at: i, kept: x.kept.Parts[i], again: x.began[x.kept.Parts[i]]}
	if err := p.open(); err != nil {
		return err
	}
	if p.stale(p.request.ChunkRequest) && len(p.kept.Replies) == 0 {
		if err := p.renew(); err != nil {
			return err
		}
	}
	if err := p.requested(ctx); err != nil {
		return err
	}
	if err := p.clear(ctx); err != nil {
		return err
	}
	replies, err := p.presentAll(ctx)
	if err != nil {
		return err
	}
	return p.settle(ctx, replies)
}

func (p *part) open() (err error) {
	if p.request, err = chunk.OpenRequest(p.cfg.Mesh, p.kept.Request); err != nil {
		return err
	}
	p.places = make(map[string]int, len(p.kept.Lines))
	for i, n := range packed.All(p.request.Subjects) {
		p.places[n] = i
	}
	return nil
}

// renew signs the request anew: clearing peers take no older one. What may have been
// supplied under the old one is forgotten by now, or will be asked again.
func (p *part) renew() error {
	var numbers []string
	for _, n := range packed.All(p.request.Subjects) {
		numbers = append(numbers, n)
	}
	request, err := p.sign(numbers)
	if err != nil {
		return err
	}
	p.kept.Request, p.kept.Clearances, p.kept.Decisions, p.kept.Left = request, nil, nil, nil
	p.again = false
	return p.open()
}

// requested keeps the request and then journals it, in this order: whoever comes back after
// a crash finds the request, and by it whether the entry is there. Nothing leaves before
// both are durable.
func (p *part) requested(ctx context.Context) error {
	e := orderEntry(p.cfg.Now(), nodepb.Role_CONSULTANT, nodepb.Event_REQUESTED, p.l.Order)
	e.RequestHash, e.Evidence = p.request.Hash, [][]byte{p.kept.Request}
	e.Lot = &nodepb.LotPart{Chunk: uint32(p.chunk), Groups: []*nodepb.LotSubjects{{Subjects: p.request.Subjects}}}
	if p.again {
		there, err := p.journaled(ctx, nodepb.Event_REQUESTED, func(*nodepb.Entry) bool { return true })
		if there || err != nil {
			return err
		}
	}
	if err := p.save(); err != nil {
		return err
	}
	return appendEntry(ctx, p.cfg.Journal, e)
}

// journaled reports whether the own journal has an entry of this request.
func (p *part) journaled(ctx context.Context, event nodepb.Event, fits func(*nodepb.Entry) bool) (bool, error) {
	return stands(ctx, p.cfg.Journal, string(p.l.Ticket), p.request.Hash, time.UnixMilli(p.request.TimeUnixMs), func(e *nodepb.Entry) bool {
		return e.Role == nodepb.Role_CONSULTANT && e.Event == event && fits(e)
	})
}

// presentAll presents every permit, all at the same time. Those that were answered before
// are read again.
func (p *part) presentAll(ctx context.Context) ([]*reply, error) {
	var replies []*reply
	for _, k := range p.kept.Replies {
		r, err := p.before(k)
		if err != nil {
			return nil, err
		}
		replies = append(replies, r)
	}
	fresh := make([]*reply, len(p.permits))
	var all sync.WaitGroup
	for i, permit := range p.permits {
		all.Go(func() { fresh[i] = p.present(ctx, permit) })
	}
	all.Wait()
	return append(replies, fresh...), ctx.Err()
}

func (p *part) before(k *nodepb.KeptReply) (*reply, error) {
	permit, err := readPermit(k.Clearance)
	if err != nil {
		return nil, err
	}
	r := &reply{permit: permit, by: record.NodeID(k.By), resp: k.Response, reason: k.Reason}
	if k.Response != nil {
		n := 0
		for _, g := range permit.Groups {
			n += packed.Len(g.Subjects)
		}
		r.items, err = content.Read(k.Response.Content, n)
	}
	return r, err
}

// present presents one permit to its supplier's nodes, one after the other.
func (p *part) present(ctx context.Context, permit *permit) *reply {
	r := &reply{permit: permit, reason: registrypb.Reason_SUPPLIER_UNAVAILABLE, detail: "no node of the supplier is known"}
	demand, err := p.demand(permit)
	if err != nil {
		r.reason, r.detail = registrypb.Reason_SUPPLIER_ERROR, "the demand could not be signed"
		return r
	}
	var nodes []names.NodeID
	err = p.cfg.Registry.View(func(v record.View) error {
		list, err := v.NodesOf(names.InstitutionID(permit.Supplier))
		for _, n := range list {
			if !n.GetRemoved() {
				nodes = append(nodes, record.NodeID(n.GetRef()))
			}
		}
		return err
	})
	if err != nil {
		r.later = &later{why: "the registry cannot be read"}
		return r
	}
	for _, to := range p.cfg.Peers.Order(nodes) {
		limited, cancel := context.WithTimeout(ctx, p.cfg.PresentTimeout)
		resp, err := p.cfg.Peers.PresentChunk(limited, to, &nodepb.ChunkPresentation{Demand: demand, Clearance: permit.envelope})
		cancel()
		var refused *exchange.Refusal
		if no := resp.GetRefusal(); err == nil && no != 0 { // as a managing body says it
			err = &exchange.Refusal{Reason: no}
		} else if err == nil {
			resp.Padding = nil
		}
		var busy *Busy
		switch {
		case err == nil:
			_ = p.cfg.Gate.Pass(ctx) // an answer that came is looked at
			p.judge(r, to, resp)
			return r
		case errors.As(err, &refused):
			p.refusedBy(r, to, refused.Reason)
			return r
		case errors.As(err, &busy):
			r.later = &later{why: permit.Supplier + " takes no chunk now", after: busy.After, busy: true}
		default:
			p.cfg.Log.Info("supplier did not answer a chunk", "peer", to.String(), "ticket", string(p.l.Ticket), "err", err)
			r.detail = "no reply to this clearance was received"
			r.later = &later{why: permit.Supplier + " does not answer"}
		}
	}
	return r
}

// refusedBy takes a refusal into r. Some say that it may do later, or otherwise.
func (p *part) refusedBy(r *reply, by names.NodeID, reason registrypb.Reason) {
	r.by, r.reason, r.detail = by, reason, ""
	switch reason {
	case registrypb.Reason_REGISTRY_STALE, registrypb.Reason_JOURNAL_UNAVAILABLE, registrypb.Reason_CLEARANCE_EXPIRED, registrypb.Reason_SUPPLIER_UNAVAILABLE:
		r.later = &later{why: r.permit.Supplier + " refuses for now: " + reason.String()}
	}
}

// demand signs that what a clearance allows is asked.
func (p *part) demand(permit *permit) ([]byte, error) {
	payload, err := proto.Marshal(&registrypb.ChunkDemand{
		Mesh: string(p.cfg.Mesh), Order: p.l.Envelope, ClearanceHash: permit.hash, TimeUnixMs: p.cfg.Now().UnixMilli(),
	})
	if err != nil {
		return nil, err
	}
	return envelope.Sign(envelope.LotDemand, payload, p.cfg.Signer)
}

// settle journals what came and takes it into the lines' results. Who has not replied is
// asked again later, unless it was waited for long enough; who cannot answer about so many
// at once is asked in further parts.
func (p *part) settle(ctx context.Context, replies []*reply) error {
	var wait *later
	var split []string
	var final []*reply
	for _, r := range replies {
		switch {
		case r.later != nil && (!p.giveUp || r.later.busy):
			wait = r.later
		case r.resp == nil && p.inParts(r):
			split = append(split, r.permit.Supplier)
			final = append(final, r)
		default:
			final = append(final, r)
		}
	}
	if err := p.journal(ctx, final, wait == nil); err != nil {
		return err
	}
	if wait != nil {
		return p.putOff(final, replies, wait)
	}
	for _, r := range final {
		if !slices.Contains(split, r.permit.Supplier) {
			p.take(r)
		}
	}
	replaced := p.takeRefusals()
	if err := p.follow(p.at, replaced); err != nil {
		return err
	}
	return p.split(split, final)
}

// inParts reports whether a supplier that refused is to be asked in further parts.
func (p *part) inParts(r *reply) bool {
	switch r.reason {
	case registrypb.Reason_CHUNK_TOO_LARGE:
		return len(p.kept.Lines) > 1
	case registrypb.Reason_CLEARANCE_REPLAYED: // its answer is lost: a crash, and too long a silence
		return p.again
	}
	return slices.Contains(p.kept.Split, r.permit.Supplier) // before a crash
}

// putOff keeps what came, so that nobody is asked for it again.
func (p *part) putOff(final, all []*reply, wait *later) error {
	left := packed.NewBits(len(p.kept.Lines))
	copy(left, p.left)
	for _, r := range all {
		if r.later != nil {
			for n := range numbersOf(r.permit.ChunkClearance) {
				left.Set(p.places[n])
			}
		}
	}
	p.kept.Replies, p.kept.Clearances = nil, nil
	for _, r := range final {
		p.kept.Replies = append(p.kept.Replies, &nodepb.KeptReply{Clearance: r.permit.envelope, By: nodeRef(r.by), Response: r.resp, Reason: r.reason})
	}
	for _, r := range all {
		if r.later != nil {
			p.kept.Clearances = append(p.kept.Clearances, r.permit.envelope)
		}
	}
	p.kept.Decisions = nil
	for _, d := range p.refused {
		p.kept.Decisions = append(p.kept.Decisions, d.envelope)
	}
	if p.kept.Left = nil; left.Any() {
		p.kept.Left = left
	}
	if err := p.save(); err != nil {
		return err
	}
	return wait
}

// split has the suppliers that could not answer about so many asked in halves.
func (p *part) split(suppliers []string, final []*reply) error {
	var lines []uint32
	for _, r := range final {
		if !slices.Contains(suppliers, r.permit.Supplier) {
			continue
		}
		for n := range numbersOf(r.permit.ChunkClearance) {
			if line := p.kept.Lines[p.places[n]]; !slices.Contains(lines, line) && !p.askedAfter(p.at, line) {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	cleared := slices.Clone(p.kept.Cleared)
	for _, r := range final {
		if !slices.Contains(suppliers, r.permit.Supplier) {
			cleared = append(cleared, r.permit.Supplier)
		}
	}
	p.kept.Split = suppliers
	numbers := make([]string, len(lines))
	for i, line := range lines {
		numbers[i] = packed.At(p.request.Subjects, slices.Index(p.kept.Lines, line))
	}
	half := (len(lines) + 1) / 2
	if err := p.add(lines[:half], numbers[:half], cleared); err != nil {
		return err
	}
	return p.add(lines[half:], numbers[half:], cleared)
}

// take puts a supplier's answer into the results of its lines.
func (p *part) take(r *reply) {
	place := 0
	for _, g := range r.permit.Groups {
		for _, n := range packed.All(g.Subjects) {
			part := &nodepb.ResultPart{Supplier: r.permit.Supplier, Status: nodepb.Status_NO_RESULT, Reason: r.reason, Withheld: g.Withheld}
			if r.resp != nil {
				i := r.items[place]
				part.Status, part.Reason = fate(i)
				switch i.Code {
				case content.Yes:
					part.Answer = nodepb.LotAnswer_LOT_ANSWER_YES
				case content.No:
					part.Answer = nodepb.LotAnswer_LOT_ANSWER_NO
				case content.Records:
					part.Records = i.Records
				case content.None:
					if !g.YesNo {
						part.Records = []byte("[]")
					}
				}
			}
			out := p.out[p.kept.Lines[p.places[n]]]
			out.Parts = append(out.Parts, part)
			place++
		}
	}
	if r.resp != nil {
		p.acks = append(p.acks, acknowledgement{r.by, &nodepb.ChunkAcknowledgement{RequestHash: p.request.Hash}})
	}
}

// takeRefusals puts what clearing peers refused into the results, and gives the lines whose
// number was replaced.
func (p *part) takeRefusals() map[uint32]string {
	replaced := map[uint32]string{}
	for _, d := range p.refused {
		for _, g := range d.Groups {
			for i, n := range packed.All(g.Subjects) {
				line := p.kept.Lines[p.places[n]]
				out := p.out[line]
				switch {
				case g.Outcome == registrypb.Outcome_OUTCOME_UNSPECIFIED: // it stood aside
				case g.Reason == registrypb.Reason_REPLACED_NUMBER:
					out.Status, out.Reason = 0, 0
					replaced[line] = g.Successors[i]
				case len(out.Parts) > 0: // rights fell away between two clearing peers
					out.Reason = g.Reason
				default:
					out.Status, out.Reason = nodepb.Status_NO_RESULT, g.Reason
				}
			}
		}
	}
	for i, line := range p.kept.Lines {
		if p.left.Has(i) {
			p.out[line].Reason = p.why
		}
	}
	return replaced
}

func (p *part) String() string { return fmt.Sprintf("%s chunk %d", p.l.Ticket, p.chunk) }
