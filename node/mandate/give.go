package mandate

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Give registers the mandate whose giver shows a token for a challenge of this node. The
// attempt is journaled, whatever comes of it, and the outcome once more. The error wraps
// ErrNoRight or ErrJournal, or is the registry's or the context's: then it is not known
// whether the mandate stands, and showing the token again is of no use; see List.
func (s *Service) Give(ctx context.Context, who Asker, token []byte) (*Outcome, error) {
	return s.byToken(ctx, who, token, identity.MandateGive)
}

// Revoke takes a mandate back by its giver's token. It returns when nobody relies on the
// mandate any more.
func (s *Service) Revoke(ctx context.Context, who Asker, token []byte) (*Outcome, error) {
	return s.byToken(ctx, who, token, identity.MandateRevoke)
}

// End takes a mandate back for this institution, which holds it, or registered it. It
// returns when nobody relies on it any more. A mandate that this node does not see is said
// to be ended all the same, and counts where it is this institution's to end.
func (s *Service) End(ctx context.Context, who Asker, id names.MandateID, giver subject.ID) (*Outcome, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	terms, err := proto.MarshalOptions{Deterministic: true}.Marshal(&registrypb.RevocationTerms{Id: string(id), Giver: number(giver)})
	if err != nil {
		return nil, err
	}
	e := s.entry(who, nodepb.Event_MANDATE_REVOKED, giver)
	e.Mandate = &registrypb.MandateUse{Id: string(id)}
	return s.carryOut(ctx, e, &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_RevokeMandate{
		RevokeMandate: &registrypb.MandateRevocation{Terms: terms}}})
}

func (s *Service) byToken(ctx context.Context, who Asker, token []byte, p identity.Purpose) (*Outcome, error) {
	if _, err := s.cfg.Registry.Standing(); err != nil {
		return nil, err
	}
	event := nodepb.Event_MANDATE_GIVEN
	if p == identity.MandateRevoke {
		event = nodepb.Event_MANDATE_REVOKED
	}
	t, terms, refused := s.admit(who, token, p)
	if refused != nil && !identity.Refuses(refused) && !errors.Is(refused, errNonce) {
		return nil, refused
	}
	var about subject.ID
	if t != nil { // who it is about is certain, also when it is refused
		about = t.Subject
	}
	e := s.entry(who, event, about)
	if refused != nil {
		e.Outcome, e.Detail = registrypb.Outcome_DENY, clip("refused: "+refused.Error())
		if _, err := s.cfg.Journal.Append(ctx, e); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrJournal, err)
		}
		return nil, ErrNoRight
	}
	id, body, err := commandOf(p, terms, token)
	if err != nil {
		return nil, err
	}
	e.Mandate = &registrypb.MandateUse{Id: id, Provider: string(t.Provider), AuthLevel: t.Level}
	return s.carryOut(ctx, e, body)
}

var errNonce = errors.New("its nonce does not serve")

// admit checks a token that somebody shows at this node, and uses its nonce up. It gives
// the terms that its subject agreed to.
func (s *Service) admit(who Asker, token []byte, p identity.Purpose) (t *identity.Token, terms []byte, err error) {
	err = s.cfg.Registry.View(func(v record.View) error {
		t, err = identity.Check(v, identity.Want{
			Mesh: s.cfg.Mesh, Node: s.cfg.Self, Purpose: p, MinLevel: record.MinMandateLevel, Now: s.cfg.Now(), Skew: s.cfg.Skew, Schemes: s.cfg.Schemes,
		}, token)
		return err
	})
	if t == nil {
		return nil, nil, err
	}
	terms, unknown := s.nonces.Take(s.cfg.Now(), string(p)+"/"+who.Application, t.Nonce)
	if err != nil {
		return t, nil, err
	}
	if unknown != nil {
		return t, nil, fmt.Errorf("%w: %w", errNonce, unknown)
	}
	if hash := sha256.Sum256(terms); string(hash[:]) != string(t.PayloadHash) {
		return t, nil, fmt.Errorf("%w: its subject agreed to something else", identity.ErrElsewhere)
	}
	if giver := giverOf(p, terms); giver != t.Subject {
		return t, nil, fmt.Errorf("%w: its subject is not the giver", identity.ErrElsewhere)
	}
	return t, terms, nil
}

func giverOf(p identity.Purpose, terms []byte) subject.ID {
	var s *registrypb.Subject
	if p == identity.MandateGive {
		t := new(registrypb.MandateTerms)
		_ = proto.Unmarshal(terms, t) // made here
		s = t.Giver
	} else {
		t := new(registrypb.RevocationTerms)
		_ = proto.Unmarshal(terms, t)
		s = t.Giver
	}
	return subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
}

func commandOf(p identity.Purpose, terms, token []byte) (id string, c *registrypb.Command, err error) {
	c = &registrypb.Command{Chain: registrypb.Chain_DIRECTORY}
	if p == identity.MandateGive {
		t := new(registrypb.MandateTerms)
		err = proto.Unmarshal(terms, t)
		c.Body = &registrypb.Command_GiveMandate{GiveMandate: &registrypb.Mandate{Terms: terms, Token: token}}
		return t.Id, c, err
	}
	t := new(registrypb.RevocationTerms)
	err = proto.Unmarshal(terms, t)
	c.Body = &registrypb.Command_RevokeMandate{RevokeMandate: &registrypb.MandateRevocation{Terms: terms, Token: token}}
	return t.Id, c, err
}

// carryOut journals what is about to be done, has the registry decide, and journals that.
func (s *Service) carryOut(ctx context.Context, e *nodepb.Entry, c *registrypb.Command) (*Outcome, error) {
	if _, err := s.cfg.Journal.Append(ctx, e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	done, trouble := s.cfg.Author.Do(ctx, c)
	after := proto.CloneOf(e)
	after.TimeUnixMs, after.RegistryIndex = s.cfg.Now().UnixMilli(), done.GetIndex()
	switch {
	case trouble != nil:
		after.Detail = "no answer by the registry: whether it stands there is not known"
	case done.GetAccepted():
		after.Outcome, after.Detail = registrypb.Outcome_PERMIT, "accepted by the registry"
	default: // its words may name what the journal must not hold
		after.Outcome, after.Detail = registrypb.Outcome_DENY, "refused by the registry: nothing was changed"
	}
	if _, err := s.cfg.Journal.Append(context.WithoutCancel(ctx), after); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if trouble != nil {
		return nil, trouble
	}
	return &Outcome{
		Mandate: names.MandateID(e.Mandate.GetId()), Ticket: names.Ticket(e.Ticket), Index: done.GetIndex(), Accepted: done.GetAccepted(), Refusal: done.GetRefusal(),
	}, nil
}

func (s *Service) entry(who Asker, event nodepb.Event, about subject.ID) *nodepb.Entry {
	var ticket [32]byte
	rand.Read(ticket[:])
	return &nodepb.Entry{
		TimeUnixMs: s.cfg.Now().UnixMilli(), Role: nodepb.Role_DECLARER, Event: event, Ticket: string(names.TicketOf(ticket[:])), Subject: number(about),
		Requester: &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution), Node: string(s.cfg.Self.Node)},
		User:      string(who.User), Application: who.Application, AuthLevel: who.AuthLevel, Channel: who.Channel,
	}
}

func clip(s string) string {
	if len(s) > journal.MaxDetail {
		return s[:journal.MaxDetail]
	}
	return s
}
