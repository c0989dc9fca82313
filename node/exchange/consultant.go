package exchange

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange/keylock"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Registry is this node's own view of what is public, and its right to rely on it.
type Registry interface {
	View(fn func(v record.View) error) error
	// Standing fails when the view may be out of date.
	Standing() (lease.Standing, error)
}

// Outbox is where exchanges keep what a crash must not lose; *outbox.Outbox is one.
// A consultant and a supplier of one node may share it.
type Outbox interface {
	Get(k outbox.Key) ([]byte, error)
	Write(changes ...outbox.Change) error
	Each(t outbox.Table, fn func(id string, value []byte) error) error
	Sweep() (int, error)
}

var _ Outbox = (*outbox.Outbox)(nil)

// The outbox tables of this package.
const (
	consultations outbox.Table = 1 // application, client ticket → KeptConsultation
	clearances    outbox.Table = 2 // clearance id → KeptClearance
	seenMarks     outbox.Table = 3 // clearance id → KeptSeen
	contents      outbox.Table = 4 // request hash → KeptContent
	answered      outbox.Table = 5 // request hash → nothing: it was answered
)

// ConsultantConfig is all that a consultant needs. What has a default may be zero.
type ConsultantConfig struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer   // of the own institution
	Schemes  subject.Schemes // nil: the built-in ones
	Registry Registry
	Peers    Peers
	Journal  Journal
	Outbox   Outbox

	Bounds genesis.Bounds // of the mesh

	// Life is how long a result is kept for the same client ticket. 10 minutes.
	Life time.Duration
	// ClearTimeout is how long the first round waits for each clearing peer; it
	// doubles every round. 400 ms.
	ClearTimeout time.Duration
	// ClearFor is how long clearing may take altogether. It should outlast an
	// election of the registry's leader, but not the age at which a request is stale. 2.5 s.
	ClearFor time.Duration
	// PresentTimeout is how long one presentation may take; release-by ends it too. 4 s.
	PresentTimeout time.Duration
	// HedgeAfter is how long a node of a supplier may be silent before another one of
	// it is asked beside it. 500 ms.
	HedgeAfter time.Duration
	// SweepEvery is how often Run looks for what has ended. 1 s.
	SweepEvery time.Duration

	Now func() time.Time // wall clock; time.Now
	Log *slog.Logger     // nil: silent
}

func (c *ConsultantConfig) setDefaults() {
	c.Life = cmp.Or(c.Life, 10*time.Minute)
	c.ClearTimeout = cmp.Or(c.ClearTimeout, 400*time.Millisecond)
	c.ClearFor = cmp.Or(c.ClearFor, 2500*time.Millisecond)
	c.PresentTimeout = cmp.Or(c.PresentTimeout, 4*time.Second)
	c.HedgeAfter = cmp.Or(c.HedgeAfter, 500*time.Millisecond)
	c.SweepEvery = cmp.Or(c.SweepEvery, time.Second)
	if c.Schemes == nil {
		c.Schemes = subject.Belgian()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Consultant asks for the applications of its own institution.
type Consultant struct {
	cfg      ConsultantConfig
	locks    keylock.Locks // by consultation row
	acks     chan acknowledgement
	group    *envelope.Group
	verifier envelope.Verifier

	mu       sync.Mutex
	inFlight map[string]bool // ids of clearances that a running consultation holds
}

// NewConsultant makes a consultant; it starts nothing. Run sweeps and acknowledges.
func NewConsultant(cfg ConsultantConfig) *Consultant {
	cfg.setDefaults()
	return &Consultant{cfg: cfg, group: envelope.NewGroup(cfg.Signer), acks: make(chan acknowledgement, 256), inFlight: make(map[string]bool)}
}

// Consult carries out a consultation, or gives the result of the one that was
// carried out under the same application and client ticket. It returns when ctx is
// done; what was begun is then continued by whoever asks the same again.
//
// A refusal is a Result. The error wraps ErrBadQuestion, ErrTicketReused,
// ErrAcknowledged, ErrRegistryStale, ErrJournalUnavailable or the context's.
func (c *Consultant) Consult(ctx context.Context, q Question) (*Result, error) {
	if q.ClientTicket == "" {
		q.ClientTicket = names.ClientTicket(rand.Text())
	}
	a, err := canonical(q, c.cfg.Schemes)
	if err != nil {
		return nil, err
	}
	key := consultationKey(a.Application, a.ClientTicket)
	release, err := c.locks.Acquire(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	defer release()

	kept, err := c.load(key)
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		return c.begin(ctx, key, a)
	case err != nil:
		return nil, err
	case !bytes.Equal(kept.QuestionHash, a.hash()):
		return nil, ErrTicketReused
	case kept.Acknowledged:
		return nil, ErrAcknowledged
	case kept.Result != nil:
		return resultOf(kept, a.ClientTicket), nil
	}
	return c.carryOut(ctx, key, a, kept, nil)
}

// begin signs a new request and keeps it before anything else happens, so that a
// crash at any later point finds the same request, and so the same ticket.
func (c *Consultant) begin(ctx context.Context, key outbox.Key, a *asked) (*Result, error) {
	if !a.malformed {
		if err := c.awaitStanding(ctx); err != nil {
			return nil, err
		}
	}
	now := c.cfg.Now()
	signed := a.request(c.cfg.Mesh, c.cfg.Self, now.UnixMilli())
	payload, err := proto.Marshal(signed)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	request, err := c.group.Sign(envelope.Request, payload)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	kept := &nodepb.KeptConsultation{
		QuestionHash: a.hash(),
		Request:      request,
		UntilUnixMs:  now.Add(c.cfg.Life).UnixMilli(),
	}
	return c.carryOut(ctx, key, a, kept, signed)
}

// standingPause is how long awaitStanding rests between two looks.
const standingPause = 20 * time.Millisecond

// awaitStanding waits, as long as clearing may take, for a view that can be relied
// on: while the registry elects a leader nobody has one.
func (c *Consultant) awaitStanding(ctx context.Context) error {
	deadline := time.Now().Add(c.cfg.ClearFor)
	for {
		_, err := c.cfg.Registry.Standing()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", ErrRegistryStale, err)
		}
		if err := pause(ctx, standingPause); err != nil {
			return err
		}
	}
}

// Acknowledge says that the application holds the result under this client ticket
// durably: the result is deleted. The ticket stays taken until its life ends.
// The error wraps ErrNotFound or ErrJournalUnavailable, or is the context's.
func (c *Consultant) Acknowledge(ctx context.Context, application string, ticket names.ClientTicket) error {
	key := consultationKey(application, ticket)
	release, err := c.locks.Acquire(ctx, key.ID)
	if err != nil {
		return err
	}
	defer release()
	kept, err := c.load(key)
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		return ErrNotFound
	case err != nil:
		return err
	case kept.Acknowledged:
		return nil
	case kept.Result == nil:
		return ErrNotFound
	}
	kept.Acknowledged, kept.Result = true, nil
	return c.keep(key, kept)
}

// consultationKey joins with a zero byte, which neither part can hold.
func consultationKey(application string, ticket names.ClientTicket) outbox.Key {
	return outbox.Key{Table: consultations, ID: application + "\x00" + string(ticket)}
}

func (c *Consultant) load(key outbox.Key) (*nodepb.KeptConsultation, error) {
	raw, err := c.cfg.Outbox.Get(key)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil, err
	}
	kept := new(nodepb.KeptConsultation)
	if err == nil {
		err = proto.Unmarshal(raw, kept)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournalUnavailable, err)
	}
	return kept, nil
}

// keep writes a consultation's row, and other changes with it, durably.
func (c *Consultant) keep(key outbox.Key, kept *nodepb.KeptConsultation, more ...outbox.Change) error {
	raw, err := proto.Marshal(kept)
	if err != nil {
		return err
	}
	row := outbox.Change{Key: key, Value: raw, Until: time.UnixMilli(kept.UntilUnixMs)}
	if err := c.cfg.Outbox.Write(append(more, row)...); err != nil {
		return fmt.Errorf("%w: %w", ErrJournalUnavailable, err)
	}
	return nil
}

// resultOf gives a finished consultation as its application gets it, the first
// time and every later one.
func resultOf(kept *nodepb.KeptConsultation, ticket names.ClientTicket) *Result {
	k := kept.GetResult()
	r := &Result{
		Ticket:        names.TicketOf(kept.GetRequest()),
		ClientTicket:  ticket,
		Status:        k.GetStatus(),
		Reason:        k.GetReason(),
		Authorization: names.AuthorizationID(k.GetAuthorization()),
		Withheld:      named[names.FieldName](k.GetWithheld()),
	}
	if s := k.GetSuccessor(); s != nil {
		r.Successor = subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
	}
	for _, s := range k.GetSuppliers() {
		r.Suppliers = append(r.Suppliers, SupplierResult{
			Supplier: names.InstitutionID(s.GetSupplier()),
			Status:   s.GetStatus(),
			Reason:   s.GetReason(),
			Records:  s.GetRecords(),
			Withheld: named[names.FieldName](s.GetWithheld()),
		})
	}
	return r
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func refuses(err error) (registrypb.Reason, bool) {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason, true
	}
	return 0, false
}
