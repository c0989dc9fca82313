package reading

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/nonce"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// What can go wrong with a reading.
var (
	// ErrNoRight means that whoever asks may not read this. It says no more.
	ErrNoRight = errors.New("no right to read this")
	// ErrMalformed means that the question makes no sense. Its text says what to mend.
	ErrMalformed = errors.New("malformed reading")
	// ErrJournal means that the journal cannot be written or read, so that nothing
	// is answered.
	ErrJournal = errors.New("the journal is unavailable")
	// ErrBusy means that too many challenges are open.
	ErrBusy = nonce.ErrBusy
)

// Registry is this node's view of the registry; registry.Registry is one.
type Registry interface {
	View(fn func(record.View) error) error
	// Standing gives the right to rely on the view, or an error. A provider that was
	// retired must not be believed by a node that does not know it yet.
	Standing() (lease.Standing, error)
}

// Journal is the node's own segment; journal.Journal is one.
type Journal interface {
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
	Find(ctx context.Context, q journal.Query) ([]journal.Stored, error)
}

// Peers carries the questions to other nodes, which answer them with ServeSubject
// and ServeInspect.
type Peers interface {
	Subject(ctx context.Context, to names.NodeID, req *nodepb.SubjectRequest) (*nodepb.SubjectResponse, error)
	Inspect(ctx context.Context, to names.NodeID, req *nodepb.InspectRequest) (*nodepb.InspectResponse, error)
}

// Config is what a Service needs. Everything is required.
type Config struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Registry Registry
	Journal  Journal
	Peers    Peers
	// Committee gives the keys that now sign inspection orders.
	Committee func() (genesis.Group, error)
	Schemes   subject.Schemes
	// Story judges what the journals of several nodes show of one ticket: trace.Build,
	// with whatever means the node has to check it.
	Story func(context.Context, names.Ticket, map[names.NodeID]trace.Segment) *trace.Story
	// Prove shows of each entry that it is in the log that this node published; empty
	// where it is not yet. Nil: nothing is proved.
	Prove func([]journal.Stored) [][]byte
	// Skew is by how much clocks may differ.
	Skew time.Duration
	Now  func() time.Time
	Log  *slog.Logger
}

// Service answers readers. It is safe for concurrent use and starts nothing that
// outlives a call.
type Service struct {
	cfg    Config
	nonces *nonce.Book
}

// New makes a service.
func New(cfg Config) *Service { return &Service{cfg: cfg, nonces: nonce.NewBook()} }

// Reader is who asks this node, as the API authenticated it.
type Reader struct {
	Application string
	User        names.UserID
	AuthLevel   uint32
	Channel     string
	// Officer says that the application is the security officer's; Oversees are the
	// users it may look at, each by name or, ending in *, by how it begins. None:
	// every user of the institution.
	Officer  bool
	Oversees []string
}

// The purposes under which readings stand in the journal.
const (
	purposeSubject    = "subject-view"
	purposeOversight  = "security-oversight"
	purposeInspection = "inspection"
)

// reading begins the journal entry of one.
func (s *Service) reading(purpose string) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: s.cfg.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ, Purpose: purpose,
	}
}

// by says that somebody at this node reads, from that another node does.
func (s *Service) by(e *nodepb.Entry, who Reader) *nodepb.Entry {
	e.Requester = ref(s.cfg.Self)
	e.Application, e.User, e.AuthLevel, e.Channel = who.Application, string(who.User), who.AuthLevel, who.Channel
	return e
}

func from(e *nodepb.Entry, node names.NodeID) *nodepb.Entry {
	e.Requester, e.Channel = ref(node), "mesh"
	return e
}

// note journals a reading; refused is why it is not allowed, nil if it is. It gives
// ErrNoRight for whatever was refused.
func (s *Service) note(ctx context.Context, e *nodepb.Entry, refused error) error {
	e.Outcome = registrypb.Outcome_PERMIT
	if refused != nil {
		e.Outcome = registrypb.Outcome_DENY
		e.Detail = clip("refused: "+refused.Error(), journal.MaxDetail)
	}
	if _, err := s.cfg.Journal.Append(ctx, e); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if refused != nil {
		return ErrNoRight
	}
	return nil
}

func (s *Service) find(ctx context.Context, q journal.Query) ([]journal.Stored, error) {
	found, err := s.cfg.Journal.Find(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return found, nil
}

func ref(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

func filed(id subject.ID) *registrypb.Subject {
	if id.IsZero() {
		return nil
	}
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func clip(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
