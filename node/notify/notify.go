// Package notify carries automatic communications: an institution publishes a change
// about a subject once, and everybody who is subscribed, authorized and integrated is
// told, with the fields that each may have, and nobody else.
//
//	application     publisher            clearing peer            recipient
//	    │ change        │                      │                       │
//	    │──────────────▶│ queue: publication, record                   │
//	    │◀── ticket ────│ journal: PUBLISHED   │                       │
//	    │               │──── publication ────▶│ who? CLEARED, each    │
//	    │               │◀── a clearance each ─│                       │
//	    │               │ queue: a delivery each                       │
//	    │               │ journal: NOTICE_SENT                         │
//	    │               │── publication, clearance, notice, content ──▶│ checks
//	    │               │                                              │ journal: NOTICE_RECEIVED
//	    │               │                                              │ inbox and mark, one write
//	    │               │◀──────────── signed receipt ─────────────────│
//	    │               │ journal: NOTICE_DELIVERED                    │
//	    │               │ queue: delivery gone
//
// A [Publisher] keeps what it published until every recipient has it, for at most
// Keep. A [Recipient] believes nothing that it can check itself, takes each publication
// once, and stores it in the [Inbox].
//
// What waits is cleared anew before it goes: a clearance lives seconds, a recipient may
// be down for days, and what may be told is decided by the rights of the day on which it
// is told. A recipient that has lost its right meanwhile is not told (NOTICE_LAPSED).
//
// Changes about one subject arrive in the order in which they were published, under
// whatever number: the delivery of one that the recipient refuses holds up later ones
// about the same subject, until it is driven again or dropped, and nothing else.
//
// DESIGN.md says what follows from a crash between any two steps. Protocol times are
// wall-clock times taken from the Now of the configuration. Everything exported is safe
// for concurrent use.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	// ErrTicketReused means that the client ticket already stands for another change of
	// the same application.
	ErrTicketReused = errors.New("client ticket already used for another change")
	// ErrUnavailable means that journal or queue could not be written, so nothing was
	// accepted. Publishing again under the same client ticket is safe.
	ErrUnavailable = errors.New("journal or queue unavailable")
	// ErrNotFound means that nothing is kept under this ticket or address.
	ErrNotFound = errors.New("no such publication or delivery")
)

// PublicationLife is how long after its publication a change can be delivered, at the
// most: recipients know for a little longer what they have received.
const PublicationLife = 14 * 24 * time.Hour

// Change is what an application publishes.
type Change struct {
	exchange.Caller
	ClientTicket names.ClientTicket // empty: one is generated
	Dataset      names.DatasetID
	Scheme       subject.Scheme
	Number       string // as the user wrote it; may carry separators
	Period       names.Period
	Kind         registrypb.Change // zero: CHANGED
	RefersTo     names.Ticket      // of the publication that is corrected or cancelled
	CausedBy     names.Ticket      // of the submission that led to it
	// Purpose makes it a submission: a declaration to the authentic source alone, for which
	// this institution is authorized under that purpose.
	Purpose names.Purpose
	// Record is one JSON object that matches the dataset's schema.
	Record json.RawMessage
	// Fields are those that changed. Empty: all that the record holds.
	Fields []names.FieldName
}

// Accepted is what an application gets for a change, the first time and every later one.
type Accepted struct {
	Ticket       names.Ticket
	ClientTicket names.ClientTicket
	// Reason, if there is one, says why it is not published.
	Reason registrypb.Reason
	Time   time.Time
}

// Registry is this node's own view of what is public, and its right to rely on it.
type Registry interface {
	View(fn func(v record.View) error) error
	// Standing fails when the view may be out of date.
	Standing() (lease.Standing, error)
}

// Queue is where publications and deliveries wait; *outbox.Outbox is one.
type Queue interface {
	Get(k outbox.Key) ([]byte, error)
	Write(changes ...outbox.Change) error
	IDs(t outbox.Table, prefix string) ([]string, error)
}

// Inbox is where a recipient stores what it was told; *inbox.Inbox is one.
type Inbox interface {
	// Room fails with inbox.ErrFull when n more items are too many.
	Room(n int) error
	// Put stores items in order, and the changes with them, in one durable step.
	Put(items []*inbox.Item, with ...outbox.Change) error
}

// Journal is the node's own segment; *journal.Journal is one.
type Journal interface {
	exchange.Journal
	// AppendAll returns once all entries are durable.
	AppendAll(ctx context.Context, entries []*nodepb.Entry) error
}

// Peers carries calls to other nodes. An error means that it is not known what the peer
// did.
type Peers interface {
	ClearNotifications(ctx context.Context, to names.NodeID, req *registrypb.ClearNotificationsRequest) (*registrypb.ClearNotificationsResponse, error)
	RecipientReady(ctx context.Context, to names.NodeID, req *nodepb.ReadyRequest) (*nodepb.ReadyResponse, error)
	DeliverNotices(ctx context.Context, to names.NodeID, req *nodepb.DeliverRequest) (*nodepb.DeliverResponse, error)
	ReplayNotices(ctx context.Context, to names.NodeID, req *nodepb.ReplayRequest) (*nodepb.ReplayResponse, error)
	// Order puts candidates that seem alive before those that seem dead.
	Order(candidates []names.NodeID) []names.NodeID
}

// The tables of the queue.
const (
	tabPublications outbox.Table = 20 // sequence → KeptPublication
	tabTickets      outbox.Table = 21 // application, client ticket → KeptClientTicket
	tabDeliveries   outbox.Table = 22 // address, sequence → KeptDelivery
	tabAudiences    outbox.Table = 23 // sequence → KeptAudience: resolved
	tabReceived     outbox.Table = 26 // publisher, publication hash, purpose → KeptReceived
)

func nodeRef(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

func wireSubject(id subject.ID) *registrypb.Subject {
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func named[N ~string](list []string) []N {
	var out []N
	for _, s := range list {
		out = append(out, N(s))
	}
	return out
}

func texts[N ~string](list []N) []string {
	var out []string
	for _, n := range list {
		out = append(out, string(n))
	}
	return out
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
