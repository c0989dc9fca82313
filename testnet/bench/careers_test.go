package bench

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestCareers: no question comes twice before a requester has put all of its, each is for
// one supplier about somebody, and no record is told twice before a seventh of them.
func TestCareers(t *testing.T) {
	w, err := data.New(data.Config{Seed: 1, Persons: 200, Institutions: institutions, Careers: true})
	if err != nil {
		t.Fatal(err)
	}
	e := new(testnet.Endpoints)
	for _, i := range w.Institutions() {
		e.Nodes = append(e.Nodes, testnet.Endpoint{Institution: i.ID, API: "http://" + string(i.ID), Token: "t"})
	}
	c, err := newCareers(w, e)
	if err != nil {
		t.Fatal(err)
	}
	if c.answerBytes() < 950 || c.answerBytes() > 1100 || c.directions() != 42 || c.count() != 7*c.each() {
		t.Errorf("%d bytes, %d directions, %d questions", c.answerBytes(), c.directions(), c.count())
	}
	questions, records := map[string]bool{}, map[string]bool{}
	for n := range c.each() {
		for by := range c.requesters() {
			q := c.question(by, int64(n))
			var body api.ConsultationRequest
			if err := json.Unmarshal(q.body, &body); err != nil {
				t.Fatal(err)
			}
			_, supplier, _ := strings.Cut(q.direction, " → ")
			if want := data.CareerDataset(w.Institutions()[0].ID); body.Dataset == want && supplier != string(w.Institutions()[0].ID) {
				t.Fatalf("%s: %s", q.direction, body.Dataset)
			}
			key := q.direction + body.Subject.Number
			if questions[key] {
				t.Fatalf("question %d of %s comes again: %s", n, c.requester(by), key)
			}
			questions[key] = true
			if record := supplier + body.Subject.Number; n < c.each()/institutions-institutions {
				if records[record] {
					t.Fatalf("question %d of %s is for a record that another was given", n, c.requester(by))
				}
				records[record] = true
			}
		}
	}
	again := c.question(0, int64(c.each()))
	if string(again.body) != string(c.question(0, 0).body) {
		t.Error("after the last question comes another than the first")
	}
}
