// Package submission carries declarations: an enterprise or institution declares
// something once, to the authentic source, which decides, and then tells everybody
// concerned.
//
// A declaration travels as an automatic communication does (package notify), to one
// recipient: cleared by a third node, signed, journaled, durable, with a signed receipt.
// This package keeps what both sides must know of it afterwards.
//
//	RECEIVED ──▶ ACCEPTED ──▶ AMENDED (by a correction) or ANNULLED (by a cancellation)
//	         └─▶ DECLINED, with reasons for fields
//
// What becomes of one never goes back.
//
// At the source the declaration waits in the inbox; its system takes it and decides
// ([Source.Decide]). What is accepted is published at once to whoever is subscribed,
// authorized and integrated. That it is accepted, and by whom, is kept before it is
// published: after a crash it is published under the same client ticket, so once, and
// cannot be declined. Corrections and cancellations refer to the original's
// ticket, and come from the same declarant.
//
// The declarant's node asks the source what became of its declarations until they are
// decided ([Declarant.Run]); every status is signed by the source, journaled, and put into
// the declarant's inbox as a result. Everything is safe for concurrent use.
package submission

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/keylock"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var (
	// ErrNotFound means that there is no such declaration, for this institution or
	// application.
	ErrNotFound = errors.New("no such declaration")
	// ErrDecided means that it was decided otherwise before: a decision stands.
	ErrDecided = errors.New("the declaration was decided otherwise before")
	// ErrOriginal means that it corrects or cancels what the same declarant never
	// declared, or what was not accepted: it can only be declined.
	ErrOriginal = errors.New("it refers to no accepted declaration of the same declarant about the same subject")
	// ErrNotPublished means that this institution may not publish what it accepts: the
	// text says why. Nothing was decided.
	ErrNotPublished = errors.New("not published, so not accepted")
	// ErrUnavailable means that journal, queue or source could not be used. Nothing is
	// lost, and the same may be done again.
	ErrUnavailable = errors.New("journal, queue or source unavailable")
)

// Life is how long both sides remember a declaration.
const Life = 366 * 24 * time.Hour

// The tables of the queue.
const (
	tabSubmissions  outbox.Table = 27 // ticket → KeptSubmission, at the source
	tabDeclarations outbox.Table = 28 // ticket → KeptDeclaration, at the declarant
	tabAcceptances  outbox.Table = 29 // ticket → KeptAcceptance, at the source, while it is under way
)

// Config is all that both sides need.
type Config struct {
	Mesh      names.MeshID
	Self      names.NodeID
	Signer    crypto.Signer // of the own institution
	Registry  notify.Registry
	Journal   notify.Journal
	Queue     notify.Queue
	Inbox     notify.Inbox
	Publisher *notify.Publisher
	Ask       func(ctx context.Context, to names.NodeID, req *nodepb.SubmissionStatusRequest) (*nodepb.SubmissionStatusResponse, error)
	PollEvery time.Duration // 2 s
	Now       func() time.Time
	Log       *slog.Logger
}

// Source is the side that decides, Declarant the one that declares.
type (
	Source struct {
		cfg   Config
		locks keylock.Locks // one: who decides
	}
	Declarant struct {
		cfg  Config
		wake chan struct{}
	}
)

// NewSource makes a Source.
func NewSource(cfg Config) *Source { return &Source{cfg: cfg} }

// NewDeclarant makes a Declarant; Run follows what was declared.
func NewDeclarant(cfg Config) *Declarant { return &Declarant{cfg: cfg, wake: make(chan struct{}, 1)} }

// Status is what is known of a declaration.
type Status struct {
	Ticket       names.Ticket
	Source       names.InstitutionID // empty: nobody has received it yet
	State        nodepb.DeclarationState
	Reasons      []*nodepb.FieldReason
	Published    names.Ticket
	SupersededBy names.Ticket
	Receipt      []byte // signed by the source
	Signed       []byte // the status, likewise
}

func key(t outbox.Table, ticket names.Ticket) outbox.Key {
	return outbox.Key{Table: t, ID: string(ticket)}
}

func load(q notify.Queue, k outbox.Key, m proto.Message) (bool, error) {
	raw, err := q.Get(k)
	if errors.Is(err, outbox.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return true, nil
}

func row(k outbox.Key, m proto.Message, since time.Time) (outbox.Change, error) {
	raw, err := proto.Marshal(m)
	return outbox.Change{Key: k, Value: raw, Until: since.Add(Life)}, err
}

// openStatus reads a status; it verifies no signature.
func openStatus(raw []byte) (*nodepb.SubmissionStatus, *envelope.Opened, error) {
	if len(raw) > 64<<10 {
		return nil, nil, errors.New("status too large")
	}
	opened, err := envelope.Open(envelope.SubmissionStatus, raw)
	if err != nil {
		return nil, nil, err
	}
	s := new(nodepb.SubmissionStatus)
	return s, opened, proto.Unmarshal(opened.Payload, s)
}

func readPublication(raw []byte) (*registrypb.Publication, error) {
	opened, err := envelope.Open(envelope.Publication, raw)
	if err != nil {
		return nil, err
	}
	p := new(registrypb.Publication)
	return p, proto.Unmarshal(opened.Payload, p)
}

// entry begins a journal entry about a declaration. Supplier is the declarant, requester
// the source, as for every notification.
func entry(now time.Time, role nodepb.Role, event nodepb.Event, ticket names.Ticket, p *registrypb.Publication, source, declarant *registrypb.NodeRef, s *nodepb.SubmissionStatus, raw []byte) *nodepb.Entry {
	e := &nodepb.Entry{
		TimeUnixMs: now.UnixMilli(), Role: role, Event: event, Ticket: string(ticket), Requester: source, Supplier: declarant, Mode: string(names.Submission),
		Purpose: p.GetPurpose(), Dataset: p.GetDataset(), Subject: p.GetSubject(), Period: p.GetPeriod(), Detail: s.State.String(), Evidence: [][]byte{raw},
	}
	if s.Published != "" {
		e.Detail += ", published as " + s.Published
	}
	return e
}

func nodeRef(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}
