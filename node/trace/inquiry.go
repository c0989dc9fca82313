package trace

import (
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Part is one consultation of an inquiry. Its own ticket traces it.
type Part struct {
	Dataset      names.DatasetID    `json:"dataset"`
	ClientTicket names.ClientTicket `json:"client_ticket"`
	Ticket       names.Ticket       `json:"ticket,omitempty"` // unknown: the inquiry was not concluded
	Status       string             `json:"status,omitempty"`
	Reason       string             `json:"reason,omitempty"`
	Story        *Story             `json:"story,omitempty"`
}

// ofInquiry reports whether an entry tells of an inquiry as a whole. Of that there is no
// request, and nobody but the consultant knows.
func ofInquiry(e *nodepb.Entry) bool {
	return e.Role == nodepb.Role_CONSULTANT && (e.Event == nodepb.Event_INQUIRED || e.Event == nodepb.Event_CONCLUDED)
}

// inquiry takes the parts of an inquiry from its entries, if they are those of one.
func (b *builder) inquiry(s *Story) {
	begun, ended := pick(b.entries, nodepb.Event_INQUIRED), pick(b.entries, nodepb.Event_CONCLUDED)
	told := ended
	if told == nil {
		told = begun
	}
	if told == nil {
		for _, e := range b.entries {
			if e.Inquiry != "" {
				s.Inquiry = names.Ticket(e.Inquiry)
			}
		}
		return
	}
	for _, p := range told.Parts {
		s.Parts = append(s.Parts, Part{
			Dataset: names.DatasetID(p.Dataset), ClientTicket: names.ClientTicket(p.ClientTicket), Ticket: names.Ticket(p.Ticket),
			Status: statusName(p.Status), Reason: reasonName(p.Reason),
		})
	}
	by := []names.NodeID{told.node}
	switch {
	case begun == nil:
		b.find(Disagreement, by, "%s concluded an inquiry, and does not tell that it began it.", show(told.node))
	case ended == nil:
		b.find(Unfinished, by, "%s began an inquiry, and has not noted its end.", show(told.node))
	case !slices.EqualFunc(begun.Parts, ended.Parts, func(x, y *nodepb.InquiryPart) bool {
		return x.Dataset == y.Dataset && x.ClientTicket == y.ClientTicket
	}):
		b.find(Disagreement, by, "%s concluded another inquiry than it began: its parts differ.", show(told.node))
	}
}

// Join adds the stories of an inquiry's parts, by their client tickets, and judges
// whether they are of this inquiry and came out as it says.
func (s *Story) Join(stories map[names.ClientTicket]*Story) {
	var found []Finding
	find := func(k Kind, p *Part, format string, args ...any) {
		found = append(found, Finding{Kind: k, By: []string{s.Requester}, Says: fmt.Sprintf("The part %s: ", oneLine(string(p.Dataset))) + fmt.Sprintf(format, args...)})
	}
	journals := map[string]bool{}
	for _, j := range s.Journals {
		journals[j.Node] = true
	}
	for i := range s.Parts {
		p := &s.Parts[i]
		p.Story = stories[p.ClientTicket]
		if p.Story == nil || p.Story.Verdict == Unknown {
			if p.Status == "" {
				find(Unfinished, p, "nothing tells that it was asked.")
			} else {
				find(Missing, p, "it is said to have ended, and no journal holds it.")
			}
			continue
		}
		for _, wrong := range s.differs(p) {
			find(Disagreement, p, "its consultation has another %s.", wrong)
		}
		switch p.Story.Verdict {
		case Contradicted:
			find(Disagreement, p, "its own trace is contradicted: see ticket %s.", p.Story.Ticket)
		case Incomplete:
			find(Unfinished, p, "its own trace is incomplete: see ticket %s.", p.Story.Ticket)
		}
		for _, j := range p.Story.Journals {
			if !journals[j.Node] {
				journals[j.Node] = true
				s.Journals = append(s.Journals, j)
			}
		}
	}
	s.Add(found...)
}

// differs names what an inquiry and the story of one of its parts do not agree on.
func (s *Story) differs(p *Part) (wrong []string) {
	t := p.Story
	data := false
	for _, x := range t.Exchanges {
		data = data || x.Status == nodepb.Status_DATA_FOUND.String() || x.Status == nodepb.Status_NO_DATA_FOUND.String()
	}
	sameSubject := s.Subject == nil && t.Subject == nil || s.Subject != nil && t.Subject != nil && *s.Subject == *t.Subject
	samePeriod := s.Period != nil && t.Period != nil && *s.Period == *t.Period
	for _, x := range []said{
		{"inquiry", t.Inquiry == s.Ticket},
		{"ticket", p.Ticket == "" || p.Ticket == t.Ticket},
		{"own ticket", p.ClientTicket == t.ClientTicket},
		{"dataset", p.Dataset == t.Dataset},
		{"requester", s.Requester == t.Requester},
		{"user", s.User == t.User && s.AuthLevel == t.AuthLevel && s.Application == t.Application},
		{"subject", sameSubject || p.Reason == registrypb.Reason_MALFORMED_NUMBER.String()},
		{"purpose", s.Purpose == t.Purpose},
		{"period", samePeriod},
		{"outcome", p.Status == "" || data == (p.Status != nodepb.Status_NO_RESULT.String())},
	} {
		if !x.agree {
			wrong = append(wrong, x.what)
		}
	}
	return wrong
}

func (s *Story) writeParts(p *page) {
	if len(s.Parts) == 0 {
		return
	}
	p.blank()
	for _, part := range s.Parts {
		outcome := "not concluded"
		if part.Status != "" {
			outcome = statusText(part.Status)
		}
		if part.Reason != "" {
			outcome += ": " + reasonText(part.Reason)
		}
		text := fmt.Sprintf("%s: %s", oneLine(string(part.Dataset)), outcome)
		if part.Story != nil {
			text += fmt.Sprintf("; ticket %s, %s", part.Story.Ticket, part.Story.Verdict)
		}
		p.row("part", text)
	}
}
