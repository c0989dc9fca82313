package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// socialInquiry is flow 3: a PCSA asks one question of many sources.
func socialInquiry() Scenario {
	const pcsa = "pcsa-ghent"
	datasets := []names.DatasetID{
		"person-identity/v1", "household-composition/v1", "wages-quarterly/v1", "unemployment-benefit/v1",
		"self-employed-career/v1", "pension-rights/v1", "taxable-income/v1", "replacement-income/v1",
	}
	period := names.Period{From: data.Today - 3*365, Until: data.Today}
	ask := func(p *data.Person) data.Consultation {
		return data.Consultation{Requester: pcsa, Purpose: "social-inquiry", Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: period}
	}
	return Scenario{
		Name: "social-inquiry", Flow: 3,
		Title: "A PCSA asks one question of many sources: register, wages, unemployment, self-employed career, pension, income",
		Needs: []names.InstitutionID{pcsa, "national-register", "nsso", "neo", "nic", "nisse", "fpd", "fps-finance"},
		Play: func(ctx context.Context, s *Stage) error {
			person, err := s.Person(func(p *data.Person) bool { return len(p.Inquiries) > 0 && s.sources(ask(p), datasets) >= 6 })
			if err != nil {
				return err
			}
			ticket := string(s.Ticket())
			args := []string{"inquire", "--as-user", "alice", "--purpose", "social-inquiry", "--subject", person.SSIN.Number(),
				"--from", period.From.String(), "--until", period.Until.String(), "--client-ticket", ticket, "-o", "json"}
			for _, d := range datasets {
				args = append(args, "--dataset", string(d))
			}

			s.Step("Alice of the PCSA of Ghent asks %d sources at once what they know of %s", len(datasets), person.SSIN.Number())
			got, err := s.inquireByCommand(ctx, pcsa, 0, args...)
			if err != nil {
				return err
			}
			s.Say("%s (ticket %s)", outcome(got.Status, got.Reason), got.Ticket)
			for _, part := range got.Parts {
				s.Say("  %-26s %s", part.Dataset, sourcesOf(part))
			}
			if err := s.sameInquiry(got, ask(person)); err != nil {
				return err
			}
			story, err := s.Trace(ctx, pcsa, got.Ticket)
			if err != nil {
				return err
			}
			if len(story.Parts) != len(datasets) {
				return fmt.Errorf("the trace of %s joins %d parts, want %d", got.Ticket, len(story.Parts), len(datasets))
			}

			s.Step("She asks the same under the same client ticket: nobody is asked again, and the answer is the same")
			again, err := s.inquireByCommand(ctx, pcsa, 0, args...)
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(got, again) {
				return fmt.Errorf("ticket %s: another answer the second time", got.Ticket)
			}

			s.Step("She adds the energy contract, which no deliberation gives for this purpose: all else comes, and that is said")
			more, err := s.Inquire(ctx, ask(person), append(datasets[:2:2], "energy-contract/v1")...)
			if err != nil {
				return err
			}
			s.Say("%s (ticket %s)", outcome(more.Status, more.Reason), more.Ticket)
			if more.Status != nodepb.Status_INCOMPLETE_DATA.String() || more.Reason != registrypb.Reason_NOT_ALLOWED.String() {
				return fmt.Errorf("ticket %s: %s, want INCOMPLETE_DATA, NOT_ALLOWED", more.Ticket, outcome(more.Status, more.Reason))
			}
			_, err = s.Trace(ctx, pcsa, more.Ticket)
			return err
		},
	}
}

// sources counts the datasets that bring data by the lives.
func (s *Stage) sources(c data.Consultation, datasets []names.DatasetID) (n int) {
	for _, d := range datasets {
		c.Dataset = d
		if s.Permitted(c) {
			n++
		}
	}
	return n
}

func (s *Stage) inquireByCommand(ctx context.Context, at names.InstitutionID, want int, args ...string) (got api.Inquiry, err error) {
	out, err := s.Command(ctx, at, want, args...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &got)
	}
	return got, err
}

// sourcesOf says in a few words what each source of a part told.
func sourcesOf(p api.InquiryOutcome) string {
	if len(p.Suppliers) == 0 {
		return outcome(p.Status, p.Reason)
	}
	text := ""
	for i, one := range p.Suppliers {
		if i > 0 {
			text += "; "
		}
		text += string(one.Supplier) + " " + outcome(one.Status, one.Reason)
	}
	return text
}
