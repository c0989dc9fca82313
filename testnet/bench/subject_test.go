package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// What journals are filled with is what the report says: four entries by three nodes for
// each consultation, within half a year, two hundred about each of those who look.
func TestHistory(t *testing.T) {
	h := &history{entries: 100_000, until: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), about: []subject.ID{subject.Raw("ssin", "a"), subject.Raw("ssin", "b")}}
	for _, i := range []names.InstitutionID{"a", "b", "c", "d", "e", "f", "g"} {
		h.nodes = append(h.nodes, names.NodeID{Institution: i, Node: "n1"})
	}
	perNode, of := make([]int, len(h.nodes)), map[string]int{}
	for i := range h.count() {
		c, told, nodes := h.consultation(i), 0, 0
		for n := range h.nodes {
			entries := h.of(c, n)
			if told += len(entries); len(entries) > 0 {
				nodes++
			}
			for _, e := range entries {
				of[e.Subject.Number]++
				if at := time.UnixMilli(e.TimeUnixMs); at.Before(h.until.AddDate(0, -6, 0)) || at.After(h.until) {
					t.Fatalf("consultation %d was at %s", i, at)
				}
			}
			perNode[n] += len(entries)
		}
		if told != perConsultation || nodes != 3 {
			t.Fatalf("consultation %d is told in %d entries by %d nodes", i, told, nodes)
		}
	}
	for n, count := range perNode {
		if count < h.entries/10 {
			t.Errorf("node %d has %d entries", n, count)
		}
	}
	for who, count := range of {
		if looks := len(who) == 1; looks && (count < 190 || count > 210) || !looks && count > perConsultation*perPerson {
			t.Errorf("%s has %d entries", who, count)
		}
	}
}

func TestSubjectReport(t *testing.T) {
	r := &SubjectReport{Entries: 10, Largest: 3, Uses: 5, Views: Measured{Count: 2, P50: 12.3, P99: 45.6}, Find: Measured{Count: 2, P50: 1.2, P99: 3.4}}
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12.3", "45.6", "1.2", "3.4"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %s:\n%s", want, &b)
		}
	}
}
