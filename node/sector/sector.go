// Package sector is a secondary network behind a managing body.
//
// Membership of a particular health fund, or union, is sensitive. So the registry of
// the mesh holds "has a file in the health-insurance sector" and nothing more; which
// cooperating institution has it stands in the managing body's own sector directory
// (package directory). Everybody outside deals with the managing body, and what comes
// from it shows neither by content, error, size, time nor trace who was behind it.
//
// A cooperating institution runs the same binary, and is admitted to the mesh like any
// other: that it belongs to the sector is public, who is with it is not. It declares no
// references and offers nothing; its managing body alone calls it, and it answers
// nobody else.
//
//	requester          managing body (Manager)              fund (Member)
//	    │ presentation       │                                   │
//	    │───────────────────▶│ checks it as every supplier does  │
//	    │                    │ sector directory: who?            │
//	    │                    │ sector journal: FORWARDED         │
//	    │                    │── permission + request + clearance ▶│ checks all of it
//	    │                    │                                   │ fetch, filter
//	    │                    │                                   │ outbox: mark + answer
//	    │                    │                                   │ sector journal: SECTOR_SUPPLIED
//	    │                    │◀── signed answer ─────────────────│
//	    │                    │ sector journal: SECTOR_ANSWERED, RESOLVED
//	    │                    │ outbox, journal: as every supplier │
//	    │                    │ waits for the bound of a time class, looks at revocations
//	    │◀── answer as the sector, padded to a size class        │
//
// The other way, a fund asks through its managing body (Asker, Manager.ServeAsk), and
// what is published about a subject reaches the fund that the subject is with
// (Manager.Deliver, Member.ServeDelivery).
//
// Both keep a journal of the sector, apart from the node's: nobody outside may ask for
// a part of it, and its size, which is published of the other, shows nothing. The
// managing body's entries outside carry a seal of what the sector's own journal says.
//
// Everything exported is safe for concurrent use. Times are wall-clock times of the
// configuration's Now, except those of the time classes, which are monotonic.
package sector

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	// ErrNotOfSector means that the caller is no cooperating institution of this
	// sector, or not its managing body. It says no more.
	ErrNotOfSector = errors.New("not of this sector")
	// ErrNoAnswer is all that is told outside when a sector has none.
	ErrNoAnswer = errors.New("the sector has no answer")
	// ErrJournal means that the sector's journal or the outbox could not be written, so
	// that nothing left.
	ErrJournal = errors.New("the sector's journal is unavailable")
	// ErrMalformed is wrapped by what is wrong with a caller's input. Its text says what
	// to mend, and holds no number.
	ErrMalformed = errors.New("malformed")
)

// Peers carries calls to other nodes of the sector. A refusal comes back as an
// *exchange.Refusal; every other error means that it is not known what the peer did.
type Peers interface {
	Forward(ctx context.Context, to names.NodeID, req *nodepb.Forward) (*nodepb.ForwardResponse, error)
	ForwardLot(ctx context.Context, to names.NodeID, req *nodepb.ForwardLot) (*nodepb.ForwardResponse, error)
	Ask(ctx context.Context, to names.NodeID, req *nodepb.SectorAsk) (*nodepb.SectorAskResponse, error)
	Deliver(ctx context.Context, to names.NodeID, req *nodepb.SectorDeliver) (*nodepb.SectorDelivered, error)
	SectorTrace(ctx context.Context, to names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error)
	// Numbers asks a registry member; see Numbers.Serve.
	Numbers(ctx context.Context, to names.NodeID, req *nodepb.NumbersRequest) (*nodepb.NumbersResponse, error)
	// Order puts candidates that seem alive first, and leaves none out.
	Order(candidates []names.NodeID) []names.NodeID
}

// Journal is the sector's own journal segment at this node; journal.Journal is one.
type Journal interface {
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
	// AppendAll writes entries in order, with one write if they are not too many.
	AppendAll(ctx context.Context, entries []*nodepb.Entry) error
	Find(ctx context.Context, q journal.Query) ([]journal.Stored, error)
}

// Config is what both sides need. What has a default may be zero.
type Config struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer   // of the own institution
	Schemes  subject.Schemes // nil: the built-in ones
	Registry exchange.Registry
	Peers    Peers
	Journal  Journal // of the sector, not the node's
	Outbox   exchange.Outbox
	// Queue is where deliveries and their marks lie, which stay for days. Nil: Outbox.
	Queue  exchange.Outbox
	Bounds genesis.Bounds // of the mesh

	// Life is how long an answer is kept for the same request. 10 minutes.
	Life time.Duration
	Now  func() time.Time // wall clock; time.Now
	Log  *slog.Logger     // nil: silent
}

func (c *Config) setDefaults() {
	if c.Queue == nil {
		c.Queue = c.Outbox
	}
	if c.Life == 0 {
		c.Life = 10 * time.Minute
	}
	if c.Schemes == nil {
		c.Schemes = subject.Belgian()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// The outbox tables of this package.
const (
	permissions outbox.Table = 15 // request hash ‖ member → KeptPermission
	forwards    outbox.Table = 16 // permission id → KeptForward
	contents    outbox.Table = 17 // request hash → KeptSectorContent
	questions   outbox.Table = 18 // application, client ticket → KeptSectorQuestion
	deliveries  outbox.Table = 19 // publisher, id (and member) → mark
)

const (
	idSize       = 16 // of a permission, and of a question's nonce
	blindingSize = 32
	maxEnvelope  = 24 << 10
	// maxLotEnvelope is of those about many subjects; an entry of a journal holds one.
	maxLotEnvelope = 72 << 10
	// seenMargin is how long a mark outlasts the last moment at which what it marks
	// could count.
	seenMargin = time.Minute
)

// core is what both sides do alike.
type core struct {
	Config
	group    *envelope.Group
	verifier envelope.Verifier
}

func newCore(cfg Config) *core {
	cfg.setDefaults()
	return &core{Config: cfg, group: envelope.NewGroup(cfg.Signer)}
}

// sign makes an envelope, and its hash.
func (c *core) sign(t envelope.Type, m proto.Message) (raw, hash []byte, err error) {
	payload, err := proto.Marshal(m)
	if err == nil {
		raw, err = c.group.Sign(t, payload)
	}
	return raw, sum(raw), err
}

// open reads an envelope that a peer sent, and insists that its institution signed it
// with a key in force.
func (c *core) open(t envelope.Type, raw []byte, by names.InstitutionID, m proto.Message) error {
	opened, err := decode(t, raw, m)
	if err != nil {
		return err
	}
	return c.Registry.View(func(v record.View) error {
		for _, id := range opened.KeyIDs() {
			k, err := v.Key(id)
			if err != nil {
				return err
			}
			if k != nil && !k.GetRetired() && k.GetInstitution() == string(by) && c.verifier.VerifiedBy(opened, k.GetPublicKey()) {
				return nil
			}
		}
		return fmt.Errorf("%w: no key in force of %s signed", envelope.ErrBadSignature, by)
	})
}

// decode reads an envelope's form. It verifies no signature.
func decode(t envelope.Type, raw []byte, m proto.Message) (*envelope.Opened, error) {
	most := maxEnvelope
	if t == envelope.SectorLotPermission || t == envelope.LotOutline {
		most = maxLotEnvelope
	}
	if len(raw) > most {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(raw), most)
	}
	opened, err := envelope.Open(t, raw)
	if err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(opened.Payload, m); err != nil || len(m.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("%w: not protobuf, or with fields that are not known here", ErrMalformed)
	}
	return opened, nil
}

// journal makes entries durable, in order and together, also when nobody waits any more:
// whoever is killed meanwhile leaves no outcome without the answers that it was made of.
func (c *core) journal(ctx context.Context, entries ...*nodepb.Entry) error {
	if err := c.Journal.AppendAll(context.WithoutCancel(ctx), entries); err != nil {
		c.Log.Error("the sector's journal failed: nothing leaves", "err", err)
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

// load reads a row of the outbox; false: there is none.
func (c *core) load(k outbox.Key, m proto.Message) (bool, error) {
	raw, err := c.Outbox.Get(k)
	if errors.Is(err, outbox.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return true, nil
}

// keep writes rows durably, in one step.
func (c *core) keep(rows ...outbox.Change) error {
	if err := c.Outbox.Write(rows...); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return nil
}

func row(k outbox.Key, m proto.Message, until time.Time) outbox.Change {
	raw, _ := proto.Marshal(m) // cannot fail: all is well-formed text or bytes of ours
	return outbox.Change{Key: k, Value: raw, Until: until}
}

// nodesOf gives an institution's nodes, those that seem alive first.
func (c *core) nodesOf(i names.InstitutionID) (nodes []names.NodeID, err error) {
	err = c.Registry.View(func(v record.View) error {
		list, err := v.NodesOf(i)
		for _, n := range list {
			if !n.GetRemoved() {
				nodes = append(nodes, record.NodeID(n.GetRef()))
			}
		}
		return err
	})
	return c.Peers.Order(nodes), err
}

// cooperates reports whether the mesh lists an institution as one of the sector that
// manager speaks for, and both are in good standing. It gives the sector.
func cooperates(v record.View, manager, member names.InstitutionID) (names.SectorID, bool, error) {
	m, err := v.Institution(manager)
	if err != nil {
		return "", false, err
	}
	c, err := v.Institution(member)
	if err != nil {
		return "", false, err
	}
	ok := m.GetManagingBody() && m.GetSector() != "" && m.GetSector() == c.GetSector() && manager != member && !c.GetManagingBody() &&
		!m.GetSuspended() && !c.GetSuspended()
	return names.SectorID(m.GetSector()), ok, nil
}

func nodeRef(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

func protoSubject(id subject.ID) *registrypb.Subject {
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func protoPeriod(p names.Period) *registrypb.Period {
	return &registrypb.Period{From: int32(p.From), Until: int32(p.Until)}
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func fresh(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func texts[N ~string](list []N) (out []string) {
	for _, n := range list {
		out = append(out, string(n))
	}
	return out
}

func named[N ~string](list []string) (out []N) {
	for _, s := range list {
		out = append(out, N(s))
	}
	return out
}
