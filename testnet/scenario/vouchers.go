package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// contributionVouchers is flow 7: the social security office publishes what somebody
// earned and contributed in a quarter; it reaches the health fund that the person is
// with, and nobody else learns which that is.
func contributionVouchers() Scenario {
	const office, college = "nsso", "nic"
	return Scenario{
		Name: "contribution-vouchers", Flow: 7,
		Title: "Contribution vouchers reach the right health fund, without anyone else learning which",
		Needs: append(data.FundIDs(), office, college),
		Play: func(ctx context.Context, s *Stage) error {
			about := names.Period{From: data.Today - 92, Until: data.Today - 1} // the last quarter of 2025
			found := map[names.InstitutionID]*data.Person{}
			for p := range s.World.Persons() {
				with := s.World.Affiliations(p)
				plain := p.Former == nil && p.Death == names.Forever && !p.Bis && len(p.Jobs) > 0 && len(with) > 0
				if plain && p.Jobs[len(p.Jobs)-1].Overlaps(about) && found[fundIn(with, about)] == nil && fundIn(with, about) != "" {
					found[fundIn(with, about)] = p
				}
				if len(found) == len(data.FundIDs()) {
					break
				}
			}
			if len(found) < len(data.FundIDs()) {
				return fmt.Errorf("of %d invented persons none works and is with each of the funds", s.World.Config().Persons)
			}
			var seen []string
			for _, fund := range data.FundIDs() {
				p := found[fund]
				s.Step("The social security office publishes the last quarter of somebody who is with one of the funds")
				voucher := json.RawMessage(`{"year":2025,"quarter":4,"employer_number":"` + p.Jobs[len(p.Jobs)-1].Employer.Number + `","gross_wage":9450.00,"days_employed":65,"working_time_percent":100}`)
				done, err := s.At(office).Publish(ctx, api.PublicationRequest{ClientTicket: s.Ticket(), Dataset: "wages-quarterly/v1", Period: &about, Record: voucher,
					Subject: api.Subject{Scheme: string(subject.SSIN), Number: p.SSIN.Number()}})
				if err != nil {
					return err
				}
				s.Say("%s publishes: %s (ticket %s)", office, outcome(done.Status, done.Reason), done.Ticket)
				if done.Status != "ACCEPTED" {
					return fmt.Errorf("ticket %s: %s", done.Ticket, outcome(done.Status, done.Reason))
				}
				item, err := s.Receive(ctx, fund, done.Ticket)
				if err != nil {
					return fmt.Errorf("%s is to be told: %w", fund, err)
				}
				s.Say("%s has it, for %s: %s", fund, item.Purpose, item.Records)
				shape, err := nobodyElse(ctx, s, fund, done.Ticket)
				if err != nil {
					return err
				}
				seen = append(seen, shape)
			}
			s.Step("What everybody outside sees of the three is the same")
			for _, other := range seen {
				if other != seen[0] {
					return fmt.Errorf("outside, the vouchers of different funds differ: %q", seen)
				}
			}
			s.Say("each time: %s", seen[0])
			return nil
		},
	}
}

// fundIn gives the fund of a period, if there is one alone.
func fundIn(with []data.Affiliation, p names.Period) (fund names.InstitutionID) {
	for _, a := range with {
		if a.Period.Overlaps(p) {
			if fund != "" {
				return ""
			}
			fund = a.Fund
		}
	}
	return fund
}

// nobodyElse insists that no other fund was told, that the mesh's trace and every journal
// outside speak of the managing body alone, and that the sector's own trace names the
// fund. It gives what is seen outside.
func nobodyElse(ctx context.Context, s *Stage, fund names.InstitutionID, ticket names.Ticket) (string, error) {
	story, err := s.Settled(ctx, "nsso", ticket)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(story)
	if err != nil {
		return "", err
	}
	if strings.Contains(string(text), "fund-") {
		return "", fmt.Errorf("the trace of %s outside names a fund", ticket)
	}
	for _, other := range data.FundIDs() {
		found, err := s.At(other).SectorSearch(ctx, api.SectorSearch{Pseudonym: string(ticket)})
		if err != nil {
			return "", err
		}
		if (len(found.Items) > 0) != (other == fund) {
			return "", fmt.Errorf("%s: %d entries under ticket %s, whose fund is %s", other, len(found.Items), ticket, fund)
		}
	}
	var within api.SectorStory
	for begun := time.Now(); time.Since(begun) < receiveWithin; {
		if within, err = s.At("nic").SectorTrace(ctx, ticket); err != nil {
			return "", err
		}
		if strings.Contains(within.Text, string(fund)) && within.Consistent {
			break
		}
	}
	s.Say("within the sector:\n%s", within.Text)
	if !within.Consistent || !strings.Contains(within.Text, string(fund)) {
		return "", fmt.Errorf("the sector's own trace of %s does not show %s: %v", ticket, fund, within.Findings)
	}
	var outside []string
	entries, err := s.At("nic").JournalOf(ctx, ticket)
	if err != nil {
		return "", err
	}
	for _, e := range entries.Items {
		if e.Event != "READ" {
			outside = append(outside, "nic "+e.Event)
		}
	}
	slices.Sort(outside)
	return strings.Join(outside, ", "), nil
}
