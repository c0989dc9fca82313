package scenario

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// reductionCards is flow 9: a transport company gives everybody who has one of several
// statuses a card, of right and once.
func reductionCards() Scenario {
	const company = "public-transport"
	statuses := []names.DatasetID{"increased-reimbursement/v1", "income-guarantee/v1", "living-wage/v1", "disability-recognition/v1"}
	ask := func(p *data.Person, number string) data.Consultation {
		return data.Consultation{Requester: company, Purpose: "reduction-card", Scheme: subject.SSIN, Number: number, Period: lately}
	}
	return Scenario{
		Name: "reduction-cards", Flow: 9,
		Title: "Who has one of several statuses gets a reduction card, of right; who has several, or two numbers, gets one",
		Needs: []names.InstitutionID{company, "nic", "fpd", "pcsa-ghent", "dg-han"},
		Play: func(ctx context.Context, s *Stage) error {
			held := func(p *data.Person) int { return s.sources(ask(p, p.SSIN.Number()), statuses) }
			replaced := func(p *data.Person) bool {
				return p.Former != nil && s.replacedFor(ask(p, p.Former.SSIN.Number()), statuses[0])
			}
			several, err := s.Person(func(p *data.Person) bool { return held(p) >= 2 })
			if err != nil {
				return err
			}
			single, err := s.Person(func(p *data.Person) bool { return held(p) == 1 && p.Former == nil })
			if err != nil {
				return err
			}
			without, err := s.Person(func(p *data.Person) bool {
				return p.Index%3 != 0 && held(p) == 0 && p.Former == nil && p.Death == names.Forever && p.Cancelled == names.Forever && p.Birth < data.Today-30*365
			})
			if err != nil {
				return err
			}
			renumbered, err := s.Person(func(p *data.Person) bool { return replaced(p) && held(p) > 0 })
			if err != nil { // a status is rare among the few who have two numbers
				if renumbered, err = s.Person(replaced); err != nil {
					return err
				}
			}
			customers := []string{several.SSIN.Number(), single.SSIN.Number(), without.SSIN.Number(), renumbered.SSIN.Number(), renumbered.Former.SSIN.Number(), several.SSIN.Number()}
			entitled := []*data.Person{several, single}
			if held(renumbered) > 0 {
				entitled = append(entitled, renumbered)
			}

			cards := make(map[string][]string) // by number: why
			for _, number := range customers {
				s.Step("Of customer %s: has one of %d statuses?", number, len(statuses))
				got, err := s.Inquire(ctx, ask(nil, number), statuses...)
				if err != nil {
					return err
				}
				if got.Successor != nil {
					s.Say("%s (ticket %s): asked again under %s", outcome(got.Status, got.Reason), got.Ticket, got.Successor.Number)
					if _, err := s.Trace(ctx, company, got.Ticket); err != nil {
						return err
					}
					number = got.Successor.Number
					if got, err = s.Inquire(ctx, ask(nil, number), statuses...); err != nil {
						return err
					}
				}
				why, err := grounds(got)
				if err != nil {
					return err
				}
				s.Say("%s (ticket %s): %s", outcome(got.Status, got.Reason), got.Ticket, cmp.Or(strings.Join(why, ", "), "no card"))
				if _, err := s.Trace(ctx, company, got.Ticket); err != nil {
					return err
				}
				switch {
				case len(why) == 0:
				case cards[number] != nil:
					s.Say("this person has a card already")
				default:
					cards[number] = why
				}
			}

			s.Step("%d customers, of whom two are named twice: %d cards", len(customers), len(cards))
			if len(cards) != len(entitled) {
				return fmt.Errorf("%d cards, by the lives %d are entitled", len(cards), len(entitled))
			}
			for _, p := range entitled {
				if why := cards[p.SSIN.Number()]; len(why) != held(p) {
					return fmt.Errorf("%s has a card for %v, by the lives for %d statuses", p.SSIN.Number(), why, held(p))
				}
			}
			return nil
		},
	}
}

// replacedFor reports whether the lives say that asking so is told another number.
func (s *Stage) replacedFor(c data.Consultation, d names.DatasetID) bool {
	c.Dataset = d
	return s.Expected(c).Reason == registrypb.Reason_REPLACED_NUMBER
}

// grounds gives the statuses that an inquiry found, and insists that nothing but yes or
// no came.
func grounds(got api.Inquiry) (why []string, err error) {
	for _, part := range got.Parts {
		for _, from := range part.Suppliers {
			if from.Status != nodepb.Status_DATA_FOUND.String() {
				continue
			}
			name, _, _ := strings.Cut(string(part.Dataset), "/")
			if !slices.Contains([]string{`[{"entitled":true}]`, `[{"recognised":true}]`}, string(from.Records)) {
				return nil, fmt.Errorf("ticket %s: more than a yes came of %s", part.Ticket, from.Supplier)
			}
			why = append(why, name)
		}
	}
	return why, nil
}
