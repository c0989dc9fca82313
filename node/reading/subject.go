package reading

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

const (
	// minSubjectLevel is how strongly a subject must be authenticated: by more than
	// a password.
	minSubjectLevel = 2
	// defaultMonths is how far back a subject sees unless it says otherwise.
	defaultMonths = 6
	maxViewing    = 64 // bytes
	maxYears      = 30
)

// Challenge is what a subject's token must be made for.
type Challenge struct {
	Mesh        names.MeshID     `json:"mesh"`
	Node        string           `json:"node"` // institution/node
	Purpose     identity.Purpose `json:"purpose"`
	Nonce       []byte           `json:"nonce"`
	PayloadHash []byte           `json:"payload_hash"`
	From        time.Time        `json:"from"`
	Until       time.Time        `json:"until"`
	Expires     time.Time        `json:"expires"` // of the nonce
}

// Nonce gives a challenge for a view of what happened from from until until; zero
// times stand for the last six months. It tells nothing and is not journaled. The
// error wraps ErrMalformed or ErrBusy.
func (s *Service) Nonce(who Reader, from, until time.Time) (*Challenge, error) {
	now := s.cfg.Now()
	if until.IsZero() {
		until = now.Add(time.Minute) // the clocks of others
	}
	if from.IsZero() {
		from = until.AddDate(0, -defaultMonths, 0)
	}
	viewing := &nodepb.SubjectViewing{FromUnixMs: from.UnixMilli(), UntilUnixMs: until.UnixMilli()}
	if err := checkViewing(viewing); err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(viewing)
	if err != nil {
		return nil, err
	}
	made, expires, err := s.nonces.Give(now, who.Application, raw)
	if err != nil {
		return nil, err
	}
	return &Challenge{
		Mesh: s.cfg.Mesh, Node: s.cfg.Self.String(), Purpose: identity.SubjectView, Nonce: made, PayloadHash: sum(raw),
		From: at(viewing.FromUnixMs), Until: at(viewing.UntilUnixMs), Expires: expires.UTC().Truncate(time.Millisecond),
	}, nil
}

func checkViewing(v *nodepb.SubjectViewing) error {
	from, until := at(v.GetFromUnixMs()), at(v.GetUntilUnixMs())
	switch {
	case v.GetFromUnixMs() <= 0 || !from.Before(until):
		return fmt.Errorf("%w: from must be before until, and both after 1970", ErrMalformed)
	case until.Sub(from) > maxYears*366*24*time.Hour:
		return fmt.Errorf("%w: at most %d years can be asked at once", ErrMalformed, maxYears)
	case len(v.ProtoReflect().GetUnknown()) > 0:
		return fmt.Errorf("%w: fields that are not known here", ErrMalformed)
	}
	return nil
}

func decodeViewing(raw []byte) (*nodepb.SubjectViewing, error) {
	v := new(nodepb.SubjectViewing)
	if len(raw) > maxViewing || proto.Unmarshal(raw, v) != nil {
		return nil, fmt.Errorf("%w: the viewing", ErrMalformed)
	}
	return v, checkViewing(v)
}

// Subject gives everything that concerns the subject of a token. The error wraps
// ErrNoRight, ErrJournal, or is the registry's when its view is not confirmed.
func (s *Service) Subject(ctx context.Context, who Reader, token []byte) (*SubjectView, error) {
	e := s.by(s.reading(purposeSubject), who)
	t, viewing, refused := s.admit(who, token)
	if err := asFault(refused); err != nil {
		return nil, err
	}
	if t != nil { // who it is about is certain, also when it is refused
		e.Subject, e.RequestHash = filed(t.Subject), sum(token)
	}
	if err := s.note(ctx, e, refused); err != nil {
		return nil, err
	}
	req := &nodepb.SubjectRequest{Token: token, Viewing: viewing}
	return s.gather(ctx, t, req)
}

// admit checks a token that somebody shows at this node, and uses its nonce up.
func (s *Service) admit(who Reader, token []byte) (t *identity.Token, viewing []byte, err error) {
	if len(token) == 0 {
		return nil, nil, errors.New("no identity token")
	}
	t, err = s.check(token, s.cfg.Self, nil)
	if t == nil {
		return nil, nil, err
	}
	viewing, unknown := s.nonces.Take(s.cfg.Now(), who.Application, t.Nonce)
	switch {
	case err != nil:
		return t, nil, err
	case unknown != nil:
		return t, nil, unknown
	case string(sum(viewing)) != string(t.PayloadHash):
		return t, nil, fmt.Errorf("%w: something else was asked", identity.ErrElsewhere)
	}
	return t, viewing, nil
}

// fault is an error of this node's, not a refusal.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }

func asFault(err error) error {
	var f fault
	if errors.As(err, &f) {
		return f.error
	}
	return nil
}

// check verifies a token that was made out to node.
func (s *Service) check(token []byte, node names.NodeID, payloadHash []byte) (t *identity.Token, err error) {
	if _, err := s.cfg.Registry.Standing(); err != nil {
		return nil, fault{err}
	}
	var refused error
	err = s.cfg.Registry.View(func(v record.View) error {
		t, refused = identity.Check(v, identity.Want{
			Mesh: s.cfg.Mesh, Node: node, Purpose: identity.SubjectView, PayloadHash: payloadHash, MinLevel: minSubjectLevel,
			Now: s.cfg.Now(), Skew: s.cfg.Skew, Schemes: s.cfg.Schemes,
		}, token)
		if refused != nil && !identity.Refuses(refused) {
			return refused
		}
		return nil
	})
	if err != nil {
		return nil, fault{err}
	}
	return t, refused
}
