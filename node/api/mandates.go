package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Mandates gives mandates and takes them back; mandate.Service is one. It journals all
// itself.
type Mandates interface {
	Challenge(who mandate.Asker, t mandate.Terms) (*mandate.Challenge, error)
	ChallengeRevocation(who mandate.Asker, id names.MandateID, giver subject.ID) (*mandate.Challenge, error)
	Give(ctx context.Context, who mandate.Asker, token []byte) (*mandate.Outcome, error)
	Revoke(ctx context.Context, who mandate.Asker, token []byte) (*mandate.Outcome, error)
	End(ctx context.Context, who mandate.Asker, id names.MandateID, giver subject.ID) (*mandate.Outcome, error)
	List(ctx context.Context, who mandate.Asker, about subject.ID) ([]*record.Mandate, bool, error)
}

// MandateTerms are what the giver of a mandate agrees to.
type MandateTerms struct {
	Giver    Subject             `json:"giver"`
	Holder   names.InstitutionID `json:"holder"`
	OnBehalf *Subject            `json:"on_behalf,omitempty"` // an enterprise for which the holder uses it
	Purpose  names.Purpose       `json:"purpose"`
	Datasets []names.DatasetID   `json:"datasets"`
	Period   *names.Period       `json:"period"`
}

// MandateChallenge asks what a giver's token must be made for: to give a mandate, or to
// take back the one that Revoke names.
type MandateChallenge struct {
	Terms  *MandateTerms    `json:"terms,omitempty"`
	Revoke *MandateToRevoke `json:"revoke,omitempty"`
}

// MandateToRevoke names a mandate.
type MandateToRevoke struct {
	Mandate names.MandateID `json:"mandate"`
	Giver   Subject         `json:"giver"`
}

// MandateToken shows a giver's token.
type MandateToken struct {
	Token []byte `json:"token"`
}

// MandateRevocation takes a mandate back: with its giver's token, or for this institution,
// which registered or holds it.
type MandateRevocation struct {
	Token  []byte           `json:"token,omitempty"`
	Revoke *MandateToRevoke `json:"revoke,omitempty"`
}

// MandateSubmitted is what became of a mandate, or of its revocation.
type MandateSubmitted struct {
	Mandate  names.MandateID `json:"mandate"`
	Ticket   names.Ticket    `json:"ticket"` // under which the own journal tells of it
	Index    uint64          `json:"index"`
	Accepted bool            `json:"accepted"`
	Refusal  string          `json:"refusal,omitempty"`
}

// MandateQuery searches the mandates that this institution registered or may use.
type MandateQuery struct {
	Subject *Subject `json:"subject,omitempty"` // none: of everybody
}

// MandateList is what was found. Incomplete: no registry member could say which mandates
// the institution may use, or there are more.
type MandateList struct {
	Items      []Mandate `json:"items"`
	Incomplete bool      `json:"incomplete,omitempty"`
}

// Mandate is a right that a person or an enterprise gave an institution.
type Mandate struct {
	ID        names.MandateID     `json:"id"`
	Giver     Subject             `json:"giver"`
	Holder    names.InstitutionID `json:"holder"`
	OnBehalf  *Subject            `json:"on_behalf,omitempty"`
	Purpose   names.Purpose       `json:"purpose"`
	Datasets  []names.DatasetID   `json:"datasets"`
	Period    names.Period        `json:"period"`
	Provider  names.ProviderID    `json:"provider"` // that attests that it was given
	AuthLevel uint32              `json:"auth_level"`
	Given     time.Time           `json:"given"`
	InForce   bool                `json:"in_force"` // today
	Revoked   bool                `json:"revoked,omitempty"`
	RevokedBy names.InstitutionID `json:"revoked_by,omitempty"` // at which, or by which, it was taken back
	ByGiver   bool                `json:"by_giver,omitempty"`   // the giver did
}

func (q *request) asker() mandate.Asker {
	return mandate.Asker{Application: q.app.Name, User: q.user.id, AuthLevel: q.user.level, Channel: q.user.channel}
}

func (s *Server) mandateChallenge(q *request) (response, error) {
	in, err := decode[MandateChallenge](q.body)
	if err != nil {
		return nil, err
	}
	if (in.Terms == nil) == (in.Revoke == nil) {
		return nil, problem(CodeMalformed, "body", "Send terms, to give a mandate, or revoke, to take one back.")
	}
	if in.Revoke != nil {
		giver, err := s.toRevoke("revoke", in.Revoke)
		if err != nil {
			return nil, err
		}
		return result(s.cfg.Mandates.ChallengeRevocation(q.asker(), in.Revoke.Mandate, giver))
	}
	t := in.Terms
	if t.Period == nil {
		return nil, problem(CodeMalformed, "terms.period", "Say from and until which day, as {\"from\": \"2026-01-01\", \"until\": \"2026-03-31\"}.")
	}
	terms := mandate.Terms{Holder: t.Holder, Purpose: t.Purpose, Datasets: t.Datasets, Period: *t.Period}
	if terms.Giver, err = s.subject(t.Giver); err != nil {
		return nil, problem(CodeMalformed, "terms.giver", "Send a scheme this mesh knows and a number that passes its check digits.")
	}
	if t.OnBehalf != nil {
		if terms.OnBehalf, err = s.subject(*t.OnBehalf); err != nil {
			return nil, problem(CodeMalformed, "terms.on_behalf", "Send a scheme this mesh knows and a number that passes its check digits.")
		}
	}
	for _, bad := range []error{
		form("terms.holder", t.Holder.Validate(), labelForm+" See GET /v1/institutions."),
		form("terms.purpose", t.Purpose.Validate(), labelForm+" See GET /v1/authorizations."),
		form("terms.period", t.Period.Validate(), "Let from be no later than until."),
	} {
		if bad != nil {
			return nil, bad
		}
	}
	for i, d := range t.Datasets {
		if err := form(fmt.Sprintf("terms.datasets[%d]", i), d.Validate(), "Name it with its version, as wages-quarterly/v1; see GET /v1/datasets."); err != nil {
			return nil, err
		}
	}
	return result(s.cfg.Mandates.Challenge(q.asker(), terms))
}

func (s *Server) toRevoke(where string, r *MandateToRevoke) (subject.ID, error) {
	if err := form(where+".mandate", r.Mandate.Validate(), "Write it as it was given out, institution/label."); err != nil {
		return subject.ID{}, err
	}
	giver, err := s.subject(r.Giver)
	if err != nil {
		return subject.ID{}, problem(CodeMalformed, where+".giver", "Send a scheme this mesh knows and a number that passes its check digits.")
	}
	return giver, nil
}

func (s *Server) giveMandate(q *request) (response, error) {
	in, err := decode[MandateToken](q.body)
	if err != nil {
		return nil, err
	}
	return s.mandated(q)(s.cfg.Mandates.Give(q.Context(), q.asker(), in.Token))
}

func (s *Server) revokeMandate(q *request) (response, error) {
	in, err := decode[MandateRevocation](q.body)
	if err != nil {
		return nil, err
	}
	if (len(in.Token) == 0) == (in.Revoke == nil) {
		return nil, problem(CodeMalformed, "body", "Send its giver's token; or revoke, for this institution to end a mandate that it registered or holds.")
	}
	if len(in.Token) > 0 {
		return s.mandated(q)(s.cfg.Mandates.Revoke(q.Context(), q.asker(), in.Token))
	}
	giver, err := s.toRevoke("revoke", in.Revoke)
	if err != nil {
		return nil, err
	}
	return s.mandated(q)(s.cfg.Mandates.End(q.Context(), q.asker(), in.Revoke.Mandate, giver))
}

// mandated answers with what became of a command, once this node's own view shows it.
func (s *Server) mandated(q *request) func(*mandate.Outcome, error) (response, error) {
	return func(o *mandate.Outcome, err error) (response, error) {
		switch {
		case errors.Is(err, mandate.ErrNoRight), errors.Is(err, mandate.ErrMalformed), errors.Is(err, mandate.ErrJournal):
			return nil, err
		case err != nil:
			return nil, registryTrouble(err)
		}
		_ = s.cfg.Registry.WaitApplied(q.Context(), o.Index)
		return MandateSubmitted{Mandate: o.Mandate, Ticket: o.Ticket, Index: o.Index, Accepted: o.Accepted, Refusal: o.Refusal}, nil
	}
}

func (s *Server) findMandates(q *request) (response, error) {
	in, err := decode[MandateQuery](q.body)
	if err != nil {
		return nil, err
	}
	var about subject.ID
	if in.Subject != nil {
		if about, err = s.subject(*in.Subject); err != nil {
			return nil, err
		}
	}
	all, complete, err := s.cfg.Mandates.List(q.Context(), q.asker(), about)
	if err != nil {
		return nil, err
	}
	today := names.DateOf(s.cfg.Now().UTC())
	list := MandateList{Items: []Mandate{}, Incomplete: !complete}
	for _, m := range all {
		out := Mandate{
			ID: m.ID, Giver: Subject{Scheme: string(m.Giver.Scheme()), Number: m.Giver.Number()}, Holder: m.Holder, Purpose: m.Purpose, Datasets: m.Datasets,
			Period: m.Period, Provider: m.Provider, AuthLevel: m.AuthLevel, Given: m.Given, InForce: m.InForce(today),
			Revoked: m.Revoked, RevokedBy: m.RevokedBy, ByGiver: m.ByGiver,
		}
		if !m.OnBehalf.IsZero() {
			out.OnBehalf = &Subject{Scheme: string(m.OnBehalf.Scheme()), Number: m.OnBehalf.Number()}
		}
		list.Items = append(list.Items, out)
	}
	return list, nil
}

// MandateChallenge asks what a giver's token must be made for.
func (c *Client) MandateChallenge(ctx context.Context, in MandateChallenge) (*mandate.Challenge, error) {
	return post[*mandate.Challenge](ctx, c, "/v1/mandates/challenge", in)
}

// GiveMandate registers the mandate that a giver's token agrees to.
func (c *Client) GiveMandate(ctx context.Context, token []byte) (MandateSubmitted, error) {
	return post[MandateSubmitted](ctx, c, "/v1/mandates", MandateToken{token})
}

// RevokeMandate takes a mandate back. It returns when nobody relies on it any more, which
// takes some seconds.
func (c *Client) RevokeMandate(ctx context.Context, in MandateRevocation) (MandateSubmitted, error) {
	return post[MandateSubmitted](ctx, c, "/v1/mandates/revoke", in)
}

// FindMandates gives the mandates that the institution registered or may use.
func (c *Client) FindMandates(ctx context.Context, in MandateQuery) (MandateList, error) {
	return post[MandateList](ctx, c, "/v1/mandates/search", in)
}
