package batch

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Every line of a lot has what a consultation about its subject alone would bring: the same
// decision, the same suppliers, the same fields.
func TestLikeOneByOne(t *testing.T) {
	const n = 130
	w := newWorld(t, n)
	pcsa := w.nodes["pcsa"]
	for _, purpose := range []names.Purpose{"inquiry", "tariff", "no-such"} {
		q := question(purpose)
		q.ClientTicket = names.ClientTicket("T-" + purpose)
		l := w.submit(q, file(0, n, recordtest.Person(3)+",again", "74071238187,bad", "nonsense"))
		if l.Lines != n+3 || l.Subjects != n {
			t.Fatalf("%d lines, %d subjects", l.Lines, l.Subjects)
		}
		got := pcsa.run(l.Voucher)
		if len(got) != n+3 {
			t.Fatalf("%d results", len(got))
		}
		for i, line := range got[:n] {
			if line.Line != uint64(i+1) || line.Number != recordtest.Person(i) || line.Reference != fmt.Sprintf("r%d", i) {
				t.Fatalf("line %d: %+v", i+1, line)
			}
			one, err := pcsa.single.Consult(t.Context(), exchange.Question{
				Caller: q.Caller, Purpose: q.Purpose, Dataset: q.Dataset, Scheme: "ssin", Number: line.Number, Period: q.Period,
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := differs(line, one, purpose == "tariff"); diff != "" {
				t.Fatalf("%s, line %d: %s\nlot: %+v\nalone: %+v", purpose, i+1, diff, line.ResultLine, one)
			}
		}
		if r := got[n]; r.Reason != registrypb.Reason_DUPLICATE_LINE || r.SameAs != 4 || r.Reference != "again" {
			t.Errorf("a duplicate: %+v", r)
		}
		for _, r := range got[n+1:] {
			if r.Reason != registrypb.Reason_MALFORMED_NUMBER || r.Number != "" {
				t.Errorf("a malformed line: %+v", r)
			}
		}
		st, err := pcsa.consultant.Status("billing", l.Voucher)
		if err != nil || st.Done != n+3 || st.State != nodepb.LotState_LOT_DONE {
			t.Errorf("status %+v, %v", st, err)
		}
	}
	// Each subject stands once in each journal, of each lot, in each role.
	for _, purpose := range []string{"inquiry", "tariff"} {
		q := question(names.Purpose(purpose))
		q.ClientTicket = names.ClientTicket("T-" + purpose)
		l := w.submit(q, file(0, n, recordtest.Person(3)+",again", "74071238187,bad", "nonsense")) // the same again
		for who, want := range map[string]map[nodepb.Event]func(int) bool{
			"pcsa":   {nodepb.Event_REQUESTED: func(int) bool { return true }},
			"office": {nodepb.Event_SUPPLIED: func(i int) bool { return i%10 != 9 && i%3 != 2 }},
			"fund":   {nodepb.Event_SUPPLIED: func(i int) bool { return i%10 != 9 && i%5 == 0 }},
		} {
			for event, fits := range want {
				count := subjectsIn(w.nodes[who].entries(l.Voucher, event), personsOf(n))
				for i, p := range personsOf(n) {
					if want := map[bool]int{true: 1}[fits(i)]; count[p] != want {
						t.Fatalf("%s: person %d stands %d times in %s of %s, want %d", purpose, i, count[p], event, who, want)
					}
				}
			}
		}
		decided := map[string]int{}
		for _, m := range members {
			for p, n := range subjectsIn(w.nodes[m].entries(l.Voucher, nodepb.Event_DECIDED), personsOf(n)) {
				decided[p] += n
			}
		}
		for i, p := range personsOf(n) {
			want := 1
			if i%10 != 9 && i%5 == 0 && i%3 != 2 {
				want = 2 // an entry for each supplier
			}
			if decided[p] != want {
				t.Fatalf("person %d was decided %d times, want %d", i, decided[p], want)
			}
		}
	}
}

// differs compares a line with a consultation about the same subject.
func differs(line Line, one *exchange.Result, yesNo bool) string {
	if line.Status != one.Status || line.Reason != one.Reason {
		return fmt.Sprintf("%s %s, want %s %s", line.Status, line.Reason, one.Status, one.Reason)
	}
	if len(line.Parts) != len(one.Suppliers) {
		return fmt.Sprintf("%d suppliers, want %d", len(line.Parts), len(one.Suppliers))
	}
	for i, p := range line.Parts {
		s := one.Suppliers[i]
		if p.Supplier != string(s.Supplier) || p.Status != s.Status || p.Reason != s.Reason {
			return fmt.Sprintf("%s: %s %s, want %s: %s %s", p.Supplier, p.Status, p.Reason, s.Supplier, s.Status, s.Reason)
		}
		if !yesNo {
			if string(p.Records) != string(s.Records) || p.Answer != 0 {
				return fmt.Sprintf("records %s, want %s", p.Records, s.Records)
			}
			continue
		}
		want := nodepb.LotAnswer_LOT_ANSWER_UNSPECIFIED
		switch {
		case strings.Contains(string(s.Records), "true"):
			want = nodepb.LotAnswer_LOT_ANSWER_YES
		case strings.Contains(string(s.Records), "false"):
			want = nodepb.LotAnswer_LOT_ANSWER_NO
		}
		if len(p.Records) > 0 || p.Answer != want {
			return fmt.Sprintf("answer %s %s, want %s", p.Answer, p.Records, want)
		}
	}
	return ""
}
