package api

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inquiry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Inquiries carries out inquiries; inquiry.Inquirer is one.
type Inquiries interface {
	Inquire(ctx context.Context, q inquiry.Question) (*inquiry.Result, error)
	Acknowledge(ctx context.Context, application string, t names.ClientTicket) error
}

// InquiryRequest asks for several datasets about one subject.
type InquiryRequest struct {
	// ClientTicket is the application's own number of the question; asking again
	// under the same one is asking once. Empty: the node makes one.
	ClientTicket names.ClientTicket `json:"client_ticket,omitempty"`
	Subject      Subject            `json:"subject"`
	Purpose      names.Purpose      `json:"purpose"`
	Period       *names.Period      `json:"period"`
	// Parts are what is asked, each dataset once. None: every dataset that the
	// institution may ask for this purpose.
	Parts []InquiryPart `json:"parts,omitempty"`
}

// InquiryPart is one dataset of an inquiry.
type InquiryPart struct {
	Dataset   names.DatasetID       `json:"dataset"`
	Fields    []names.FieldName     `json:"fields,omitempty"`    // none: all that the authorization allows
	Suppliers []names.InstitutionID `json:"suppliers,omitempty"` // none: all that can
}

// Inquiry is the outcome of one.
type Inquiry struct {
	Ticket       names.Ticket       `json:"ticket"`
	ClientTicket names.ClientTicket `json:"client_ticket"`
	// Status is DATA_FOUND or NO_DATA_FOUND when every source told what it has,
	// INCOMPLETE_DATA when some did not, NO_RESULT when none did.
	Status      string   `json:"status"`
	Reason      string   `json:"reason,omitempty"` // of the first part that lacks
	Explanation string   `json:"explanation,omitempty"`
	Successor   *Subject `json:"successor,omitempty"`
	// Parts are the outcomes of the datasets, in the order asked.
	Parts []InquiryOutcome `json:"parts"`
}

// InquiryOutcome is the outcome of one dataset: a consultation with a ticket of its own.
type InquiryOutcome struct {
	Dataset names.DatasetID `json:"dataset"`
	Consultation
}

func decodeInquiry(body []byte) (*InquiryRequest, error) {
	in, err := decode[InquiryRequest](body)
	if err != nil {
		return nil, err
	}
	if len(in.Parts) > inquiry.MaxParts {
		return nil, problem(CodeMalformed, "parts", fmt.Sprintf("Send at most %d.", inquiry.MaxParts))
	}
	parts := in.Parts
	if len(parts) == 0 {
		parts = []InquiryPart{{Dataset: "any/v1"}} // for the form of all the rest
	}
	for _, p := range parts {
		c := ConsultationRequest{
			ClientTicket: in.ClientTicket, Subject: in.Subject, Dataset: p.Dataset, Fields: p.Fields, Purpose: in.Purpose, Period: in.Period, Suppliers: p.Suppliers,
		}
		if err := c.check(); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (s *Server) inquire(q *request) (response, error) {
	in, err := decodeInquiry(q.body)
	if err != nil {
		return nil, err
	}
	if err := q.namesItsUser(); err != nil {
		return nil, err
	}
	if in.ClientTicket == "" {
		in.ClientTicket = names.ClientTicket(uuid.NewString())
	}
	ask := inquiry.Question{
		Caller: q.caller(), ClientTicket: in.ClientTicket, Purpose: in.Purpose,
		Scheme: subject.Scheme(in.Subject.Scheme), Number: in.Subject.Number, Period: *in.Period,
		Permits: func(d names.DatasetID) bool { return q.app.permits(exchange.Question{Purpose: in.Purpose, Dataset: d}) },
	}
	for _, p := range in.Parts {
		ask.Parts = append(ask.Parts, inquiry.Part{Dataset: p.Dataset, Fields: p.Fields, Suppliers: p.Suppliers})
	}
	r, err := s.cfg.Inquiries.Inquire(q.Context(), ask)
	if err != nil {
		p := *asProblem(err)
		p.ClientTicket = in.ClientTicket
		return nil, fmt.Errorf("%w: %w", &p, err)
	}
	out := Inquiry{Ticket: r.Ticket, ClientTicket: r.ClientTicket, Status: r.Status.String(), Parts: []InquiryOutcome{}}
	out.Reason, out.Explanation = reasonOf(r.Reason)
	if !r.Successor.IsZero() {
		out.Successor = &Subject{Scheme: string(r.Successor.Scheme()), Number: r.Successor.Number()}
	}
	for _, p := range r.Parts {
		out.Parts = append(out.Parts, InquiryOutcome{p.Dataset, resultOf(p.Result)})
	}
	return out, nil
}

func (s *Server) acknowledgeInquiry(q *request) (response, error) {
	t := names.ClientTicket(q.PathValue("client_ticket"))
	if err := form("client_ticket", t.Validate(), "Use at most 36 printable ASCII characters."); err != nil {
		return nil, err
	}
	return nil, s.cfg.Inquiries.Acknowledge(q.Context(), q.app.Name, t)
}
