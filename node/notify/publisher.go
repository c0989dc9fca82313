package notify

import (
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

func (p *Publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// mayPublish looks at this institution's own right, in its own view: that it offers the
// dataset and has a file on the subject. The clearing peer decides; this only spares it
// what it must refuse.
func (p *Publisher) mayPublish(v record.View, a *change) (reason registrypb.Reason, err error) {
	dataset, err := v.Dataset(a.Dataset)
	if err != nil {
		return reason, err
	}
	var own []string // qualities of own files that give the right
	if a.Purpose != "" {
		if own, reason, err = p.maySubmit(v, a); err != nil || reason != registrypb.Reason_REASON_UNSPECIFIED {
			return reason, err
		}
	}
	o, err := v.Offering(a.Dataset, p.cfg.Self.Institution)
	if err != nil {
		return reason, err
	}
	if a.Purpose != "" {
		o = &registrypb.Offering{Qualities: own, Period: &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}}
	}
	switch {
	case dataset == nil || o == nil || o.Withdrawn || !record.Period(o.Period).Overlaps(a.Period):
		return registrypb.Reason_NOT_ALLOWED, nil
	case dataset.Scheme != string(a.subject.Scheme()):
		return registrypb.Reason_MALFORMED_NUMBER, nil
	}
	if err := p.checkRecord(a, dataset.Schema); err != nil {
		return reason, err
	}
	current, err := v.Current(a.subject) // only a member knows of another
	if err != nil {
		return reason, err
	}
	for _, id := range []subject.ID{a.subject, current} {
		refs, err := v.References(id)
		if err != nil {
			return reason, err
		}
		for _, r := range refs {
			if r.Institution == p.cfg.Self.Institution && contains(o.Qualities, string(r.Quality)) && r.Period.Overlaps(a.Period) {
				return reason, nil
			}
		}
	}
	return registrypb.Reason_NOT_INTEGRATED, nil
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
