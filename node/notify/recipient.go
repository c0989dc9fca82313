package notify

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/keylock"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// RecipientConfig is all that a recipient needs. What has a default may be zero.
type RecipientConfig struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer   // of the own institution
	Schemes  subject.Schemes // nil: the built-in ones
	Registry Registry
	Journal  Journal
	Queue    Queue // that the inbox lies in
	Inbox    Inbox
	Peers    Peers          // to ask for replays
	Bounds   genesis.Bounds // of the mesh
	// Declared, if there is one, gives what is to be kept of a submission beside the inbox's
	// item, in the same durable step.
	Declared func(t *clearing.Told, item *inbox.Item, publication []byte) ([]outbox.Change, error)
	// NotBefore refuses clearances issued before it: the marks of what was received may be
	// lost with what a restored disk lost. Zero: none is.
	NotBefore time.Time
	Now       func() time.Time // wall clock; time.Now
	Log       *slog.Logger     // nil: silent
}

// Recipient is told for its institution.
type Recipient struct {
	cfg     RecipientConfig
	checker clearing.Checker
	locks   keylock.Locks // by publishing institution

	validator exchange.Validator
}

// NewRecipient makes a recipient; it starts nothing.
func NewRecipient(cfg RecipientConfig) *Recipient {
	if cfg.Schemes == nil {
		cfg.Schemes = subject.Belgian()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Recipient{cfg: cfg}
}

// Limits on what a publisher may send in one call.
const (
	maxDeliveries = 256
	maxPart       = 24 << 10 // bytes of one envelope
)

// ErrMalformed means that a call is not one that a publisher makes.
var ErrMalformed = errors.New("malformed delivery")

// Ready returns nil when something may be delivered. The error wraps inbox.ErrFull,
// exchange.ErrRegistryStale or ErrUnavailable.
func (r *Recipient) Ready(_ context.Context, _ names.NodeID, _ *nodepb.ReadyRequest) (*nodepb.ReadyResponse, error) {
	if _, err := r.cfg.Registry.Standing(); err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	return new(nodepb.ReadyResponse), r.cfg.Inbox.Room(1)
}

// arrival is one delivery that came. The goroutine of its call owns it.
type arrival struct {
	raw     *nodepb.Delivery
	told    *clearing.Told // once checked
	keys    []string       // numbers of whom it is about; nil: nobody knows
	filed   []subject.ID   // numbers of own files that give the right to it
	notice  *nodepb.Notice
	outcome *nodepb.DeliveryOutcome // once there is one
	detail  string
	had     bool
	mark    outbox.Key
}

func (a *arrival) refuse(reason registrypb.Reason, retry bool, format string, args ...any) {
	a.outcome = &nodepb.DeliveryOutcome{Reason: reason, Retry: retry}
	a.detail = fmt.Sprintf(format, args...)
}

// Deliver takes in what a publisher, whose identity its connection proved, tells. Each
// publication counts once. A receipt is given for what is durably stored, and journaled,
// only; a refusal is journaled too.
//
// The error wraps ErrMalformed, ErrUnavailable, exchange.ErrRegistryStale, or is the
// context's; nothing was stored then, or the same deliveries sent again will find it.
func (r *Recipient) Deliver(ctx context.Context, from names.NodeID, req *nodepb.DeliverRequest) (*nodepb.DeliverResponse, error) {
	n := len(req.GetDeliveries())
	if n == 0 || n > maxDeliveries {
		return nil, fmt.Errorf("%w: %d at once, want 1 to %d", ErrMalformed, n, maxDeliveries)
	}
	release, err := r.locks.Acquire(ctx, string(from.Institution))
	if err != nil {
		return nil, err
	}
	defer release()
	standing, err := r.cfg.Registry.Standing()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	all := make([]*arrival, n)
	for i, d := range req.Deliveries {
		all[i] = &arrival{raw: d}
	}
	if err := r.judge(from, all); err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	if err := r.cfg.Inbox.Room(n); err != nil {
		for _, a := range all {
			if a.outcome == nil && !a.had {
				a.refuse(registrypb.Reason_INBOX_FULL, true, "the inbox is full")
			}
		}
	}
	if err := r.journalArrivals(ctx, from, all); err != nil {
		return nil, err
	}
	// The journal may have taken its time: what was true before must still be.
	if now, err := r.cfg.Registry.Standing(); err != nil || now.Index != standing.Index {
		if err := r.judgeAgain(ctx, from, all, cmp.Or(err, errMoved)); err != nil {
			return nil, err
		}
	}
	if err := r.store(all); err != nil {
		return nil, err
	}
	return r.receipts(all)
}

// errMoved says why things are looked at again.
var errMoved = errors.New("the registry has moved on")

// judge checks every arrival in one view, in order.
func (r *Recipient) judge(from names.NodeID, all []*arrival) error {
	return r.cfg.Registry.View(func(v record.View) error {
		desk := r.checker.Desk(v, r.cfg.Now(), r.cfg.Bounds, r.cfg.Mesh)
		member, err := v.IsMember(r.cfg.Self)
		if err != nil {
			return err
		}
		refused, came := map[string]bool{}, map[string]bool{} // by number; by mark
		for _, a := range all {
			if err := r.judgeOne(v, desk, member, from, a); err != nil {
				return err
			}
			// What was refused holds back what comes after it about the same subject, or,
			// if nobody knows whom it was about, all.
			for _, k := range append(a.keys, "") {
				if refused[k] && a.outcome == nil {
					a.outcome = &nodepb.DeliveryOutcome{Retry: true, HeldBack: true}
				}
			}
			for _, k := range a.keys {
				refused[k] = refused[k] || a.outcome != nil
			}
			if a.told == nil {
				refused[""] = refused[""] || a.keys == nil
				continue
			}
			a.had = a.had || came[a.mark.ID]
			came[a.mark.ID] = a.outcome == nil
		}
		return nil
	})
}

// judgeOne checks one arrival: everything that this node can see for itself.
func (r *Recipient) judgeOne(v record.View, desk *clearing.Desk, member bool, from names.NodeID, a *arrival) error {
	d := a.raw
	if len(d.GetPublication()) > maxPart || len(d.GetClearance()) > maxPart || len(d.GetNotice()) > maxPart {
		a.refuse(registrypb.Reason_CLEARANCE_INVALID, false, "a message larger than any")
		return nil
	}
	told, no := desk.Check(from, r.cfg.Self.Institution, d.Publication, d.Clearance)
	if told != nil {
		a.keys = keysOf(told)
	}
	if no != nil {
		// What depends on times and rights may be otherwise under another clearance.
		retry := no.Reason != registrypb.Reason_CLEARANCE_INVALID
		a.refuse(no.Reason, retry, "%s", no.Detail)
		return nil
	}
	a.told = told
	if time.UnixMilli(told.Clearance.IssuedUnixMs).Before(r.cfg.NotBefore) {
		a.refuse(registrypb.Reason_CLEARANCE_EXPIRED, true, "issued before this node can know what it has received: its disk was restored")
		return nil
	}
	if r.cfg.Now().After(time.UnixMilli(told.Publication.TimeUnixMs).Add(PublicationLife)) {
		a.refuse(registrypb.Reason_DELIVERY_EXPIRED, false, "published longer ago than this node knows what it has received")
		return nil
	}
	if err := r.ownFiles(v, member, a); err != nil || a.outcome != nil {
		return err
	}
	if err := r.openNotice(v, desk, from, a); err != nil {
		a.refuse(registrypb.Reason_CLEARANCE_INVALID, false, "notice: %v", err)
		return nil
	}
	switch n, err := exchange.CheckContent(d.Content, named[names.FieldName](told.Clearance.Fields)); {
	case err != nil:
		a.refuse(registrypb.Reason_SUPPLIER_ERROR, false, "content that must not come: %v", err)
		return nil
	case n != 1:
		a.refuse(registrypb.Reason_SUPPLIER_ERROR, false, "%d records, want one", n)
		return nil
	}
	return r.seen(a, from)
}

func keysOf(t *clearing.Told) (keys []string) {
	for _, id := range numbersOf(t) {
		keys = append(keys, string(id.Key()))
	}
	return keys
}

// numbersOf gives the numbers that a clearance names, each once: mostly there is one.
func numbersOf(t *clearing.Told) []subject.ID {
	all := []subject.ID{t.Subject}
	for _, id := range append([]subject.ID{t.Current}, t.KnownAs...) {
		if !containsID(all, id) {
			all = append(all, id)
		}
	}
	return all
}

// ownFiles looks for the own references that the clearance goes by, under every number
// that it names. A member of the registry holds the history of numbers and checks that these are one
// subject's; any other node believes the clearing peer, which any member can decide again.
func (r *Recipient) ownFiles(v record.View, member bool, a *arrival) error {
	t := a.told
	numbers := numbersOf(t)
	for _, id := range numbers {
		if parsed, err := r.cfg.Schemes.Parse(id.Scheme(), id.Number()); err != nil || parsed != id {
			a.refuse(registrypb.Reason_CLEARANCE_INVALID, false, "it names what is no number")
			return nil
		}
	}
	if member {
		family, err := v.Family(t.Subject)
		if err != nil {
			return err
		}
		for _, id := range numbers {
			if !containsID(family, id) {
				a.refuse(registrypb.Reason_CLEARANCE_INVALID, true, "it names numbers that are not of its subject")
				return nil
			}
		}
	}
	if t.Publication.Mode == string(names.Submission) {
		return r.checkRecord(v, a)
	}
	for _, id := range numbers {
		refs, err := v.References(id)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			if ref.Institution == r.cfg.Self.Institution && contains(t.Clearance.Qualities, string(ref.Quality)) &&
				ref.Period.Overlaps(record.Period(t.Publication.Period)) && !containsID(a.filed, ref.Filed) {
				a.filed = append(a.filed, ref.Filed)
			}
		}
	}
	if len(a.filed) == 0 {
		a.refuse(registrypb.Reason_REVOKED, true, "no own reference in force that gave the route")
	}
	return nil
}

func containsID(list []subject.ID, id subject.ID) bool {
	for _, o := range list {
		if o == id {
			return true
		}
	}
	return false
}
