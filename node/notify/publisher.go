package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/keylock"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// PublisherConfig is all that a publisher needs. What has a default may be zero.
type PublisherConfig struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer   // of the own institution
	Schemes  subject.Schemes // nil: the built-in ones
	Registry Registry
	Peers    Peers
	Journal  Journal
	Queue    Queue
	Bounds   genesis.Bounds // of the mesh

	// Keep is how long a change is kept, for those who do not have it yet and for
	// replays. 7 days; at most PublicationLife.
	Keep time.Duration
	// Batch is how many deliveries go in one call. 128; at most clearing.MaxCases.
	Batch int
	// ClearTimeout and DeliverTimeout bound one call. 2 s, 10 s.
	ClearTimeout, DeliverTimeout time.Duration
	// RetryFirst and RetryMost are how long a courier rests after a recipient that did
	// not answer: the first time, and at the most; with jitter. 200 ms, 5 minutes.
	RetryFirst, RetryMost time.Duration
	// Received, if there is one, gives what is to be kept with the receipt of a submission,
	// in the same durable step in which its delivery is forgotten.
	Received func(t *clearing.Told, from names.NodeID, receipt []byte) []outbox.Change
	// Refusals is how often a recipient may refuse one delivery before it is given up. 5.
	Refusals int

	Now func() time.Time // wall clock; time.Now
	Log *slog.Logger     // nil: silent
}

func (c *PublisherConfig) setDefaults() {
	c.Keep = min(cmp.Or(c.Keep, 7*24*time.Hour), PublicationLife)
	c.Batch = min(cmp.Or(c.Batch, 128), clearing.MaxCases)
	c.ClearTimeout = cmp.Or(c.ClearTimeout, 2*time.Second)
	c.DeliverTimeout = cmp.Or(c.DeliverTimeout, 10*time.Second)
	c.RetryFirst = cmp.Or(c.RetryFirst, 200*time.Millisecond)
	c.RetryMost = cmp.Or(c.RetryMost, 5*time.Minute)
	c.Refusals = cmp.Or(c.Refusals, 5)
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

// Publisher publishes for the applications of its own institution.
type Publisher struct {
	cfg       PublisherConfig
	group     *envelope.Group
	validator exchange.Validator
	checker   clearing.Checker
	receipts  envelope.Verifier
	locks     keylock.Locks // by application and client ticket, and by subject

	mu       sync.Mutex
	next     uint64
	pending  []uint64 // sequences of publications whose audience is not decided, in order
	wake     chan struct{}
	couriers map[string]*courier // by address
	started  chan *courier       // to Run, which runs them
}

// NewPublisher reads what waits; it starts nothing. Run delivers.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	cfg.setDefaults()
	p := &Publisher{cfg: cfg, group: envelope.NewGroup(cfg.Signer), wake: make(chan struct{}, 1), couriers: map[string]*courier{}, started: make(chan *courier, 1024)}
	if err := p.recover(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	return p, nil
}

// Publish accepts a change, or gives what it gave for the same one under the same
// application and client ticket. When it returns, the change is durable and journaled,
// and everybody concerned will be told without further asking.
//
// A change that this institution has no right to publish is Accepted with a Reason, and
// journaled. The error is an *exchange.QuestionError, wraps ErrTicketReused or
// ErrUnavailable, or is the context's.
func (p *Publisher) Publish(ctx context.Context, c Change) (*Accepted, error) {
	if c.ClientTicket == "" {
		c.ClientTicket = names.ClientTicket(rand.Text())
	}
	a, err := p.canonical(c)
	if err != nil {
		return nil, err
	}
	key := outbox.Key{Table: tabTickets, ID: a.Application + "\x00" + string(a.ClientTicket)}
	release, err := p.locks.Acquire(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	kept := new(nodepb.KeptClientTicket)
	switch ok, err := p.load(key, kept); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case ok && !bytes.Equal(kept.ChangeHash, a.hash()):
		return nil, ErrTicketReused
	case ok:
		return &Accepted{Ticket: names.Ticket(kept.Ticket), ClientTicket: a.ClientTicket, Time: time.UnixMilli(kept.TimeUnixMs)}, nil
	}
	if a.malformed {
		return p.refuse(ctx, a, registrypb.Reason_MALFORMED_NUMBER)
	}
	reason, err := p.mayPublish(a)
	if err != nil {
		return nil, err
	}
	if reason != registrypb.Reason_REASON_UNSPECIFIED {
		return p.refuse(ctx, a, reason)
	}
	// From numbering to handing on, one at a time about one subject: the order in which
	// changes are accepted is that in which they arrive.
	ordered, err := p.locks.Acquire(ctx, string(a.subject.Key()))
	if err != nil {
		return nil, err
	}
	defer ordered()
	return p.accept(ctx, key, a)
}

// accept signs a change, journals it, keeps it and hands it on. In this order: a change
// that is kept is told, and its ticket given again, whatever comes between; so its entry
// must be there. An entry whose change was not kept is one that nobody was given.
func (p *Publisher) accept(ctx context.Context, key outbox.Key, a *change) (*Accepted, error) {
	now := p.cfg.Now()
	publication := a.publication(p.cfg.Mesh, p.cfg.Self, now.UnixMilli())
	payload, err := proto.Marshal(publication)
	if err != nil {
		return nil, fmt.Errorf("encode publication: %w", err)
	}
	raw, err := p.group.Sign(envelope.Publication, payload)
	if err != nil {
		return nil, fmt.Errorf("sign publication: %w", err)
	}
	ticket := names.TicketOf(raw)
	p.mu.Lock()
	p.next++
	sequence := p.next
	p.mu.Unlock()
	until := now.Add(p.cfg.Keep)
	row, err1 := changeOf(publicationKey(sequence), &nodepb.KeptPublication{Publication: raw, Record: a.Record, UntilUnixMs: until.UnixMilli()}, until)
	mark, err2 := changeOf(key, &nodepb.KeptClientTicket{Sequence: sequence, ChangeHash: a.hash(), Ticket: string(ticket), TimeUnixMs: now.UnixMilli()}, until)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	e := publicationEntry(now, nodepb.Role_PUBLISHER, nodepb.Event_PUBLISHED, ticket, publication, sum(raw))
	e.Evidence = [][]byte{raw}
	if err := appendAll(ctx, p.cfg.Journal, []*nodepb.Entry{e}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := p.cfg.Queue.Write(row, mark); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.mu.Lock()
	p.pending = append(p.pending, sequence)
	p.mu.Unlock()
	p.nudge()
	return &Accepted{Ticket: ticket, ClientTicket: a.ClientTicket, Time: now}, nil
}

func (p *Publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// mayPublish looks at this institution's own right, in its own view: that it offers the
// dataset and has a file on the subject. The clearing peer decides; this only spares it
// what it must refuse.
func (p *Publisher) mayPublish(a *change) (reason registrypb.Reason, err error) {
	err = p.cfg.Registry.View(func(v record.View) error {
		dataset, err := v.Dataset(a.Dataset)
		if err != nil {
			return err
		}
		var own []string // qualities of own files that give the right
		if a.Purpose != "" {
			own, reason, err = p.maySubmit(v, a)
			if err != nil || reason != registrypb.Reason_REASON_UNSPECIFIED {
				return err
			}
		}
		o, err := v.Offering(a.Dataset, p.cfg.Self.Institution)
		if err != nil {
			return err
		}
		if a.Purpose != "" {
			o = &registrypb.Offering{Qualities: own, Period: &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}}
		}
		if dataset == nil || o == nil || o.Withdrawn || !record.Period(o.Period).Overlaps(a.Period) {
			reason = registrypb.Reason_NOT_ALLOWED
			return nil
		}
		if dataset.Scheme != string(a.subject.Scheme()) {
			reason = registrypb.Reason_MALFORMED_NUMBER
			return nil
		}
		if err := p.checkRecord(a, dataset.Schema); err != nil {
			return err
		}
		current, err := v.Current(a.subject) // only a member knows of another
		if err != nil {
			return err
		}
		for _, id := range []subject.ID{a.subject, current} {
			refs, err := v.References(id)
			if err != nil {
				return err
			}
			for _, r := range refs {
				if r.Institution == p.cfg.Self.Institution && contains(o.Qualities, string(r.Quality)) && r.Period.Overlaps(a.Period) {
					return nil
				}
			}
		}
		reason = registrypb.Reason_NOT_INTEGRATED
		return nil
	})
	return reason, err
}

// checkRecord says everything that is wrong with a record at once.
func (p *Publisher) checkRecord(a *change, schema string) error {
	faults, total, err := p.validator.Faults(a.Dataset, schema, a.Record)
	switch {
	case err != nil:
		return &exchange.QuestionError{Field: "record", Remedy: err.Error()}
	case total == 0:
		return nil
	}
	remedy := fmt.Sprintf("it does not match the dataset's schema in %d places: mend each", total)
	switch {
	case total == 1:
		remedy = "it does not match the dataset's schema in one place: mend it"
	case total > len(faults):
		remedy += fmt.Sprintf("; the first %d are told", len(faults))
	}
	return &exchange.QuestionError{Field: "record", Remedy: remedy, Faults: faults}
}

// maySubmit gives the qualities that an authorization asks of this institution's own
// files, or why there is none.
func (p *Publisher) maySubmit(v record.View, a *change) (qualities []string, reason registrypb.Reason, err error) {
	inst, err := v.Institution(p.cfg.Self.Institution)
	if err != nil {
		return nil, 0, err
	}
	rows, err := v.AuthorizationsFor(names.InstitutionType(inst.GetType()), a.Dataset, a.Purpose)
	for _, z := range rows {
		if !z.Revoked && contains(z.Modes, string(names.Submission)) {
			qualities = append(qualities, z.RequesterQualities...)
		}
	}
	if len(qualities) == 0 {
		reason = registrypb.Reason_NOT_ALLOWED
	}
	return qualities, reason, err
}

// refuse journals a change that is not published.
func (p *Publisher) refuse(ctx context.Context, a *change, reason registrypb.Reason) (*Accepted, error) {
	now := p.cfg.Now()
	fresh := make([]byte, 32)
	rand.Read(fresh)
	r := &Accepted{Ticket: names.TicketOf(fresh), ClientTicket: a.ClientTicket, Reason: reason, Time: now}
	e := publicationEntry(now, nodepb.Role_PUBLISHER, nodepb.Event_PUBLISHED, r.Ticket, a.publication(p.cfg.Mesh, p.cfg.Self, now.UnixMilli()), nil)
	e.Outcome, e.Reason, e.Detail = registrypb.Outcome_DENY, reason, "not published: nobody was asked or told"
	if a.malformed {
		e.Subject = nil
	}
	return r, appendAll(ctx, p.cfg.Journal, []*nodepb.Entry{e})
}

func (p *Publisher) load(k outbox.Key, m proto.Message) (bool, error) {
	raw, err := p.cfg.Queue.Get(k)
	if errors.Is(err, outbox.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, proto.Unmarshal(raw, m)
}
