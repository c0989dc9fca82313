package api

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	defaultEntries = 100
	maxEntries     = 1000
)

// trace tells the whole story of one ticket. That it was read is journaled.
func (s *Server) trace(q *request) (response, error) {
	t := names.Ticket(q.PathValue("ticket"))
	about, err := s.mayRead(q, t)
	if err != nil {
		return nil, err
	}
	if err := s.readingOf(q, t, about, "trace"); err != nil {
		return nil, err
	}
	return s.cfg.Tracer.Trace(q.Context(), t)
}

// receipt gives what shows, away from this node, what happened under a ticket.
func (s *Server) receipt(q *request) (response, error) {
	t := names.Ticket(q.PathValue("ticket"))
	about, err := s.mayRead(q, t)
	if err != nil {
		return nil, err
	}
	if err := s.readingOf(q, t, about, "receipt"); err != nil {
		return nil, err
	}
	return s.cfg.Receipts.Receipt(q.Context(), t)
}

// mayRead lets an application read its own tickets, and one with admin: true all that
// this node has a part in. What it may not read looks like what is not there. It gives
// whom the ticket is about, who sees that it was read.
func (s *Server) mayRead(q *request, t names.Ticket) (about subject.ID, err error) {
	if err := form("ticket", t.Validate(), "A ticket has 26 characters, as the consultation gave it."); err != nil {
		return about, err
	}
	entries, err := s.cfg.Journal.Find(q.Context(), journal.Query{Ticket: t, Limit: maxEntries})
	if err != nil {
		return about, unavailable(err)
	}
	for _, e := range entries {
		// That somebody tried to read it before does not make this node a party.
		if e.Entry.GetRole() != nodepb.Role_READER && (q.app.Admin || s.isOwn(q.app, e.Entry)) {
			if of := e.Entry.GetSubject(); of != nil {
				about = subject.Raw(subject.Scheme(of.GetScheme()), of.GetNumber())
			}
			return about, nil
		}
	}
	return about, problem(CodeNotFound, "ticket", "This node's journal has no such ticket of this application; ask the node that asked, supplied or cleared.")
}

// isOwn: application names are unique within their institution only.
func (s *Server) isOwn(a *application, e *nodepb.Entry) bool {
	return e.GetApplication() == a.Name && e.GetRequester().GetInstitution() == string(s.cfg.Self.Institution)
}

func (s *Server) journalByQuery(q *request) (response, error) {
	v := q.URL.Query()
	jq := JournalQuery{Ticket: names.Ticket(v.Get("ticket"))}
	for name, at := range map[string]**time.Time{"from": &jq.From, "until": &jq.Until} {
		if text := v.Get(name); text != "" {
			t, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return nil, problem(CodeMalformed, name, "Write a time as 2026-01-31T08:00:00Z.")
			}
			*at = &t
		}
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, problem(CodeMalformed, "limit", fmt.Sprintf("Write a number from 1 to %d.", maxEntries))
		}
		jq.Limit = n
	}
	return s.findJournal(q, jq)
}

func (s *Server) journalSearch(q *request) (response, error) {
	jq, err := decode[JournalQuery](q.body)
	if err != nil {
		return nil, err
	}
	return s.findJournal(q, *jq)
}

// findJournal searches. Searching is for those who oversee others, so it takes admin;
// any application may read its own tickets.
func (s *Server) findJournal(q *request, jq JournalQuery) (response, error) {
	find := journal.Query{Ticket: jq.Ticket, User: jq.User, Limit: defaultEntries}
	if jq.Limit < 0 || jq.Limit > maxEntries {
		return nil, problem(CodeMalformed, "limit", fmt.Sprintf("Write a number from 1 to %d.", maxEntries))
	}
	if jq.Limit > 0 {
		find.Limit = jq.Limit
	}
	if jq.User != "" {
		if err := form("user", jq.User.Validate(), "Use at most 128 printable ASCII characters."); err != nil {
			return nil, err
		}
	}
	if jq.Subject != nil {
		id, err := s.subject(*jq.Subject)
		if err != nil {
			return nil, err
		}
		find.Subject = id
	}
	if jq.From != nil {
		find.From = *jq.From
	}
	if jq.Until != nil {
		find.Until = *jq.Until
	}
	about := find.Subject
	if jq.Ticket != "" {
		of, err := s.mayRead(q, jq.Ticket)
		if err != nil {
			return nil, err
		}
		if about.IsZero() {
			about = of
		}
	} else if !q.app.Admin {
		return nil, problem(CodeForbidden, "ticket", "Name one of this application's own tickets; to search takes an application with admin: true.")
	}
	if err := s.readingOf(q, jq.Ticket, about, "journal search"); err != nil {
		return nil, err
	}
	found, err := s.cfg.Journal.Find(q.Context(), find)
	if err != nil {
		return nil, unavailable(err)
	}
	out := JournalEntries{Items: []JournalEntry{}}
	for _, e := range found {
		if q.app.Admin || s.isOwn(q.app, e.Entry) {
			out.Items = append(out.Items, entryOf(e))
		}
	}
	if k, ok := s.cfg.Journal.(keeper); ok && q.app.Admin {
		for _, e := range k.Erasures(find.From, find.Until) {
			out.Erased = append(out.Erased, e.String())
		}
	}
	return out, nil
}

// keeper is a journal that tells what it has erased; journal.Journal is one.
type keeper interface {
	Erasures(from, until time.Time) []*journal.Erasure
}

var _ keeper = (*journal.Journal)(nil)

// readingOf journals who reads what, before it is read.
func (s *Server) readingOf(q *request, t names.Ticket, about subject.ID, what string) error {
	e := s.entry(q, nodepb.Role_READER, nodepb.Event_READ, about)
	e.Ticket, e.Detail = string(t), what
	_, err := s.cfg.Journal.Append(q.Context(), e)
	return unavailable(err)
}

// entry begins a journal entry about what the caller does at this node.
func (s *Server) entry(q *request, role nodepb.Role, event nodepb.Event, about subject.ID) *nodepb.Entry {
	e := &nodepb.Entry{
		TimeUnixMs: s.cfg.Now().UnixMilli(), Role: role, Event: event, Requester: s.self(),
		User: string(q.user.id), Application: q.app.Name, AuthLevel: q.user.level, Channel: q.user.channel,
	}
	if !about.IsZero() {
		e.Subject = &registrypb.Subject{Scheme: string(about.Scheme()), Number: about.Number()}
	}
	return e
}

// unavailable says of a journal's error that nothing is answered without it.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
}

// subject checks a number that came in.
func (s *Server) subject(in Subject) (subject.ID, error) {
	id, err := s.cfg.Schemes.Parse(subject.Scheme(in.Scheme), in.Number)
	if err != nil {
		return subject.ID{}, problem(CodeMalformed, "subject", "Send a scheme this mesh knows and a number that passes its check digits.")
	}
	return id, nil
}

func entryOf(st journal.Stored) JournalEntry {
	e := st.Entry
	out := JournalEntry{
		Sequence: st.Sequence, Time: time.UnixMilli(e.GetTimeUnixMs()).UTC(), Role: e.GetRole().String(), Event: e.GetEvent().String(),
		Ticket: names.Ticket(e.GetTicket()), ClientTicket: names.ClientTicket(e.GetClientTicket()),
		Requester: refOf(e.GetRequester()), Supplier: refOf(e.GetSupplier()), Clearer: refOf(e.GetClearer()),
		User: names.UserID(e.GetUser()), AuthLevel: e.GetAuthLevel(), Application: e.GetApplication(), Channel: e.GetChannel(),
		Purpose: e.GetPurpose(), Mode: e.GetMode(), Dataset: e.GetDataset(), Fields: e.GetFields(), Withheld: e.GetWithheld(),
		Authorization: e.GetAuthorization(), Deliberation: e.GetDeliberation(),
		RequestHash: hex.EncodeToString(e.GetRequestHash()), ClearanceID: hex.EncodeToString(e.GetClearanceId()),
		ClearanceHash: hex.EncodeToString(e.GetClearanceHash()), AnswerCommitted: hex.EncodeToString(e.GetAnswerCommitment()),
		RegistryIndex: e.GetRegistryIndex(), Detail: e.GetDetail(),
	}
	if s := e.GetSubject(); s != nil {
		out.Subject = &Subject{Scheme: s.GetScheme(), Number: s.GetNumber()}
	}
	if e.GetPeriod() != nil {
		p := periodOf(e.GetPeriod())
		out.Period = &p
	}
	if e.GetOutcome() != registrypb.Outcome_OUTCOME_UNSPECIFIED {
		out.Outcome = e.GetOutcome().String()
	}
	if e.GetStatus() != nodepb.Status_STATUS_UNSPECIFIED {
		out.Status = e.GetStatus().String()
	}
	out.Reason, _ = reasonOf(e.GetReason())
	sectorFields(&out, e)
	out.Inquiry, out.Mandate = names.Ticket(e.GetInquiry()), names.MandateID(e.GetMandate().GetId())
	for _, p := range e.GetParts() {
		part := JournalEntryPart{Dataset: names.DatasetID(p.GetDataset()), ClientTicket: names.ClientTicket(p.GetClientTicket()), Ticket: names.Ticket(p.GetTicket())}
		if p.GetStatus() != nodepb.Status_STATUS_UNSPECIFIED {
			part.Status = p.GetStatus().String()
		}
		part.Reason, _ = reasonOf(p.GetReason())
		out.Parts = append(out.Parts, part)
	}
	if l := e.GetLot(); l != nil {
		out.Lot = &LotPart{Chunk: l.GetChunk(), Lines: l.GetLines(), Subjects: l.GetSubjects()}
		for _, g := range l.GetGroups() {
			out.Lot.Subjects += uint64(packed.Len(g.GetSubjects()))
		}
	}
	return out
}

func refOf(r *registrypb.NodeRef) string {
	if r.GetNode() == "" {
		return r.GetInstitution()
	}
	return r.GetInstitution() + "/" + r.GetNode()
}
