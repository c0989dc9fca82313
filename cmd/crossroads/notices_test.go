package main

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

const (
	noticeTicket = names.Ticket("0123456789abcdefghjkmnpqrs")
	toldTo       = names.InstitutionID("fpd")
)

// standInNotices answers as the node of a publisher, of a recipient and of an operator: the
// token says which verbs are open.
func standInNotices(t *testing.T, mux *http.ServeMux, reply func(http.ResponseWriter, int, string)) {
	serve := func(pattern string, answer func(r *http.Request, body []byte) (any, bool)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				reply(w, http.StatusUnauthorized, "unauthenticated.json")
				return
			}
			var body json.RawMessage
			if r.Method == http.MethodPost {
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
			}
			v, ok := answer(r, body)
			if !ok {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusNotFound)
				v = api.Problem{Title: "There is none.", Status: http.StatusNotFound, Code: "not-found"}
			} else {
				w.Header().Set("Content-Type", "application/json")
			}
			if err := json.NewEncoder(w).Encode(v); err != nil {
				t.Error(err)
			}
		})
	}
	read := func(body []byte, v any) {
		if err := json.Unmarshal(body, v); err != nil {
			t.Error(err)
		}
	}
	at := time.Date(2026, 2, 1, 10, 0, 0, 0, time.UTC)
	serve("POST /v1/publications", func(_ *http.Request, body []byte) (any, bool) {
		var p api.PublicationRequest
		read(body, &p)
		if p.Subject.Number != "74071238186" || string(p.Record) != `{"street":"Kouter"}` || p.Period == nil {
			t.Errorf("published %s", body)
		}
		if p.ClientTicket == "no-right" {
			return api.Publication{Ticket: noticeTicket, ClientTicket: p.ClientTicket, Status: "REFUSED", Reason: "NOT_INTEGRATED", Explanation: "no file of yours"}, true
		}
		return api.Publication{Ticket: noticeTicket, ClientTicket: p.ClientTicket, Status: "ACCEPTED"}, true
	})
	serve("GET /v1/publications/{ticket}", func(r *http.Request, _ []byte) (any, bool) {
		return api.PublicationStatus{Ticket: noticeTicket, Decided: true, Recipients: []api.PublicationRecipient{{Recipient: toldTo, Purpose: "pension", State: "DEAD"}}}, r.PathValue("ticket") == "MOVE-1"
	})
	serve("GET /v1/deliveries", func(r *http.Request, _ []byte) (any, bool) {
		if q := r.URL.Query(); q.Get("dead") == "true" && q.Get("recipient") != string(toldTo) {
			t.Errorf("asked %s", r.URL.RawQuery)
		}
		return api.Deliveries{Items: []api.Delivery{{Ticket: noticeTicket, Recipient: toldTo, Purpose: "pension", Queued: at, Refused: 5, Reason: "SUPPLIER_ERROR", Dead: true}}}, true
	})
	serve("GET /v1/deliveries/lag", func(*http.Request, []byte) (any, bool) {
		return api.DeliveryLags{Pending: 2, Items: []api.DeliveryLag{{Recipient: toldTo, Purpose: "pension", Waiting: 7, SilentSince: &at, Why: "no answer"}}}, true
	})
	for _, verb := range []string{"redrive", "drop"} {
		serve("POST /v1/deliveries/"+verb, func(_ *http.Request, body []byte) (any, bool) {
			var s api.DeliverySelection
			read(body, &s)
			return api.Count{Count: 1}, s.Recipient == toldTo
		})
	}
	for _, path := range []string{"/v1/deliveries/replay", "/v1/inbox/replay"} {
		serve("POST "+path, func(_ *http.Request, body []byte) (any, bool) {
			var q api.ReplayRequest
			read(body, &q)
			return api.Count{Count: 3}, q.Institution == toldTo && q.Since.Equal(at)
		})
	}
	serve("GET /v1/inbox", func(*http.Request, []byte) (any, bool) {
		return api.InboxState{Waiting: 2, Oldest: &at, Pushes: []api.PushState{{Name: "cases", State: api.PushPaused, Waiting: 2, Why: "AMQP 404"}}}, true
	})
	serve("POST /v1/inbox/take", func(_ *http.Request, body []byte) (any, bool) {
		var q api.InboxQuery
		read(body, &q)
		if len(q.Kinds) > 0 {
			return api.InboxItems{Items: []api.InboxItem{}}, true
		}
		return api.InboxItems{Items: []api.InboxItem{{ID: 17, Lease: "LEASE", Kind: "notification", Ticket: noticeTicket, From: "national-register", Received: at,
			Subject: &api.Subject{Scheme: "ssin", Number: "74071238186"}, Records: json.RawMessage(`[{"street":"Kouter"}]`)}}}, true
	})
	serve("POST /v1/inbox/acknowledge", func(_ *http.Request, body []byte) (any, bool) {
		var q api.InboxReceipts
		read(body, &q)
		return struct{}{}, len(q.Items) == 1 && q.Items[0] == api.InboxReceipt{ID: 17, Lease: "LEASE"}
	})
	serve("POST /v1/inbox/resume", func(_ *http.Request, body []byte) (any, bool) {
		var q api.PushResume
		read(body, &q)
		return api.Count{Count: 1}, q.Name == "cases"
	})
}
