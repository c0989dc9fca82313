package batch

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/batch/pace"
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

// SupplierConfig is all that a Supplier needs. What has a default may be zero.
type SupplierConfig struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer
	Schemes  subject.Schemes // nil: the built-in ones
	Registry exchange.Registry
	Journal  Journal
	Outbox   exchange.Outbox
	Sources  map[names.DatasetID]exchange.Source
	Sector   Sector // nil: nothing is found within a sector
	Bounds   genesis.Bounds
	// NotBefore refuses clearances issued before it: see exchange.SupplierConfig.
	NotBefore time.Time
	// Life is how long an answer is kept that is not acknowledged. 10 minutes.
	Life time.Duration
	// Window is when chunks are answered, Quota how many subjects of each institution per
	// second (nil: no bound), AtOnce how many chunks beside each other (0: 2).
	Window pace.Window
	Quota  *pace.Quota
	AtOnce int
	// Gate is where chunks wait for interactive traffic. Nil: they do not.
	Gate *pace.Gate
	Now  func() time.Time
	Log  *slog.Logger
}

// Supplier answers chunks for its institution. It is safe for concurrent use and starts
// nothing.
type Supplier struct {
	cfg     SupplierConfig
	records exchange.Validator
	checker chunk.Checker
	locks   keyed
	slots   chan struct{}
}

// NewSupplier makes a Supplier.
func NewSupplier(cfg SupplierConfig) *Supplier {
	cfg.Life = cmp.Or(cfg.Life, 10*time.Minute)
	if cfg.Sector != nil { // they wait for their time class, which costs nothing
		cfg.AtOnce = cmp.Or(cfg.AtOnce, 16)
	}
	cfg.AtOnce = cmp.Or(cfg.AtOnce, 2)
	if cfg.Schemes == nil {
		cfg.Schemes = subject.Belgian()
	}
	if cfg.Gate == nil {
		cfg.Gate = new(pace.Gate)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Supplier{cfg: cfg, slots: make(chan struct{}, cfg.AtOnce)}
}

// marginSeen is how long a mark outlasts the last moment at which it could count.
const marginSeen = time.Minute

// Present answers a chunk that a peer presents whose identity its connection proved. The
// same request is fetched for once, however often and with whatever clearance it comes.
//
// The error is an *exchange.Refusal, and its journal entry is durable unless its reason is
// JOURNAL_UNAVAILABLE; or a *Busy, and then nothing was read.
func (s *Supplier) Present(ctx context.Context, from names.NodeID, p *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error) {
	if wait := s.cfg.Window.Opens(s.cfg.Now()); wait > 0 {
		return nil, &Busy{wait}
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	x := &supply{Supplier: s, from: from, raw: p, arrived: time.Now()}
	read, refused := chunk.Read(s.cfg.Mesh, s.cfg.Schemes, p.GetDemand(), p.GetClearance())
	if x.Presented = read; refused != nil {
		x.Presented = nil
		return nil, x.refuse(ctx, refused)
	}
	release, err := s.locks.acquire(ctx, string(x.Clearance.RequestHash))
	if err != nil {
		return nil, err
	}
	defer release()
	if s.cfg.Quota != nil {
		if wait := s.cfg.Quota.Take(from.Institution, x.count(), s.cfg.Now()); wait > 0 {
			return nil, &Busy{wait}
		}
	}
	resp, refused := x.answer(ctx)
	if refused != nil {
		x.settle(ctx)
		err := x.refuse(ctx, refused)
		x.hold(ctx)
		return nil, err
	}
	return resp, nil
}

// Acknowledge forgets an answer that its requester holds; the mark stays. Nobody learns
// whether there was any.
func (s *Supplier) Acknowledge(ctx context.Context, from names.NodeID, a *nodepb.ChunkAcknowledgement) (*nodepb.ChunkAcknowledgeResponse, error) {
	done := new(nodepb.ChunkAcknowledgeResponse)
	release, err := s.locks.acquire(ctx, string(a.GetRequestHash()))
	if err != nil {
		return done, nil
	}
	defer release()
	mark := new(nodepb.KeptChunkAnswer)
	ok, err := load(s.cfg.Outbox, markKey(a.RequestHash), mark)
	if !ok || err != nil || record.NodeID(mark.Requester) != from {
		return done, nil
	}
	mark.Acknowledged = true
	err = s.cfg.Outbox.Write(
		outbox.Change{Key: markKey(a.RequestHash), Value: marshalled(mark), Until: time.UnixMilli(mark.UntilUnixMs), Lazy: true},
		outbox.Change{Key: answerKey(a.RequestHash), Delete: true, Lazy: true}, // undone by a crash, it ends with its life
	)
	if err != nil {
		s.cfg.Log.Error("an acknowledged answer to a chunk could not be forgotten; it ends with its life", "err", err)
	}
	return done, nil
}

func markKey(requestHash []byte) outbox.Key {
	return outbox.Key{Table: marks, ID: string(requestHash)}
}

func answerKey(requestHash []byte) outbox.Key {
	return outbox.Key{Table: answers, ID: string(requestHash)}
}

// supply is one presentation. Its goroutine owns it.
type supply struct {
	*Supplier
	from names.NodeID
	raw  *nodepb.ChunkPresentation
	*chunk.Presented
	checked *chunk.Checked // once it passed

	arrived    time.Time // with its monotonic reading
	kept       bool      // it was answered before
	resolved   bool      // within the sector, now or before
	sectorSeal []byte    // of what the sector journaled for itself
}

func (x *supply) count() (n int) {
	for _, g := range x.Clearance.Groups {
		n += packed.Len(g.Subjects)
	}
	return n
}

// refuse journals a refusal, and gives it as the peer gets it.
func (x *supply) refuse(ctx context.Context, no *clearing.Refusal) error {
	e := &nodepb.Entry{TimeUnixMs: x.cfg.Now().UnixMilli(), Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_REFUSED, Lot: new(nodepb.LotPart)}
	if x.Presented != nil {
		e = orderEntry(x.cfg.Now(), nodepb.Role_SUPPLIER, nodepb.Event_REFUSED, x.Order)
		e.Lot = &nodepb.LotPart{Chunk: x.Clearance.Number}
		genuine := false
		_ = x.cfg.Registry.View(func(v record.View) error { genuine = x.Genuine(v, x.from); return nil })
		if genuine || x.checked != nil {
			// Whom it is about is told of those alone whom a clearing peer named.
			addClearance(e, x.Clearance, x.Hash)
			e.Evidence = [][]byte{x.raw.Demand, x.raw.Clearance}
			for _, g := range x.Clearance.Groups {
				k := groupOf(g)
				k.Status, k.Reason = nodepb.Status_NO_RESULT, no.Reason
				e.Lot.Groups = append(e.Lot.Groups, k)
			}
		}
	}
	e.Requester, e.Supplier, e.SectorSeal = nodeRef(x.from), nodeRef(x.cfg.Self), x.sectorSeal
	e.Status, e.Reason, e.Detail = nodepb.Status_NO_RESULT, no.Reason, no.Detail
	x.cfg.Log.Info("a chunk was refused", "peer", x.from.String(), "ticket", e.Ticket, "reason", no.Reason.String(), "detail", no.Detail)
	if err := appendEntry(ctx, x.cfg.Journal, e); err != nil {
		return &exchange.Refusal{Reason: registrypb.Reason_JOURNAL_UNAVAILABLE}
	}
	return &exchange.Refusal{Reason: no.Reason}
}

func refusal(r registrypb.Reason, detail string) *clearing.Refusal {
	return &clearing.Refusal{Reason: r, Detail: detail}
}

func unavailable(err error) *clearing.Refusal {
	if errors.Is(err, ErrUnavailable) {
		return refusal(registrypb.Reason_JOURNAL_UNAVAILABLE, "outbox or journal cannot be used")
	}
	return refusal(registrypb.Reason_REGISTRY_STALE, "the registry cannot be read")
}

func (x *supply) sign(t envelope.Type, m proto.Message) ([]byte, *clearing.Refusal) {
	raw, err := envelope.Sign(t, marshalled(m), x.cfg.Signer)
	if err != nil {
		return nil, refusal(registrypb.Reason_SUPPLIER_ERROR, "the answer could not be signed")
	}
	return raw, nil
}
