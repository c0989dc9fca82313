// Package api is the local HTTP interface of a node, for the applications of its own
// institution, and the typed client that speaks to it.
//
// GET /openapi.json describes every route; a test holds that description to what the
// server does. In short:
//
//	public      GET  /openapi.json /healthz /readyz /metrics
//	            GET  /tlog/checkpoint /tlog/tile/{level}/{index}
//	            GET  /v1/institutions /v1/datasets /v1/offerings
//	            GET  /v1/authorizations /v1/authorizations/{id}
//	            GET  /v1/groups /v1/registry/history /v1/anchors /v1/evidence
//	            GET  /v1/subscriptions
//	with token  POST /v1/consultations
//	            POST /v1/consultations/{client_ticket}/acknowledge
//	            POST /v1/inquiries, /v1/inquiries/{client_ticket}/acknowledge
//	            POST /v1/lots, GET /v1/lots, /v1/lots/{voucher}, /v1/lots/{voucher}/results
//	            POST /v1/lots/{voucher}/pause, resume, cancel, acknowledge
//	            GET  /v1/trace/{ticket}
//	            GET  /v1/journal, POST /v1/journal/search
//	            POST /v1/references/search /v1/references/history
//	            POST /v1/publications, POST /v1/publications/batch, GET /v1/publications/{client_ticket}
//	            GET  /v1/inbox, POST /v1/inbox/take, acknowledge, release
//	            POST /v1/subject/nonce, /v1/subject/view
//	            POST /v1/mandates /v1/mandates/challenge, revoke, search, history
//	            POST /v1/inspection
//	            GET  /v1/officer/search, POST /v1/officer/search, /v1/officer/report
//	            GET  /v1/sector/members /v1/sector/trace/{ticket}
//	            POST /v1/sector/search, /v1/sector/view
//	            GET  /v1/registry/status /v1/registry/head
//	operator    GET  /v1/operator/health /v1/operator/autopilot
//	            GET  /v1/operator/snapshot /v1/operator/debug
//	            POST /v1/operator/transfer-leader /v1/operator/compact
//	admin       POST /v1/references /v1/references/withdraw
//	            GET  /v1/deliveries /v1/deliveries/lag, POST /v1/deliveries/redrive, drop, replay
//	            POST /v1/subscriptions /v1/inbox/replay /v1/inbox/resume
//	            POST /v1/registry/commands
//	            POST /v1/sector/members, /v1/sector/references, /v1/sector/references/search, /v1/sector/numbers
//
// An application shows its token as "Authorization: Bearer ...". One that may assert
// its users says which of them asks in X-Crossroads-User, and how strongly it has
// authenticated that user in X-Crossroads-Auth-Level. "Prefer: wait=N" gives a request
// N seconds instead of ten.
//
// A refusal of the network (NO_RESULT with a reason) is a result of the protocol and
// comes with status 200. What went wrong with the request itself is a [Problem] (RFC
// 9457), which says what, where and how to mend it. Subject numbers travel in bodies
// only, never in a URL, and are repeated in no problem and no log.
//
// What a caller can make the server do is bounded: size of body and header, time to
// send them and to read the answer, connections, and requests under way for each
// application (429 beyond it).
package api

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
	"github.com/crossroads-mesh/crossroads/node/sector"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Consultations carries out questions; exchange.Consultant is one.
type Consultations interface {
	Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error)
	Acknowledge(ctx context.Context, application string, t names.ClientTicket) error
}

// Check is one thing that must hold for the node to be ready. Test returns nil, or
// an error, which goes to the log. It must not block: it is asked by whoever watches
// the node, and that may be anybody.
type Check struct {
	Name string // a label: "journal", "registry"
	Says string // told when Test fails: what is wrong and how to mend it, in plain words
	Test func() error
}

// Plain is an error of a Check that may be told to anybody, instead of what the check
// Says.
type Plain string

// Error gives the words.
func (p Plain) Error() string { return string(p) }

// Config is what a Server needs. Everything is required unless it says otherwise.
type Config struct {
	// Self is this node, and Mesh the mesh it belongs to.
	Self names.NodeID
	Mesh names.MeshID
	// Version is told at /readyz.
	Version string
	// Applications are those that have a token, as config.Validate passed them.
	Applications []config.Application
	// MaxBody is the largest request body in bytes; MaxConcurrent how many requests
	// one application may have under way.
	MaxBody       int64
	MaxConcurrent int
	// Drain is how long Serve waits for requests under way when it is told to stop.
	Drain time.Duration
	// TLS is the server's certificate. Nil: plain HTTP.
	TLS *tls.Config

	Consultations Consultations
	Lots          Lots
	Inquiries     Inquiries
	Journal       Journal
	Tree          Tree
	Tracer        Tracer
	Readings      Readings
	Mandates      Mandates
	Receipts      Receipts
	// Decisions gives what clearing peers must not have cleared, as found here. Nil: nothing.
	Decisions func() []WrongDecision
	// Publisher, Inbox and Replayer are the rooms of automatic communications.
	Publisher Publisher
	Inbox     Inbox
	Replayer  Replayer
	// Pushers send what arrives to systems of the institution. None: applications fetch it.
	Pushers []*push.Pusher
	// Declarant and Source are the two sides of declarations.
	Declarant Declarant
	Source    Source
	Registry  Registry
	// Sector is the node's part of a sector. Nil: it is of none.
	Sector *sector.Desk
	// Reads gives views as new as a caller wants.
	Reads Reads
	// Operations is what operators see and do here. Nil: nothing.
	Operations Operations
	// Author signs the institution's own commands, for declaring references.
	Author Author
	// Witnessing tells of checkpoints. Nil: there are none to tell of.
	Witnessing Witnessing
	// Metrics gives what Prometheus reads, in its text form. Nil: nothing.
	Metrics func(context.Context) ([]byte, error)
	// Schemes are the identifier schemes of the mesh.
	Schemes subject.Schemes
	// Checks are what /readyz asks, in this order.
	Checks []Check
	// Now is the wall clock. Nil: time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Server is the interface. It is safe for concurrent use.
type Server struct {
	cfg    Config
	apps   atomic.Pointer[[]*application] // replaced whole
	public *application                   // stands for everybody without a token
	times  times
	routes []route
	mux    *http.ServeMux
	busy   sync.WaitGroup // requests under way

	unready unready
}

// times bound how long a caller may hold a connection; tests shorten them.
type times struct {
	header, body, answer, idle time.Duration
	wait, maxWait              time.Duration // for "Prefer: wait"
}

// New makes a server. It starts nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Consultations == nil, cfg.Inquiries == nil, cfg.Journal == nil, cfg.Tree == nil, cfg.Tracer == nil, cfg.Readings == nil, cfg.Mandates == nil, cfg.Receipts == nil, cfg.Registry == nil, cfg.Author == nil,
		cfg.Publisher == nil, cfg.Inbox == nil, cfg.Replayer == nil, cfg.Declarant == nil, cfg.Source == nil,
		cfg.Lots == nil,
		cfg.Reads == nil, cfg.Schemes == nil, cfg.Log == nil:
		return nil, errors.New("api: a required part of the configuration is missing")
	case cfg.MaxBody <= 0, cfg.MaxConcurrent <= 0:
		return nil, errors.New("api: a limit is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		cfg: cfg,
		times: times{
			header: 5 * time.Second, body: 15 * time.Second, answer: 15 * time.Second, idle: 2 * time.Minute,
			wait: 10 * time.Second, maxWait: time.Minute,
		},
		public: &application{slots: make(chan struct{}, cfg.MaxConcurrent)},
	}
	if err := s.SetApplications(cfg.Applications); err != nil {
		return nil, err
	}
	s.routes = s.table()
	s.mux = http.NewServeMux()
	for _, r := range s.routes {
		s.mux.Handle(r.method+" "+r.path, s.serve(r))
	}
	s.mux.Handle("/", s.serve(route{access: open, handle: s.notFound}))
	return s, nil
}

// SetApplications says who has a token from now on. Requests under way end under the
// rights that they began with.
func (s *Server) SetApplications(all []config.Application) error {
	apps := make([]*application, 0, len(all))
	for _, a := range all {
		hash, err := hex.DecodeString(a.TokenSHA256)
		if err != nil || len(hash) != 32 {
			return fmt.Errorf("api: application %s: token_sha256 is no SHA-256", a.Name)
		}
		apps = append(apps, &application{Application: a, hash: [32]byte(hash), slots: make(chan struct{}, s.cfg.MaxConcurrent)})
	}
	s.apps.Store(&apps)
	return nil
}
