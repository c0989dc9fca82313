package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

func TestClient(t *testing.T) {
	f := &fakes{}
	seed(t, f)
	bubble(t, f, func(t *testing.T, p *pipes) {
		ctx, c := t.Context(), client(p, "ops-token")
		check := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		b, err := c.OpenAPI(ctx)
		check("OpenAPI", err)
		if !bytes.Equal(b, bytes.TrimSpace(openAPI)) {
			t.Error("another description")
		}
		r, err := c.Ready(ctx)
		check("Ready", err)
		if !r.Ready || r.Node != "pcsa/n1" {
			t.Errorf("%+v", r)
		}
		insts, err := c.Institutions(ctx)
		check("Institutions", err)
		if len(insts.Items) != 3 || insts.Items[2].ID != "pcsa" || !insts.Items[2].Nodes[0].Voter {
			t.Errorf("%+v", insts)
		}
		_, err = c.Datasets(ctx)
		check("Datasets", err)
		_, err = c.Offerings(ctx)
		check("Offerings", err)
		_, err = c.Authorizations(ctx)
		check("Authorizations", err)
		if _, err = c.Authorization(ctx, "no/such"); !IsProblem(err, CodeNotFound) {
			t.Errorf("Authorization: %v", err)
		}
		answer, err := c.Consult(ctx, asked)
		check("Consult", err)
		if answer.Status != "NO_DATA_FOUND" || answer.ClientTicket != "t-1" {
			t.Errorf("%+v", answer)
		}
		check("Acknowledge", c.Acknowledge(ctx, "a/b c"))
		f.entries = append(f.entries, ownEntry())
		story, err := c.Trace(ctx, aTicket)
		check("Trace", err)
		if story.Ticket != aTicket {
			t.Errorf("%+v", story)
		}
		rec, err := c.Receipt(ctx, aTicket)
		check("Receipt", err)
		if rec.Ticket != aTicket {
			t.Errorf("%+v", rec)
		}
		found, err := c.JournalOf(ctx, aTicket)
		check("JournalOf", err)
		if len(found.Items) == 0 || found.Items[0].Subject.Number != person {
			t.Errorf("%+v", found)
		}
		_, err = c.FindJournal(ctx, JournalQuery{Subject: &asked.Subject})
		check("FindJournal", err)
		_, err = c.FindReferences(ctx, asked.Subject)
		check("FindReferences", err)
		refs := []Reference{{Subject: asked.Subject, Quality: "employee", Period: *asked.Period}}
		_, err = c.DeclareReferences(ctx, refs)
		check("DeclareReferences", err)
		_, err = c.WithdrawReferences(ctx, refs)
		check("WithdrawReferences", err)
		done, err := c.Submit(ctx, []byte("envelope"))
		check("Submit", err)
		if done.Accepted || done.Refusal == "" {
			t.Errorf("%+v", done)
		}
		_, err = c.RegistryStatus(ctx)
		check("RegistryStatus", err)
		h, err := c.RegistryHead(ctx, "pcsa", "public", 0)
		check("RegistryHead", err)
		if h.Sequence != 3 || len(h.Hash) != 64 {
			t.Errorf("%+v", h)
		}
		var problem *Problem
		if _, err := client(p, "wrong").RegistryStatus(ctx); !errors.As(err, &problem) || problem.RequestID == "" {
			t.Errorf("%v", err)
		}
	})
}

// What answers in the node's place is told from a node.
func TestClientMeetsAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/institutions":
				http.Error(w, "<html>proxy</html>", http.StatusBadGateway)
			case "/v1/datasets":
				http.Redirect(w, r, "https://evil.example/", http.StatusFound)
			default:
				w.Header().Set("Content-Type", mediaJSON)
				fmt.Fprint(w, "[")
			}
		})}
		go srv.Serve(p)
		c := client(p, "secret")
		if _, err := c.Institutions(t.Context()); err == nil || !strings.Contains(err.Error(), "is this a Crossroads node") {
			t.Errorf("%v", err)
		}
		if _, err := c.Datasets(t.Context()); err == nil || strings.Contains(err.Error(), "evil") {
			t.Errorf("followed elsewhere: %v", err)
		}
		if _, err := c.Offerings(t.Context()); err == nil {
			t.Error("half an answer passed")
		}
		srv.Close()
	})
}
