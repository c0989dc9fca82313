// Package node puts a node together from its rooms, and runs it. There is no
// domain logic here: the consultant's and the supplier's conduct is in exchange,
// the preventive check in registry/clearing, what is true in registry.
//
// New opens everything a configuration names and fails on the first thing that is
// not in order, leaving nothing open. Run takes part in the mesh until its context
// ends: then the API takes no more requests, exchanges under way end, and
// everything is closed in the reverse order of opening.
//
// Many nodes may run in one process; the test network does.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/gossip"
	"github.com/crossroads-mesh/crossroads/node/anchor"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/audit"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/metrics"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

// Deps are what a node is handed rather than told.
type Deps struct {
	// Sources are the institution's own systems. Run does not close them.
	Sources map[names.DatasetID]exchange.Source
	// Pushes are those that are sent what arrives, by the names of the configuration. Run
	// does not close them.
	Pushes  map[string]push.Target
	Log     *slog.Logger // nil: silent
	Version string       // of the binary, told at /readyz
	// Level is that of Log, which Reload changes. Nil: it cannot be changed.
	Level *slog.LevelVar
	// JournalFS replaces the journal's files and Now the wall clock, for tests that
	// attack them.
	JournalFS disk.FS
	Now       func() time.Time
}

// Node is one node of one institution.
type Node struct {
	cfg  *config.Config
	deps Deps
	self names.NodeID
	log  *slog.Logger

	keys      *keys
	admission *admission
	identity  *certs.DirSource
	endpoint  *mesh.Endpoint
	peers     *peers
	registry  *registry.Registry
	author    *registry.Author
	journal   *journal.Journal
	tree      *tlog.Log
	anchor    *anchor.Anchorer
	witness   *witness.Witness // nil on a node that is no member
	metrics   *metrics.Metrics
	past      *past
	outbox    *outbox.Outbox
	clearing  *clearing.Service // nil on a node that is no member
	audit     *audit.Auditor
	notify    notifying
	consult   *exchange.Consultant
	supply    *exchange.Supplier
	lots      *lots
	sector    *sectoral      // nil on a node that is of no sector
	gossip    *gossip.Gossip // nil when it is off
	reading   *reading.Service
	mandates  *mandate.Service
	api       *api.Server
	apiSocket net.Listener

	reloading   sync.Mutex                      // guards loaded
	loaded      *config.Config                  // as it is in force, reloads included
	certificate atomic.Pointer[tls.Certificate] // of the API

	opened []io.Closer // in order of opening; closed in reverse by close
}

// New opens a node. The caller calls Run, once.
func New(cfg *config.Config, deps Deps) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	n := &Node{cfg: cfg, loaded: cfg, deps: deps, self: cfg.Node.ID()}
	n.log = deps.Log.With("node", n.self.String())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("node %s: %w", n.self, err), n.close())
		}
	}()
	for _, open := range []func() error{
		n.openKeys, n.openMesh, n.openRegistry, n.openJournal, n.openAnchoring, n.openMetrics, n.openQueue, n.openExchange, n.openLots, n.openNotify, n.openAudit, n.openReading, n.openMandates, n.openAPI, n.openGossip,
	} {
		if err := open(); err != nil {
			return nil, err
		}
	}
	n.handle()
	n.handleAnchoring()
	n.handleLots()
	n.handleSector()
	n.handleNotify()
	return n, nil
}

func (n *Node) openMesh() (err error) {
	if n.identity, err = certs.OpenDir(n.cfg.Identity.Dir, n.log); err != nil {
		return err
	}
	socket, err := net.ListenPacket("udp", n.cfg.Listen)
	if err != nil {
		return err
	}
	n.admission = &admission{identities: newIdentities(n.cfg.Mesh)}
	n.endpoint, err = mesh.Listen(mesh.Config{
		Packets:         socket,
		Credentials:     certs.NewTLS(n.identity, n.cfg.Mesh, n.admission.institution),
		Admit:           n.admission.institution,
		StreamProtocols: []string{raftProtocol, gossip.Protocol},
		Quota: mesh.Quota{
			Streams: n.cfg.Limits.PeerStreams, PerSecond: n.cfg.Limits.PeerPerSecond, Burst: n.cfg.Limits.PeerBurst,
		},
		MaxMessage: n.cfg.Limits.Message,
		ResetKey:   n.keys.reset,
		Log:        n.log,
	})
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	n.opened = append(n.opened, n.endpoint)
	n.peers = &peers{identities: n.admission.identities, endpoint: n.endpoint, locate: n.locate, alive: n.alive}
	return nil
}

func (n *Node) openRegistry() (err error) {
	cfg := registry.Config{
		Self: n.self, Genesis: n.keys.genesis, Dir: n.dir("registry"), StorageKey: n.keys.storage, Signer: n.keys.signer,
		Peers: n.peers, Now: n.deps.Now, Log: n.log,
	}
	cfg.Join = n.cfg.Join
	if n.cfg.Member {
		cfg.Raft = registry.Consensus(&raftLayer{n.endpoint.StreamLayer(raftProtocol), n.peers, n.self})
	}
	if n.registry, err = registry.Open(cfg); err != nil {
		return err
	}
	n.opened = append(n.opened, n.registry)
	n.admission.registry.Store(n.registry)
	n.author = registry.NewAuthor(n.registry, n.cfg.Mesh, string(n.self.Institution), n.keys.signer)
	return nil
}

func (n *Node) openJournal() (err error) {
	n.journal, err = journal.Open(journal.Config{
		Dir: n.dir(journalDir), FS: n.deps.JournalFS, Key: n.keys.storage, Signing: n.signing(), Log: n.log,
	})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, n.journal)
	n.past = &past{n.registry, make(chan struct{})}
	n.tree, err = tlog.Open(context.Background(), tlog.Config{
		Journal: n.journal, Dir: n.dir(journalDir), Checkpoints: n.deps.JournalFS, Tiles: n.deps.JournalFS,
		Origin: tlog.Origin(n.cfg.Mesh, n.self), Epoch: int64(n.journal.Epoch().Number), Signer: n.keys.signer, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, n.tree)
	return nil
}

func (n *Node) openExchange() (err error) {
	if n.outbox, err = outbox.Open(outbox.Config{Dir: n.dir("outbox"), StorageKey: n.keys.storage, Now: n.deps.Now, Log: n.log}); err != nil {
		return err
	}
	n.opened = append(n.opened, n.outbox)
	bounds := n.keys.genesis.Bounds
	n.consult = exchange.NewConsultant(exchange.ConsultantConfig{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Schemes: subject.Belgian(),
		Registry: n.past, Peers: n.peers, Journal: n.journal, Outbox: n.outbox,
		Bounds: bounds, Life: n.cfg.Outbox.Life, Now: n.deps.Now, Log: n.log,
	})
	if err := n.openSector(); err != nil {
		return err
	}
	n.supply = exchange.NewSupplier(exchange.SupplierConfig{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Sources: n.deps.Sources, Sector: n.supplySector(),
		Registry: n.past, Journal: n.journal, Outbox: n.outbox,
		NotBefore: n.journal.Epoch().NotBefore(bounds.ReleaseLife, bounds.Skew),
		Bounds:    bounds, Life: n.cfg.Outbox.Life, Now: n.deps.Now, Log: n.log,
	})
	if n.cfg.Member {
		n.clearing = clearing.New(clearing.Config{
			Self: n.self, Mesh: n.cfg.Mesh, Signer: n.keys.signer, Registry: n.past, Journal: exchange.Decisions{Journal: n.journal},
			Bounds: bounds, Schemes: subject.Belgian(), Now: n.deps.Now, Log: n.log,
		})
	}
	return nil
}

func (n *Node) openAPI() (err error) {
	if n.apiSocket, err = net.Listen("tcp", n.cfg.API.Listen); err != nil {
		return err
	}
	n.opened = append(n.opened, n.apiSocket)
	tls, err := n.apiTLS()
	if err != nil {
		return err
	}
	n.api, err = api.New(api.Config{
		Self: n.self, Mesh: n.cfg.Mesh, Version: n.deps.Version,
		Applications: n.cfg.API.Applications,
		MaxBody:      n.cfg.Limits.APIBody, MaxConcurrent: n.cfg.Limits.APIConcurrent, Drain: n.cfg.Limits.Drain,
		TLS:        tls,
		Witnessing: witnessing{n}, Metrics: n.metrics.Text,
		Consultations: interactive{n.metrics.Consultations(n.consulting()), &n.lots.gate}, Lots: n.lots.consultant,
		Sector: n.desk(), Inquiries: n.inquirer(), Journal: n.journal, Tree: n.tree, Tracer: tracer{n}, Readings: n.reading, Mandates: n.mandates, Receipts: receipts{n}, Decisions: n.wrongDecisions, Registry: n.registry, Author: n.author,
		Reads: n.registry, Operations: n.operations(),
		Publisher: n.notify.publisher, Inbox: n.notify.inbox, Replayer: n.notify.recipient, Pushers: n.notify.pushers,
		Declarant: n.notify.declarant, Source: n.notify.source,
		Schemes: subject.Belgian(), Checks: n.checks(), Now: n.deps.Now, Log: n.log,
	})
	return err
}

// APIAddr is where the local API listens.
func (n *Node) APIAddr() string { return n.apiSocket.Addr().String() }

// Run takes part in the mesh until ctx ends or a part of the node fails.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.close()) }()
	// The rooms outlive ctx until the API has drained.
	rooms, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, rooms := errgroup.WithContext(rooms)
	for _, run := range []func(context.Context) error{
		n.identity.Run, n.endpoint.Run, n.registry.Run, n.consult.Run, n.followChanges, n.register, n.runGossip,
		n.watchRecovery,
		n.audit.Run, n.confirmPast, n.anchorOnceConfirmed, n.runWitness, n.runRetention, n.runSectorRetention,
		n.runLots, n.runNotify, n.notify.inbox.Run, n.runPushes, n.notify.declarant.Run, n.runSector,
	} {
		g.Go(func() error { return run(rooms) })
	}
	g.Go(func() error {
		defer stop()
		serving, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(rooms, cancel)()
		return n.api.Serve(serving, n.apiSocket)
	})
	err = g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// close closes what New opened, newest first. Closing what a Run has closed
// already is no error.
func (n *Node) close() error {
	var errs []error
	for _, c := range slices.Backward(n.opened) {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	n.opened = nil
	return errors.Join(errs...)
}
