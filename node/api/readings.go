package api

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// defaultReading is how many entries an officer's search gives unless it says.
const defaultReading = 1000

// A user is no part of a URL, as in the journal's search.
var officerQuery = []string{"from", "until", "dataset", "purpose", "outcome", "limit"}

// reader says for package reading who asks.
func (q *request) reader() reading.Reader {
	return reading.Reader{
		Application: q.app.Name, User: q.user.id, AuthLevel: q.user.level, Channel: q.user.channel,
		Officer: q.app.Officer, Oversees: q.app.Oversees,
	}
}

func (s *Server) subjectNonce(q *request) (response, error) {
	in, err := decode[SubjectPeriod](q.body)
	if err != nil {
		return nil, err
	}
	return result(s.cfg.Readings.Nonce(q.reader(), value(in.From), value(in.Until)))
}

func (s *Server) subjectView(q *request) (response, error) {
	in, err := decode[SubjectToken](q.body)
	if err != nil {
		return nil, err
	}
	return result(s.cfg.Readings.Subject(q.Context(), q.reader(), in.Token))
}

func (s *Server) inspect(q *request) (response, error) {
	in, err := decode[InspectionOrder](q.body)
	if err != nil {
		return nil, err
	}
	return result(s.cfg.Readings.Inspect(q.Context(), q.reader(), in.Order))
}

func (s *Server) officerByQuery(q *request) (response, error) {
	v := q.URL.Query()
	in := OfficerSearch{Dataset: names.DatasetID(v.Get("dataset")), Purpose: names.Purpose(v.Get("purpose")), Outcome: v.Get("outcome")}
	for name, at := range map[string]**time.Time{"from": &in.From, "until": &in.Until} {
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
			return nil, problem(CodeMalformed, "limit", fmt.Sprintf("Write a number from 1 to %d.", reading.MaxFound))
		}
		in.Limit = n
	}
	return s.findOfficer(q, in)
}

func (s *Server) officerSearch(q *request) (response, error) {
	in, err := decode[OfficerSearch](q.body)
	if err != nil {
		return nil, err
	}
	return s.findOfficer(q, *in)
}

func (s *Server) findOfficer(q *request, in OfficerSearch) (response, error) {
	if in.Limit < 0 || in.Limit > reading.MaxFound {
		return nil, problem(CodeMalformed, "limit", fmt.Sprintf("Write a number from 1 to %d.", reading.MaxFound))
	}
	find := reading.Search{
		User: in.User, From: value(in.From), Until: value(in.Until), Dataset: in.Dataset, Purpose: in.Purpose, Outcome: in.Outcome, Limit: in.Limit,
	}
	if find.Limit == 0 {
		find.Limit = defaultReading
	}
	if in.User != "" {
		if err := form("user", in.User.Validate(), "Use at most 128 printable ASCII characters."); err != nil {
			return nil, err
		}
	}
	found, err := s.cfg.Readings.Search(q.Context(), q.reader(), find)
	if err != nil {
		return nil, err
	}
	out := OfficerFound{Items: []JournalEntry{}, More: found.More}
	for _, e := range found.Entries {
		out.Items = append(out.Items, entryOf(e))
	}
	if wantsCSV(q.Header.Get("Accept")) {
		return entriesCSV(out.Items)
	}
	return out, nil
}

func (s *Server) officerReport(q *request) (response, error) {
	in, err := decode[OfficerReport](q.body)
	if err != nil {
		return nil, err
	}
	return result(s.cfg.Readings.Report(q.Context(), q.reader(), reading.ReportQuery{
		From: value(in.From), Until: value(in.Until), Zone: in.Zone, Begins: in.Begins, Ends: in.Ends,
		Weekends: in.Weekends, Volume: in.Volume, Repeated: in.Repeated,
	}))
}

// result keeps a typed nil from becoming an answer.
func result[T any](v *T, err error) (response, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func value(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// wantsCSV reads Accept as far as it matters here: CSV is for whoever names it.
func wantsCSV(accept string) bool {
	return slices.ContainsFunc(strings.Split(accept, ","), func(part string) bool {
		media, _, _ := strings.Cut(part, ";")
		return strings.EqualFold(strings.TrimSpace(media), mediaCSV)
	})
}

// entriesCSV writes entries one to a row, the columns named in the first.
func entriesCSV(entries []JournalEntry) (response, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{
		"time", "user", "application", "auth_level", "channel", "event", "ticket", "client_ticket", "subject_scheme", "subject_number",
		"purpose", "dataset", "fields", "withheld", "authorization", "deliberation", "supplier", "outcome", "status", "reason", "detail",
	}}
	for _, e := range entries {
		var scheme, number string
		if e.Subject != nil {
			scheme, number = e.Subject.Scheme, e.Subject.Number
		}
		rows = append(rows, []string{
			e.Time.Format(time.RFC3339Nano), string(e.User), e.Application, strconv.FormatUint(uint64(e.AuthLevel), 10), e.Channel, e.Event,
			string(e.Ticket), string(e.ClientTicket), scheme, number, e.Purpose, e.Dataset, strings.Join(e.Fields, " "),
			strings.Join(e.Withheld, " "), e.Authorization, e.Deliberation, e.Supplier, e.Outcome, e.Status, e.Reason, e.Detail,
		})
	}
	for _, row := range rows {
		for i := range row {
			row[i] = Cell(row[i])
		}
		if err := w.Write(row); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return document{media: mediaCSV, body: b.Bytes()}, w.Error()
}

// Cell makes a text fit for a CSV cell: what begins as a formula would, in a
// spreadsheet, is kept from being one. Users and tickets are others' words.
func Cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
