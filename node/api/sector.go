package api

import (
	"errors"
	"fmt"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// desk gives the node's part of a sector; to one that has none the routes lead nowhere.
func (s *Server) desk() (*sector.Desk, error) {
	if s.cfg.Sector == nil {
		return nil, problem(CodeNotFound, "", "This node is of no sector: see sector in its configuration.")
	}
	return s.cfg.Sector, nil
}

func (q *request) by() sector.By {
	return sector.By{Application: q.app.Name, User: q.user.id, AuthLevel: q.user.level, Channel: q.user.channel}
}

// oversees insists on a security officer's application, or an administrator's.
func (q *request) oversees() error {
	if !q.app.Officer && !q.app.Admin {
		return problem(CodeForbidden, "Authorization", "What happened within the sector is for the security officer: an application with officer: true, or admin: true.")
	}
	return nil
}

// sectorProblem says which of the errors of a sector are the caller's.
func sectorProblem(err error) error {
	switch {
	case errors.Is(err, sector.ErrNotOfSector):
		return problem(CodeNotFound, "", "This node is no managing body: ask the one of your sector.")
	case errors.Is(err, directory.ErrRefused):
		return problem(CodeMalformed, "body", said(err, directory.ErrRefused))
	case errors.Is(err, sector.ErrMalformed):
		return problem(CodeMalformed, "body", said(err, sector.ErrMalformed))
	case errors.Is(err, sector.ErrJournal):
		return fmt.Errorf("%w: %w", problem(CodeUnavailable, "", "The sector's journal cannot be used, so nothing is answered or changed; see GET /readyz."), err)
	}
	return err
}

// said gives what an error says beyond its kind, as a sentence.
func said(err, kind error) string {
	text := strings.TrimPrefix(err.Error(), kind.Error()+": ")
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

func (s *Server) sectorMembers(*request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	all, err := d.Members()
	if err != nil {
		return nil, sectorProblem(err)
	}
	out := SectorMembers{Members: []SectorMember{}}
	for _, m := range all {
		out.Members = append(out.Members, SectorMember{m.Institution, m.Period})
	}
	return out, nil
}

func (s *Server) setSectorMember(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	in, err := decode[SectorMember](q.body)
	if err != nil {
		return nil, err
	}
	if err := d.SetMember(q.Context(), q.by(), directory.Member{Institution: in.Institution, Period: in.Period}); err != nil {
		return nil, sectorProblem(err)
	}
	return nil, nil
}

func (s *Server) changeSector(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	in, err := decode[SectorChanges](q.body)
	if err != nil {
		return nil, err
	}
	if len(in.Changes) == 0 || len(in.Changes) > maxReferences {
		return nil, problem(CodeMalformed, "changes", fmt.Sprintf("Send 1 to %d.", maxReferences))
	}
	var changes []directory.Change
	for i, c := range in.Changes {
		where := fmt.Sprintf("changes[%d]", i)
		id, err := s.checkReference(where, Reference{c.Subject, c.Quality, c.Period})
		if err != nil {
			return nil, err
		}
		if err := form(where+".institution", c.Institution.Validate(), labelForm); err != nil {
			return nil, err
		}
		changes = append(changes, directory.Change{Remove: c.Remove,
			Reference: directory.Reference{Subject: id, Member: c.Institution, Quality: c.Quality, Period: c.Period}})
	}
	if err := d.Change(q.Context(), q.by(), changes); err != nil {
		return nil, sectorProblem(err)
	}
	return nil, nil
}

func (s *Server) findSector(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	in, err := decode[SubjectQuery](q.body)
	if err != nil {
		return nil, err
	}
	id, err := s.subject(in.Subject)
	if err != nil {
		return nil, err
	}
	refs, outline, err := d.References(q.Context(), q.by(), id)
	if err != nil {
		return nil, sectorProblem(err)
	}
	out := SectorReferences{References: sectorReferences(refs), Outline: []Reference{}}
	for _, r := range outline {
		out.Outline = append(out.Outline, Reference{subjectOf(r.Subject), r.Quality, r.Period})
	}
	return out, nil
}

func sectorReferences(refs []directory.Reference) []SectorReference {
	out := []SectorReference{}
	for _, r := range refs {
		out = append(out, SectorReference{subjectOf(r.Subject), r.Member, r.Quality, r.Period})
	}
	return out
}

func subjectOf(id subject.ID) Subject {
	return Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func (s *Server) replaceInSector(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	in, err := decode[SectorReplacement](q.body)
	if err != nil {
		return nil, err
	}
	old, err := s.subject(in.Number)
	if err != nil {
		return nil, err
	}
	successor, err := s.subject(in.Successor)
	if err != nil {
		return nil, err
	}
	if err := d.Replace(q.Context(), q.by(), old, successor); err != nil {
		return nil, sectorProblem(err)
	}
	return nil, nil
}

func (s *Server) sectorTrace(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	if err := q.oversees(); err != nil {
		return nil, err
	}
	t := names.Ticket(q.PathValue("ticket"))
	if err := form("ticket", t.Validate(), "Use a ticket as a result gives it."); err != nil {
		return nil, err
	}
	story, err := d.Trace(q.Context(), q.by(), t)
	if err != nil {
		return nil, sectorProblem(err)
	}
	var text strings.Builder
	if err := story.Write(&text); err != nil {
		return nil, err
	}
	out := SectorStory{Ticket: t, Consistent: story.Consistent, Findings: append([]string{}, story.Findings...), Entries: []SectorEntry{}, Text: text.String()}
	for _, e := range story.Entries {
		out.Entries = append(out.Entries, SectorEntry{e.Node.String(), entryOf(journal.Stored{Entry: e.Entry})})
	}
	return out, nil
}

func (s *Server) sectorSearch(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	if err := q.oversees(); err != nil {
		return nil, err
	}
	in, err := decode[SectorSearch](q.body)
	if err != nil {
		return nil, err
	}
	find := sector.Search{Pseudonym: in.Pseudonym, User: in.User, From: value(in.From), Until: value(in.Until), Limit: in.Limit}
	if in.Limit < 0 || in.Limit > 10_000 || len(in.Pseudonym) > 64 {
		return nil, problem(CodeMalformed, "limit", "Write a number from 1 to 10000, and a pseudonym as it stands outside.")
	}
	if in.Subject != nil {
		if find.Subject, err = s.subject(*in.Subject); err != nil {
			return nil, err
		}
	}
	found, err := d.Search(q.Context(), q.by(), find)
	if err != nil {
		return nil, sectorProblem(err)
	}
	out := SectorFound{Items: []SectorEntry{}}
	for _, f := range found {
		out.Items = append(out.Items, SectorEntry{JournalEntry: entryOf(journal.Stored{Sequence: f.Sequence, Entry: f.Entry})})
	}
	return out, nil
}

// sectorView shows a subject, who proves who it is by a token made out to this node,
// with whom in the sector it is, and who did what about it there.
func (s *Server) sectorView(q *request) (response, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	in, err := decode[SubjectToken](q.body)
	if err != nil {
		return nil, err
	}
	about, err := s.cfg.Readings.Admit(q.Context(), q.reader(), in.Token)
	if err != nil {
		return nil, err
	}
	v, err := d.SubjectView(q.Context(), q.by(), about.Subject, about.From, about.Until)
	if err != nil {
		return nil, sectorProblem(err)
	}
	out := SectorView{References: sectorReferences(v.References), Entries: []SectorEntry{}}
	for _, e := range v.Entries {
		out.Entries = append(out.Entries, SectorEntry{JournalEntry: entryOf(journal.Stored{Entry: e})})
	}
	return out, nil
}

// sectorFields adds what only entries of sectors have.
func sectorFields(out *JournalEntry, e *nodepb.Entry) {
	out.Institution, out.Pseudonym = e.GetMember(), e.GetPseudonym()
}
