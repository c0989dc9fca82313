package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var aMandate = &record.Mandate{
	ID: "pcsa/m-1", Giver: subject.Raw("ssin", person), Holder: "nsso", OnBehalf: subject.Raw("cbe", "0412345614"), Purpose: "inquiry",
	Datasets: []names.DatasetID{"wages/v1"}, Period: names.Period{From: 20000, Until: 20100}, Provider: "portal", AuthLevel: 3,
	Given: time.UnixMilli(1_780_000_000_000).UTC(), Revoked: true, RevokedBy: "nsso", ByGiver: true,
}

func (f *fakes) Challenge(_ mandate.Asker, t mandate.Terms) (*mandate.Challenge, error) {
	return &mandate.Challenge{Mesh: "demo", Node: "pcsa/n1", Purpose: identity.MandateGive, Nonce: fresh(), PayloadHash: fresh(), Mandate: "pcsa/m-1"}, nil
}

func (f *fakes) ChallengeRevocation(_ mandate.Asker, id names.MandateID, _ subject.ID) (*mandate.Challenge, error) {
	return &mandate.Challenge{Mesh: "demo", Node: "pcsa/n1", Purpose: identity.MandateRevoke, Nonce: fresh(), PayloadHash: fresh(), Mandate: id}, nil
}

func (f *fakes) Give(_ context.Context, _ mandate.Asker, token []byte) (*mandate.Outcome, error) {
	if len(token) == 0 {
		return nil, mandate.ErrNoRight
	}
	return &mandate.Outcome{Mandate: "pcsa/m-1", Ticket: aTicket, Index: 5, Accepted: true}, nil
}

func (f *fakes) Revoke(ctx context.Context, who mandate.Asker, token []byte) (*mandate.Outcome, error) {
	return f.Give(ctx, who, token)
}

func (f *fakes) End(_ context.Context, _ mandate.Asker, id names.MandateID, _ subject.ID) (*mandate.Outcome, error) {
	return &mandate.Outcome{Mandate: id, Ticket: aTicket, Index: 6, Refusal: "it was revoked before"}, nil
}

func (f *fakes) List(context.Context, mandate.Asker, subject.ID) ([]*record.Mandate, bool, error) {
	return []*record.Mandate{aMandate}, false, nil
}

const mandateTerms = `{"terms":{"giver":{"scheme":"ssin","number":"74071238186"},"holder":"nsso","on_behalf":{"scheme":"cbe","number":"0412345614"},
	"purpose":"inquiry","datasets":["wages/v1"],"period":{"from":"2026-01-01","until":"2026-02-01"}}}`

// What is wrong with a mandate is told with its place, and no number is repeated.
func TestMalformedMandates(t *testing.T) {
	s, _ := newServer(t, new(fakes))
	for body, where := range map[string]string{
		`{}`: "body",
		strings.Replace(mandateTerms, "74071238186", "74071238187", 1):                  "terms.giver",
		strings.Replace(mandateTerms, "0412345614", "0412345615", 1):                    "terms.on_behalf",
		strings.Replace(mandateTerms, `"holder":"nsso"`, `"holder":"N S"`, 1):           "terms.holder",
		strings.Replace(mandateTerms, "wages/v1", "wages", 1):                           "terms.datasets[0]",
		strings.Replace(mandateTerms, "2026-02-01", "2025-02-01", 1):                    "terms.period",
		`{"revoke":{"mandate":"m-1","giver":{"scheme":"ssin","number":"74071238186"}}}`: "revoke.mandate",
	} {
		w := ask(s, "POST", "/v1/mandates/challenge", body, bearer("file-token")...)
		if w.Code != 400 || !strings.Contains(w.Body.String(), `"where":"`+where+`"`) || strings.Contains(w.Body.String(), "740712") {
			t.Errorf("%s: %d %s", where, w.Code, w.Body)
		}
	}
}

// The history of own mandates is journaled with the subject before it is told, and what
// others registered looks as what is not there.
func TestMandateHistory(t *testing.T) {
	f := new(fakes)
	seed(t, f)
	s, _ := newServer(t, f)
	of := func(number string) string {
		w := ask(s, "POST", "/v1/mandates/history", `{"subject":{"scheme":"ssin","number":"`+number+`"}}`, bearer("file-token")...)
		if w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	if own := of(person); !strings.Contains(own, `"purpose":"inquiry"`) || !strings.Contains(own, `"holder":"nsso"`) || !strings.Contains(own, `"envelope":"`) {
		t.Errorf("the terms, or what proves them, are missing: %s", own)
	}
	if e := f.entries[0]; len(f.entries) != 1 || e.GetSubject().GetNumber() != person || e.Application != "file" || e.Detail != "history of own mandates" {
		t.Errorf("journaled %v", f.entries)
	}
	others, nobodys := of(recordtest.Person(2)), of(recordtest.Person(3)) // nsso registered one of the first
	if others != nobodys {
		t.Errorf("another's mandate is told of: %s, not %s", others, nobodys)
	}
	f.journaled = errDisk
	wantProblem(t, ask(s, "POST", "/v1/mandates/history", `{"subject":{"scheme":"ssin","number":"`+person+`"}}`, bearer("file-token")...), CodeUnavailable, "")
}
