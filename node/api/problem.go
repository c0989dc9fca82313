package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/inquiry"
	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/submission"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Problem is an error of the interface (RFC 9457, application/problem+json). The
// client returns it as *Problem. It never holds a subject's number.
type Problem struct {
	// Type is urn:crossroads:problem: and the code.
	Type string `json:"type"`
	// Title says what is wrong; the same for every problem of one code.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Code is the machine's word for it.
	Code Code `json:"code"`
	// Where names the field, header or parameter. Empty: the request as a whole.
	Where string `json:"where,omitempty"`
	// Mend says what to do about it.
	Mend string `json:"mend,omitempty"`
	// RequestID stands in the node's log.
	RequestID string `json:"request_id,omitempty"`
	// ClientTicket is the one to ask again under, when that is safe.
	ClientTicket names.ClientTicket `json:"client_ticket,omitempty"`
	// Faults says what is wrong at each place of a record that does not match its
	// dataset's schema; at most exchange.MaxFaults, in the order of their paths.
	Faults []Fault `json:"faults,omitempty"`

	allow string // the method that there is, with CodeMethod
}

// Fault says what is wrong at one place of a record, and how to mend it. Nothing that
// the record holds stands in it.
type Fault struct {
	// Path is a JSON pointer into the record, as /start_date; empty: the whole. A name
	// that the schema does not know is a star.
	Path string `json:"path"`
	// Code is the schema's keyword that fails, as required, type or enum; or form.
	Code  string `json:"code"`
	Wrong string `json:"wrong"`
	Mend  string `json:"mend"`
}

// Code is the machine's word for a kind of problem.
type Code string

// The codes.
const (
	CodeMalformed       Code = "malformed"
	CodeTooLarge        Code = "too-large"
	CodeMediaType       Code = "media-type"
	CodeUnauthenticated Code = "unauthenticated"
	CodeForbidden       Code = "forbidden"
	CodeNotFound        Code = "not-found"
	CodeMethod          Code = "method-not-allowed"
	CodeTicketReused    Code = "ticket-reused"
	CodeAcknowledged    Code = "acknowledged"
	CodeTooMany         Code = "too-many-requests"
	CodeState           Code = "state"
	CodeSlow            Code = "slow-request"
	CodeDeadline        Code = "deadline"
	CodeUnavailable     Code = "unavailable"
	CodeInternal        Code = "internal"
)

var codes = map[Code]struct {
	status int
	title  string
}{
	CodeMalformed:       {http.StatusBadRequest, "The request is malformed."},
	CodeTooLarge:        {http.StatusRequestEntityTooLarge, "The request is too large."},
	CodeMediaType:       {http.StatusUnsupportedMediaType, "The body has the wrong content type."},
	CodeUnauthenticated: {http.StatusUnauthorized, "The application is not known by this token."},
	CodeForbidden:       {http.StatusForbidden, "The application may not do this."},
	CodeNotFound:        {http.StatusNotFound, "There is nothing here for this application."},
	CodeMethod:          {http.StatusMethodNotAllowed, "The route knows no such method."},
	CodeTicketReused:    {http.StatusConflict, "The client ticket already stands for another question."},
	CodeAcknowledged:    {http.StatusGone, "The answer was acknowledged and is no longer kept."},
	CodeState:           {http.StatusConflict, "The lot's state does not allow that."},
	CodeTooMany:         {http.StatusTooManyRequests, "Too many requests are under way."},
	CodeSlow:            {http.StatusRequestTimeout, "The request did not arrive in time."},
	CodeDeadline:        {http.StatusGatewayTimeout, "The network did not answer in the time given."},
	CodeUnavailable:     {http.StatusServiceUnavailable, "The node cannot answer now."},
	CodeInternal:        {http.StatusInternalServerError, "The node failed."},
}

// Error says the problem on one line.
func (p *Problem) Error() string {
	s := p.Title
	if s == "" {
		s = fmt.Sprintf("HTTP status %d", p.Status)
	}
	if p.Where != "" {
		s += " " + p.Where + ":"
	}
	if p.Mend != "" {
		s += " " + p.Mend
	}
	if p.ClientTicket != "" {
		s += " (client ticket " + string(p.ClientTicket) + ")"
	}
	if p.RequestID != "" {
		s += " (request " + p.RequestID + ")"
	}
	return s
}

// problem makes one of a known code.
func problem(code Code, where, mend string) *Problem {
	c := codes[code]
	return &Problem{Type: "urn:crossroads:problem:" + string(code), Title: c.title, Status: c.status, Code: code, Where: where, Mend: mend}
}

// asProblem finds the problem that an error stands for. An error that nothing is
// known of becomes CodeInternal without its text: that goes to the log only.
func asProblem(err error) *Problem {
	var p *Problem
	var q *exchange.QuestionError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return problem(CodeTooLarge, "body", fmt.Sprintf("Send at most %d bytes.", large.Limit))
	case errors.As(err, &q):
		p := problem(CodeMalformed, q.Field, q.Remedy)
		for _, f := range q.Faults {
			p.Faults = append(p.Faults, Fault(f))
		}
		return p
	case errors.Is(err, notify.ErrTicketReused):
		return problem(CodeTicketReused, "client_ticket", "Use a new client ticket for every change.")
	case errors.Is(err, notify.ErrNotFound):
		return problem(CodeNotFound, "client_ticket", "Only the application that published it can ask, while it is kept.")
	case errors.Is(err, notify.ErrUnavailable), errors.Is(err, inbox.ErrUnavailable):
		return problem(CodeUnavailable, "", "Journal or queue cannot be written, so nothing was done; see GET /readyz. Sending the same again is safe.")
	case errors.Is(err, submission.ErrNotFound):
		return problem(CodeNotFound, "ticket", "This institution has received no declaration under this ticket.")
	case errors.Is(err, submission.ErrDecided):
		return problem(CodeTicketReused, "ticket", "The declaration was decided otherwise before, and a decision stands: what is wrong is corrected by a declaration of its own.")
	case errors.Is(err, submission.ErrOriginal):
		return problem(CodeMalformed, "ticket", "It corrects or cancels no accepted declaration of the same declarant about the same subject: decline it.")
	case errors.Is(err, submission.ErrNotPublished):
		return problem(CodeForbidden, "ticket", "It cannot be published, so it was not accepted: this institution must offer the dataset, and have declared its own file on the subject, first.")
	case errors.Is(err, submission.ErrUnavailable):
		return problem(CodeUnavailable, "", "Journal or queue cannot be used, so nothing was decided; see GET /readyz. Deciding the same again is safe.")
	case errors.Is(err, inbox.ErrNotTaken):
		return problem(CodeNotFound, "items", "Some were never taken by this application, were acknowledged before, or took longer than their visibility: take them again. The others are acknowledged.")
	case errors.Is(err, exchange.ErrBadQuestion):
		return problem(CodeMalformed, "body", "See GET /openapi.json.")
	case errors.Is(err, inquiry.ErrNothingAllowed):
		return problem(CodeMalformed, "purpose", "No authorization in force gives this institution any dataset for it; see GET /v1/authorizations, or name the datasets.")
	case errors.Is(err, exchange.ErrTicketReused):
		return problem(CodeTicketReused, "client_ticket", "Use a new client ticket for every question.")
	case errors.Is(err, exchange.ErrAcknowledged):
		return problem(CodeAcknowledged, "client_ticket", "Ask under a new client ticket.")
	case errors.Is(err, exchange.ErrNotFound):
		return problem(CodeNotFound, "client_ticket", "Only the application that asked can acknowledge, while the answer is kept.")
	case errors.Is(err, mandate.ErrNoRight):
		return problem(CodeForbidden, "", "This takes the giver's token, made for a challenge of this node to this application. The attempt is journaled.")
	case errors.Is(err, mandate.ErrMalformed):
		return problem(CodeMalformed, "terms", strings.TrimPrefix(err.Error(), mandate.ErrMalformed.Error()+": "))
	case errors.Is(err, mandate.ErrJournal):
		return problem(CodeUnavailable, "", "The journal cannot be used, so nothing is done; see GET /readyz.")
	case errors.Is(err, reading.ErrNoRight):
		return problem(CodeForbidden, "", "This takes a right that was not shown: a token for this node and challenge, an officer's application, or an order to this node. The attempt is journaled.")
	case errors.Is(err, reading.ErrMalformed):
		return problem(CodeMalformed, "body", mendOf(err))
	case errors.Is(err, reading.ErrBusy):
		return problem(CodeTooMany, "", "Use the challenges that are open, or come back when they have expired.")
	case errors.Is(err, reading.ErrJournal):
		return problem(CodeUnavailable, "", "The journal cannot be used, so nothing is answered; see GET /readyz.")
	case errors.Is(err, exchange.ErrJournalUnavailable):
		return problem(CodeUnavailable, "", "The journal cannot be written, so nothing is answered; see GET /readyz. Asking again under the same client ticket is safe.")
	case errors.Is(err, exchange.ErrRegistryStale):
		return problem(CodeUnavailable, "", "The node cannot be sure of what is public; see GET /readyz. Asking again under the same client ticket is safe.")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem(CodeDeadline, "", "Ask again under the same client ticket, or submit the same command again: both are safe. \"Prefer: wait=30\" gives more time.")
	}
	return problem(CodeInternal, "", "Ask the node's operator to look up the request in the log.")
}

// mendOf gives what an error of package reading says after its kind; it repeats
// nothing that was sent.
func mendOf(err error) string {
	return strings.TrimPrefix(err.Error(), reading.ErrMalformed.Error()+": ")
}
