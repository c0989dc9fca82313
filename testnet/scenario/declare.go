package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Declare declares something, lets the authentic source's system take it and decide,
// follows what became of it, and wants everybody concerned told of what is accepted.
func (s *Stage) Declare(ctx context.Context, by, source names.InstitutionID, p *data.Person, req api.DeclarationRequest, decision api.DecisionRequest) (api.Declaration, error) {
	req.ClientTicket = s.Ticket()
	req.Subject = api.Subject{Scheme: string(subject.SSIN), Number: p.SSIN.Number()}
	got, err := s.At(by).Declare(ctx, req)
	if err != nil {
		return got, fmt.Errorf("%s declares %s: %w", by, req.Dataset, err)
	}
	s.Say("%s declares %s: %s (ticket %s)", by, req.Dataset, outcome(got.State, got.Reason), got.Ticket)
	item, err := s.Receive(ctx, source, got.Ticket)
	if err != nil {
		return got, err
	}
	if item.Kind != "declaration" || item.From != by {
		return got, fmt.Errorf("%s received a %s from %s", source, item.Kind, item.From)
	}
	decided, err := s.At(source).DecideSubmission(ctx, got.Ticket, decision)
	if err != nil {
		return got, err
	}
	s.Say("%s takes it from its inbox and decides: %s", source, decided.State)
	result, err := s.Receive(ctx, by, got.Ticket)
	if err != nil {
		return got, err
	}
	got, err = s.At(by).DeclarationStatus(ctx, req.ClientTicket)
	if err != nil {
		return got, err
	}
	s.Say("%s is told: %s %v", by, result.Status, got.Reasons)
	if got.State != decision.Decision || result.Status != decision.Decision || len(got.Receipt) == 0 || len(got.Signed) == 0 {
		return got, fmt.Errorf("ticket %s: %s is told %s, want %s with the source's signatures", got.Ticket, by, got.State, decision.Decision)
	}
	if _, err := s.Settled(ctx, by, got.Ticket); err != nil {
		return got, err
	}
	if decision.Decision != "ACCEPTED" {
		return got, nil
	}
	s.Say("published to everybody concerned as ticket %s", got.Published)
	_, err = s.Told(ctx, source, p, api.PublicationRequest{Dataset: req.Dataset, Period: req.Period, Record: req.Record}, got.Published)
	return got, err
}

// withFiles lets institutions have a file on a person while something is played.
func (s *Stage) withFiles(ctx context.Context, p *data.Person, about names.Period, files map[names.InstitutionID]names.Quality, play func() error) (err error) {
	for id, quality := range files {
		refs := []api.Reference{{Subject: api.Subject{Scheme: string(subject.SSIN), Number: p.SSIN.Number()}, Quality: quality, Period: about}}
		done, err := s.At(id).DeclareReferences(ctx, refs)
		if err != nil || !done.Accepted {
			return errors.Join(err, fmt.Errorf("%s declares a file: %+v", id, done))
		}
		s.Say("%s declares that it has a file, in quality %s", id, quality)
		if err := s.Endpoints.WaitApplied(ctx, done.Index); err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			_, trouble := s.At(id).WithdrawReferences(ctx, refs)
			err = errors.Join(err, trouble)
		}()
	}
	return play()
}

// dimona is flow 4: an employer declares the start of an employment relation once; the
// social security office decides, and every institution with an interest is told.
func dimona() Scenario {
	const firm, office = "acme-works", "nsso"
	about := names.Period{From: data.Today + 3, Until: names.Forever} // on which nobody else has this file
	record := func(start string) json.RawMessage {
		return json.RawMessage(`{"employer_number":"123456778","enterprise_number":"0412345614","employer_name":"Acme Works","worker_kind":"blue-collar","start_date":"` + start + `","end_date":null}`)
	}
	return Scenario{
		Name: "dimona", Flow: 4,
		Title: "An employer declares an employment relation once; all with an interest are told",
		Needs: []names.InstitutionID{firm, office, "fpd", "neo", "fedris"},
		Play: func(ctx context.Context, s *Stage) error {
			worker, err := s.Person(func(p *data.Person) bool {
				return p.Former == nil && p.Death == names.Forever && p.Cancelled == names.Forever &&
					len(s.World.Told(p, office, "employment-relation/v1", about, []names.FieldName{"start_date"}, s.Today)) >= 1
			})
			if err != nil {
				return err
			}
			req := api.DeclarationRequest{Dataset: "employment-relation/v1", Purpose: "dimona", Period: &about, Record: record("2026-01-04")}

			s.Step("The employer declares without having a file on the worker: refused")
			early := req
			early.ClientTicket, early.Subject = s.Ticket(), api.Subject{Scheme: string(subject.SSIN), Number: worker.SSIN.Number()}
			got, err := s.At(firm).Declare(ctx, early)
			if err != nil {
				return err
			}
			s.Say("%s declares: %s (ticket %s)", firm, outcome(got.State, got.Reason), got.Ticket)
			if got.State != "REFUSED" || got.Reason != "NOT_INTEGRATED" {
				return fmt.Errorf("ticket %s: %s %s, want REFUSED NOT_INTEGRATED", got.Ticket, got.State, got.Reason)
			}

			s.Step("It takes the worker on; the social security office opens its file")
			return s.withFiles(ctx, worker, about, map[names.InstitutionID]names.Quality{firm: "staff", office: "employee"}, func() error {
				s.Step("The employer declares the start, once, and everybody concerned is told")
				first, err := s.Declare(ctx, firm, office, worker, req, api.DecisionRequest{Decision: "ACCEPTED"})
				if err != nil {
					return err
				}
				s.Step("It had the day wrong, and corrects its declaration")
				right := req
				right.Record, right.Change, right.RefersTo = record("2026-01-05"), "CORRECTED", first.Ticket
				second, err := s.Declare(ctx, firm, office, worker, right, api.DecisionRequest{Decision: "ACCEPTED"})
				if err != nil {
					return err
				}
				if _, err := s.Receive(ctx, firm, first.Ticket); err != nil {
					return fmt.Errorf("what became of the original: %w", err)
				}
				was, err := s.At(firm).DeclarationStatus(ctx, first.ClientTicket)
				if err != nil {
					return err
				}
				s.Say("the original is now %s, by %s", was.State, was.SupersededBy)
				if was.State != "AMENDED" || was.SupersededBy != second.Ticket {
					return fmt.Errorf("the original is %s by %s, want AMENDED by %s", was.State, was.SupersededBy, second.Ticket)
				}
				s.Step("In the end the worker never came: it cancels the declaration, and all are told")
				never := right
				never.Change, never.RefersTo = "CANCELLED", second.Ticket
				third, err := s.Declare(ctx, firm, office, worker, never, api.DecisionRequest{Decision: "ACCEPTED"})
				if err != nil {
					return err
				}
				if _, err := s.Receive(ctx, firm, second.Ticket); err != nil {
					return fmt.Errorf("what became of the correction: %w", err)
				}
				if was, err = s.At(firm).DeclarationStatus(ctx, second.ClientTicket); err != nil {
					return err
				}
				s.Say("the correction is now %s, by %s", was.State, was.SupersededBy)
				if was.State != "ANNULLED" || was.SupersededBy != third.Ticket {
					return fmt.Errorf("the correction is %s by %s, want ANNULLED by %s", was.State, was.SupersededBy, third.Ticket)
				}
				s.Step("A declaration that its schema does not permit is refused at once, and goes nowhere")
				odd := req
				odd.ClientTicket, odd.Subject = s.Ticket(), early.Subject
				odd.Record = json.RawMessage(`{"employer_number":"123456778","enterprise_number":"0412345614","worker_kind":"miner","start_date":20260104,"end_date":null}`)
				_, err = s.At(firm).Declare(ctx, odd)
				var p *api.Problem
				if !errors.As(err, &p) || p.Code != api.CodeMalformed || p.Where != "record" {
					return fmt.Errorf("a record that is not of the schema: %v", err)
				}
				s.Say("refused: %s", p.Mend)
				var places []string
				for _, f := range p.Faults {
					s.Say("%s: %s %s", f.Path, f.Wrong, f.Mend)
					places = append(places, f.Path)
				}
				if want := []string{"/employer_name", "/start_date", "/worker_kind"}; !slices.Equal(places, want) {
					return fmt.Errorf("the places that are wrong are %v, want %v", places, want)
				}
				s.Step("A declaration that the office finds wrong is declined, with the field that is")
				wrong := req
				wrong.Record = record("2031-01-01")
				_, err = s.Declare(ctx, firm, office, worker, wrong, api.DecisionRequest{Decision: "DECLINED",
					Reasons: []api.FieldReason{{Field: "start_date", Code: "too-far-ahead", Text: "an employment relation is declared when it begins"}}})
				return err
			})
		},
	}
}

// dmfa is flow 6: quarterly wages go to the child-benefit funds, the pension office and
// the health funds.
func dmfa() Scenario {
	const firm, office = "acme-works", "nsso"
	about := names.Period{From: data.Today + 4, Until: data.Today + 89}
	return Scenario{
		Name: "dmfa", Flow: 6,
		Title: "An employer declares the wages of a quarter; pension office, health and child-benefit funds are told, each its own fields",
		Needs: []names.InstitutionID{firm, office, "fpd", "nic", "child-benefit", "onva", "sigedis"},
		Play: func(ctx context.Context, s *Stage) error {
			told := func(p *data.Person) int {
				return len(s.World.Told(p, office, "wages-quarterly/v1", about, []names.FieldName{"gross_wage"}, s.Today))
			}
			worker, err := s.Person(func(p *data.Person) bool {
				return p.Former == nil && p.Death == names.Forever && p.Cancelled == names.Forever && told(p) >= 3
			})
			if err != nil {
				return err
			}
			s.Step("A worker on whom %d institutions have a file", told(worker))
			return s.withFiles(ctx, worker, about, map[names.InstitutionID]names.Quality{firm: "staff", office: "employee"}, func() error {
				s.Step("The employer declares the quarter's wages once")
				_, err := s.Declare(ctx, firm, office, worker, api.DeclarationRequest{Dataset: "wages-quarterly/v1", Purpose: "dmfa", Period: &about,
					Record: json.RawMessage(`{"year":2026,"quarter":1,"employer_number":"123456778","gross_wage":9000.50,"days_employed":60,"working_time_percent":100}`)},
					api.DecisionRequest{Decision: "ACCEPTED"})
				return err
			})
		},
	}
}

// livingWage is flow 8: a centre grants a living wage, publishes it within seven days, and
// who must know is told.
func livingWage() Scenario {
	const centre = "pcsa-ghent"
	granted := data.Today + 2
	about := names.Period{From: granted, Until: names.Forever}
	const days = 7
	return Scenario{
		Name: "living-wage", Flow: 8,
		Title: "A living wage is granted, published within seven days, and told to those who must know",
		Needs: []names.InstitutionID{centre, "pps-integration", "nic"},
		Play: func(ctx context.Context, s *Stage) error {
			person, err := s.Person(func(p *data.Person) bool {
				return p.Former == nil && p.Death == names.Forever && p.Cancelled == names.Forever && len(p.LivingWages) == 0 && p.Household.City.ID == "ghent" &&
					len(s.World.Told(p, centre, "living-wage/v1", about, []names.FieldName{"entitled"}, s.Today)) >= 1
			})
			if err != nil {
				return err
			}
			s.Step("The centre grants somebody a living wage from %s on, and opens its file", granted)
			return s.withFiles(ctx, person, about, map[names.InstitutionID]names.Quality{centre: "living-wage"}, func() error {
				s.Step("It publishes the grant: what was granted must be told within %d days", days)
				record := json.RawMessage(fmt.Sprintf(`{"entitled":true,"category":"single","monthly_amount":1214.13,"start_date":"%s","end_date":null}`, granted))
				done, items, err := s.Publish(ctx, centre, person, api.PublicationRequest{Dataset: "living-wage/v1", Period: &about, Record: record})
				if err != nil {
					return err
				}
				for _, i := range items {
					if late := i.Received.Sub(*done.Time); late > days*24*time.Hour {
						return fmt.Errorf("%s was told %v after the publication", i.From, late)
					}
				}
				s.Say("%d institutions were told within the time", len(items))
				return nil
			})
		},
	}
}
