package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// preContractualMandate is flow 11: a citizen lets a would-be employer check for a while
// which regimes of work are open, and takes that back.
func preContractualMandate() Scenario {
	const (
		secretariat = "social-secretariat"
		portal      = "national-register" // where the citizen logs in
		employer    = "0412345614"
	)
	ask := func(p *data.Person) data.Consultation {
		return data.Consultation{Requester: secretariat, Purpose: "pre-contractual-check", Dataset: "employment-regime/v1",
			Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: lately}
	}
	return Scenario{
		Name: "pre-contractual-mandate", Flow: 11,
		Title: "A citizen lets a would-be employer check which regimes of work are open, sees it used, and takes it back",
		Needs: []names.InstitutionID{secretariat, portal, "nsso"},
		Play: func(ctx context.Context, s *Stage) error {
			with := func(p *data.Person) data.Consultation { c := ask(p); c.Mandate = true; return c }
			citizen, err := s.Person(func(p *data.Person) bool { return s.Permitted(with(p)) && p.Former == nil })
			if err != nil {
				return err
			}
			who := api.Subject{Scheme: "ssin", Number: citizen.SSIN.Number()}

			s.Step("%s applies for work. The employer's social secretariat asks which regimes are open: not without a mandate", who.Number)
			if _, err := s.Consult(ctx, ask(citizen)); err != nil {
				return err
			}

			s.Step("At the portal of the National Register the citizen, identified, lets the secretariat ask, for enterprise %s, for 30 days", employer)
			given, err := s.give(ctx, portal, who, api.MandateTerms{
				Giver: who, Holder: secretariat, OnBehalf: &api.Subject{Scheme: "cbe", Number: employer}, Purpose: "pre-contractual-check",
				Datasets: []names.DatasetID{"employment-regime/v1"}, Period: &names.Period{From: s.Today, Until: s.Today + 30},
			})
			if err != nil {
				return err
			}
			s.Say("mandate %s, at index %d of the registry", given.Mandate, given.Index)

			s.Step("The secretariat sees its mandates, and asks again")
			out, err := s.Command(ctx, secretariat, 0, "mandate", "list", "-o", "json")
			if err != nil {
				return err
			}
			var list api.MandateList
			if err := json.Unmarshal([]byte(out), &list); err != nil || !slices.ContainsFunc(list.Items, func(m api.Mandate) bool { return m.ID == given.Mandate && m.InForce }) {
				return fmt.Errorf("mandate %s is not among those in force that its holder may use: %v\n%s", given.Mandate, err, out)
			}
			got, err := s.Consult(ctx, with(citizen))
			if err != nil {
				return err
			}
			s.Say("%s", got.Suppliers[0].Records)
			story, err := s.Trace(ctx, secretariat, got.Ticket)
			if err != nil {
				return err
			}
			if m := story.Exchanges[0].Mandate; m == nil || m.ID != given.Mandate || m.Provider != testnet.ProviderName {
				return fmt.Errorf("the trace of %s names mandate %+v, want %s attested by %s", got.Ticket, m, given.Mandate, testnet.ProviderName)
			}

			s.Step("The citizen looks: which mandates there are, and who used them")
			view, err := s.viewOf(ctx, portal, who)
			if err != nil {
				return err
			}
			at := slices.IndexFunc(view.Mandates, func(m reading.GivenMandate) bool { return m.ID == given.Mandate })
			if at < 0 || !view.Mandates[at].InForce {
				return fmt.Errorf("the citizen's own view does not show mandate %s in force", given.Mandate)
			}
			if !slices.ContainsFunc(view.Uses, func(u reading.Use) bool { return u.Ticket == got.Ticket && u.Outcome == reading.Permitted }) {
				return fmt.Errorf("the citizen's own view does not show ticket %s", got.Ticket)
			}
			m := view.Mandates[at]
			s.Say("%s may ask for %v, for %s, from %s until %s; used under ticket %s", m.Holder.Name, m.Datasets, m.OnBehalf, m.Period.From, m.Period.Until, got.Ticket)

			s.Step("The citizen takes it back; the answer comes when it holds everywhere")
			begun := time.Now()
			if err := s.takeBack(ctx, portal, who, given.Mandate); err != nil {
				return err
			}
			s.Say("it holds, after %.1f s", time.Since(begun).Seconds())

			s.Step("The secretariat asks once more: the mandate is gone")
			_, err = s.Consult(ctx, ask(citizen))
			return err
		},
	}
}

// give has a person give a mandate at a portal: challenge, token, mandate.
func (s *Stage) give(ctx context.Context, portal names.InstitutionID, who api.Subject, terms api.MandateTerms) (api.MandateSubmitted, error) {
	client := s.At(portal)
	challenge, err := client.MandateChallenge(ctx, api.MandateChallenge{Terms: &terms})
	if err != nil {
		return api.MandateSubmitted{}, err
	}
	token, err := s.identify(challenge, who)
	if err != nil {
		return api.MandateSubmitted{}, err
	}
	given, err := client.GiveMandate(ctx, token)
	if err == nil && !given.Accepted {
		err = fmt.Errorf("the registry refused the mandate: %s", given.Refusal)
	}
	return given, err
}

func (s *Stage) takeBack(ctx context.Context, portal names.InstitutionID, who api.Subject, id names.MandateID) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	client := s.At(portal)
	challenge, err := client.MandateChallenge(ctx, api.MandateChallenge{Revoke: &api.MandateToRevoke{Mandate: id, Giver: who}})
	if err != nil {
		return err
	}
	token, err := s.identify(challenge, who)
	if err != nil {
		return err
	}
	done, err := client.RevokeMandate(ctx, api.MandateRevocation{Token: token})
	if err == nil && !done.Accepted {
		err = fmt.Errorf("the registry refused the revocation: %s", done.Refusal)
	}
	return err
}

// identify plays the identity provider, which asked the person.
func (s *Stage) identify(c *mandate.Challenge, who api.Subject) ([]byte, error) {
	return testnet.Identify(s.Endpoints.ProviderKey, &reading.Challenge{Mesh: c.Mesh, Node: c.Node, Purpose: c.Purpose, Nonce: c.Nonce, PayloadHash: c.PayloadHash}, who, nil)
}

// viewOf gives what a person sees of itself at a portal.
func (s *Stage) viewOf(ctx context.Context, portal names.InstitutionID, who api.Subject) (*reading.SubjectView, error) {
	client := s.At(portal)
	challenge, err := client.SubjectChallenge(ctx, api.SubjectPeriod{})
	if err != nil {
		return nil, err
	}
	token, err := testnet.Identify(s.Endpoints.ProviderKey, challenge, who, nil)
	if err != nil {
		return nil, err
	}
	view, err := client.SubjectView(ctx, token)
	if err == nil && !view.Complete {
		err = fmt.Errorf("the view is not complete: %s", strings.Join(view.Shortened, ", "))
	}
	return view, err
}
