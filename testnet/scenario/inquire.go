package scenario

import (
	"context"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// sameInquiry holds an inquiry against what the lives say of each of its parts: c, with
// the dataset of the part.
func (s *Stage) sameInquiry(got api.Inquiry, c data.Consultation) error {
	told, lacking := false, false
	for _, part := range got.Parts {
		c.Dataset = part.Dataset
		want := s.Expected(c)
		if differs := testnet.Differs(part.Consultation, want); differs != "" {
			return fmt.Errorf("%s, ticket %s: %s", part.Dataset, part.Ticket, differs)
		}
		told = told || want.Status != nodepb.Status_NO_RESULT
		lacking = lacking || want.Status == nodepb.Status_NO_RESULT && want.Reason != registrypb.Reason_UNKNOWN_SUBJECT
	}
	if incomplete := got.Status == nodepb.Status_INCOMPLETE_DATA.String(); incomplete != (told && lacking) {
		return fmt.Errorf("the whole, ticket %s, came out as %s", got.Ticket, got.Status)
	}
	return nil
}

// Inquire asks for several datasets at once through the interface, and compares each.
// It does not trace.
func (s *Stage) Inquire(ctx context.Context, c data.Consultation, datasets ...names.DatasetID) (api.Inquiry, error) {
	q := testnet.Question(c, s.Ticket())
	ask := api.InquiryRequest{ClientTicket: q.ClientTicket, Subject: q.Subject, Purpose: q.Purpose, Period: q.Period}
	for _, d := range datasets {
		ask.Parts = append(ask.Parts, api.InquiryPart{Dataset: d, Fields: c.Fields})
	}
	got, err := s.At(c.Requester).Inquire(ctx, ask)
	if err != nil {
		return got, err
	}
	return got, s.sameInquiry(got, c)
}
