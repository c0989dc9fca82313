package scenario

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// energyTariff is flow 1: the energy suppliers' customers, each quarter, in one file; of
// each the answer is yes or no and nothing more.
func energyTariff() Scenario {
	const asks = "fps-economy"
	return Scenario{
		Name: "social-energy-tariff", Flow: 1,
		Title: "A quarterly file of energy customers: entitled to the social tariff, yes or no, and nothing more",
		Needs: []names.InstitutionID{asks, "nic"},
		Play: func(ctx context.Context, s *Stage) error {
			c := data.Consultation{Requester: asks, Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1", Scheme: subject.SSIN, Period: lately}
			s.Step("The energy suppliers' customers come in one file, with a line that is malformed and one customer twice")
			people := s.known(c, 400)
			if len(people) == 0 {
				return fmt.Errorf("nobody of this network is a customer")
			}
			got, err := s.lot(ctx, c, people, people[0].SSIN.Number(), "no-number")
			if err != nil {
				return err
			}
			if r := got[len(people)].Reason; r != registrypb.Reason_DUPLICATE_LINE.String() {
				return fmt.Errorf("the customer who is there twice: %s", r)
			}
			if r := got[len(people)+1].Reason; r != registrypb.Reason_MALFORMED_NUMBER.String() {
				return fmt.Errorf("the malformed line: %s", r)
			}
			yes := 0
			for i, line := range got[:len(people)] {
				c.Number = people[i].SSIN.Number()
				entitled := false
				for _, part := range s.Expected(c).Suppliers {
					for _, r := range part.Records {
						entitled = entitled || strings.Contains(string(r), "true")
					}
				}
				if entitled != (line.Answer == "yes") {
					return fmt.Errorf("line %d: answer %q, and the life says %v", i+1, line.Answer, entitled)
				}
				for _, part := range line.Suppliers {
					if len(part.Records) > 0 {
						return fmt.Errorf("line %d: records left, and yes or no is all that may", i+1)
					}
				}
				if entitled {
					yes++
				}
			}
			s.Say("%d of %d customers get the tariff without asking for it", yes, len(people))
			return nil
		},
	}
}

// dataMatching is flow 10: an inspection compares unemployment benefits with wages, in
// batch, under its own authorization.
func dataMatching() Scenario {
	const asks = "social-inspection"
	return Scenario{
		Name: "data-matching", Flow: 10,
		Title: "An inspection matches unemployment benefits with wages, in two lots under its own authorization",
		Needs: []names.InstitutionID{asks, "neo", "nsso"},
		Play: func(ctx context.Context, s *Stage) error {
			c := data.Consultation{
				Requester: asks, Purpose: "social-fraud-inspection", Dataset: "unemployment-benefit/v1", Scheme: subject.SSIN, Period: lately, AuthLevel: 3,
			}
			people := s.known(c, 300)
			if len(people) == 0 {
				return fmt.Errorf("nobody of this network is inspected")
			}
			s.Step("The inspection asks about the unemployment benefits of %d persons whose files it has opened", len(people))
			benefits, err := s.lot(ctx, c, people)
			if err != nil {
				return err
			}
			s.Step("It asks about their wages")
			c.Dataset = "wages-quarterly/v1"
			wages, err := s.lot(ctx, c, people)
			if err != nil {
				return err
			}
			both := 0
			for i := range people {
				if benefits[i].Status == "DATA_FOUND" && wages[i].Status == "DATA_FOUND" {
					both++
				}
			}
			s.Say("%d of them have both within the year, and are looked at by an inspector", both)
			s.Step("Without the level of authentication that the authorization asks for, nobody is told anything")
			c.AuthLevel = 1
			weak, err := s.lot(ctx, c, people[:min(len(people), 20)])
			if err != nil {
				return err
			}
			for i, line := range weak {
				if len(line.Suppliers) > 0 {
					return fmt.Errorf("line %d: it was answered", i+1)
				}
			}
			return nil
		},
	}
}

// known gives persons on whom the requester has a file, and a few on whom it has none.
func (s *Stage) known(c data.Consultation, most int) (people []*data.Person) {
	others := 0
	for p := range s.World.Persons() {
		c.Number = p.SSIN.Number()
		if s.Expected(c).Reason == registrypb.Reason_NOT_INTEGRATED {
			if others++; others > 10 {
				continue
			}
		}
		if people = append(people, p); len(people) == most {
			break
		}
	}
	if len(people) == others {
		return nil
	}
	return people
}

// lot asks about all of them in one file, wants what the lives say of each, and traces it.
func (s *Stage) lot(ctx context.Context, c data.Consultation, people []*data.Person, more ...string) ([]batch.ResultJSON, error) {
	var in strings.Builder
	in.WriteString("number,file\n")
	for i, p := range people {
		fmt.Fprintf(&in, "%s,%d\n", p.SSIN.Number(), i)
	}
	for _, m := range more {
		in.WriteString(m + ",more\n")
	}
	client := s.At(c.Requester)
	client.AuthLevel = strconv.FormatUint(uint64(c.AuthLevel), 10)
	l, err := client.SubmitLot(ctx, api.LotRequest{
		ClientTicket: s.Ticket(), Purpose: c.Purpose, Dataset: c.Dataset, Period: c.Period, Reference: "file",
	}, strings.NewReader(in.String()))
	if err != nil {
		return nil, err
	}
	s.Say("%s hands in %d lines (voucher %s)", c.Requester, l.Lines, l.Voucher)
	for l.Ended == nil {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("lot %s does not end: %s", l.Voucher, l.Waits)
		}
		if l, err = client.Lot(ctx, l.Voucher); err != nil {
			return nil, err
		}
	}
	s.Say("it has ended: %v", l.Tally)
	var out bytes.Buffer
	if err := client.LotResults(ctx, l.Voucher, "jsonl", &out); err != nil {
		return nil, err
	}
	var got []batch.ResultJSON
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var r batch.ResultJSON
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		got = append(got, r)
	}
	if len(got) != len(people)+len(more) {
		return nil, fmt.Errorf("lot %s: %d results", l.Voucher, len(got))
	}
	for i, p := range people {
		c.Number = p.SSIN.Number()
		want, reason := s.Expected(c), ""
		if want.Reason != 0 {
			reason = want.Reason.String()
		}
		if got[i].Reference != strconv.Itoa(i) || got[i].Status != want.Status.String() || got[i].Reason != reason {
			return nil, fmt.Errorf("lot %s, line %d: %s %s, want %s %s", l.Voucher, i+1, got[i].Status, got[i].Reason, want.Status, reason)
		}
	}
	if _, err := s.Trace(ctx, c.Requester, l.Voucher); err != nil {
		return nil, err
	}
	return got, client.AcknowledgeLot(ctx, l.Voucher)
}
