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

	// NotBefore refuses clearances issued before it: the marks of those seen may be
	// lost with what a restored disk lost. Zero: none is.
	NotBefore time.Time

	// Life is how long an answer is kept for the same request. 10 minutes.
	Life time.Duration
	// SeenMargin is how long a seen-mark outlasts the last moment at which its
	// clearance could count. 1 minute.
	SeenMargin time.Duration

	Now func() time.Time // wall clock; time.Now
	Log *slog.Logger     // nil: silent
}

// Supplier answers for its institution.
type Supplier struct {
	cfg     SupplierConfig
	schemas schemas
	locks   locks // by request hash
	group   *envelope.Group
	checker clearing.Checker
}

// NewSupplier makes a supplier; it starts nothing. The consultant's Run, or
// whoever else sweeps the outbox, lets its rows end.
func NewSupplier(cfg SupplierConfig) *Supplier {
	cfg.Life = cmp.Or(cfg.Life, 10*time.Minute)
	cfg.SeenMargin = cmp.Or(cfg.SeenMargin, time.Minute)
	if cfg.Schemes == nil {
		cfg.Schemes = subject.Belgian()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Supplier{cfg: cfg, group: envelope.NewGroup(cfg.Signer)}
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
// The error is always a *Refusal, and its journal entry is durable, unless its
// reason is JOURNAL_UNAVAILABLE.
func (s *Supplier) Present(ctx context.Context, from names.NodeID, p *nodepb.Presentation) (*nodepb.PresentResponse, error) {
	x, no := s.read(from, p)
	if no == nil {
		release, err := s.locks.acquire(ctx, string(x.requestHash))
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
	s.cfg.Log.Info("presentation refused", "peer", from.String(), "ticket", x.ticket(), "reason", no.reason.String(), "detail", no.detail)
	e := x.entry(nodepb.Event_REFUSED)
	e.Status, e.Reason, e.Detail = nodepb.Status_NO_RESULT, no.reason, no.detail
	if err := x.journal(ctx, e); err != nil {
		return nil, &Refusal{registrypb.Reason_JOURNAL_UNAVAILABLE}
	}
	return nil, &Refusal{no.reason}
}

// Acknowledge forgets the answer to a clearance, and what it was made of, because
// its requester holds it. The marks stay: neither this clearance nor another one for
// the same request is answered again. Nobody learns whether there was anything.
func (s *Supplier) Acknowledge(ctx context.Context, from names.NodeID, a *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error) {
	done := new(nodepb.AcknowledgeResponse)
	seen, err := s.seen(a.GetClearanceId())
	if err != nil || seen == nil || record.NodeID(seen.GetRequester()) != from {
		return done, nil
	}
	release, err := s.locks.acquire(ctx, string(seen.GetRequestHash()))
	if err != nil {
		return done, nil
	}
	defer release()
	seen.Response = nil
	mark, err := seenChange(a.GetClearanceId(), seen)
	if err != nil {
		return done, nil
	}
	content, err := contentChange(seen.GetRequestHash(), new(nodepb.KeptContent), s.cfg.Now().Add(s.cfg.Life))
	if err != nil {
		return done, nil
	}
	mark.Lazy, content.Lazy = true, true // undone by a crash, they end with their life
	if err := s.cfg.Outbox.Write(mark, content); err != nil {
		s.cfg.Log.Error("acknowledged answer could not be forgotten; it ends with its life", "ticket", a.GetTicket(), "err", err)
	}
	return done, nil
}

func seenKey(clearanceID []byte) outbox.Key {
	return outbox.Key{Table: seenMarks, ID: string(clearanceID)}
}

func contentKey(requestHash []byte) outbox.Key {
	return outbox.Key{Table: contents, ID: string(requestHash)}
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
	payload, err := proto.Marshal(&nodepb.Answer{
		Mesh:          string(x.cfg.Mesh),
		Ticket:        x.ticket(),
		Supplier:      nodeRef(x.cfg.Self),
		RequestHash:   x.requestHash,
		ClearanceHash: x.clearanceHash,
		Status:        c.GetStatus(),
		Commitment:    commitment(c.GetBlinding(), c.GetContent()),
		Withheld:      x.clearance.GetWithheld(),
		TimeUnixMs:    x.cfg.Now().UnixMilli(),
	})
	if err != nil {
		return nil, err
	}
	answer, err := x.group.Sign(envelope.Answer, payload)
	return &nodepb.PresentResponse{Answer: answer, Content: c.GetContent(), Blinding: c.GetBlinding()}, err
}
