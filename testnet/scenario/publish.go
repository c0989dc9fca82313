package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// receiveWithin is how long an institution may take to be told.
const receiveWithin = 30 * time.Second

// Publish publishes a change about a person, waits until everybody who must be told by
// the lives has it, compares what each was told, and traces it from the publisher and
// from each of them.
func (s *Stage) Publish(ctx context.Context, from names.InstitutionID, p *data.Person, req api.PublicationRequest) (api.Publication, []api.InboxItem, error) {
	req.ClientTicket = s.Ticket()
	if req.Subject.Number == "" {
		req.Subject = api.Subject{Scheme: string(subject.SSIN), Number: p.SSIN.Number()}
	}
	done, err := s.At(from).Publish(ctx, req)
	if err != nil {
		return done, nil, fmt.Errorf("%s publishes %s: %w", from, req.Dataset, err)
	}
	s.Say("%s publishes a change of %s: %s (ticket %s)", from, req.Dataset, outcome(done.Status, done.Reason), done.Ticket)
	if done.Status != "ACCEPTED" {
		return done, nil, fmt.Errorf("ticket %s: %s", done.Ticket, outcome(done.Status, done.Reason))
	}
	items, err := s.Told(ctx, from, p, req, done.Ticket)
	return done, items, err
}

// Told waits until everybody who must be told of a publication has it, and nobody else.
func (s *Stage) Told(ctx context.Context, from names.InstitutionID, p *data.Person, req api.PublicationRequest, ticket names.Ticket) (items []api.InboxItem, err error) {
	changed := req.Fields
	if len(changed) == 0 {
		var record map[string]json.RawMessage
		if err := json.Unmarshal(req.Record, &record); err != nil {
			return nil, err
		}
		for f := range record {
			changed = append(changed, names.FieldName(f))
		}
	}
	want := s.World.Told(p, from, req.Dataset, *req.Period, changed, s.Today)
	for _, t := range want {
		item, err := s.Receive(ctx, t.Institution, ticket)
		if err != nil {
			return items, fmt.Errorf("%s is to be told for %s: %w", t.Institution, t.Purpose, err)
		}
		items = append(items, item)
		var records []map[string]json.RawMessage
		if err := json.Unmarshal(item.Records, &records); err != nil || len(records) != 1 {
			return items, fmt.Errorf("%s was told %d records", t.Institution, len(records))
		}
		got := slices.Sorted(maps.Keys(records[0]))
		s.Say("%s was told, for %s: %s", t.Institution, item.Purpose, strings.Join(got, ", "))
		wanted := make([]string, len(t.Fields))
		for i, f := range t.Fields {
			wanted[i] = string(f)
		}
		if !slices.Equal(got, wanted) || item.Purpose != t.Purpose {
			return items, fmt.Errorf("%s was told %v for %s, and must be told %v for %s", t.Institution, got, item.Purpose, wanted, t.Purpose)
		}
	}
	// The publisher knows of exactly these.
	story, err := s.Settled(ctx, from, ticket)
	if err != nil {
		return items, err
	}
	if len(story.Recipients) != len(want) {
		return items, fmt.Errorf("ticket %s went to %v, and must go to %v", ticket, story.Recipients, want)
	}
	for _, t := range want {
		if _, err := s.Trace(ctx, t.Institution, ticket); err != nil {
			return items, err
		}
	}
	for _, i := range s.World.Institutions() { // whoever else has an inbox has nothing in it under this ticket
		if slices.ContainsFunc(want, func(t data.Told) bool { return t.Institution == i.ID }) {
			continue
		}
		if _, ok := s.Endpoints.Of(i.ID); !ok {
			continue
		}
		entries, err := s.At(i.ID).JournalOf(ctx, ticket)
		if err != nil && !api.IsProblem(err, api.CodeNotFound) {
			return items, err
		}
		for _, e := range entries.Items {
			if e.Role == "RECIPIENT" {
				return items, fmt.Errorf("%s was told under ticket %s, and must not be", i.ID, ticket)
			}
		}
	}
	return items, nil
}

// Receive takes what arrives for an institution under a ticket, and acknowledges it.
func (s *Stage) Receive(ctx context.Context, at names.InstitutionID, ticket names.Ticket) (item api.InboxItem, err error) {
	ctx, cancel := context.WithTimeout(ctx, receiveWithin)
	defer cancel()
	c := s.At(at)
	for {
		got, err := c.TakeInbox(ctx, api.InboxQuery{Max: 1, Tickets: []names.Ticket{ticket}})
		if err != nil {
			return item, err
		}
		if len(got.Items) == 0 {
			if ctx.Err() != nil {
				return item, fmt.Errorf("nothing arrived within %v", receiveWithin)
			}
			continue
		}
		item = got.Items[0]
		return item, c.AcknowledgeInbox(ctx, api.InboxReceipt{ID: item.ID, Lease: item.Lease})
	}
}
