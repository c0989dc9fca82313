package testnet

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestSectorOnTheNetwork asks real nodes about people of three funds, and compares with
// the lives; the mesh's traces show the managing body, the sector's own the fund.
func TestSectorOnTheNetwork(t *testing.T) {
	t.Parallel()
	n := start(t, Options{Persons: 400, Also: data.FundIDs()})
	ctx := t.Context()
	w := n.World()
	period := names.Period{From: data.Today - 364, Until: data.Today}
	asked := map[string]int{} // how many of what
	var last names.Ticket
	var person *data.Person
	for p := range w.Persons() {
		c := data.Consultation{Requester: "fps-economy", Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1",
			Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: period}
		want := w.Expected(c, names.DateOf(time.Now().UTC()))
		kind := "one"
		if with := w.Affiliations(p); len(with) == 2 && period.Contains(with[1].Period.From) {
			kind = "changed"
		} else if len(with) > 0 {
			kind = string(with[len(with)-1].Fund)
		}
		if len(want.Suppliers) == 0 || asked[kind] >= 2 {
			continue
		}
		asked[kind]++
		got, err := insist(ctx, want, func() (api.Consultation, error) { return n.Client("fps-economy").Consult(ctx, Question(c, "")) })
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		last, person = got.Ticket, p
		outside, err := n.Client("fps-economy").Trace(ctx, got.Ticket)
		if err != nil || outside.Verdict != trace.Consistent {
			t.Fatalf("trace outside: %+v, %v", outside, err)
		}
		if text := tell(t, outside); strings.Contains(text, "fund-") || !strings.Contains(text, "nic") {
			t.Errorf("the trace outside says\n%s", text)
		}
		within, err := n.Client("nic").SectorTrace(ctx, got.Ticket)
		if err != nil || !within.Consistent || !strings.Contains(within.Text, "fund-") {
			t.Fatalf("trace within: %+v, %v", within, err)
		}
	}
	if len(asked) < 3 {
		t.Errorf("asked about %v only", asked)
	}
	// To a fund, its own part; to one that had none, nothing.
	parts := 0
	for _, f := range data.FundIDs() {
		story, err := n.Client(f).SectorTrace(ctx, last)
		if err != nil || !story.Consistent && len(story.Entries) > 0 {
			t.Fatalf("%s: %+v, %v", f, story, err)
		}
		if len(story.Entries) > 0 {
			parts++
		}
	}
	if parts == 0 || parts == 3 {
		t.Errorf("%d funds have a part in one ticket", parts)
	}
	subjectSees(t, n, person, last)
	noFundAnywhere(t, n)
	fundAsks(t, n)
}

// subjectSees shows a subject its fund at the managing body, and the sector everywhere
// else. A token that was made out to another node shows nothing.
func subjectSees(t *testing.T, n *Network, p *data.Person, ticket names.Ticket) {
	t.Helper()
	ctx := t.Context()
	identify := func(at names.InstitutionID) []byte {
		challenge, err := n.Client(at).SubjectChallenge(ctx, api.SubjectPeriod{})
		if err != nil {
			t.Fatal(err)
		}
		token, err := Identify(n.layout.providerFile(), challenge, apiSubject(p.SSIN), nil)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	mesh, err := n.Client("national-register").SubjectView(ctx, identify("national-register"))
	if err != nil {
		t.Fatal(err)
	}
	if text := encoded(t, mesh); strings.Contains(text, "fund-") || !strings.Contains(text, string(ticket)) || !strings.Contains(text, "nic") {
		t.Errorf("the mesh shows the subject %s", text)
	}
	within, err := n.Client("nic").SectorView(ctx, identify("nic"))
	if err != nil {
		t.Fatal(err)
	}
	with := n.World().Affiliations(p)
	if text := encoded(t, within); !strings.Contains(text, string(with[len(with)-1].Fund)) || !strings.Contains(text, string(ticket)) {
		t.Errorf("the managing body shows the subject %s", text)
	}
	if v, err := n.Client("nic").SectorView(ctx, identify("national-register")); !api.IsProblem(err, api.CodeForbidden) {
		t.Errorf("a token for another node shows %+v, %v", v, err)
	}
	for _, f := range data.FundIDs() { // nor does a fund show anything of another's
		if v, err := n.Client(f).SectorView(ctx, identify(f)); !api.IsProblem(err, api.CodeNotFound) {
			t.Errorf("%s shows %+v, %v", f, v, err)
		}
	}
}

func tell(t *testing.T, s *trace.Story) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noFundAnywhere looks through what the mesh holds of people: the directory rows that
// each fund could have, the offerings, and the whole journals of all outsiders.
func noFundAnywhere(t *testing.T, n *Network) {
	t.Helper()
	ctx := t.Context()
	offered, err := n.Client("nic").Offerings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if text := encoded(t, offered); strings.Contains(text, "fund-") || !strings.Contains(text, "nic") {
		t.Errorf("offerings: %s", text)
	}
	for i, p := range slices.Collect(n.World().Persons()) {
		if i%20 != 0 {
			continue
		}
		for _, f := range data.FundIDs() {
			refs, err := n.Client(f).FindReferences(ctx, apiSubject(p.SSIN))
			if err != nil || len(refs.References) > 0 {
				t.Fatalf("%s has %d rows in the directory of the mesh, %v", f, len(refs.References), err)
			}
		}
	}
	entries := 0
	for _, i := range n.World().Institutions() {
		found, err := n.Client(i.ID).FindJournal(ctx, api.JournalQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range found.Items {
			if i.Cooperating() && e.Event != "READ" && e.Event != "EPOCH_BEGUN" {
				t.Errorf("%s: the journal that is published has an entry %s", i.ID, e.Event)
			}
			if entries++; !i.Cooperating() && strings.Contains(encoded(t, e), "fund-") && e.Event != "READ" {
				t.Errorf("%s: an entry %s names a fund", i.ID, e.Event)
			}
		}
	}
	if entries < 20 {
		t.Errorf("only %d entries were looked at", entries)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fundAsks lets a fund ask through its managing body.
func fundAsks(t *testing.T, n *Network) {
	t.Helper()
	w, ctx := n.World(), t.Context()
	period := names.Period{From: data.Today - 364, Until: data.Today}
	for p := range w.Persons() {
		c := data.Consultation{Requester: "nic", Purpose: "insurability", Dataset: "wages-quarterly/v1", Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: period}
		want := w.Expected(c, names.DateOf(time.Now().UTC()))
		with := w.Affiliations(p)
		if len(want.Suppliers) == 0 || len(with) != 1 {
			continue
		}
		fund := n.Client(with[0].Fund)
		fund.User = "claims-officer-12"
		got, err := insist(ctx, want, func() (api.Consultation, error) { return fund.Consult(ctx, Question(c, "")) })
		if err != nil {
			t.Fatalf("%s asks: %v", with[0].Fund, err)
		}
		story, err := n.Client("nsso").Trace(ctx, got.Ticket)
		if err != nil || story.Verdict != trace.Consistent {
			t.Fatalf("trace outside: %+v, %v", story, err)
		}
		if text := tell(t, story); strings.Contains(text, "fund-") || strings.Contains(text, "claims-officer") || !strings.Contains(text, "sector-") {
			t.Errorf("the trace outside says\n%s", text)
		}
		within, err := n.Client("nic").SectorTrace(ctx, got.Ticket)
		if err != nil || !within.Consistent || !strings.Contains(within.Text, "claims-officer-12") {
			t.Errorf("trace within: %s, %v", within.Text, err)
		}
		return
	}
	t.Fatal("nobody to ask about")
}
