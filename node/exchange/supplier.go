package exchange

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange/keylock"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// SupplierConfig is all that a supplier needs. What has a default may be zero.
type SupplierConfig struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer   // of the own institution
	Schemes  subject.Schemes // nil: the built-in ones
	Registry Registry
	Journal  Journal
	Outbox   Outbox
	Sources  map[names.DatasetID]Source // not changed afterwards
	Bounds   genesis.Bounds             // of the mesh

	// Sector, if there is one, finds some datasets within a sector, and lets everything
	// leave at its own times. Nil: this institution answers for itself alone.
	Sector Sector

	// NotBefore refuses clearances issued before it: the marks of those seen may be
	// lost with what a restored disk lost. Zero: none is.
	NotBefore time.Time

	// Life is how long an answer is kept for the same request. 10 minutes.
	Life time.Duration
	// SeenMargin is how long a seen-mark outlasts the last moment at which its
	// clearance could count. 1 minute.
	SeenMargin time.Duration

	// RefusalRate and RefusalBurst bound, for each institution, how many of its
	// presentations are refused and journaled: more are turned away unread. 50 per
	// second, 200.
	RefusalRate  float64
	RefusalBurst int

	Now func() time.Time // wall clock; time.Now
	Log *slog.Logger     // nil: silent
}

// Supplier answers for its institution.
type Supplier struct {
	cfg     SupplierConfig
	schemas schemas
	locks   keylock.Locks // by request hash
	group   *envelope.Group
	checker clearing.Checker

	refusals *refusals
}

// NewSupplier makes a supplier; it starts nothing. The consultant's Run, or
// whoever else sweeps the outbox, lets its rows end.
func NewSupplier(cfg SupplierConfig) *Supplier {
	cfg.Life = cmp.Or(cfg.Life, 10*time.Minute)
	cfg.SeenMargin = cmp.Or(cfg.SeenMargin, time.Minute)
	cfg.RefusalRate = cmp.Or(cfg.RefusalRate, 50)
	cfg.RefusalBurst = cmp.Or(cfg.RefusalBurst, 200)
	if cfg.Schemes == nil {
		cfg.Schemes = subject.Belgian()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Supplier{cfg: cfg, group: envelope.NewGroup(cfg.Signer), refusals: newRefusals(cfg.RefusalRate, cfg.RefusalBurst)}
}

// refusal is why a presentation is refused: the word for the peer, and the detail
// for the own journal.
type refusal struct {
	reason registrypb.Reason
	detail string
}

func refuse(reason registrypb.Reason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// Present answers a presentation that came from a peer whose identity its
// connection proved. Presenting the same clearance again gives the same bytes, as
// long as the answer is kept and release-by has not passed.
//
// The error is a *Refusal, and its journal entry is durable, unless its reason is
// JOURNAL_UNAVAILABLE; or ErrTurnedAway, and then the presentation was not read.
func (s *Supplier) Present(ctx context.Context, from names.NodeID, p *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	if turned, first := s.refusals.turnAway(from.Institution, s.cfg.Now()); turned {
		if first {
			s.journalTurning(ctx, from)
		}
		return nil, ErrTurnedAway
	}
	arrived := time.Now()
	x, no := s.read(from, p)
	x.arrived = arrived
	if no == nil {
		release, err := s.locks.Acquire(ctx, string(x.requestHash))
		if err != nil {
			no = refuse(registrypb.Reason_SUPPLIER_ERROR, "the requester did not wait")
		} else {
			defer release()
		}
	}
	var resp *nodepb.PresentResponse
	if no == nil {
		resp, no = x.answer(ctx)
	}
	if no == nil {
		return resp, nil
	}
	x.settle(ctx, true)
	refused := x.refused(ctx, no)
	x.hold(ctx, true)
	return nil, refused
}

// refused journals a refusal, and gives it as the peer gets it.
func (x *presentation) refused(ctx context.Context, no *refusal) *Refusal {
	missed := x.refusals.count(x.from.Institution, x.cfg.Now())
	if x.checked == nil && x.clearance != nil {
		_ = x.cfg.Registry.View(func(v record.View) error {
			x.genuine = clearing.Genuine(v, x.cfg.Mesh, x.from, x.raw.GetRequest(), x.raw.GetClearance())
			return nil
		})
	}
	e := x.entry(nodepb.Event_REFUSED)
	if x.checked != nil {
		x.addSecond(e)
	}
	e.Status, e.Reason, e.Detail = nodepb.Status_NO_RESULT, no.reason, no.detail
	if missed > 0 {
		e.Detail = fmt.Sprintf("after %d were turned away unread: %s", missed, no.detail)
	}
	tidy(e)
	x.cfg.Log.Info("presentation refused", "peer", x.from.String(), "ticket", e.GetTicket(), "reason", no.reason.String(), "detail", e.GetDetail())
	if err := x.journal(ctx, e); err != nil {
		x.refusals.restore(x.from.Institution, missed)
		return &Refusal{registrypb.Reason_JOURNAL_UNAVAILABLE}
	}
	return &Refusal{no.reason}
}

// journalTurning notes that presentations of an institution begin to be turned away.
// How many they were stands in the next refusal of it.
func (s *Supplier) journalTurning(ctx context.Context, from names.NodeID) {
	s.cfg.Log.Warn("presentations are turned away unread: too many were refused", "peer", from.String())
	e := requestEntry(s.cfg.Now(), nodepb.Role_SUPPLIER, nodepb.Event_REFUSED, "", nil, nil)
	e.Requester, e.Supplier = nodeRef(from), nodeRef(s.cfg.Self)
	e.Status, e.Reason = nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_REFUSED
	e.Detail = "too many refused presentations: from here on its institution is turned away unread, until it slows down"
	if err := appendOne(context.WithoutCancel(ctx), s.cfg.Journal, e); err != nil {
		s.cfg.Log.Error("journal failed: a turning away is not in it", "peer", from.String(), "err", err)
	}
}

// Acknowledge forgets the answer to a clearance, and what it was made of, because
// its requester holds it. The marks stay: neither this clearance nor another one for
// the same request is answered again. Nobody learns whether there was anything.
func (s *Supplier) Acknowledge(ctx context.Context, from names.NodeID, a *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
	s.forget(ctx, from, a)
	for _, more := range a.GetMore()[:min(len(a.GetMore()), maxAcks-1)] {
		s.forget(ctx, from, more)
	}
	return new(nodepb.AcknowledgeResponse), nil
}

func (s *Supplier) forget(ctx context.Context, from names.NodeID, a *nodepb.Acknowledgement) {
	seen, err := s.seen(a.GetClearanceId())
	if err != nil || seen == nil || record.NodeID(seen.GetRequester()) != from {
		return
	}
	release, err := s.locks.Acquire(ctx, string(seen.GetRequestHash()))
	if err != nil {
		return
	}
	defer release()
	seen.Response, seen.AlsoSubjects, seen.SectorSeal = nil, nil, nil
	mark, err := seenChange(a.GetClearanceId(), seen)
	if err != nil {
		return
	}
	content := outbox.Change{Key: contentKey(seen.GetRequestHash()), Delete: true}
	mark.Lazy, content.Lazy = true, true // undone by a crash, they end with their life
	if err := s.cfg.Outbox.Write(mark, content); err != nil {
		s.cfg.Log.Error("acknowledged answer could not be forgotten; it ends with its life", "ticket", a.GetTicket(), "err", err)
	}
}

func seenKey(clearanceID []byte) outbox.Key {
	return outbox.Key{Table: seenMarks, ID: string(clearanceID)}
}

func contentKey(requestHash []byte) outbox.Key {
	return outbox.Key{Table: contents, ID: string(requestHash)}
}

func answeredKey(requestHash []byte) outbox.Key {
	return outbox.Key{Table: answered, ID: string(requestHash)}
}

// seen gives the mark of a clearance, or nil.
func (s *Supplier) seen(clearanceID []byte) (*nodepb.KeptSeen, error) {
	m := new(nodepb.KeptSeen)
	ok, err := s.load(seenKey(clearanceID), m)
	if !ok {
		return nil, err
	}
	return m, err
}

func (s *Supplier) load(k outbox.Key, m proto.Message) (bool, error) {
	raw, err := s.cfg.Outbox.Get(k)
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, proto.Unmarshal(raw, m)
}

func seenChange(clearanceID []byte, m *nodepb.KeptSeen) (outbox.Change, error) {
	raw, err := proto.Marshal(m)
	return outbox.Change{Key: seenKey(clearanceID), Value: raw, Until: time.UnixMilli(m.GetUntilUnixMs())}, err
}

func contentChange(requestHash []byte, m *nodepb.KeptContent, until time.Time) (outbox.Change, error) {
	raw, err := proto.Marshal(m)
	return outbox.Change{Key: contentKey(requestHash), Value: raw, Until: until}, err
}

// sign makes the answer to one clearance: what is signed commits to the content, which
// goes beside it.
func (x *presentation) sign(c *nodepb.KeptContent) (*nodepb.PresentResponse, error) {
	x.signed = &nodepb.Answer{
		Mesh:          string(x.cfg.Mesh),
		Ticket:        x.ticket(),
		Supplier:      nodeRef(x.cfg.Self),
		RequestHash:   x.requestHash,
		ClearanceHash: x.clearanceHash,
		Status:        c.GetStatus(),
		Commitment:    commitment(c.GetBlinding(), c.GetContent()),
		Withheld:      x.clearance.GetWithheld(),
		TimeUnixMs:    x.cfg.Now().UnixMilli(),

		SecondClearanceHash: x.secondHash(),
	}
	payload, err := proto.Marshal(x.signed)
	if err != nil {
		return nil, err
	}
	answer, err := x.group.Sign(envelope.Answer, payload)
	return &nodepb.PresentResponse{Answer: answer, Content: c.GetContent(), Blinding: c.GetBlinding()}, err
}
