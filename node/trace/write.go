package trace

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

const (
	width  = 100
	indent = 12 // where the values begin
)

// String gives a span as a person would say it: "12 ms", "3.4 s".
func (m Millis) String() string {
	if m > -1000 && m < 1000 {
		return fmt.Sprintf("%d ms", int64(m))
	}
	return fmt.Sprintf("%.1f s", float64(m)/1000)
}

// Write renders the story for people, at most 100 columns wide. It shows the
// subject's number unless HideSubject was called.
func (s *Story) Write(w io.Writer) error {
	p := &page{w: bufio.NewWriter(w)}
	fmt.Fprintf(p.w, "Ticket %s  %s\n", oneLine(string(s.Ticket)), strings.ToUpper(string(s.Verdict)))
	p.wrap(0, s.Summary)
	if len(s.Steps) > 0 {
		p.blank()
		s.writeQuestion(p)
		s.writeParts(p)
		if s.Lot != nil {
			p.blank()
			s.Lot.write(p)
		}
		s.writeRefusal(p)
		s.writeRecipients(p)
		for _, x := range s.Exchanges {
			p.blank()
			x.write(p)
		}
		s.writeSteps(p)
	}
	s.writeFindings(p)
	return p.w.Flush()
}

func (s *Story) writeQuestion(p *page) {
	who := fmt.Sprintf("user %s of %s", cmp.Or(string(s.User), "(not named)"), s.Requester)
	if s.Application != "" {
		who += ", application " + s.Application
	}
	if s.Channel != "" {
		who += ", by " + s.Channel
	}
	p.row("who", who)
	if s.Subject != nil {
		p.row("about", cmp.Or(s.Subject.Number, "(number not shown)")+" ("+s.Subject.Scheme+")")
	}
	p.row("why", joined(", by ", string(s.Purpose), string(s.Mode)))
	what := string(s.Dataset)
	if len(s.Parts) > 0 {
		what = fmt.Sprintf("%d datasets at once", len(s.Parts))
	}
	if s.Period != nil {
		what += ", " + spanOf(*s.Period)
	}
	p.row("what", what)
	if s.Inquiry != "" {
		p.row("part of", "inquiry "+oneLine(string(s.Inquiry)))
	}
	if len(s.Parts) > 0 {
		// each part says which fields
	} else if len(s.Asked) > 0 {
		p.row("fields", fieldList(s.Asked))
	} else {
		p.row("fields", "all that are permitted")
	}
	if s.ClientTicket != "" {
		p.row("own ticket", string(s.ClientTicket))
	}
}

func (s *Story) writeRefusal(p *page) {
	r := s.Refusal
	if r == nil {
		return
	}
	words := map[string]string{"DENY": "denied", "NOT_APPLICABLE": "not applicable"}
	what := cmp.Or(words[r.Outcome], "no decision")
	if r.Clearer != "" {
		what += " by " + r.Clearer
	}
	if r.Reason != "" {
		what += ": " + reasonText(r.Reason)
	}
	p.blank()
	p.row("refused", what)
}

func (x Exchange) write(p *page) {
	p.row("from", x.Supplier)
	if x.Recipient != "" {
		p.row("to", x.Recipient)
	}
	permit := cmp.Or(x.Clearer, "(clearing peer not named)")
	if x.SecondClearer != "" {
		permit += " and " + x.SecondClearer
	}
	if x.Authorization != "" {
		permit += ", under " + string(x.Authorization)
	}
	if x.Deliberation != "" {
		permit += " (" + string(x.Deliberation) + ")"
	}
	p.row("cleared by", permit)
	if m := x.Mandate; m != nil {
		text := fmt.Sprintf("%s, attested by %s at level %d", oneLine(string(m.ID)), oneLine(string(m.Provider)), m.AuthLevel)
		if m.OnBehalf != nil {
			text += fmt.Sprintf("; used, as the requester says, for %s (%s)", oneLine(m.OnBehalf.Number), oneLine(m.OnBehalf.Scheme))
		}
		p.row("by mandate", text)
	}
	if len(x.Fields) > 0 {
		p.row("permitted", fieldList(x.Fields))
	}
	if len(x.Withheld) > 0 {
		p.row("withheld", fieldList(x.Withheld))
	}
	result := "not noted"
	if x.Status != "" {
		result = statusText(x.Status)
	}
	if x.Reason != "" {
		result += ": " + reasonText(x.Reason)
	}
	p.row("result", result)
	var legs []string
	for _, l := range []struct {
		name string
		took *Millis
	}{{"cleared in", x.Clearing}, {"supplied in", x.Supplying}, {"received in", x.Receiving}, {"in all", x.Total}} {
		if l.took != nil {
			legs = append(legs, l.name+" "+l.took.String())
		}
	}
	if len(legs) > 0 {
		p.row("took", strings.Join(legs, ", "))
	}
}

func (s *Story) writeSteps(p *page) {
	p.blank()
	fmt.Fprintf(p.w, "  Step by step, %s (UTC)\n", s.Steps[0].Time.Format(time.DateOnly))
	widest := 0
	for _, st := range s.Steps {
		widest = max(widest, utf8.RuneCountInString(st.Node))
	}
	widest = min(widest, 36)
	for _, st := range s.Steps {
		role := cmp.Or(roleWords[st.Role], strings.ToLower(st.Role))
		head := fmt.Sprintf("  %s  %8s  %-*s  %-13s  ", st.Time.Format("15:04:05.000"), "+"+st.After.String(), widest, oneLine(st.Node), role)
		p.hang(head, st.Says)
	}
}

func (s *Story) writeFindings(p *page) {
	if len(s.Findings) == 0 {
		return
	}
	p.blank()
	fmt.Fprintf(p.w, "  Findings\n")
	for _, f := range s.Findings {
		mark := map[Verdict]string{Contradicted: "!!", Incomplete: "! "}[f.Kind.verdict()]
		p.hang(fmt.Sprintf("  %-2s %-15s ", mark, f.Kind), f.Says)
	}
}

// page writes lines of bounded width. A failed write shows at Flush.
type page struct{ w *bufio.Writer }

func (p *page) blank() { p.w.WriteByte('\n') }

func (p *page) row(name, value string) {
	p.hang(fmt.Sprintf("  %-*s", indent, name), value)
}

func (p *page) wrap(n int, text string) { p.hang(strings.Repeat(" ", n), text) }

// hang writes text after head, and its further lines under its beginning.
func (p *page) hang(head, text string) {
	column := utf8.RuneCountInString(head)
	margin := column
	if margin > width/2+width/5 { // too little is left beside it
		margin = indent
	}
	p.w.WriteString(head)
	began := true // nothing of text stands on this line yet
	for _, word := range strings.Fields(oneLong(text)) {
		for {
			n := utf8.RuneCountInString(word)
			space := 1
			if began {
				space = 0
			}
			if column+space+n <= width {
				p.w.WriteString(strings.Repeat(" ", space) + word)
				column, began = column+space+n, false
				break
			}
			if began { // a word longer than a line
				cut := []rune(word)
				k := max(1, width-column)
				p.w.WriteString(string(cut[:k]))
				word = string(cut[k:])
			}
			p.w.WriteString("\n" + strings.Repeat(" ", margin))
			column, began = margin, true
			if word == "" {
				break
			}
		}
	}
	p.w.WriteByte('\n')
}

// oneLong is oneLine for texts of our own making: it cuts nothing off.
func oneLong(s string) string {
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

func fieldList(fs []names.FieldName) string {
	ss := make([]string, len(fs))
	for i, f := range fs {
		ss[i] = string(f)
	}
	return strings.Join(ss, ", ")
}

func joined(sep string, parts ...string) string {
	var ss []string
	for _, s := range parts {
		if s != "" {
			ss = append(ss, s)
		}
	}
	return strings.Join(ss, sep)
}

func spanOf(p names.Period) string {
	switch {
	case p.From == names.Always && p.Until == names.Forever:
		return "of any time"
	case p.Until == names.Forever:
		return "from " + p.From.String() + " on"
	case p.From == names.Always:
		return "until " + p.Until.String()
	}
	return p.From.String() + " to " + p.Until.String()
}
