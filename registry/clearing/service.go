package clearing

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	// ErrNotRequester means that a node sent a request that is not its own.
	ErrNotRequester = errors.New("the request is another node's")
	// ErrBadSignature means that no key in force of the requester signed.
	ErrBadSignature = errors.New("the request is not signed by a key in force of the requester")
	// ErrNotMember means that this node may not clear: it is no registry member.
	ErrNotMember = errors.New("this node is no registry member and clears nothing")
	// ErrJournal means that the decision could not be written down, so it was not
	// given.
	ErrJournal = errors.New("the decision cannot be journaled")
)

// Registry is the member's own replica.
type Registry interface {
	View(fn func(record.View) error) error
	// Standing fails, with an error that wraps lease.ErrStale, when the view must
	// not be relied on.
	Standing() (lease.Standing, error)
}

// Journal writes decisions down.
type Journal interface {
	// RecordDecision returns when d is durable.
	RecordDecision(ctx context.Context, d Decided) error
}

// Decided is a decision as it is journaled. It holds no content.
type Decided struct {
	Time    time.Time
	Ticket  names.Ticket
	Clearer names.NodeID
	Request *registrypb.Request // not to be changed
	// RequestEnvelope is the request as its requester signed and sent it.
	RequestEnvelope []byte
	RequestHash     []byte
	Decision
	Cleared       []string // suppliers that other peers had cleared, as the requester said
	Clearances    []Issued // one for each destination, in their order
	Signed        []byte   // when there is none: the envelope of a registrypb.Decision
	RegistryIndex uint64
}

// Issued names a clearance.
type Issued struct {
	Supplier  names.InstitutionID
	ID        []byte
	Envelope  []byte // as it is given out
	Hash      []byte // SHA-256 of Envelope
	PresentBy time.Time
}

// Config is all that a Service needs.
type Config struct {
	Self     names.NodeID
	Mesh     names.MeshID
	Signer   crypto.Signer // of the own institution
	Registry Registry
	Journal  Journal
	Bounds   genesis.Bounds
	Schemes  subject.Schemes
	Now      func() time.Time // default time.Now
	Log      *slog.Logger     // default: nothing
}

// Service clears for others. It is safe for concurrent use.
type Service struct {
	cfg      Config
	group    *envelope.Group
	verifier envelope.Verifier
	grants   Checker // of the own grants
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, group: envelope.NewGroup(cfg.Signer)}
}

// Clear decides on a request that the node from sent. The ticket of the same
// envelope is always the same; its clearances are not, and a supplier must answer
// one request once, whatever clearance comes with it.
//
// Its error wraps ErrMalformed, ErrNotRequester, ErrBadSignature or ErrNotMember
// when there is nothing to decide, and lease.ErrStale or ErrJournal when another
// peer should be asked. Nothing is answered that is not journaled.
func (s *Service) Clear(ctx context.Context, from names.NodeID, cr *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
	if len(cr.GetCleared()) > maxCleared {
		return nil, fmt.Errorf("%w: more than %d suppliers cleared", ErrMalformed, maxCleared)
	}
	req, opened, err := openRequest(s.cfg.Mesh, cr.GetRequest())
	if err != nil {
		return nil, err
	}
	if record.NodeID(req.Requester) != from {
		return nil, fmt.Errorf("%w: it comes from %s", ErrNotRequester, from)
	}
	standing, err := s.standing()
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(cr.Request)
	d := Decided{
		Time: s.cfg.Now(), Ticket: names.TicketOf(cr.Request), Clearer: s.cfg.Self, Request: req, RequestHash: hash[:], RequestEnvelope: cr.Request,
		Cleared: cr.Cleared,
	}
	if err := s.cfg.Registry.View(func(v record.View) error { return s.decide(v.Remembering(), standing, opened, &d) }); err != nil {
		return nil, err
	}
	clearances, err := s.issue(&d, standing)
	if err == nil && len(clearances) == 0 {
		err = s.sign(&d)
	}
	if err != nil {
		return nil, err
	}
	// A machine that stood still since it looked must not answer, nor leave a permit
	// in its journal; and the journal may take its time, so it looks once more.
	if err := s.still(standing); err != nil {
		return nil, err
	}
	if err := s.cfg.Journal.RecordDecision(ctx, d); err != nil {
		s.cfg.Log.Error("a decision was not given: the journal failed", "ticket", string(d.Ticket), "error", err)
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if err := s.still(standing); err != nil {
		return nil, err
	}
	return response(&d, clearances), nil
}

func (s *Service) standing() (lease.Standing, error) {
	standing, err := s.cfg.Registry.Standing()
	if err != nil {
		return standing, err
	}
	return standing, s.still(standing)
}

// still reports whether the standing has not ended. Until is monotonic, so this
// asks the real clock, and not the one that tests set.
func (s *Service) still(standing lease.Standing) error {
	if !time.Now().Before(standing.Until) {
		return fmt.Errorf("%w: the grant ended while this was decided", lease.ErrStale)
	}
	if _, err := s.cfg.Registry.Standing(); err != nil {
		return err
	}
	return nil
}

// decide fills d from one view.
func (s *Service) decide(v record.View, standing lease.Standing, opened *envelope.Opened, d *Decided) (err error) {
	if d.RegistryIndex, err = v.AppliedIndex(); err != nil {
		return err
	}
	if err := s.grants.grantStands(v, s.cfg.Mesh, standing); err != nil {
		return err
	}
	member, err := v.IsMember(s.cfg.Self)
	if err != nil {
		return err
	}
	if !member {
		return ErrNotMember
	}
	signed, err := signedBy(v, &s.verifier, opened, names.InstitutionID(d.Request.Requester.GetInstitution()))
	if err != nil {
		return err
	}
	if !signed {
		return ErrBadSignature
	}
	if !fresh(d.Time, time.UnixMilli(d.Request.TimeUnixMs), s.cfg.Bounds) {
		d.Decision = deny(registrypb.Reason_STALE_REQUEST)
		return nil
	}
	d.Decision, err = Decide(v, Case{Self: s.cfg.Self.Institution, Schemes: s.cfg.Schemes, Request: d.Request, Cleared: d.Cleared, At: d.Time})
	return err
}

// RequestLife is how old a request may be when it is cleared. A consultant that
// crashed resumes with the request it had signed, so that the ticket stays and
// nothing is done twice; nobody but the requester itself can send it, and what it
// may obtain is decided anew. So this bounds only how long an outbox is good for.
const RequestLife = time.Hour

// fresh reports whether a request made at made may be decided at now: clocks
// differ, and the requester may have been down in between.
func fresh(now, made time.Time, b genesis.Bounds) bool {
	age := now.Sub(made)
	return age >= -b.Skew && age <= RequestLife+b.Skew
}

// issue signs a clearance for each destination, and names them in d.
func (s *Service) issue(d *Decided, standing lease.Standing) (clearances [][]byte, err error) {
	now := d.Time
	for _, to := range d.Destinations {
		c := &registrypb.Clearance{
			Mesh: string(s.cfg.Mesh), Id: make([]byte, nonceSize), Ticket: string(d.Ticket),
			Clearer:   &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution), Node: string(s.cfg.Self.Node)},
			Requester: d.Request.Requester, Supplier: string(to.Supplier), RequestHash: d.RequestHash,
			Subject: d.Request.Subject, Dataset: d.Request.Dataset, Fields: d.Fields, Withheld: d.Withheld,
			Period: d.Request.Period, Purpose: d.Request.Purpose, Mode: d.Request.Mode,
			Authorization: d.Authorization.GetId(), RegistryIndex: d.RegistryIndex,
			IssuedUnixMs: now.UnixMilli(), PresentByUnixMs: now.Add(s.cfg.Bounds.PresentLife).UnixMilli(),
			ReleaseByUnixMs: now.Add(s.cfg.Bounds.ReleaseLife).UnixMilli(), Grant: standing.Grant,
		}
		if d.Mandate != nil {
			c.Mandate = d.Mandate.Use()
		}
		rand.Read(c.Id)
		for _, id := range to.FiledUnder {
			c.FiledUnder = append(c.FiledUnder, &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()})
		}
		for _, q := range to.Qualities {
			c.SupplierQualities = append(c.SupplierQualities, string(q))
		}
		payload, err := proto.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("clearance: %w", err)
		}
		raw, err := s.group.Sign(envelope.Clearance, payload)
		if err != nil {
			return nil, fmt.Errorf("clearance: %w", err)
		}
		hash := sha256.Sum256(raw)
		clearances = append(clearances, raw)
		d.Clearances = append(d.Clearances, Issued{to.Supplier, c.Id, raw, hash[:], time.UnixMilli(c.PresentByUnixMs)})
	}
	return clearances, nil
}

// sign makes a decision that clears nothing evidence, as a clearance is by itself.
func (s *Service) sign(d *Decided) error {
	payload, err := proto.Marshal(&registrypb.Decision{
		Mesh: string(s.cfg.Mesh), Ticket: string(d.Ticket), RequestHash: d.RequestHash, Requester: d.Request.Requester,
		Clearer: &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution), Node: string(s.cfg.Self.Node)},
		Outcome: d.Outcome, Reason: d.Reason, Recused: d.Recused, Successor: successorOf(d.Decision), Withheld: d.Withheld,
		Authorization: d.Authorization.GetId(), RegistryIndex: d.RegistryIndex, TimeUnixMs: d.Time.UnixMilli(),
		Cleared: d.Cleared,
	})
	if err == nil {
		d.Signed, err = envelope.Sign(envelope.Decision, payload, s.cfg.Signer)
	}
	if err != nil {
		return fmt.Errorf("decision: %w", err)
	}
	return nil
}

func successorOf(d Decision) *registrypb.Subject {
	if d.Successor.IsZero() {
		return nil
	}
	return &registrypb.Subject{Scheme: string(d.Successor.Scheme()), Number: d.Successor.Number()}
}

func response(d *Decided, clearances [][]byte) *registrypb.ClearResponse {
	return &registrypb.ClearResponse{
		Ticket: string(d.Ticket), Outcome: d.Outcome, Reason: d.Reason, Clearances: clearances, Recused: d.Recused,
		Withheld: d.Withheld, Authorization: d.Authorization.GetId(), RegistryIndex: d.RegistryIndex,
		Successor: successorOf(d.Decision), Decision: d.Signed,
	}
}
