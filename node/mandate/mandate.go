// Package mandate registers mandates at this institution, and takes them back: a person or
// an enterprise lets an institution ask for data about it, for a purpose, some datasets and
// a while (record.Mandate).
//
// The giver comes to an application of this institution, a portal or a desk, and proves
// who it is by an identity provider's token that is bound to this node, to a nonce of it
// and to the very terms:
//
//	Challenge(terms)   what the token must be made for; the terms get their id here
//	Give(token)        journal, registry command, journal
//
// A mandate is taken back by its giver, likewise (ChallengeRevocation, Revoke), at any
// node that has such an application; or, without a token, by the institution that holds
// it or that registered it (End). Both return when nobody relies on the mandate any more.
//
// What is asserted here is checked again by every replica of the registry: a node that
// lies about a giver is refused there.
package mandate

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/nonce"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	// ErrNoRight means that the token does not give what it is shown for. It says no more;
	// the journal does.
	ErrNoRight = errors.New("no right to this")
	// ErrMalformed means terms that cannot be. Its text says what to mend.
	ErrMalformed = errors.New("malformed mandate")
	// ErrJournal means that the journal cannot be written, so that nothing is done.
	ErrJournal = errors.New("the journal is unavailable")
)

// Registry is this node's view of the registry.
type Registry interface {
	View(fn func(record.View) error) error
	// Standing fails when the view may be out of date.
	Standing() (lease.Standing, error)
}

// Author signs commands of the institution and has them decided; registry.Author is one.
type Author interface {
	Do(ctx context.Context, c *registrypb.Command) (*registrypb.SubmitResponse, error)
}

// Journal is the node's own segment.
type Journal interface {
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
}

// Peers asks registry members.
type Peers interface {
	Mandates(ctx context.Context, to names.NodeID, req *nodepb.MandatesRequest) (*nodepb.MandatesResponse, error)
}

// Config is what a Service needs. Everything is required, but Log.
type Config struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Registry Registry
	Author   Author
	Journal  Journal
	Peers    Peers
	Schemes  subject.Schemes
	Skew     time.Duration // by which clocks may differ
	Now      func() time.Time
	Log      *slog.Logger // nil: silent
}

// Service is safe for concurrent use, and starts nothing that outlives a call.
type Service struct {
	cfg    Config
	nonces *nonce.Book
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, nonces: nonce.NewBook()}
}

// Asker is who asks this node, as the API authenticated it.
type Asker struct {
	Application string
	User        names.UserID
	AuthLevel   uint32
	Channel     string
}

// Terms are what a giver agrees to.
type Terms struct {
	Giver    subject.ID
	Holder   names.InstitutionID
	OnBehalf subject.ID // zero: for the holder itself
	Purpose  names.Purpose
	Datasets []names.DatasetID
	Period   names.Period
}

// Challenge is what a giver's token must be made for.
type Challenge struct {
	Mesh        names.MeshID     `json:"mesh"`
	Node        string           `json:"node"` // institution/node
	Purpose     identity.Purpose `json:"purpose"`
	Nonce       []byte           `json:"nonce"`
	PayloadHash []byte           `json:"payload_hash"`
	Mandate     names.MandateID  `json:"mandate"`
	Expires     time.Time        `json:"expires"` // of the nonce
}

// Outcome is what became of a mandate or its revocation.
type Outcome struct {
	Mandate  names.MandateID
	Ticket   names.Ticket // under which the own journal tells of it
	Index    uint64       // of the command in the registry
	Accepted bool
	Refusal  string // why the registry changed nothing
}

// Challenge gives the mandate an id and says what its giver's token must be made for. It
// tells nothing, and is not journaled. The error wraps ErrMalformed or nonce.ErrBusy.
func (s *Service) Challenge(who Asker, t Terms) (*Challenge, error) {
	if err := s.check(t); err != nil {
		return nil, err
	}
	id := names.MandateID(fmt.Sprintf("%s/m-%s", s.cfg.Self.Institution, strings.ToLower(rand.Text())))
	terms := &registrypb.MandateTerms{
		Id: string(id), Giver: number(t.Giver), Holder: string(t.Holder), OnBehalf: number(t.OnBehalf), Purpose: string(t.Purpose),
		Period: &registrypb.Period{From: int32(t.Period.From), Until: int32(t.Period.Until)},
	}
	for _, d := range t.Datasets {
		terms.Datasets = append(terms.Datasets, string(d))
	}
	return s.challenge(who, id, identity.MandateGive, terms)
}

// ChallengeRevocation says what the token of the giver of a mandate must be made for, to
// take it back.
func (s *Service) ChallengeRevocation(who Asker, id names.MandateID, giver subject.ID) (*Challenge, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return s.challenge(who, id, identity.MandateRevoke, &registrypb.RevocationTerms{Id: string(id), Giver: number(giver)})
}

func (s *Service) challenge(who Asker, id names.MandateID, p identity.Purpose, terms proto.Message) (*Challenge, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(terms)
	if err != nil {
		return nil, err
	}
	made, expires, err := s.nonces.Give(s.cfg.Now(), string(p)+"/"+who.Application, raw)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(raw)
	return &Challenge{
		Mesh: s.cfg.Mesh, Node: s.cfg.Self.String(), Purpose: p, Nonce: made, PayloadHash: hash[:], Mandate: id,
		Expires: expires.UTC().Truncate(time.Millisecond),
	}, nil
}

// check refuses terms that the registry would: the giver need not come for nothing.
func (s *Service) check(t Terms) error {
	last := names.DateOf(s.cfg.Now().UTC()) + record.MaxMandateDays
	err := cmp.Or(t.Holder.Validate(), t.Purpose.Validate(), t.Period.Validate())
	for _, d := range t.Datasets {
		err = cmp.Or(err, d.Validate())
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case len(t.Datasets) == 0:
		return fmt.Errorf("%w: name the datasets that it opens", ErrMalformed)
	case t.Period.Until > last:
		return fmt.Errorf("%w: it lasts at most %d days: until %s", ErrMalformed, record.MaxMandateDays, last)
	}
	return s.cfg.Registry.View(func(v record.View) error {
		i, err := v.Institution(t.Holder)
		if err == nil && i == nil {
			err = fmt.Errorf("%w: no institution is called %s", ErrMalformed, t.Holder)
		}
		return err
	})
}

func number(id subject.ID) *registrypb.Subject {
	if id.IsZero() {
		return nil
	}
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}
