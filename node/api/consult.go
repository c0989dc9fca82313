package api

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inquiry"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The most of each list in one question.
const (
	maxFields    = 256
	maxSuppliers = 64
)

const labelForm = "Use at most 63 lower case letters, digits and dashes."

// decodeConsultation reads a question and checks the form of everything but the
// subject's number, which is the exchange's to judge: a malformed number is a result.
func decodeConsultation(body []byte) (*ConsultationRequest, error) {
	c, err := decode[ConsultationRequest](body)
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *ConsultationRequest) check() error {
	if c.ClientTicket != "" {
		if err := form("client_ticket", c.ClientTicket.Validate(), "Use at most 36 printable ASCII characters."); err != nil {
			return err
		}
	}
	if c.Period == nil {
		return problem(CodeMalformed, "period", "Say from and until which day, as {\"from\": \"2026-01-01\", \"until\": \"2026-03-31\"}.")
	}
	for _, bad := range []error{
		form("dataset", c.Dataset.Validate(), "Name it with its version, as wages-quarterly/v1; see GET /v1/datasets."),
		form("purpose", c.Purpose.Validate(), labelForm+" See GET /v1/authorizations."),
		form("period", c.Period.Validate(), "Let from be no later than until."),
		form("subject.scheme", names.NodeName(c.Subject.Scheme).Validate(), labelForm),
	} {
		if bad != nil {
			return bad
		}
	}
	switch {
	case c.Subject.Number == "" || len(c.Subject.Number) > 64:
		return problem(CodeMalformed, "subject.number", "Send the number, at most 64 characters.")
	case len(c.Fields) > maxFields:
		return problem(CodeMalformed, "fields", fmt.Sprintf("Send at most %d.", maxFields))
	case len(c.Suppliers) > maxSuppliers:
		return problem(CodeMalformed, "suppliers", fmt.Sprintf("Send at most %d.", maxSuppliers))
	}
	for i, f := range c.Fields {
		if err := form(fmt.Sprintf("fields[%d]", i), f.Validate(), "Use a field as the dataset's schema names it."); err != nil {
			return err
		}
	}
	for i, s := range c.Suppliers {
		if err := form(fmt.Sprintf("suppliers[%d]", i), s.Validate(), labelForm+" See GET /v1/institutions."); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) consult(q *request) (response, error) {
	c, err := decodeConsultation(q.body)
	if err != nil {
		return nil, err
	}
	if err := q.namesItsUser(); err != nil {
		return nil, err
	}
	if c.ClientTicket == "" {
		c.ClientTicket = names.ClientTicket(uuid.NewString())
	}
	question := exchange.Question{
		Caller:       q.caller(),
		ClientTicket: c.ClientTicket, Purpose: c.Purpose, Dataset: c.Dataset, Fields: c.Fields,
		Scheme: subject.Scheme(c.Subject.Scheme), Number: c.Subject.Number, Period: *c.Period, Suppliers: c.Suppliers,
	}
	var result *exchange.Result
	if q.app.permits(question) {
		result, err = s.cfg.Consultations.Consult(q.Context(), question)
	} else {
		result, err = s.refuse(q, question)
	}
	if err != nil {
		p := *asProblem(err)
		p.ClientTicket = c.ClientTicket
		return nil, fmt.Errorf("%w: %w", &p, err)
	}
	return resultOf(result), nil
}

func (q *request) namesItsUser() error {
	if q.app.UsersAsserted && !q.user.asserted {
		return problem(CodeMalformed, HeaderUser, "Say which user asks: a journal that names only the application is no answer to a complaint.")
	}
	return nil
}

func (q *request) caller() exchange.Caller {
	return exchange.Caller{Application: q.app.Name, User: q.user.id, AuthLevel: q.user.level, Channel: q.user.channel}
}

// permits is the institution's own policy for its application.
func (a *application) permits(q exchange.Question) bool {
	return (len(a.Purposes) == 0 || slices.Contains(a.Purposes, q.Purpose)) &&
		(len(a.Datasets) == 0 || slices.Contains(a.Datasets, q.Dataset))
}

// refuse answers LOCAL_POLICY. The question never leaves the node, but the attempt is
// journaled before it is refused, like every refusal.
func (s *Server) refuse(q *request, question exchange.Question) (*exchange.Result, error) {
	result := &exchange.Result{
		Ticket:       names.TicketOf(fresh()),
		ClientTicket: question.ClientTicket,
		Status:       nodepb.Status_NO_RESULT,
		Reason:       registrypb.Reason_LOCAL_POLICY,
	}
	e := inquiry.LocalRefusal(s.cfg.Self, s.cfg.Now(), question, s.cfg.Schemes, result.Ticket)
	if _, err := s.cfg.Journal.Append(q.Context(), e); err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	return result, nil
}

func (s *Server) acknowledge(q *request) (response, error) {
	t := names.ClientTicket(q.PathValue("client_ticket"))
	if err := form("client_ticket", t.Validate(), "Use at most 36 printable ASCII characters."); err != nil {
		return nil, err
	}
	return nil, s.cfg.Consultations.Acknowledge(q.Context(), q.app.Name, t)
}

func (s *Server) self() *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution), Node: string(s.cfg.Self.Node)}
}
