package scenario

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// addressMutation is flow 5: the National Register publishes that somebody moved, and
// everybody integrated and subscribed receives it, with the fields that each may have,
// and nobody else.
func addressMutation() Scenario {
	const register = "national-register"
	moved := json.RawMessage(`{"street":"Nieuwe Laan","house_number":"7","postal_code":"9000","municipality":"Ghent","start_date":"2026-01-01","end_date":null}`)
	about := names.Period{From: data.Today, Until: names.Forever}
	return Scenario{
		Name: "address-mutation", Flow: 5,
		Title: "Somebody moves: the register says so once, and all who must know are told, and nobody else",
		Needs: []names.InstitutionID{register, "fpd", "nic", "child-benefit"},
		Play: func(ctx context.Context, s *Stage) error {
			told := func(p *data.Person) int {
				return len(s.World.Told(p, register, "person-address/v1", about, []names.FieldName{"street", "municipality"}, s.Today))
			}
			many, err := s.Person(func(p *data.Person) bool {
				return p.Former == nil && p.Death == names.Forever && !p.Bis && told(p) >= 2
			})
			if err != nil {
				return err
			}
			one, err := s.Person(func(p *data.Person) bool {
				return p.Former == nil && p.Death == names.Forever && !p.Bis && told(p) == 1
			})
			if err != nil {
				return err
			}
			req := api.PublicationRequest{Dataset: "person-address/v1", Period: &about, Record: moved}

			s.Step("A person moves to Ghent; the National Register publishes it, once")
			if _, _, err := s.Publish(ctx, register, many, req); err != nil {
				return err
			}

			s.Step("Only the house number changes: who may not know house numbers is not told at all")
			req.Fields = []names.FieldName{"house_number"}
			if _, _, err := s.Publish(ctx, register, many, req); err != nil {
				return err
			}
			req.Fields = nil

			s.Step("Somebody else moves, on whom fewer have a file")
			if _, _, err := s.Publish(ctx, register, one, req); err != nil {
				return err
			}

			s.Step("Who is no authentic source of addresses cannot publish one")
			done, err := s.At("nic").Publish(ctx, api.PublicationRequest{ClientTicket: s.Ticket(), Dataset: "person-address/v1", Period: &about, Record: moved,
				Subject: api.Subject{Scheme: string(subject.SSIN), Number: many.SSIN.Number()}})
			if err != nil {
				return err
			}
			s.Say("nic publishes: %s (ticket %s)", outcome(done.Status, done.Reason), done.Ticket)
			if done.Status != "REFUSED" || done.Reason != "NOT_ALLOWED" {
				return fmt.Errorf("ticket %s: %s %s, want REFUSED NOT_ALLOWED", done.Ticket, done.Status, done.Reason)
			}
			return nil
		},
	}
}
