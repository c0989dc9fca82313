package sector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ErrNoRoute means that the sector directory has no institution for what is to be
// delivered. It is journaled; trying again is of use once the directory was mended.
var ErrNoRoute = errors.New("the sector directory knows no institution for this subject and day")

// Notification is something that was published about a subject, and came to the sector.
type Notification struct {
	ID        string // the publisher's, printable and at most 64 bytes: the same is delivered once
	Ticket    names.Ticket
	Publisher names.InstitutionID
	Purpose   names.Purpose
	Dataset   names.DatasetID
	Subject   subject.ID
	Also      []subject.ID // other numbers of the same subject, as far as they are known
	Period    names.Period // that it is about
	Change    registrypb.Change
	RefersTo  names.Ticket // of what is corrected or cancelled
	Content   []byte       // fields that the sector may have
	Published time.Time
}

func (n *Notification) validate() error {
	switch {
	case n.ID == "" || len(n.ID) > 64 || names.UserID(n.ID).Validate() != nil:
		return fmt.Errorf("%w: the id of a notification", ErrMalformed)
	case len(n.Content) > exchange.MaxContent:
		return fmt.Errorf("%w: a notification of %d bytes, at most %d", ErrMalformed, len(n.Content), exchange.MaxContent)
	}
	return errors.Join(n.Publisher.Validate(), n.Dataset.Validate(), n.Period.Validate())
}

// Deliver brings a notification to whoever the subject is with on its days, and returns
// once all of them hold it durably. It may be called again with the same notification,
// after an error, or after a crash: nobody gets it twice. The publisher is to be told
// that the sector holds it before Deliver is called, and not after: else the time tells
// who it was.
//
// The error wraps ErrMalformed, ErrNoRoute or ErrJournal, or says that a member could
// not be reached.
func (m *Manager) Deliver(ctx context.Context, n Notification) error {
	if err := n.validate(); err != nil {
		return err
	}
	routes, err := m.directory.Route(append([]subject.ID{n.Subject}, n.Also...), nil, n.Period)
	if err != nil {
		return err
	}
	if len(routes) == 0 {
		e := m.told(&n, nil)
		e.Outcome, e.Status, e.Detail = registrypb.Outcome_DENY, nodepb.Status_NO_RESULT, ErrNoRoute.Error()
		return errors.Join(ErrNoRoute, m.journal(ctx, e))
	}
	errs := make([]error, len(routes))
	for i, r := range routes {
		errs[i] = m.deliverTo(ctx, &n, r)
	}
	return errors.Join(errs...)
}

func (m *Manager) told(n *Notification, d *nodepb.SectorDelivery) *nodepb.Entry {
	e := &nodepb.Entry{
		TimeUnixMs: m.Now().UnixMilli(), Role: nodepb.Role_MANAGING_BODY, Event: nodepb.Event_DELIVERED_INSIDE, Ticket: string(n.Ticket),
		ClientTicket: n.ID, Requester: &registrypb.NodeRef{Institution: string(n.Publisher)}, Purpose: string(n.Purpose), Mode: string(names.Notification),
		Dataset: string(n.Dataset), Subject: protoSubject(n.Subject), Period: protoPeriod(n.Period),
	}
	if d != nil {
		e.Member, e.Supplier, e.AnswerCommitment = d.GetMember(), &registrypb.NodeRef{Institution: d.GetMember()}, d.GetCommitment()
	}
	return e
}

// deliverTo tells one member, once it is journaled that it will be.
func (m *Manager) deliverTo(ctx context.Context, n *Notification, r directory.Route) error {
	key := outbox.Key{Table: deliveries, ID: "m" + string(n.Publisher) + "\x00" + n.ID + "\x00" + string(r.Member)}
	if _, err := m.Queue.Get(key); err == nil {
		return nil // it holds it
	} else if !errors.Is(err, outbox.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	var sector names.SectorID
	err := m.Registry.View(func(v record.View) error {
		var ok bool
		var err error
		if sector, ok, err = cooperates(v, m.Self.Institution, r.Member); err == nil && !ok {
			err = ErrNotOfSector
		}
		return err
	})
	if err != nil {
		return err
	}
	message := &nodepb.SectorDeliver{Content: n.Content, Blinding: fresh(blindingSize)}
	d := &nodepb.SectorDelivery{
		Mesh: string(m.Mesh), Id: n.ID, Ticket: string(n.Ticket), Sector: string(sector), Manager: nodeRef(m.Self), Member: string(r.Member),
		Publisher: string(n.Publisher), Purpose: string(n.Purpose), Dataset: string(n.Dataset), Subject: protoSubject(r.Parts[0].Subject), Period: protoPeriod(n.Period), Change: n.Change, RefersTo: string(n.RefersTo),
		Commitment: exchange.Commitment(message.Blinding, n.Content), TimeUnixMs: m.Now().UnixMilli(), PublishedUnixMs: n.Published.UnixMilli(),
	}
	var hash []byte
	if message.Delivery, hash, err = m.sign(envelope.SectorDelivery, d); err != nil {
		return err
	}
	if message.Padding, err = veil.Padding(message); err != nil {
		return err
	}
	e := m.told(n, d)
	e.PermissionHash, e.Evidence = hash, [][]byte{message.Delivery}
	if err := m.journal(ctx, e); err != nil {
		return err
	}
	receipt, by, err := m.tell(ctx, r.Member, message, hash)
	if err != nil {
		return fmt.Errorf("a member of the sector did not take a notification: %w", err)
	}
	e = m.told(n, d)
	e.Supplier, e.Status, e.Outcome = nodeRef(by), nodepb.Status_DATA_FOUND, registrypb.Outcome_PERMIT
	e.PermissionHash, e.Evidence, e.Detail = hash, [][]byte{message.Delivery, receipt}, "received"
	if err := m.journal(ctx, e); err != nil {
		return err
	}
	if err := m.Queue.Write(outbox.Change{Key: key, Value: []byte{1}, Until: m.Now().Add(DeliveryLife)}); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

// DeliveryLife is how long a notification is known by its id. Whoever brings one must
// not bring it again later than that.
const DeliveryLife = 30 * 24 * time.Hour

// tell brings a delivery to one of a member's nodes, and insists on a signed receipt.
func (m *Manager) tell(ctx context.Context, to names.InstitutionID, message *nodepb.SectorDeliver, hash []byte) (receipt []byte, by names.NodeID, err error) {
	nodes, err := m.nodesOf(to)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no node of it is known")
	}
	for _, by = range nodes {
		var resp *nodepb.SectorDelivered
		if resp, err = m.Peers.Deliver(ctx, by, message); err != nil {
			continue
		}
		r := new(nodepb.SectorReceipt)
		if err = m.open(envelope.SectorReceipt, resp.GetReceipt(), to, r); err != nil {
			continue
		}
		if r.GetMesh() != string(m.Mesh) || record.NodeID(r.GetMember()) != by || !bytes.Equal(r.GetDeliveryHash(), hash) {
			err = errors.New("its receipt is for another delivery")
			continue
		}
		return resp.GetReceipt(), by, nil
	}
	return nil, by, err
}

// Inbox is where a cooperating institution takes what is delivered to it.
type Inbox interface {
	// Accept returns once d is durable. It may come again with the same publisher and
	// id, after a crash, and must then be kept once.
	Accept(ctx context.Context, d Delivered) error
}

// Delivered is what a cooperating institution is told.
type Delivered struct {
	ID        string
	Ticket    names.Ticket
	Publisher names.InstitutionID
	Purpose   names.Purpose
	Dataset   names.DatasetID
	Subject   subject.ID
	Period    names.Period
	Change    registrypb.Change
	RefersTo  names.Ticket
	Content   []byte
	Published time.Time
}

// ServeDelivery takes a notification from the managing body, and answers with a signed
// receipt once inbox and journal hold it. Nobody else is answered.
func (m *Member) ServeDelivery(ctx context.Context, from names.NodeID, req *nodepb.SectorDeliver) (*nodepb.SectorDelivered, error) {
	if from.Institution != m.manager || m.inbox == nil {
		return nil, ErrNotOfSector
	}
	d := new(nodepb.SectorDelivery)
	if err := m.open(envelope.SectorDelivery, req.GetDelivery(), m.manager, d); err != nil {
		return nil, fmt.Errorf("%w: the delivery is no envelope that the managing body signed", ErrMalformed)
	}
	id, err := m.Schemes.Parse(subject.Scheme(d.GetSubject().GetScheme()), d.GetSubject().GetNumber())
	for what, wrong := range map[string]bool{
		"mesh":      d.GetMesh() != string(m.Mesh),
		"node":      record.NodeID(d.GetManager()) != from,
		"member":    d.GetMember() != string(m.Self.Institution),
		"id":        d.GetId() == "" || len(d.GetId()) > 64 || names.UserID(d.GetId()).Validate() != nil,
		"subject":   err != nil || id.Number() != d.GetSubject().GetNumber(),
		"publisher": names.InstitutionID(d.GetPublisher()).Validate() != nil,
		"dataset":   names.DatasetID(d.GetDataset()).Validate() != nil,
		"period":    d.GetPeriod() == nil || record.Period(d.GetPeriod()).Validate() != nil,
		"ticket":    d.GetTicket() != "" && names.Ticket(d.GetTicket()).Validate() != nil || d.GetRefersTo() != "" && names.Ticket(d.GetRefersTo()).Validate() != nil,
		"content": len(req.GetContent()) > exchange.MaxContent || len(req.GetBlinding()) != blindingSize ||
			!bytes.Equal(d.GetCommitment(), exchange.Commitment(req.GetBlinding(), req.GetContent())),
	} {
		if wrong {
			return nil, fmt.Errorf("%w: the %s of the delivery", ErrMalformed, what)
		}
	}
	hash := sum(req.GetDelivery())
	key := outbox.Key{Table: deliveries, ID: "r" + d.GetPublisher() + "\x00" + d.GetId()}
	release, err := m.locks.acquire(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	detail := "had it already"
	if _, err := m.Queue.Get(key); errors.Is(err, outbox.ErrNotFound) {
		detail = ""
		err := m.inbox.Accept(ctx, Delivered{ID: d.GetId(), Ticket: names.Ticket(d.GetTicket()), Publisher: names.InstitutionID(d.GetPublisher()),
			Purpose: names.Purpose(d.GetPurpose()), Dataset: names.DatasetID(d.GetDataset()), Subject: id, Period: record.Period(d.GetPeriod()), Change: d.GetChange(), RefersTo: names.Ticket(d.GetRefersTo()), Content: req.GetContent(),
			Published: time.UnixMilli(d.GetPublishedUnixMs())})
		if err != nil {
			return nil, fmt.Errorf("%w: the inbox: %w", ErrJournal, err)
		}
		if err := m.Queue.Write(outbox.Change{Key: key, Value: []byte{1}, Until: m.Now().Add(DeliveryLife)}); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrJournal, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	receipt, _, err := m.sign(envelope.SectorReceipt, &nodepb.SectorReceipt{Mesh: string(m.Mesh), Member: nodeRef(m.Self), DeliveryHash: hash, TimeUnixMs: m.Now().UnixMilli()})
	if err != nil {
		return nil, err
	}
	err = m.journal(ctx, &nodepb.Entry{
		TimeUnixMs: m.Now().UnixMilli(), Role: nodepb.Role_COOPERATING, Event: nodepb.Event_DELIVERED_INSIDE, Ticket: d.GetTicket(), ClientTicket: d.GetId(),
		Requester: &registrypb.NodeRef{Institution: d.GetPublisher()}, Supplier: nodeRef(m.Self), Member: d.GetMember(), Purpose: d.GetPurpose(),
		Mode: string(names.Notification), Dataset: d.GetDataset(), Subject: d.GetSubject(), AnswerCommitment: d.GetCommitment(),
		Status: nodepb.Status_DATA_FOUND, PermissionHash: hash, Evidence: [][]byte{req.GetDelivery(), receipt}, Detail: detail,
	})
	if err != nil {
		return nil, err
	}
	return &nodepb.SectorDelivered{Receipt: receipt}, nil
}
