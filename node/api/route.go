package api

import (
	_ "embed"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

const (
	mediaJSON    = "application/json"
	mediaBytes   = "application/octet-stream"
	mediaCSV     = "text/csv"
	mediaLines   = "application/jsonl"
	mediaProblem = "application/problem+json"
	mediaMetrics = "text/plain; version=0.0.4; charset=utf-8"
	mediaNote    = "text/plain; charset=utf-8"
)

// maxReferencesBody holds maxReferences with room to spare.
const maxReferencesBody = 512 << 10

// maxPublicationBody holds a record of notify.MaxRecord, and what is said of it.
const maxPublicationBody = 128 << 10

// maxBatchBody holds notify.MaxChanges changes of usual size.
const maxBatchBody = 4 << 20

//go:embed openapi.json
var openAPI []byte

// access says who may use a route.
type access int

const (
	open     access = iota // anybody
	token                  // an application
	admin                  // an application with admin: true
	operator               // an application with operator: true
)

// route is one of the interface.
type route struct {
	method, path string // a path's last part {name...} is described as {name}
	access       access
	media        string   // of the body; empty: the route takes none
	maxBody      int64    // 0: Config.MaxBody
	query        []string // parameters it knows
	stream       bool     // the handler reads the body as it comes, and takes as long as that moves
	free         bool     // not counted: must answer when everything else is taken
	handle       func(*request) (response, error)
}

// table is every route there is; openapi.json describes the same.
func (s *Server) table() []route {
	get, post := http.MethodGet, http.MethodPost
	return []route{
		{method: get, path: "/openapi.json", handle: func(*request) (response, error) { return raw(openAPI), nil }},
		{method: get, path: "/healthz", free: true, handle: s.healthz},
		{method: get, path: "/readyz", free: true, handle: s.readyz},
		{method: get, path: "/metrics", free: true, handle: s.metrics},
		{method: get, path: "/tlog/checkpoint", handle: s.checkpoint},
		{method: get, path: "/tlog/tile/{level}/{index...}", handle: s.tile},
		{method: get, path: "/v1/institutions", query: consistencyQuery, handle: s.institutions},
		{method: get, path: "/v1/datasets", query: consistencyQuery, handle: s.datasets},
		{method: get, path: "/v1/offerings", query: consistencyQuery, handle: s.offerings},
		{method: get, path: "/v1/authorizations", query: consistencyQuery, handle: s.authorizations},
		{method: get, path: "/v1/authorizations/{id}", query: consistencyQuery, handle: s.authorization},
		{method: get, path: "/v1/groups", query: consistencyQuery, handle: s.groups},
		{method: get, path: "/v1/registry/history", query: append([]string{"kind", "id"}, consistencyQuery...), handle: s.history},
		{method: get, path: "/v1/anchors", handle: s.anchors},
		{method: get, path: "/v1/evidence", handle: s.evidence},
		{method: post, path: "/v1/consultations", access: token, media: mediaJSON, handle: s.consult},
		{method: post, path: "/v1/consultations/{client_ticket}/acknowledge", access: token, handle: s.acknowledge},
		{method: post, path: "/v1/inquiries", access: token, media: mediaJSON, handle: s.inquire},
		{method: post, path: "/v1/inquiries/{client_ticket}/acknowledge", access: token, handle: s.acknowledgeInquiry},
		{method: post, path: "/v1/lots", access: token, media: mediaBytes, query: lotQuery, stream: true, handle: s.submitLot},
		{method: get, path: "/v1/lots", access: token, handle: s.lots},
		{method: get, path: "/v1/lots/{voucher}", access: token, handle: s.onLot(func(a string, v names.Ticket) (*batch.Lot, error) { return s.cfg.Lots.Status(a, v) })},
		{method: get, path: "/v1/lots/{voucher}/results", access: token, query: []string{"format"}, stream: true, handle: s.lotResults},
		{method: post, path: "/v1/lots/{voucher}/pause", access: token, handle: s.onLot(func(a string, v names.Ticket) (*batch.Lot, error) { return s.cfg.Lots.Pause(a, v) })},
		{method: post, path: "/v1/lots/{voucher}/resume", access: token, handle: s.onLot(func(a string, v names.Ticket) (*batch.Lot, error) { return s.cfg.Lots.Resume(a, v) })},
		{method: post, path: "/v1/lots/{voucher}/cancel", access: token, handle: s.onLot(func(a string, v names.Ticket) (*batch.Lot, error) { return s.cfg.Lots.Cancel(a, v) })},
		{method: post, path: "/v1/lots/{voucher}/acknowledge", access: token, handle: s.acknowledgeLot},
		{method: get, path: "/v1/trace/{ticket}", access: token, handle: s.trace},
		{method: get, path: "/v1/receipts/{ticket}", access: token, handle: s.receipt},
		{method: get, path: "/v1/journal", access: token, query: []string{"ticket", "from", "until", "limit"}, handle: s.journalByQuery},
		{method: post, path: "/v1/journal/search", access: token, media: mediaJSON, handle: s.journalSearch},
		{method: post, path: "/v1/subject/nonce", access: token, media: mediaJSON, handle: s.subjectNonce},
		{method: post, path: "/v1/subject/view", access: token, media: mediaJSON, handle: s.subjectView},
		{method: post, path: "/v1/mandates/challenge", access: token, media: mediaJSON, handle: s.mandateChallenge},
		{method: post, path: "/v1/mandates", access: token, media: mediaJSON, handle: s.giveMandate},
		{method: post, path: "/v1/mandates/revoke", access: token, media: mediaJSON, handle: s.revokeMandate},
		{method: post, path: "/v1/mandates/search", access: token, media: mediaJSON, handle: s.findMandates},
		{method: post, path: "/v1/mandates/history", access: token, media: mediaJSON, handle: s.mandateHistory},
		{method: get, path: "/v1/officer/search", access: token, query: officerQuery, handle: s.officerByQuery},
		{method: post, path: "/v1/officer/search", access: token, media: mediaJSON, handle: s.officerSearch},
		{method: post, path: "/v1/officer/report", access: token, media: mediaJSON, handle: s.officerReport},
		{method: post, path: "/v1/inspection", access: token, media: mediaJSON, handle: s.inspect},
		{method: get, path: "/v1/subscriptions", query: consistencyQuery, handle: s.subscriptions},
		{method: post, path: "/v1/subscriptions", access: admin, media: mediaJSON, handle: s.subscribe},
		{method: post, path: "/v1/publications", access: token, media: mediaJSON, maxBody: maxPublicationBody, handle: s.publish},
		{method: post, path: "/v1/publications/batch", access: token, media: mediaJSON, maxBody: maxBatchBody, handle: s.publishBatch},
		{method: get, path: "/v1/publications/{client_ticket}", access: token, handle: s.publicationStatus},
		{method: post, path: "/v1/declarations", access: token, media: mediaJSON, maxBody: maxPublicationBody, handle: s.declare},
		{method: get, path: "/v1/declarations/{client_ticket}", access: token, handle: s.declarationStatus},
		{method: post, path: "/v1/submissions/{ticket}/decision", access: token, media: mediaJSON, handle: s.decideSubmission},
		{method: get, path: "/v1/deliveries", access: admin, query: []string{"recipient", "ticket", "dead", "limit"}, handle: s.deliveries},
		{method: get, path: "/v1/deliveries/lag", access: admin, handle: s.deliveryLags},
		{method: post, path: "/v1/deliveries/redrive", access: admin, media: mediaJSON, handle: s.redrive},
		{method: post, path: "/v1/deliveries/drop", access: admin, media: mediaJSON, handle: s.drop},
		{method: post, path: "/v1/deliveries/replay", access: admin, media: mediaJSON, handle: s.replayDeliveries},
		{method: get, path: "/v1/inbox", access: token, handle: s.inboxState},
		{method: post, path: "/v1/inbox/take", access: token, media: mediaJSON, handle: s.takeInbox},
		{method: post, path: "/v1/inbox/acknowledge", access: token, media: mediaJSON, handle: s.acknowledgeInbox},
		{method: post, path: "/v1/inbox/release", access: token, media: mediaJSON, handle: s.releaseInbox},
		{method: post, path: "/v1/inbox/resume", access: admin, media: mediaJSON, handle: s.resumePush},
		{method: post, path: "/v1/inbox/replay", access: admin, media: mediaJSON, handle: s.replayInbox},
		{method: post, path: "/v1/references/search", access: token, media: mediaJSON, handle: s.findReferences},
		{method: post, path: "/v1/references/history", access: token, media: mediaJSON, handle: s.referenceHistory},
		{method: post, path: "/v1/references", access: admin, media: mediaJSON, maxBody: maxReferencesBody, handle: s.declareReferences},
		{method: post, path: "/v1/references/withdraw", access: admin, media: mediaJSON, maxBody: maxReferencesBody, handle: s.withdrawReferences},
		{method: get, path: "/v1/sector/members", access: token, handle: s.sectorMembers},
		{method: post, path: "/v1/sector/members", access: admin, media: mediaJSON, handle: s.setSectorMember},
		{method: post, path: "/v1/sector/references", access: admin, media: mediaJSON, maxBody: maxReferencesBody, handle: s.changeSector},
		{method: post, path: "/v1/sector/references/search", access: admin, media: mediaJSON, handle: s.findSector},
		{method: post, path: "/v1/sector/numbers", access: admin, media: mediaJSON, handle: s.replaceInSector},
		{method: get, path: "/v1/sector/trace/{ticket}", access: token, handle: s.sectorTrace},
		{method: post, path: "/v1/sector/search", access: token, media: mediaJSON, handle: s.sectorSearch},
		{method: post, path: "/v1/sector/view", access: token, media: mediaJSON, handle: s.sectorView},
		{method: post, path: "/v1/registry/commands", access: admin, media: mediaBytes, maxBody: envelope.MaxSize, handle: s.submit},
		{method: get, path: "/v1/operator/health", access: operator, handle: s.meshHealth},
		{method: get, path: "/v1/operator/autopilot", access: operator, handle: s.autopilot},
		{method: post, path: "/v1/operator/compact", access: operator, handle: s.compact},
		{method: post, path: "/v1/operator/transfer-leader", access: operator, media: mediaJSON, handle: s.transferLeader},
		{method: get, path: "/v1/operator/snapshot", access: operator, handle: s.snapshot},
		{method: get, path: "/v1/operator/debug", access: operator, handle: s.debug},
		{method: get, path: "/v1/registry/head", access: token, query: []string{"author", "chain", "index"}, handle: s.registryHead},
		{method: get, path: "/v1/registry/status", access: token, handle: s.registryStatus},
	}
}

// notFound answers whatever no route matches.
func (s *Server) notFound(q *request) (response, error) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := q.Request.Clone(q.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "/" {
			p := problem(CodeMethod, "", "Use "+method+".")
			p.allow = method
			return nil, p
		}
	}
	return nil, problem(CodeNotFound, "", "See GET /openapi.json for the routes there are.")
}

// healthz says that the process answers. It depends on nothing: a node that waits for
// its registry must not be restarted for it.
func (s *Server) healthz(*request) (response, error) {
	return map[string]string{"status": "alive"}, nil
}

// unready logs when a check begins to fail, and why, and when it holds again, however
// often it is asked. The zero value is ready.
type unready struct {
	mu     sync.Mutex
	failed map[string]bool // by check
}

func (u *unready) note(log *slog.Logger, check string, err error) {
	u.mu.Lock()
	before := u.failed[check]
	if u.failed == nil {
		u.failed = make(map[string]bool)
	}
	u.failed[check] = err != nil
	u.mu.Unlock()
	switch {
	case err != nil && !before:
		log.Warn("not ready", "check", check, "err", err)
	case err == nil && before:
		log.Info("ready again", "check", check)
	}
}

// readyz says whether the node can do its work, and if not, why.
func (s *Server) readyz(*request) (response, error) {
	r := Readiness{Ready: true, Node: s.cfg.Self.String(), Mesh: s.cfg.Mesh, Version: s.cfg.Version, Checks: []Checked{}}
	for _, c := range s.cfg.Checks {
		done := Checked{Name: c.Name, OK: true}
		err := c.Test()
		s.unready.note(s.cfg.Log, c.Name, err)
		if err != nil {
			done.OK, done.Says, r.Ready = false, c.Says, false
			if plain := new(Plain); errors.As(err, plain) {
				done.Says = string(*plain)
			}
		}
		r.Checks = append(r.Checks, done)
	}
	if !r.Ready {
		return statused{http.StatusServiceUnavailable, r}, nil
	}
	return r, nil
}
