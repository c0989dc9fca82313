package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/batch/lines"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Lots carries out files of many subjects; batch.Consultant is one.
type Lots interface {
	Submit(ctx context.Context, q batch.Question, file io.Reader) (*batch.Lot, error)
	Status(application string, voucher names.Ticket) (*batch.Lot, error)
	List(application string) []*batch.Lot
	Pause(application string, voucher names.Ticket) (*batch.Lot, error)
	Resume(application string, voucher names.Ticket) (*batch.Lot, error)
	Cancel(application string, voucher names.Ticket) (*batch.Lot, error)
	Acknowledge(application string, voucher names.Ticket) error
	Write(ctx context.Context, application string, voucher names.Ticket, form string, w io.Writer) error
}

// Lot is how a lot stands.
type Lot struct {
	Voucher      names.Ticket       `json:"voucher"` // its ticket, too: GET /v1/trace/{ticket}
	ClientTicket names.ClientTicket `json:"client_ticket"`
	// State is running, paused, cancelled, done or acknowledged.
	State     string          `json:"state"`
	User      names.UserID    `json:"user"`
	Purpose   names.Purpose   `json:"purpose"`
	Dataset   names.DatasetID `json:"dataset"`
	Submitted time.Time       `json:"submitted"`
	Ended     *time.Time      `json:"ended,omitempty"`
	Until     *time.Time      `json:"until,omitempty"` // kept
	Lines     uint64          `json:"lines"`
	Subjects  uint64          `json:"subjects"` // asked about, each once
	Done      uint64          `json:"done"`     // lines that have their result
	// Tally counts the lines that have their result, by reason or else by status.
	Tally map[string]uint64 `json:"tally"`
	// Waits says why it does not get on at present.
	Waits string `json:"waits,omitempty"`
}

// LotList are lots.
type LotList struct {
	Items []Lot `json:"items"`
}

func lotOf(l *batch.Lot) Lot {
	out := Lot{
		Voucher: l.Voucher, ClientTicket: l.ClientTicket, State: batch.StateName(l.State), User: l.User, Purpose: l.Purpose, Dataset: l.Dataset,
		Submitted: l.Submitted, Lines: l.Lines, Subjects: l.Subjects, Done: l.Done, Tally: l.Tally, Waits: l.Waits,
	}
	if !l.Ended.IsZero() {
		out.Ended, out.Until = &l.Ended, &l.Until
	}
	return out
}

// lotQuery are what a lot is asked by; the file alone is the body.
var lotQuery = []string{"purpose", "dataset", "from", "until", "fields", "suppliers", "scheme", "client_ticket", "format", "number", "reference", "separator", "length"}

// slowest is how long an upload or a download may stand still.
const slowest = 30 * time.Second

// submitLot reads the file as it comes.
func (s *Server) submitLot(q *request) (response, error) {
	if err := q.namesItsUser(); err != nil {
		return nil, err
	}
	question, err := lotQuestion(q)
	if err != nil {
		return nil, err
	}
	if local := (exchange.Question{Purpose: question.Purpose, Dataset: question.Dataset}); !q.app.permits(local) {
		return nil, problem(CodeForbidden, "purpose", "The institution's own policy does not let this application ask this.")
	}
	l, err := s.cfg.Lots.Submit(q.Context(), *question, q.stream)
	if err != nil {
		return nil, lotProblem(err)
	}
	return lotOf(l), nil
}

func lotQuestion(q *request) (*batch.Question, error) {
	v := q.URL.Query()
	out := &batch.Question{
		Caller: q.caller(), ClientTicket: names.ClientTicket(v.Get("client_ticket")), Purpose: names.Purpose(v.Get("purpose")),
		Dataset: names.DatasetID(v.Get("dataset")), Scheme: subject.Scheme(cmpOr(v.Get("scheme"), string(subject.SSIN))),
		Format: lines.Format{Form: lines.Form(cmpOr(v.Get("format"), string(lines.CSV))), Number: v.Get("number"), Reference: v.Get("reference")},
	}
	if out.ClientTicket == "" {
		out.ClientTicket = names.ClientTicket(uuid.NewString())
	}
	for _, of := range []struct {
		name string
		day  *names.Date
	}{{"from", &out.Period.From}, {"until", &out.Period.Until}} {
		d, err := names.ParseDate(v.Get(of.name))
		if err != nil {
			return nil, problem(CodeMalformed, of.name, "Write a day as 2026-01-31.")
		}
		*of.day = d
	}
	for _, f := range commas(v.Get("fields")) {
		out.Fields = append(out.Fields, names.FieldName(f))
	}
	for _, f := range commas(v.Get("suppliers")) {
		out.Suppliers = append(out.Suppliers, names.InstitutionID(f))
	}
	if sep := v.Get("separator"); sep != "" {
		r := []rune(sep)
		if len(r) != 1 {
			return nil, problem(CodeMalformed, "separator", "Send one character.")
		}
		out.Format.Separator = r[0]
	}
	if n := v.Get("length"); n != "" {
		var err error
		if out.Format.Length, err = strconv.Atoi(n); err != nil {
			return nil, problem(CodeMalformed, "length", "Write the number of bytes of a record.")
		}
	}
	return out, nil
}

func commas(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// lotProblem says what a caller is told of an error of package batch.
func lotProblem(err error) error {
	var p *Problem
	switch {
	case err == nil:
		return nil
	case errors.Is(err, batch.ErrNotFound):
		p = problem(CodeNotFound, "voucher", "Only the application that handed a lot in can ask for it, while it is kept.")
	case errors.Is(err, lines.ErrFormat):
		p = problem(CodeMalformed, "format", strings.TrimPrefix(err.Error(), lines.ErrFormat.Error()+": "))
	case errors.Is(err, batch.ErrEmpty):
		p = problem(CodeMalformed, "body", "Send a file with at least one line beside its header.")
	case errors.Is(err, batch.ErrTooLarge):
		p = problem(CodeTooLarge, "body", "Hand it in as several lots: see lots.max_lines in the node's configuration.")
	case errors.Is(err, batch.ErrTooMany):
		p = problem(CodeTooMany, "", "Acknowledge lots that have ended: see lots.max_open in the node's configuration.")
	case errors.Is(err, batch.ErrTicketReused):
		p = problem(CodeTicketReused, "client_ticket", "Use a new client ticket for every lot.")
	case errors.Is(err, batch.ErrState):
		p = problem(CodeState, "voucher", err.Error()+".")
	case errors.Is(err, batch.ErrUnavailable):
		p = problem(CodeUnavailable, "", "Lots cannot be kept at present; see GET /readyz. Handing in again under the same client ticket is safe.")
	default:
		return err
	}
	return fmt.Errorf("%w: %w", p, err)
}

func (s *Server) voucher(q *request) (names.Ticket, error) {
	t := names.Ticket(q.PathValue("voucher"))
	return t, form("voucher", t.Validate(), "A voucher has 26 characters, as handing in the lot gave it.")
}

func (s *Server) lots(q *request) (response, error) {
	out := LotList{Items: []Lot{}}
	for _, l := range s.cfg.Lots.List(q.app.Name) {
		out.Items = append(out.Items, lotOf(l))
	}
	return out, nil
}

// onLot makes a route of what is done with one lot.
func (s *Server) onLot(do func(application string, voucher names.Ticket) (*batch.Lot, error)) func(*request) (response, error) {
	return func(q *request) (response, error) {
		t, err := s.voucher(q)
		if err != nil {
			return nil, err
		}
		l, err := do(q.app.Name, t)
		if err != nil {
			return nil, lotProblem(err)
		}
		return lotOf(l), nil
	}
}

func (s *Server) acknowledgeLot(q *request) (response, error) {
	t, err := s.voucher(q)
	if err == nil {
		err = lotProblem(s.cfg.Lots.Acknowledge(q.app.Name, t))
	}
	return nil, err
}

// lotResults gives the results as they are read from disk.
func (s *Server) lotResults(q *request) (response, error) {
	t, err := s.voucher(q)
	if err != nil {
		return nil, err
	}
	form := cmpOr(q.URL.Query().Get("format"), "jsonl")
	media := map[string]string{"jsonl": mediaLines, "csv": mediaCSV}[form]
	if media == "" {
		return nil, problem(CodeMalformed, "format", "Write csv or jsonl.")
	}
	l, err := s.cfg.Lots.Status(q.app.Name, t)
	if err != nil {
		return nil, lotProblem(err)
	}
	if l.Ended.IsZero() {
		return nil, problem(CodeState, "voucher", "The lot is "+batch.StateName(l.State)+"; its results are there when it has ended.")
	}
	return streamed{media, func(w io.Writer) error { return s.cfg.Lots.Write(q.Context(), q.app.Name, t, form, w) }}, nil
}

// streamed is a body that is written as it is made.
type streamed struct {
	media string
	write func(io.Writer) error
}

// steady lets a transfer take as long as it moves.
type steady struct {
	rc   *http.ResponseController
	read io.Reader
	to   io.Writer
	n    int
}

func (s *steady) Read(b []byte) (int, error) {
	_ = s.rc.SetReadDeadline(time.Now().Add(slowest)) // not supported: in a test
	return s.read.Read(b)
}

func (s *steady) Write(b []byte) (int, error) {
	_ = s.rc.SetWriteDeadline(time.Now().Add(slowest))
	n, err := s.to.Write(b)
	s.n += n
	return n, err
}
