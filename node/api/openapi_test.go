package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// seed writes a small registry into f.state: one row of every public table.
func seed(t *testing.T, f *fakes) {
	t.Helper()
	w := recordtest.New(t, "pcsa", "nsso", "neo")
	f.rules = w.Rules
	if err := record.Bootstrap(&f.state, w.Rules); err != nil {
		t.Fatal(err)
	}
	announce := w.Draft(record.Recovery, &registrypb.Command_AnnounceRecovery{AnnounceRecovery: &registrypb.RecoveryAnnouncement{
		Group: &registrypb.Group{Name: record.Committee, Threshold: 1, PublicKeys: [][]byte{recordtest.Public("new")}}, Reason: "lost",
	}})
	lost := w.Sign(announce, "recovery1", "recovery2", "new")
	w.Follow(announce)
	for i, raw := range [][]byte{
		w.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
			Id: "wages/v1", Title: "Wages", Scheme: "ssin", Qualities: []string{"employee"},
			Schema: `{"type":"object","properties":{"gross":{"type":"number"},"quarter":{"type":"string"}},"additionalProperties":false}`,
		}}),
		w.Command("nsso", &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
			Institution: "nsso", Dataset: "wages/v1", Qualities: []string{"employee"}, Period: recordtest.Since(),
		}}),
		w.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: "a-1", Deliberation: "DEMO-2026/001", LegalBasis: "Demo act, art. 1", RequesterType: "member", RequesterQualities: []string{"client"},
			Dataset: "wages/v1", Fields: []string{"gross"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: recordtest.Since(), MinAuthLevel: 2,
		}}),
		w.Command(record.Operators, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: "a-law", Deliberation: "Demo act, art. 2", RequesterType: "member", RequesterQualities: []string{"client"},
			Dataset: "wages/v1", Fields: []string{"gross"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: recordtest.Since(),
			Law: &registrypb.Law{Title: "Demo act", Article: "art. 2", Published: "Demo Journal, 1 May 2026"},
		}}),
		lost,
		w.Command("pcsa", &registrypb.Command_SetSubscription{SetSubscription: &registrypb.Subscription{
			Institution: "pcsa", Dataset: "wages/v1", Purpose: "inquiry", Qualities: []string{"client"}, Fields: []string{"gross"}, Period: recordtest.Since(),
		}}),
		w.SetProvider(),
		w.Command("pcsa", w.Mandate("pcsa", w.Terms("pcsa", "m-1", person, "nsso", "inquiry", "wages/v1"))),
		w.Command("nsso", w.Mandate("nsso", w.Terms("nsso", "m-2", recordtest.Person(2), "pcsa", "inquiry", "wages/v1"))),
		w.Declare("pcsa", recordtest.Reference(person, "client")),
		w.Declare("nsso", recordtest.Reference(person, "employee")),
	} {
		if res, err := record.Apply(&f.state, w.Rules, uint64(i+1), raw); err != nil || !res.Accepted {
			t.Fatalf("command %d: %v %s", i, err, res.Refusal)
		}
	}
}

// ownEntry has every field that an entry can have.
func ownEntry() *nodepb.Entry {
	h := bytes.Repeat([]byte{7}, 32)
	return &nodepb.Entry{
		TimeUnixMs: 1_780_000_000_000, Role: nodepb.Role_CONSULTANT, Event: nodepb.Event_ANSWERED, Ticket: aTicket, ClientTicket: "t-1",
		Requester: &registrypb.NodeRef{Institution: "pcsa", Node: "n1"}, Supplier: &registrypb.NodeRef{Institution: "nsso"},
		Clearer: &registrypb.NodeRef{Institution: "neo", Node: "n1"}, User: "alice", Application: "file", Channel: "api", Purpose: "inquiry",
		Mode: "consultation", Dataset: "wages/v1", Fields: []string{"gross"}, Withheld: []string{"quarter"},
		Subject: &registrypb.Subject{Scheme: "ssin", Number: person}, Period: &registrypb.Period{From: 20000, Until: 20010},
		Authorization: "a-1", Deliberation: "DEMO-2026/001", Outcome: registrypb.Outcome_PERMIT, Status: nodepb.Status_INCOMPLETE_DATA,
		Reason: registrypb.Reason_SUPPLIER_UNAVAILABLE, RequestHash: h, ClearanceId: h[:16], ClearanceHash: h, AnswerCommitment: h,
		RegistryIndex: 5, AuthLevel: 3, Detail: "x", Inquiry: aTicket, Mandate: &registrypb.MandateUse{Id: "pcsa/m-1", Provider: "portal"}, Member: "fund-a", Pseudonym: "sector-x",
		Lot:   &nodepb.LotPart{Chunk: 1, Lines: 2, Subjects: 1},
		Parts: []*nodepb.InquiryPart{{Dataset: "wages/v1", ClientTicket: "p-1", Ticket: aTicket, Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_LOCAL_POLICY}},
	}
}

// describedPath gives the path of a route as openapi.json writes it.
func describedPath(path string) string { return strings.ReplaceAll(path, "...}", "}") }

// description reads openapi.json as the test needs it.
type description struct {
	Paths map[string]map[string]json.RawMessage
}

type operation struct {
	Security    *[]any
	RequestBody *struct{ Content map[string]any }
	Responses   map[string]struct {
		Ref     string `json:"$ref"`
		Content map[string]struct{ Schema map[string]any }
	}
	Parameters []struct{ Name, In string }
}

func describe(t *testing.T) (description, *jsonschema.Compiler) {
	t.Helper()
	var d description
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return d, c
}

// Every route is described, nothing else is, and who may use it is told truly.
func TestOpenAPINamesEveryRoute(t *testing.T) {
	d, _ := describe(t)
	s, _ := newServer(t, new(fakes))
	var served, described []string
	for _, r := range s.routes {
		served = append(served, r.method+" "+describedPath(r.path))
		var op operation
		if err := json.Unmarshal(d.Paths[describedPath(r.path)][strings.ToLower(r.method)], &op); err != nil {
			t.Errorf("%s %s is not described", r.method, r.path)
			continue
		}
		if public := op.Security != nil && len(*op.Security) == 0; public != (r.access == open) {
			t.Errorf("%s %s: the description is wrong about the token", r.method, r.path)
		}
		if op.RequestBody == nil != (r.media == "") || op.RequestBody != nil && op.RequestBody.Content[r.media] == nil {
			t.Errorf("%s %s: the description is wrong about the body", r.method, r.path)
		}
		var query []string
		for _, p := range op.Parameters {
			if p.In == "query" {
				query = append(query, p.Name)
			}
		}
		if !slices.Equal(query, r.query) {
			t.Errorf("%s %s: described parameters %v, known %v", r.method, r.path, query, r.query)
		}
	}
	for path, item := range d.Paths {
		for method := range item {
			if method != "parameters" {
				described = append(described, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served    %v\ndescribed %v", served, described)
	}
}

// What the server really answers is what the description says, to the last property.
func TestOpenAPIHoldsForRealAnswers(t *testing.T) {
	d, c := describe(t)
	f := &fakes{entries: []*nodepb.Entry{ownEntry()}, result: fullResult()}
	seed(t, f)
	s, _ := newServer(t, f, witnessed(t), managing(t, f))
	refs := `{"references":[{"subject":{"scheme":"ssin","number":"` + person + `"},"quality":"client","period":{"from":"2026-01-01","until":"2026-12-31"}}]}`
	subj := `{"subject":{"scheme":"ssin","number":"` + person + `"}}`
	seen := map[string]bool{}
	for _, tt := range []struct {
		method, path, body string
		headers            []string
		status             int
		contains           string
	}{
		{"GET", "/openapi.json", "", nil, 200, "Crossroads"},
		{"GET", "/healthz", "", nil, 200, "alive"},
		{"GET", "/readyz", "", nil, 200, "journal"},
		{"GET", "/tlog/checkpoint", "", nil, 200, "journal/pcsa/n1\n300\n"},
		{"GET", "/tlog/tile/0/000", "", nil, 200, ""},
		{"GET", "/tlog/tile/0/x001/000.p/5", "", nil, 200, ""},
		{"GET", "/tlog/tile/0/x001/000.p/6", "", nil, 404, ""},
		{"GET", "/v1/institutions", "", nil, 200, "nsso"},
		{"GET", "/v1/datasets", "", nil, 200, "quarter"},
		{"GET", "/v1/offerings", "", nil, 200, "employee"},
		{"GET", "/v1/authorizations", "", nil, 200, "DEMO-2026/001"},
		{"GET", "/v1/authorizations/a-1", "", nil, 200, "DEMO-2026/001"},
		{"GET", "/v1/authorizations/a-2", "", nil, 404, ""},
		{"GET", "/v1/operator/health", "", bearer("helm-token"), 200, "failure_tolerance"},
		{"GET", "/v1/operator/health", "", bearer("ops-token"), 403, "operator: true"},
		{"GET", "/v1/operator/autopilot", "", bearer("helm-token"), 200, "voter"},
		{"POST", "/v1/operator/transfer-leader", `{"to":"nsso/n1"}`, bearer("helm-token"), 204, ""},
		{"POST", "/v1/operator/transfer-leader", `{"to":"nsso"}`, bearer("helm-token"), 400, "institution/node"},
		{"POST", "/v1/operator/compact", "", bearer("helm-token"), 200, `"snapshot_index":41`},
		{"POST", "/v1/operator/compact", "", bearer("ops-token"), 403, "operator: true"},
		{"GET", "/v1/operator/snapshot", "", bearer("helm-token"), 200, "snapshot"},
		{"GET", "/v1/operator/snapshot", "", bearer("file-token"), 403, ""},
		{"GET", "/v1/operator/debug", "", bearer("helm-token"), 200, "debug"},
		{"GET", "/v1/institutions?consistency=lease", "", nil, 200, "confirmed_ms_ago"},
		{"GET", "/v1/institutions?consistency=linearizable", "", nil, 401, ""},
		{"GET", "/v1/institutions?consistency=linearizable", "", bearer("file-token"), 200, "nsso"},
		{"GET", "/v1/institutions?max_stale=1ns", "", nil, 503, "consistency"},
		{"GET", "/v1/institutions?max_stale=soon", "", nil, 400, "max_stale"},
		{"GET", "/v1/institutions?consistency=strong", "", nil, 400, "linearizable"},
		{"GET", "/v1/authorizations/a-law", "", nil, 200, "Demo Journal"},
		{"GET", "/v1/groups", "", nil, 200, `"needed":2`},
		{"GET", "/v1/registry/history?kind=authorization&id=a-law", "", nil, 200, "set_authorization"},
		{"GET", "/v1/registry/history?kind=group&id=@committee", "", nil, 200, "announce_recovery"},
		{"GET", "/v1/registry/history?kind=members", "", nil, 200, `"items":[]`},
		{"GET", "/v1/registry/history?kind=subscription&id=pcsa:wages/v1:inquiry", "", nil, 200, "set_subscription"},
		{"GET", "/v1/registry/history?kind=subscription&id=pcsa:wages/v1:other", "", nil, 200, `"items":[]`},
		{"GET", "/v1/registry/history?kind=subscription", "", nil, 400, "institution:dataset:purpose"},
		{"GET", "/v1/registry/history?kind=reference&id=x", "", nil, 400, "kind"},
		{"GET", "/v1/registry/history?kind=node", "", nil, 400, "id"},
		{"POST", "/v1/references/history", subj, bearer("file-token"), 200, "declare_references"},
		{"POST", "/v1/references/history", subj, nil, 401, ""},
		{"GET", "/metrics", "", nil, 200, "crossroads_up 1"},
		{"GET", "/v1/anchors", "", nil, 200, "journal/nsso/n1"},
		{"GET", "/v1/evidence", "", nil, 200, "crossroads evidence v1"},
		{"POST", "/v1/consultations", question(), asUser("file-token", "alice"), 200, "03022814690"},
		{"POST", "/v1/consultations", "{}", asUser("file-token", "alice"), 400, "period"},
		{"POST", "/v1/consultations", question(), nil, 401, ""},
		{"POST", "/v1/consultations/t-1/acknowledge", "", bearer("file-token"), 204, ""},
		{"POST", "/v1/inquiries", inquiryBody(), asUser("file-token", "alice"), 200, "03022814690"},
		{"POST", "/v1/inquiries", `{"parts":[{"dataset":"nonsense"}]}`, asUser("file-token", "alice"), 400, "period"},
		{"POST", "/v1/inquiries/t-1/acknowledge", "", bearer("file-token"), 204, ""},
		{"POST", "/v1/lots?purpose=inquiry&dataset=wages/v1&from=2026-01-01&until=2026-03-31", "number\n" + person + "\n", asFile("file-token", "alice"), 200, aTicket},
		{"POST", "/v1/lots?purpose=inquiry&dataset=wages/v1&from=2026-01-01&until=2026-03-31", "nummer\n", asFile("file-token", "alice"), 400, "header"},
		{"POST", "/v1/lots?purpose=inquiry&dataset=wages/v1&from=x", "number\n", asFile("file-token", "alice"), 400, "from"},
		{"GET", "/v1/lots", "", bearer("file-token"), 200, aTicket},
		{"GET", "/v1/lots/" + aTicket, "", bearer("file-token"), 200, "DUPLICATE_LINE"},
		{"GET", "/v1/lots/" + string(names.TicketOf([]byte("other"))), "", bearer("file-token"), 404, "voucher"},
		{"GET", "/v1/lots/" + aTicket + "/results?format=csv", "", bearer("file-token"), 200, "csv line 1"},
		{"GET", "/v1/lots/" + aTicket + "/results?format=xml", "", bearer("file-token"), 400, "format"},
		{"POST", "/v1/lots/" + aTicket + "/pause", "", bearer("file-token"), 200, aTicket},
		{"POST", "/v1/lots/" + aTicket + "/resume", "", bearer("file-token"), 200, aTicket},
		{"POST", "/v1/lots/" + aTicket + "/cancel", "", bearer("file-token"), 409, "state"},
		{"POST", "/v1/lots/" + aTicket + "/acknowledge", "", bearer("file-token"), 204, ""},
		{"GET", "/v1/trace/" + aTicket, "", bearer("file-token"), 200, "consistent"},
		{"GET", "/v1/receipts/" + aTicket, "", bearer("file-token"), 200, "crossroads-receipt/1"},
		{"GET", "/v1/journal?ticket=" + aTicket, "", bearer("file-token"), 200, "DEMO-2026/001"},
		{"POST", "/v1/journal/search", subj, bearer("ops-token"), 200, "SUPPLIER_UNAVAILABLE"},
		{"POST", "/v1/subject/nonce", `{"from":"2026-01-01T00:00:00Z"}`, bearer("file-token"), 200, "subject-view"},
		{"POST", "/v1/subject/view", `{"token":"AAAA"}`, bearer("file-token"), 200, "legal_basis"},
		{"POST", "/v1/subject/view", `{"token":""}`, bearer("file-token"), 403, "forbidden"},
		{"POST", "/v1/mandates/challenge", mandateTerms, bearer("file-token"), 200, "mandate-give"},
		{"POST", "/v1/mandates/challenge", `{"revoke":{"mandate":"pcsa/m-1","giver":{"scheme":"ssin","number":"` + person + `"}}}`, bearer("file-token"), 200, "mandate-revoke"},
		{"POST", "/v1/mandates", `{"token":"AAAA"}`, bearer("file-token"), 200, "accepted"},
		{"POST", "/v1/mandates", `{"token":""}`, bearer("file-token"), 403, "forbidden"},
		{"POST", "/v1/mandates/revoke", `{"token":"AAAA"}`, bearer("file-token"), 200, "accepted"},
		{"POST", "/v1/mandates/revoke", `{"revoke":{"mandate":"pcsa/m-1","giver":{"scheme":"ssin","number":"` + person + `"}}}`, bearer("file-token"), 200, "revoked before"},
		{"POST", "/v1/mandates/revoke", `{}`, bearer("file-token"), 400, "body"},
		{"POST", "/v1/mandates/search", `{}`, bearer("file-token"), 200, "0412345614"},
		{"POST", "/v1/mandates/history", subj, bearer("file-token"), 200, `"mandate":"pcsa/m-1"`},
		{"POST", "/v1/mandates/history", `{"subject":{"scheme":"ssin","number":"` + recordtest.Person(2) + `"}}`, bearer("file-token"), 200, `"items":[]`},
		{"POST", "/v1/mandates/history", subj, nil, 401, ""},
		{"GET", "/v1/officer/search?purpose=inquiry&limit=5", "", bearer("guard-token"), 200, "alice"},
		{"POST", "/v1/officer/search", `{"user":"alice"}`, bearer("guard-token"), 200, "alice"},
		{"POST", "/v1/officer/report", `{"zone":"Europe/Brussels"}`, bearer("guard-token"), 200, "times_median"},
		{"POST", "/v1/inspection", `{"order":"AAAA"}`, bearer("file-token"), 200, "consistent"},
		{"GET", "/v1/subscriptions", "", nil, 200, "inquiry"},
		{"POST", "/v1/subscriptions", `{"dataset":"wages/v1","purpose":"inquiry","qualities":["client"]}`, bearer("ops-token"), 200, "accepted"},
		{"POST", "/v1/subscriptions", `{"dataset":"wages/v1","purpose":"other","withdrawn":true}`, bearer("ops-token"), 404, ""},
		{"POST", "/v1/publications", publication, asUser("file-token", "alice"), 200, "ACCEPTED"},
		{"POST", "/v1/publications", publication, bearer("file-token"), 400, HeaderUser},
		{"POST", "/v1/publications", strings.ReplaceAll(publication, "wages/v1", "other/v1"), bearer("robot-token"), 200, "LOCAL_POLICY"},
		{"POST", "/v1/publications/batch", `{"items":[` + publication + `]}`, asUser("file-token", "alice"), 200, "ACCEPTED"},
		{"POST", "/v1/publications/batch", `{"items":[` + publication + `]}`, bearer("file-token"), 200, HeaderUser},
		{"POST", "/v1/publications/batch", `{"items":[` + strings.ReplaceAll(publication, "wages/v1", "other/v1") + `]}`, bearer("robot-token"), 200, "LOCAL_POLICY"},
		{"POST", "/v1/publications/batch", `{"items":[]}`, bearer("robot-token"), 400, "items"},
		{"POST", "/v1/declarations", strings.Replace(publication, `"record"`, `"purpose":"inquiry","record"`, 1), asUser("file-token", "alice"), 200, "DECLINED"},
		{"POST", "/v1/declarations", strings.Replace(publication, `"record"`, `"purpose":"other","record"`, 1), bearer("robot-token"), 200, "LOCAL_POLICY"},
		{"GET", "/v1/declarations/t-1", "", bearer("file-token"), 200, "below the minimum"},
		{"POST", "/v1/submissions/" + aTicket + "/decision", `{"decision":"ACCEPTED"}`, bearer("ops-token"), 200, "published"},
		{"POST", "/v1/submissions/" + aTicket + "/decision", `{"decision":"DECLINED","reasons":[{"field":"gross","code":"too-low","text":"below"}]}`, bearer("ops-token"), 409, ""},
		{"POST", "/v1/submissions/" + aTicket + "/decision", `{"decision":"ACCEPTED"}`, bearer("file-token"), 403, ""},
		{"GET", "/v1/publications/t-1", "", bearer("file-token"), 200, "WAITING"},
		{"GET", "/v1/deliveries?recipient=nsso&ticket=" + aTicket + "&dead=true&limit=5", "", bearer("ops-token"), 200, "CLEARANCE_INVALID"},
		{"GET", "/v1/deliveries", "", bearer("file-token"), 403, ""},
		{"GET", "/v1/deliveries/lag", "", bearer("ops-token"), 200, "silent_since"},
		{"POST", "/v1/deliveries/redrive", `{"recipient":"nsso"}`, bearer("ops-token"), 200, "3"},
		{"POST", "/v1/deliveries/drop", `{}`, bearer("ops-token"), 200, "3"},
		{"POST", "/v1/deliveries/replay", `{"institution":"nsso","since":"2026-01-01T00:00:00Z"}`, bearer("ops-token"), 200, "3"},
		{"GET", "/v1/inbox", "", bearer("ops-token"), 200, "oldest"},
		{"GET", "/v1/inbox", "", bearer("file-token"), 403, ""},
		{"POST", "/v1/inbox/take", `{"max":5,"visibility_seconds":30,"kinds":["notification"],"datasets":["wages/v1"]}`, bearer("ops-token"), 200, "filed_under"},
		{"POST", "/v1/inbox/take", `{"kinds":["other"]}`, bearer("ops-token"), 400, "kinds[0]"},
		{"POST", "/v1/inbox/acknowledge", `{"items":[{"id":7,"lease":"L"}]}`, bearer("ops-token"), 204, ""},
		{"POST", "/v1/inbox/acknowledge", `{"items":[{"id":8,"lease":"L"}]}`, bearer("ops-token"), 404, "items"},
		{"POST", "/v1/inbox/release", `{"items":[{"id":7,"lease":"L"}]}`, bearer("ops-token"), 204, ""},
		{"GET", "/v1/inbox", "", bearer("ops-token"), 200, "case-system"},
		{"POST", "/v1/inbox/resume", `{"name":"case-system"}`, bearer("ops-token"), 200, "count"},
		{"POST", "/v1/inbox/resume", `{"name":"other"}`, bearer("ops-token"), 404, "name"},
		{"POST", "/v1/inbox/resume", `{"name":"case-system"}`, bearer("file-token"), 403, ""},
		{"POST", "/v1/inbox/replay", `{"institution":"nsso","since":"2026-01-01T00:00:00Z"}`, bearer("ops-token"), 200, "3"},
		{"POST", "/v1/references/search", subj, bearer("file-token"), 200, "client"},
		{"POST", "/v1/references", refs, bearer("ops-token"), 200, "accepted"},
		{"POST", "/v1/references", refs, bearer("file-token"), 403, ""},
		{"POST", "/v1/references/withdraw", refs, bearer("ops-token"), 200, "accepted"},
		{"GET", "/v1/sector/members", "", bearer("file-token"), 200, "fund-a"},
		{"POST", "/v1/sector/members", `{"institution":"nsso","period":{"from":"2026-01-01","until":"2026-12-31"}}`, bearer("ops-token"), 400, "nsso"},
		{"POST", "/v1/sector/references", sectorBody(""), bearer("ops-token"), 204, ""},
		{"POST", "/v1/sector/references/search", subj, bearer("ops-token"), 200, "fund-a"},
		{"POST", "/v1/sector/numbers", `{"number":{"scheme":"ssin","number":"` + person + `"},"successor":{"scheme":"ssin","number":"03022814690"}}`, bearer("ops-token"), 204, ""},
		{"GET", "/v1/sector/trace/" + aTicket, "", bearer("guard-token"), 200, "consistent"},
		{"POST", "/v1/sector/search", `{"user":"alice"}`, bearer("guard-token"), 200, "alice"},
		{"POST", "/v1/sector/view", `{"token":"AAAA"}`, bearer("file-token"), 200, "fund-a"},
		{"POST", "/v1/registry/commands", "x", append(bearer("ops-token"), "Content-Type", mediaBytes), 200, "refusal"},
		{"GET", "/v1/registry/status", "", bearer("file-token"), 200, "watcher"},
		{"GET", "/v1/registry/head?author=pcsa&chain=public&index=1", "", bearer("file-token"), 200, "sequence"},
	} {
		w := ask(s, tt.method, tt.path, tt.body, tt.headers...)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.contains) {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, w.Code, w.Body)
			continue
		}
		seen[route1(s, tt.method, tt.path)] = true
		checkAnswer(t, d, c, s, tt.method, tt.path, w)
	}
	for _, r := range s.routes {
		if !seen[r.method+" "+r.path] {
			t.Errorf("%s %s was not tried", r.method, r.path)
		}
	}
	// Others' references are told to nobody.
	w := ask(s, "POST", "/v1/references/search", subj, bearer("ops-token")...)
	if strings.Contains(w.Body.String(), "employee") {
		t.Errorf("another institution's reference was told: %s", w.Body)
	}
}

func asFile(token, user string) []string {
	return append(bearer(token), HeaderUser, user, "Content-Type", mediaBytes)
}

func inquiryBody() string {
	return `{"subject":{"scheme":"ssin","number":"` + person + `"},"purpose":"inquiry","period":{"from":"2026-01-01","until":"2026-03-31"},
		"parts":[{"dataset":"wages/v1","fields":["gross"],"suppliers":["nsso"]},{"dataset":"pensions/v1"}]}`
}

// fullResult has every field that a result can have.
func fullResult() *exchange.Result {
	return &exchange.Result{
		Ticket: aTicket, ClientTicket: "t-1", Status: nodepb.Status_INCOMPLETE_DATA, Reason: registrypb.Reason_REPLACED_NUMBER,
		Successor: subject.Raw("ssin", "03022814690"), Authorization: "a-1", Withheld: []names.FieldName{"quarter"},
		Suppliers: []exchange.SupplierResult{
			{Supplier: "nsso", Status: nodepb.Status_DATA_FOUND, Records: json.RawMessage(`[{"gross":1}]`), Withheld: []names.FieldName{"quarter"}},
			{Supplier: "neo", Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_SUPPLIER_UNAVAILABLE},
		},
	}
}

// route1 finds the route that a path belongs to.
func route1(s *Server, method, path string) string {
	_, pattern := s.mux.Handler(httptest.NewRequest(method, path, nil))
	return pattern
}

func checkAnswer(t *testing.T, d description, c *jsonschema.Compiler, s *Server, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	_, at, _ := strings.Cut(route1(s, method, path), " ")
	at = describedPath(at)
	var op operation
	if err := json.Unmarshal(d.Paths[at][strings.ToLower(method)], &op); err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprint(w.Code)
	if _, ok := op.Responses[key]; !ok {
		key = "default"
	}
	if w.Code == 204 {
		if key != "204" || w.Body.Len() != 0 {
			t.Errorf("%s: no content, but not described so", at)
		}
		return
	}
	ptr := "openapi.json#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(at) + "/" + strings.ToLower(method) + "/responses/" + key
	if ref := op.Responses[key].Ref; ref != "" {
		ptr = "openapi.json" + ref
	} else if op.Responses[key].Content[w.Header().Get("Content-Type")].Schema == nil {
		t.Errorf("%s answers %d with %s, which is not described", at, w.Code, w.Header().Get("Content-Type"))
		return
	}
	if media := w.Header().Get("Content-Type"); !strings.HasSuffix(media, "json") {
		return // described as bytes
	}
	schema, err := c.Compile(ptr + "/content/" + strings.ReplaceAll(w.Header().Get("Content-Type"), "/", "~1") + "/schema")
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%s %d: %v", at, w.Code, err)
	}
}

// The words of the protocol are described completely.
func TestOpenAPIWords(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Enum       []string
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	schemas := doc.Components.Schemas
	for name, tt := range map[string]struct {
		described []string
		known     map[int32]string
	}{
		"Status":  {schemas["Status"].Enum, nodepb.Status_name},
		"Reason":  {schemas["Reason"].Enum, registrypb.Reason_name},
		"Outcome": {schemas["JournalEntry"].Properties["outcome"].Enum, registrypb.Outcome_name},
		"Role":    {schemas["JournalEntry"].Properties["role"].Enum, nodepb.Role_name},
		"Event":   {schemas["JournalEntry"].Properties["event"].Enum, nodepb.Event_name},
	} {
		for n, word := range tt.known {
			if n != 0 && !slices.Contains(tt.described, word) {
				t.Errorf("%s: %s is not described", name, word)
			}
		}
		if len(tt.described) != len(tt.known)-1 {
			t.Errorf("%s: described %v", name, tt.described)
		}
	}
	for code := range codes {
		if !slices.Contains(schemas["Problem"].Properties["code"].Enum, string(code)) {
			t.Errorf("code %s is not described", code)
		}
	}
	for r := range registrypb.Reason_name {
		if r != 0 && explanations[registrypb.Reason(r)] == "" {
			t.Errorf("%s is not explained", registrypb.Reason(r))
		}
	}
	for _, v := range []trace.Verdict{trace.Consistent, trace.Incomplete, trace.Contradicted, trace.Unknown} {
		if !slices.Contains(schemas["Trace"].Properties["verdict"].Enum, string(v)) {
			t.Errorf("verdict %s is not described", v)
		}
	}
}
