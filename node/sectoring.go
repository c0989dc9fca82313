package node

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The methods that nodes of one sector call on each other.
const (
	methodSectorForward    = "sector.forward"
	methodSectorForwardLot = "sector.forward-lot"
	methodSectorAsk        = "sector.ask"
	methodSectorDeliver    = "sector.deliver"
	methodSectorTrace      = "sector.trace"
	methodNumbers          = "registry.numbers"
)

// maxForwardLot is the size class of the largest share of a chunk: permission, outline and
// demand.
const maxForwardLot = 256 << 10

// sectorDir is where a node keeps its part of a sector: directory and journal.
const sectorDir = "sector"

// sectoral is this node's part of a sector: of manager and member, one is nil.
type sectoral struct {
	journal *journal.Journal
	manager *sector.Manager
	courier *sector.Courier // of a manager
	member  *sector.Member
	asker   *sector.Asker
}

// openSector opens what makes this node a managing body's or a cooperating
// institution's. The journal of the sector is apart from the node's: nobody outside
// may ask for a part of it, and its size is published nowhere: its checkpoints stay
// beside it, for VerifyJournal.
func (n *Node) openSector() (err error) {
	if n.cfg.Sector == nil {
		return nil
	}
	s := new(sectoral)
	s.journal, err = journal.Open(journal.Config{
		Dir: filepath.Join(n.dir(sectorDir), journalDir), Key: n.keys.storage, Signing: n.signing(), Log: n.log,
	})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, s.journal)
	tree, err := tlog.Open(context.Background(), tlog.Config{
		Journal: s.journal, Dir: filepath.Join(n.dir(sectorDir), journalDir), Origin: tlog.SectorOrigin(n.cfg.Mesh, n.self),
		Epoch: int64(s.journal.Epoch().Number), Signer: n.keys.signer, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, tree)
	n.sector = s
	cfg := sector.Config{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Schemes: subject.Belgian(), Registry: n.past, Peers: n.peers,
		Journal: s.journal, Outbox: n.outbox, Queue: n.notify.queue, Bounds: n.keys.genesis.Bounds, Life: n.cfg.Outbox.Life, Now: n.deps.Now, Log: n.log,
	}
	if n.cfg.Sector.ManagingBody != "" {
		s.member = sector.NewMember(sector.MemberConfig{
			Config: cfg, Manager: n.cfg.Sector.ManagingBody, Sources: n.deps.Sources, Inbox: told{n},
			NotBefore: n.journal.Epoch().NotBefore(cfg.Bounds.ReleaseLife, cfg.Bounds.Skew),
		})
		s.asker = sector.NewAsker(sector.AskerConfig{Config: cfg, Manager: n.cfg.Sector.ManagingBody})
		return nil
	}
	secret, err := hkdf.Key(sha256.New, n.keys.storage, nil, "crossroads sector pseudonyms v1", 32)
	if err != nil {
		return err
	}
	dir, err := directory.Open(directory.Config{Dir: filepath.Join(n.dir(sectorDir), "directory"), Key: n.keys.storage, Schemes: subject.Belgian(), Log: n.log})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, dir)
	s.manager, err = sector.NewManager(sector.ManagerConfig{
		Config: cfg, Directory: dir, Datasets: n.cfg.Sector.Datasets, Consult: n.consult, Secret: secret,
		Times: veil.Times{Prompt: n.cfg.Sector.Prompt, Late: n.cfg.Sector.Late},
	})
	if err == nil {
		s.courier, err = sector.NewCourier(s.manager, arriving{n})
	}
	return err
}

// supplySector is what makes the supplier a managing body's; nil: it is none.
func (n *Node) supplySector() exchange.Sector {
	if n.sector == nil || n.sector.manager == nil {
		return nil
	}
	return n.sector.manager
}

// presented is who answers presentations, behind the veil of a managing body.
func (n *Node) presented() sector.Presented {
	present := n.metrics.Presentations(n.supply.Present)
	if n.sector == nil || n.sector.manager == nil {
		return present
	}
	return n.sector.manager.Veil(present)
}

// supplySectorLots is supplySector for chunks of lots.
func (n *Node) supplySectorLots() batch.Sector {
	if n.sector == nil || n.sector.manager == nil {
		return nil
	}
	return n.sector.manager
}

// presentedChunk is who answers presentations of chunks, behind the veil of a managing body.
func (n *Node) presentedChunk() sector.PresentedChunk {
	if n.sector == nil || n.sector.manager == nil {
		return n.lots.supplier.Present
	}
	return n.sector.manager.VeilChunk(n.lots.supplier.Present)
}

// consulting is who asks for the applications: a cooperating institution asks through
// its managing body.
func (n *Node) consulting() api.Consultations {
	if n.sector != nil && n.sector.asker != nil {
		return n.sector.asker
	}
	return n.consult
}

// askingJournal is where it is journaled what applications ask and take. A cooperating
// institution's other journal must not grow, for all to see, when its sector asks or is
// told.
func (n *Node) askingJournal() *journal.Journal {
	if n.sector != nil && n.sector.asker != nil {
		return n.sector.journal
	}
	return n.journal
}

// desk is what the API offers of the sector; nil: nothing.
func (n *Node) desk() *sector.Desk {
	if n.sector == nil {
		return nil
	}
	return &sector.Desk{Manager: n.sector.manager, Member: n.sector.member, Outer: n.ownEntries}
}

// ownEntries gives what this node's journal says of a ticket.
func (n *Node) ownEntries(ctx context.Context, t names.Ticket) (entries []*nodepb.Entry, err error) {
	found, err := n.journal.Find(ctx, journal.Query{Ticket: t})
	for _, s := range found {
		entries = append(entries, s.Entry)
	}
	return entries, err
}

// handleSector wires what nodes of one sector may call on each other. On a node that
// has no part in one these methods do not exist.
func (n *Node) handleSector() {
	if n.cfg.Member {
		numbers := &sector.Numbers{Registry: n.past, Journal: n.journal, Schemes: subject.Belgian(), Now: n.deps.Now}
		serve(n, methodNumbers, mesh.Limits{Request: maxSmall, Response: maxAnswer}, n.admission.listed, numbers.Serve)
	}
	if n.sector == nil {
		return
	}
	who, s := n.admission, n.sector
	if s.member != nil {
		serve(n, methodSectorForward, mesh.Limits{Request: 2 * maxSmall, Response: maxAnswer}, who.listed, s.member.ServeForward)
		serve(n, methodSectorForwardLot, mesh.Limits{Request: maxForwardLot, Response: maxAnswer}, who.listed, s.member.ServeForwardLot)
		serve(n, methodSectorDeliver, mesh.Limits{Request: maxAnswer, Response: maxSmall}, who.listed, s.member.ServeDelivery)
		serve(n, methodSectorTrace, mesh.Limits{Request: maxSmall, Response: maxTrace}, who.listed, s.member.ServeTrace)
		return
	}
	serve(n, methodSectorAsk, mesh.Limits{Request: maxSmall, Response: maxAnswer}, who.listed, s.manager.ServeAsk)
	serve(n, methodSectorTrace, mesh.Limits{Request: maxSmall, Response: maxTrace}, who.listed, s.manager.ServeTrace)
}

// sectorName is the consumer of the inbox that brings on what comes to a sector.
const sectorName = "sector"

func (n *Node) sectorConsumer() []inbox.Consumer {
	if n.sector == nil || n.sector.manager == nil {
		return nil
	}
	return []inbox.Consumer{{Name: sectorName, Wants: func(i inbox.Item) bool { return i.Kind == inbox.Notification }}}
}

// runSector brings what comes to the sector to whom it is for.
func (n *Node) runSector(ctx context.Context) error {
	if n.sector == nil || n.sector.courier == nil {
		return nil
	}
	return n.sector.courier.Run(ctx)
}

// arriving is the managing body's inbox, as its courier takes from it.
type arriving struct{ n *Node }

func (a arriving) Next(ctx context.Context) (all []sector.Arrival, err error) {
	taken, err := a.n.notify.inbox.Take(ctx, sectorName, inbox.Want{Max: 100, Visibility: time.Minute})
	for _, t := range taken {
		all = append(all, sector.Arrival{Handle: inbox.Receipt{ID: t.ID, Lease: t.Lease}, Notification: sector.Notification{
			ID: string(t.Ticket) + "/" + string(t.Purpose), Ticket: t.Ticket, Publisher: t.From, Purpose: t.Purpose, Dataset: t.Dataset, Subject: t.Subject,
			Also: otherNumbers(t.Item), Period: t.Period, Change: t.Change, RefersTo: t.RefersTo, Content: t.Content, Published: t.Received,
		}})
	}
	return all, err
}

func otherNumbers(i inbox.Item) (also []subject.ID) {
	for _, id := range append([]subject.ID{i.Current}, i.KnownAs...) {
		if !id.IsZero() && id != i.Subject && !slices.Contains(also, id) {
			also = append(also, id)
		}
	}
	return also
}

func (a arriving) Done(ctx context.Context, all []sector.Arrival) error {
	var receipts []inbox.Receipt
	for _, x := range all {
		receipts = append(receipts, x.Handle.(inbox.Receipt))
	}
	return a.n.notify.inbox.Acknowledge(ctx, inbox.Taker{Consumer: sectorName, Channel: sectorName}, receipts)
}

// told is a cooperating institution's inbox, as its managing body fills it.
type told struct{ n *Node }

// Accept keeps what is delivered, once: the mark is in the same write.
func (t told) Accept(_ context.Context, d sector.Delivered) error {
	mark := outbox.Key{Table: sectorTold, ID: string(d.Publisher) + "\x00" + d.ID}
	switch _, err := t.n.notify.queue.Get(mark); {
	case err == nil:
		return nil
	case !errors.Is(err, outbox.ErrNotFound):
		return err
	}
	return t.n.notify.inbox.Put([]*inbox.Item{{
		Kind: inbox.Notification, Ticket: d.Ticket, From: d.Publisher, Dataset: d.Dataset, Purpose: d.Purpose,
		Subject: d.Subject, FiledUnder: []subject.ID{d.Subject}, Period: d.Period, Change: d.Change, RefersTo: d.RefersTo, Content: d.Content, Received: t.n.deps.Now(),
	}}, outbox.Change{Key: mark, Value: []byte{1}, Until: t.n.deps.Now().Add(sector.DeliveryLife)})
}

// sectorTold is the table, in the queue, of what was taken into the inbox.
const sectorTold outbox.Table = 18

// runSectorRetention erases the sector's journal as the node's.
func (n *Node) runSectorRetention(ctx context.Context) error {
	if n.sector == nil {
		return nil
	}
	return n.sector.journal.KeepRetention(ctx, n.cfg.Journal.Retention, n.retentionClock)
}

// sectorHealthy says whether the sector's journal takes entries.
func (n *Node) sectorHealthy() error {
	if n.sector == nil {
		return nil
	}
	return n.sector.journal.Healthy()
}

var _ sector.Peers = (*peers)(nil)

// Forward brings a permission to a cooperating institution.
func (p *peers) Forward(ctx context.Context, to names.NodeID, req *nodepb.Forward) (*nodepb.ForwardResponse, error) {
	resp := new(nodepb.ForwardResponse)
	return resp, p.Call(ctx, to, methodSectorForward, req, resp)
}

// ForwardLot brings a share of a chunk to a cooperating institution.
func (p *peers) ForwardLot(ctx context.Context, to names.NodeID, req *nodepb.ForwardLot) (*nodepb.ForwardResponse, error) {
	resp := new(nodepb.ForwardResponse)
	return resp, p.Call(ctx, to, methodSectorForwardLot, req, resp)
}

// Ask brings a question to the managing body.
func (p *peers) Ask(ctx context.Context, to names.NodeID, req *nodepb.SectorAsk) (*nodepb.SectorAskResponse, error) {
	resp := new(nodepb.SectorAskResponse)
	return resp, p.Call(ctx, to, methodSectorAsk, req, resp)
}

// Deliver brings a notification to a cooperating institution.
func (p *peers) Deliver(ctx context.Context, to names.NodeID, req *nodepb.SectorDeliver) (*nodepb.SectorDelivered, error) {
	resp := new(nodepb.SectorDelivered)
	return resp, p.Call(ctx, to, methodSectorDeliver, req, resp)
}

// Numbers asks a registry member under which numbers subjects stand.
func (p *peers) Numbers(ctx context.Context, to names.NodeID, req *nodepb.NumbersRequest) (*nodepb.NumbersResponse, error) {
	resp := new(nodepb.NumbersResponse)
	return resp, p.Call(ctx, to, methodNumbers, req, resp)
}

// SectorTrace asks a node of the sector for its part of a ticket.
func (p *peers) SectorTrace(ctx context.Context, to names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	resp := new(nodepb.TraceResponse)
	return resp, p.Call(ctx, to, methodSectorTrace, req, resp)
}
