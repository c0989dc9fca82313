package chunk

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Journal writes decisions down.
type Journal interface {
	// RecordChunk returns when d is durable.
	RecordChunk(ctx context.Context, d *Decided) error
}

// Decided is what a clearing peer decided on a chunk, as it is journaled.
type Decided struct {
	Time          time.Time
	Clearer       names.NodeID
	Request       *Request
	Envelope      []byte // of the request
	Clearances    []Issued
	Decision      *registrypb.ChunkDecision // nil: nothing was refused
	Signed        []byte                    // envelope of Decision
	RegistryIndex uint64
	Response      *registrypb.ClearChunkResponse // as it is given
	Asked         *registrypb.ClearChunkRequest
	// Deliberations of the authorizations that were decided by.
	Deliberations map[string]string
}

// Issued is a clearance as it is given out.
type Issued struct {
	*registrypb.ChunkClearance
	Envelope, Hash []byte
}

// Config is all that a Service needs.
type Config struct {
	Self     names.NodeID
	Mesh     names.MeshID
	Signer   crypto.Signer
	Registry clearing.Registry
	Journal  Journal
	Bounds   genesis.Bounds
	Schemes  subject.Schemes
	// Pass lets what is more urgent go first; it is called every few subjects. Nil: nothing is.
	Pass func(context.Context) error
	Now  func() time.Time // nil: time.Now
	Log  *slog.Logger     // nil: nothing
}

// Service clears chunks for others. It is safe for concurrent use.
type Service struct {
	cfg      Config
	verifier envelope.Verifier
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg}
}

// Clear decides on the subjects of a chunk request that the node from sent. The errors are
// those of clearing.Service.Clear. Nothing is answered that is not journaled.
func (s *Service) Clear(ctx context.Context, from names.NodeID, cr *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error) {
	if len(cr.GetCleared()) > maxCleared {
		return nil, fmt.Errorf("%w: more than %d suppliers cleared", clearing.ErrMalformed, maxCleared)
	}
	r, err := OpenRequest(s.cfg.Mesh, cr.GetRequest())
	if err != nil {
		return nil, err
	}
	if n := len(cr.Pending); n > 0 && n != len(packed.NewBits(packed.Len(r.Subjects))) {
		return nil, fmt.Errorf("%w: pending of another length than the subjects", clearing.ErrMalformed)
	}
	if record.NodeID(r.Order.Requester) != from {
		return nil, fmt.Errorf("%w: it comes from %s", clearing.ErrNotRequester, from)
	}
	standing, err := s.cfg.Registry.Standing()
	if err != nil {
		return nil, err
	}
	d := &Decided{Time: s.cfg.Now(), Clearer: s.cfg.Self, Request: r, Envelope: cr.Request, Asked: cr, Deliberations: map[string]string{}}
	var all *rulings
	if err := s.cfg.Registry.View(func(v record.View) (err error) {
		if all, err = s.decide(ctx, v, standing, d); err == nil {
			err = s.deliberations(v, d, all)
		}
		return err
	}); err != nil {
		return nil, err
	}
	if err := s.issue(d, all, standing); err != nil {
		return nil, err
	}
	// As for a consultation: a machine that stood still must not answer.
	if err := s.still(standing); err != nil {
		return nil, err
	}
	if err := s.cfg.Journal.RecordChunk(ctx, d); err != nil {
		s.cfg.Log.Error("a decision on a chunk was not given: the journal failed", "ticket", string(r.Order.Ticket), "error", err)
		return nil, fmt.Errorf("%w: %w", clearing.ErrJournal, err)
	}
	return d.Response, s.still(standing)
}

func (s *Service) still(standing lease.Standing) error {
	if !time.Now().Before(standing.Until) {
		return fmt.Errorf("%w: the grant ended while this was decided", lease.ErrStale)
	}
	_, err := s.cfg.Registry.Standing()
	return err
}

func (s *Service) decide(ctx context.Context, v record.View, standing lease.Standing, d *Decided) (all *rulings, err error) {
	if d.RegistryIndex, err = v.AppliedIndex(); err != nil {
		return nil, err
	}
	if d.RegistryIndex < standing.Index {
		return nil, fmt.Errorf("%w: index %d is not applied yet", lease.ErrStale, standing.Index)
	}
	member, err := v.IsMember(s.cfg.Self)
	if err != nil {
		return nil, err
	}
	if !member {
		return nil, clearing.ErrNotMember
	}
	r := d.Request
	signed, err := clearing.SignedBy(v, &s.verifier, r.Signed, names.InstitutionID(r.Order.Requester.GetInstitution()))
	if err != nil {
		return nil, err
	}
	if !signed {
		return nil, clearing.ErrBadSignature
	}
	pending := packed.Bits(d.Asked.Pending)
	if !clearing.Fresh(d.Time, time.UnixMilli(r.TimeUnixMs), s.cfg.Bounds) {
		all = &rulings{recused: packed.NewBits(packed.Len(r.Subjects))}
		for i, n := range packed.All(r.Subjects) {
			if len(pending) == 0 || pending.Has(i) {
				all.refuse(clearing.Decision{Outcome: registrypb.Outcome_DENY, Reason: registrypb.Reason_STALE_REQUEST}, n)
			}
		}
		return all, nil
	}
	if all, err = decideAll(ctx, v, s.cfg.Self.Institution, s.cfg.Schemes, r, d.Asked.Cleared, pending, d.Time, s.pass(d.Time)); err != nil {
		return nil, err
	}
	return all, all.note(v)
}

// pass lets others go first, as long as the clearances will last to be presented.
func (s *Service) pass(begun time.Time) func(context.Context) error {
	if s.cfg.Pass == nil {
		return nil
	}
	return func(ctx context.Context) error {
		if s.cfg.Now().Sub(begun) > s.cfg.Bounds.PresentLife/3 {
			return ctx.Err()
		}
		return s.cfg.Pass(ctx)
	}
}

func (s *Service) deliberations(v record.View, d *Decided, all *rulings) error {
	note := func(id string) error {
		if _, known := d.Deliberations[id]; known || id == "" {
			return nil
		}
		z, err := v.Authorization(names.AuthorizationID(id))
		d.Deliberations[id] = z.GetDeliberation()
		return err
	}
	for _, groups := range all.cleared {
		for _, g := range groups {
			if err := note(g.group.Authorization); err != nil {
				return err
			}
		}
	}
	for _, g := range all.refused {
		if err := note(g.group.Authorization); err != nil {
			return err
		}
	}
	return nil
}

// issue signs once for each supplier, and once for all that was refused.
func (s *Service) issue(d *Decided, all *rulings, standing lease.Standing) error {
	o, scheme := d.Request.Order, subject.Scheme(d.Request.Order.Scheme)
	clearer := &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution), Node: string(s.cfg.Self.Node)}
	d.Response = &registrypb.ClearChunkResponse{RegistryIndex: d.RegistryIndex}
	if all.recused.Any() {
		d.Response.Recused = all.recused
	}
	ids, groups := all.suppliers(scheme)
	for i, id := range ids {
		if i == clearing.MaxSuppliers || len(groups[id]) > MaxGroups {
			return fmt.Errorf("%w: more than %d suppliers or %d groups in one chunk: ask in smaller ones", clearing.ErrMalformed, clearing.MaxSuppliers, MaxGroups)
		}
		c := &registrypb.ChunkClearance{
			Mesh: string(s.cfg.Mesh), Id: make([]byte, idSize), Ticket: string(o.Ticket), Clearer: clearer, Requester: o.Requester, Supplier: string(id),
			OrderHash: o.Hash, RequestHash: d.Request.Hash, Number: d.Request.Number, RequestTimeUnixMs: d.Request.TimeUnixMs,
			Dataset: o.Dataset, Period: o.Period, Purpose: o.Purpose, Mode: string(names.Batch), Groups: groups[id], RegistryIndex: d.RegistryIndex,
			IssuedUnixMs: d.Time.UnixMilli(), PresentByUnixMs: d.Time.Add(s.cfg.Bounds.PresentLife).UnixMilli(),
			ReleaseByUnixMs: d.Time.Add(s.cfg.Bounds.ReleaseLife).UnixMilli(), Grant: standing.Grant,
		}
		rand.Read(c.Id)
		if all.managing[id] {
			if err := s.outline(c); err != nil {
				return err
			}
		}
		signed, err := s.sign(envelope.LotClearance, c)
		if err != nil {
			return err
		}
		d.Clearances = append(d.Clearances, Issued{c, signed, sum(signed)})
		d.Response.Clearances = append(d.Response.Clearances, signed)
	}
	if len(all.refused) == 0 {
		return nil
	}
	d.Decision = &registrypb.ChunkDecision{
		Mesh: string(s.cfg.Mesh), Ticket: string(o.Ticket), Clearer: clearer, Requester: o.Requester, RequestHash: d.Request.Hash,
		Groups: all.refusedGroups(scheme), RegistryIndex: d.RegistryIndex, TimeUnixMs: d.Time.UnixMilli(),
		Cleared: d.Asked.Cleared, OrderHash: o.Hash, RequestTimeUnixMs: d.Request.TimeUnixMs,
	}
	var err error
	d.Signed, err = s.sign(envelope.LotDecision, d.Decision)
	d.Response.Decision = d.Signed
	return err
}

func (s *Service) sign(t envelope.Type, m proto.Message) ([]byte, error) {
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	signed, err := envelope.Sign(t, payload, s.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return signed, nil
}
