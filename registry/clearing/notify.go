package clearing

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	// MaxCases is how many publications are decided on in one request.
	MaxCases = 256
	// maxOutcomes bounds the bytes of one reply: cases beyond are to be asked again.
	maxOutcomes = 3 << 20
)

// NotificationJournal writes down who was cleared to be told what.
type NotificationJournal interface {
	// RecordNotifications returns when all are durable.
	RecordNotifications(ctx context.Context, all []Notified) error
}

// Notified is a decision on a publication as it is journaled.
type Notified struct {
	Time            time.Time
	Ticket          names.Ticket
	Clearer         names.NodeID
	Publication     *registrypb.Publication // not to be changed
	Envelope        []byte                  // of the publication, as sent
	PublicationHash []byte
	Cleared, Only   []string // as the publisher asked, see NotificationCase
	Notification
	Clearances    []IssuedNotification // one for each recipient, in their order
	Signed        []byte               // when there is none: the envelope of a registrypb.Decision
	RegistryIndex uint64
}

// IssuedNotification is a clearance, and its envelope as it is given out.
type IssuedNotification struct {
	Clearance *registrypb.NotificationClearance
	Envelope  []byte
	Hash      []byte // SHA-256 of Envelope
}

// NotificationConfig is all that a NotificationService needs.
type NotificationConfig struct {
	Self     names.NodeID
	Mesh     names.MeshID
	Signer   crypto.Signer // of the own institution
	Registry Registry
	Journal  NotificationJournal
	Bounds   genesis.Bounds
	Schemes  subject.Schemes
	Now      func() time.Time // default time.Now
	Log      *slog.Logger     // default: nothing
}

// NotificationService clears publications. It is safe for concurrent use.
type NotificationService struct {
	cfg      NotificationConfig
	verifier envelope.Verifier
	grants   Checker // of the own grants
}

// NewNotificationService makes one.
func NewNotificationService(cfg NotificationConfig) *NotificationService {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &NotificationService{cfg: cfg}
}

// Clear decides on publications that the node from sent, as Service.Clear does on a
// request, and with the same errors. There is no age at which a publication can no
// longer be cleared: only its publisher's node can ask, and what it may tell whom is
// decided anew, so that a delivery that waited for days goes out under the rights of the
// day on which it goes.
func (s *NotificationService) Clear(ctx context.Context, from names.NodeID, cr *registrypb.ClearNotificationsRequest) (*registrypb.ClearNotificationsResponse, error) {
	if n := len(cr.GetCases()); n == 0 || n > MaxCases {
		return nil, fmt.Errorf("%w: %d publications, want 1 to %d", ErrMalformed, n, MaxCases)
	}
	standing, err := s.cfg.Registry.Standing()
	if err != nil {
		return nil, err
	}
	all := make([]Notified, len(cr.Cases))
	err = s.cfg.Registry.View(func(v record.View) error { return s.decide(v, from, standing, cr.Cases, all) })
	if err != nil {
		return nil, err
	}
	if err := s.issue(all, standing); err != nil {
		return nil, err
	}
	resp := new(registrypb.ClearNotificationsResponse)
	done, size := all, 0
	for i := range all {
		o := all[i].outcome()
		if size += proto.Size(o); size > maxOutcomes && i > 0 {
			done = all[:i]
			break
		}
		resp.Outcomes = append(resp.Outcomes, o)
	}
	if err := s.stillStands(standing); err != nil {
		return nil, err
	}
	if err := s.cfg.Journal.RecordNotifications(ctx, done); err != nil {
		s.cfg.Log.Error("decisions were not given: the journal failed", "error", err)
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if err := s.stillStands(standing); err != nil {
		return nil, err
	}
	for range all[len(done):] {
		resp.Outcomes = append(resp.Outcomes, &registrypb.NotificationOutcome{Later: true})
	}
	return resp, nil
}

// stillStands asks the real clock, since Until is monotonic: a machine that stood still
// since it looked must not answer.
func (s *NotificationService) stillStands(standing lease.Standing) error {
	if !time.Now().Before(standing.Until) {
		return fmt.Errorf("%w: the grant ended while this was decided", lease.ErrStale)
	}
	_, err := s.cfg.Registry.Standing()
	return err
}

func (s *NotificationService) decide(v record.View, from names.NodeID, standing lease.Standing, cases []*registrypb.NotificationCase, all []Notified) error {
	if err := s.grants.grantStands(v, s.cfg.Mesh, standing); err != nil {
		return err
	}
	index, err := v.AppliedIndex()
	if err != nil {
		return err
	}
	member, err := v.IsMember(s.cfg.Self)
	if err != nil {
		return err
	}
	if !member {
		return ErrNotMember
	}
	now := s.cfg.Now()
	notifier := NewNotifier(v, s.cfg.Self.Institution, s.cfg.Schemes, now)
	for i, c := range cases {
		if len(c.GetCleared()) > maxCleared || len(c.GetOnly()) > maxCleared {
			return fmt.Errorf("%w: more than %d addresses", ErrMalformed, maxCleared)
		}
		p, opened, err := OpenPublication(s.cfg.Mesh, c.GetPublication())
		if err != nil {
			return err
		}
		if record.NodeID(p.Publisher) != from {
			return fmt.Errorf("%w: it comes from %s", ErrNotRequester, from)
		}
		signed, err := signedBy(v, &s.verifier, opened, from.Institution)
		if err != nil {
			return err
		}
		d := &all[i]
		*d = Notified{Time: now, Ticket: names.TicketOf(c.Publication), Clearer: s.cfg.Self, Publication: p, Envelope: c.Publication,
			PublicationHash: sum(c.Publication), Cleared: c.Cleared, Only: c.Only, RegistryIndex: index}
		if !signed { // one key that was retired must not hold up what others signed
			d.Outcome, d.Reason = registrypb.Outcome_DENY, registrypb.Reason_PUBLICATION_INVALID
			continue
		}
		if time.UnixMilli(p.TimeUnixMs).After(now.Add(s.cfg.Bounds.Skew)) {
			d.Outcome, d.Reason = registrypb.Outcome_DENY, registrypb.Reason_STALE_REQUEST
			continue
		}
		if d.Notification, err = notifier.Decide(NotificationCase{Publication: p, Cleared: c.Cleared, Only: c.Only}); err != nil {
			return err
		}
	}
	return nil
}

// issue signs a clearance for each recipient, and a decision where there is none: all
// of a kind together.
func (s *NotificationService) issue(all []Notified, standing lease.Standing) error {
	var clearances, decisions [][]byte
	for i := range all {
		d := &all[i]
		for _, to := range d.Recipients {
			c := s.clearance(d, to, standing)
			payload, err := proto.Marshal(c)
			if err != nil {
				return fmt.Errorf("clearance: %w", err)
			}
			d.Clearances = append(d.Clearances, IssuedNotification{Clearance: c})
			clearances = append(clearances, payload)
		}
		if len(d.Recipients) > 0 {
			continue
		}
		payload, err := proto.Marshal(&registrypb.Decision{
			Mesh: string(s.cfg.Mesh), Ticket: string(d.Ticket), RequestHash: d.PublicationHash, Requester: d.Publication.Publisher, Clearer: s.selfRef(),
			Outcome: d.Outcome, Reason: d.Reason, Recused: d.Recused, RegistryIndex: d.RegistryIndex, TimeUnixMs: d.Time.UnixMilli(),
			Cleared: d.Cleared, Only: d.Only,
		})
		if err != nil {
			return fmt.Errorf("decision: %w", err)
		}
		decisions = append(decisions, payload)
	}
	clearances, err := envelope.SignAll(envelope.NotificationClearance, clearances, s.cfg.Signer)
	if err == nil {
		decisions, err = envelope.SignAll(envelope.NotificationDecision, decisions, s.cfg.Signer)
	}
	if err != nil {
		return err
	}
	for i := range all {
		d := &all[i]
		for k := range d.Clearances {
			d.Clearances[k].Envelope, d.Clearances[k].Hash = clearances[0], sum(clearances[0])
			clearances = clearances[1:]
		}
		if len(d.Clearances) == 0 {
			d.Signed, decisions = decisions[0], decisions[1:]
		}
	}
	return nil
}

func (s *NotificationService) selfRef() *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution), Node: string(s.cfg.Self.Node)}
}

func (s *NotificationService) clearance(d *Notified, to Recipient, standing lease.Standing) *registrypb.NotificationClearance {
	p := d.Publication
	c := &registrypb.NotificationClearance{
		Mesh: string(s.cfg.Mesh), Id: make([]byte, nonceSize), Ticket: string(d.Ticket), Clearer: s.selfRef(), Publisher: p.Publisher,
		Recipient: string(to.Institution), PublicationHash: d.PublicationHash, Subject: p.Subject, Dataset: p.Dataset, Fields: to.Fields,
		Period: p.Period, Purpose: to.Authorization.Purpose, Authorization: to.Authorization.Id, RegistryIndex: d.RegistryIndex,
		IssuedUnixMs: d.Time.UnixMilli(), PresentByUnixMs: d.Time.Add(s.cfg.Bounds.PresentLife).UnixMilli(),
		ReleaseByUnixMs: d.Time.Add(s.cfg.Bounds.ReleaseLife).UnixMilli(), Grant: standing.Grant, Mode: p.Mode,
	}
	rand.Read(c.Id)
	if now := d.Family[0]; now.Number() != p.Subject.Number {
		c.Current = subjectOf(now)
	}
	for _, id := range to.KnownAs {
		c.KnownAs = append(c.KnownAs, subjectOf(id))
	}
	for _, q := range to.Qualities {
		c.Qualities = append(c.Qualities, string(q))
	}
	for _, q := range d.PublisherQualities {
		c.PublisherQualities = append(c.PublisherQualities, string(q))
	}
	return c
}

func subjectOf(id subject.ID) *registrypb.Subject {
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func (d *Notified) outcome() *registrypb.NotificationOutcome {
	o := &registrypb.NotificationOutcome{Outcome: d.Outcome, Reason: d.Reason, Recused: d.Recused, Decision: d.Signed}
	for _, c := range d.Clearances {
		o.Clearances = append(o.Clearances, c.Envelope)
	}
	if len(d.Family) > 1 {
		for _, id := range d.Family {
			o.Family = append(o.Family, subjectOf(id))
		}
	}
	return o
}

// OpenPublication reads a publication's envelope strictly, and checks its form:
// everything but the subject's number, which is judged. No signature is verified. The
// error wraps ErrMalformed.
func OpenPublication(mesh names.MeshID, raw []byte) (*registrypb.Publication, *envelope.Opened, error) {
	p := new(registrypb.Publication)
	opened, err := open(envelope.Publication, raw, p)
	if err == nil {
		err = checkPublication(mesh, p)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return p, opened, nil
}

func checkPublication(mesh names.MeshID, p *registrypb.Publication) error {
	s := p.GetSubject()
	switch {
	case p.Mesh != string(mesh):
		return errors.New("it is for another mesh")
	case len(p.Nonce) != nonceSize:
		return fmt.Errorf("nonce of %d bytes, want %d", len(p.Nonce), nonceSize)
	case s == nil || len(s.Scheme) > maxNumber || len(s.Number) > maxNumber:
		return errors.New("no subject, or a number longer than any")
	case p.Period == nil:
		return errors.New("no period")
	case len(p.Fields) == 0 || len(p.Fields) > maxFields || !slices.IsSorted(p.Fields) || len(slices.Compact(slices.Clone(p.Fields))) != len(p.Fields):
		return fmt.Errorf("want 1 to %d fields, sorted, each once", maxFields)
	case p.Change < registrypb.Change_CHANGED || p.Change > registrypb.Change_CANCELLED_CHANGE:
		return errors.New("no such kind of change")
	case (p.Change == registrypb.Change_CHANGED) != (p.RefersTo == ""):
		return errors.New("a correction or a cancellation names the publication that it is of, and nothing else does")
	case p.TimeUnixMs <= 0:
		return errors.New("no time")
	case p.Mode != "" && p.Mode != string(names.Submission) || (p.Mode == "") != (p.Purpose == ""):
		return errors.New("it is neither an automatic communication nor a submission for a purpose")
	case p.Purpose != "" && names.Purpose(p.Purpose).Validate() != nil:
		return errors.New("malformed purpose")
	}
	checks := []error{
		record.NodeID(p.Publisher).Validate(), names.UserID(p.User).Validate(), names.DatasetID(p.Dataset).Validate(), record.Period(p.Period).Validate(),
	}
	if p.ClientTicket != "" {
		checks = append(checks, names.ClientTicket(p.ClientTicket).Validate())
	}
	for _, label := range []string{p.Application, p.Channel} {
		if label != "" {
			checks = append(checks, names.Purpose(label).Validate())
		}
	}
	for _, t := range []string{p.RefersTo, p.CausedBy} {
		if t != "" {
			checks = append(checks, names.Ticket(t).Validate())
		}
	}
	for _, f := range p.Fields {
		checks = append(checks, names.FieldName(f).Validate())
	}
	return errors.Join(checks...)
}
