package scenario

import (
	"context"
	"fmt"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// lately is the year up to the day on which the lives end.
var lately = names.Period{From: data.Today - 364, Until: data.Today}

// increasedReimbursement is flow 2: a city grants a reduction to those who have
// increased reimbursement of health care, without anybody having to ask for it.
func increasedReimbursement() Scenario {
	const city = "muni-ghent"
	ask := func(p *data.Person, fields ...names.FieldName) data.Consultation {
		return data.Consultation{
			Requester: city, Purpose: "municipal-reduction", Dataset: "increased-reimbursement/v1", Fields: fields,
			Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: lately,
		}
	}
	return Scenario{
		Name: "increased-reimbursement", Flow: 2,
		Title: "A city learns that an inhabitant has increased reimbursement, without asking the inhabitant",
		Needs: []names.InstitutionID{city, "nic"},
		Play: func(ctx context.Context, s *Stage) error {
			find := func(fits func(*data.Person, data.Answer) bool) (*data.Person, error) {
				return s.Person(func(p *data.Person) bool { return fits(p, s.Expected(ask(p))) })
			}
			entitled, err := find(func(_ *data.Person, a data.Answer) bool { return a.Status == nodepb.Status_DATA_FOUND })
			if err != nil {
				return err
			}
			other, err := find(func(_ *data.Person, a data.Answer) bool { return a.Reason == registrypb.Reason_UNKNOWN_SUBJECT })
			if err != nil {
				return err
			}
			elsewhere, err := find(func(p *data.Person, a data.Answer) bool {
				return a.Reason == registrypb.Reason_NOT_INTEGRATED && len(p.Reimbursed) > 0
			})
			if err != nil {
				return err
			}

			s.Step("The city prepares its waste tax and asks about an inhabitant: has %s increased reimbursement?", entitled.SSIN.Number())
			granted, err := s.Consult(ctx, ask(entitled))
			if err != nil {
				return err
			}
			s.Say("the reduction is granted of right, under %s", granted.Authorization)

			s.Step("It asks about an inhabitant on whom no health fund has such a file: nothing to grant")
			if _, err := s.Consult(ctx, ask(other)); err != nil {
				return err
			}

			s.Step("It asks on what ground the first one has the status: that is none of its business, and is withheld")
			curious, err := s.Consult(ctx, ask(entitled, "entitled", "ground"))
			if err != nil {
				return err
			}
			for _, part := range curious.Suppliers {
				if strings.Contains(string(part.Records), "ground") {
					return fmt.Errorf("ticket %s: the ground left the health fund", curious.Ticket)
				}
			}
			s.Say("withheld: %v", curious.Withheld)

			s.Step("It asks about somebody who has the status and lives elsewhere: it has no file, so it learns nothing")
			_, err = s.Consult(ctx, ask(elsewhere))
			return err
		},
	}
}
