package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/node/submission"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Declarant tells what became of declarations; submission.Declarant is one.
type Declarant interface {
	Status(t names.Ticket) (*submission.Status, error)
}

// Source decides on declarations; submission.Source is one.
type Source interface {
	Decide(ctx context.Context, by exchange.Caller, t names.Ticket, accept bool, reasons []*nodepb.FieldReason) (*submission.Status, error)
}

// receiptWait is how long a declaration waits for the receipt of its source before it is
// answered that it is on its way.
const receiptWait = 3 * time.Second

func (s *Server) declare(q *request) (response, error) {
	in, err := decode[DeclarationRequest](q.body)
	if err != nil {
		return nil, err
	}
	kind, known := changes[in.Change]
	switch {
	case in.Period == nil:
		return nil, problem(CodeMalformed, "period", "Say which days the declaration is about, as {\"from\": \"2026-01-01\", \"until\": \"2026-03-31\"}.")
	case !known:
		return nil, problem(CodeMalformed, "change", "Want CHANGED, CORRECTED or CANCELLED.")
	case in.Purpose == "":
		return nil, problem(CodeMalformed, "purpose", "Say under which purpose it is declared; see GET /v1/authorizations.")
	case q.app.UsersAsserted && !q.user.asserted:
		return nil, problem(CodeMalformed, HeaderUser, "Say which user declares: a journal that names only the application is no answer to a complaint.")
	}
	if in.ClientTicket == "" {
		in.ClientTicket = names.ClientTicket(uuid.NewString())
	}
	c := notify.Change{
		Caller: q.caller(), ClientTicket: in.ClientTicket, Dataset: in.Dataset, Purpose: in.Purpose, Scheme: subject.Scheme(in.Subject.Scheme), Number: in.Subject.Number,
		Period: *in.Period, Kind: kind, RefersTo: in.RefersTo, Record: in.Record,
	}
	var done *notify.Accepted
	if q.app.permits(exchange.Question{Dataset: in.Dataset, Purpose: in.Purpose}) {
		done, err = s.cfg.Publisher.Publish(q.Context(), c)
	} else {
		done, err = s.refusePublication(q, c)
	}
	if err != nil {
		p := *asProblem(err)
		p.ClientTicket = in.ClientTicket
		return nil, fmt.Errorf("%w: %w", &p, err)
	}
	out := Declaration{Ticket: done.Ticket, ClientTicket: done.ClientTicket, State: "SENT"}
	if done.Reason != registrypb.Reason_REASON_UNSPECIFIED {
		out.State = "REFUSED"
		out.Reason, out.Explanation = reasonOf(done.Reason)
		return out, nil
	}
	return s.declared(q, out, receiptWait)
}

func (s *Server) declarationStatus(q *request) (response, error) {
	t := names.ClientTicket(q.PathValue("client_ticket"))
	if err := form("client_ticket", t.Validate(), "Use at most 36 printable ASCII characters."); err != nil {
		return nil, err
	}
	st, err := s.cfg.Publisher.Status(q.app.Name, t)
	if err != nil {
		return nil, err
	}
	return s.declared(q, Declaration{Ticket: st.Ticket, ClientTicket: t, State: "SENT"}, 0)
}

// declared adds what is known of a declaration, and waits for its receipt if there is none.
func (s *Server) declared(q *request, out Declaration, wait time.Duration) (response, error) {
	ctx, cancel := context.WithTimeout(q.Context(), wait)
	defer cancel()
	for {
		st, err := s.cfg.Declarant.Status(out.Ticket)
		if err == nil {
			return declarationOf(out, st), nil
		}
		if !errors.Is(err, submission.ErrNotFound) {
			return nil, err
		}
		if p, err := s.cfg.Publisher.Status(q.app.Name, out.ClientTicket); err == nil && p.Decided {
			if refused, reason := refusedBy(p); refused {
				out.State = "REFUSED"
				out.Reason, out.Explanation = reasonOf(reason)
				return out, nil
			}
		}
		select {
		case <-ctx.Done():
			return out, nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// refusedBy tells a declaration that the network refused, or its source again and again: until
// an operator has it tried once more.
func refusedBy(p *notify.Status) (bool, registrypb.Reason) {
	for _, r := range p.Recipients {
		if r.State == notify.Dead {
			return true, r.Reason
		}
	}
	return p.Reason != registrypb.Reason_REASON_UNSPECIFIED, p.Reason
}

func declarationOf(out Declaration, st *submission.Status) Declaration {
	out.Source, out.State, out.Published, out.SupersededBy = st.Source, st.State.String(), st.Published, st.SupersededBy
	out.Receipt, out.Signed = st.Receipt, st.Signed
	for _, r := range st.Reasons {
		out.Reasons = append(out.Reasons, FieldReason{Field: names.FieldName(r.Field), Code: r.Code, Text: r.Text})
	}
	return out
}

const maxReasons = 100

func (s *Server) decideSubmission(q *request) (response, error) {
	if !q.app.Admin && !q.app.Inbox {
		return nil, problem(CodeForbidden, "Authorization", "This takes an application with inbox: true in the node's configuration.")
	}
	in, err := decode[DecisionRequest](q.body)
	if err != nil {
		return nil, err
	}
	t := names.Ticket(q.PathValue("ticket"))
	if err := form("ticket", t.Validate(), "Use the declaration's ticket."); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"ACCEPTED", "DECLINED"}, in.Decision) {
		return nil, problem(CodeMalformed, "decision", "Want ACCEPTED or DECLINED.")
	}
	if len(in.Reasons) > maxReasons || in.Decision == "DECLINED" && len(in.Reasons) == 0 || in.Decision == "ACCEPTED" && len(in.Reasons) > 0 {
		return nil, problem(CodeMalformed, "reasons", fmt.Sprintf("Say why it is declined, in 1 to %d reasons, and give none otherwise.", maxReasons))
	}
	var reasons []*nodepb.FieldReason
	for i, r := range in.Reasons {
		if r.Field != "" {
			if err := form(fmt.Sprintf("reasons[%d].field", i), r.Field.Validate(), "Use a field as the dataset's schema names it."); err != nil {
				return nil, err
			}
		}
		if err := form(fmt.Sprintf("reasons[%d].code", i), names.Purpose(r.Code).Validate(), labelForm); err != nil {
			return nil, err
		}
		if len(r.Text) > 200 {
			return nil, problem(CodeMalformed, fmt.Sprintf("reasons[%d].text", i), "Use at most 200 bytes, and no subject's number.")
		}
		reasons = append(reasons, &nodepb.FieldReason{Field: string(r.Field), Code: r.Code, Text: r.Text})
	}
	st, err := s.cfg.Source.Decide(q.Context(), q.caller(), t, in.Decision == "ACCEPTED", reasons)
	if err != nil {
		return nil, err
	}
	return declarationOf(Declaration{Ticket: t}, st), nil
}
