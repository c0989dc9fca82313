package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Declared gives the row of a declaration that arrives, for notify.RecipientConfig.
func (s *Source) Declared(t *clearing.Told, item *inbox.Item, publication []byte) ([]outbox.Change, error) {
	status, err := s.sign(&nodepb.SubmissionStatus{Ticket: string(t.Ticket), Declarant: string(t.Publisher.Institution), State: nodepb.DeclarationState_RECEIVED})
	if err != nil {
		return nil, err
	}
	var numbers []*registrypb.Subject
	for _, id := range append([]subject.ID{t.Subject, t.Current}, t.KnownAs...) {
		numbers = append(numbers, &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()})
	}
	c, err := row(key(tabSubmissions, t.Ticket), &nodepb.KeptSubmission{
		Declarant: string(t.Publisher.Institution), Publication: publication, Content: item.Content, Status: status, ReceivedUnixMs: item.Received.UnixMilli(), Numbers: numbers,
	}, item.Received)
	return []outbox.Change{c}, err
}

func (s *Source) sign(st *nodepb.SubmissionStatus) ([]byte, error) {
	st.Mesh, st.Source, st.TimeUnixMs = string(s.cfg.Mesh), nodeRef(s.cfg.Self), s.cfg.Now().UnixMilli()
	payload, err := proto.Marshal(st)
	if err != nil {
		return nil, err
	}
	return envelope.Sign(envelope.SubmissionStatus, payload, s.cfg.Signer)
}

// Decide takes the decision of the institution's own system on a declaration that it
// received. One that is accepted is published to everybody concerned before it is said to
// be; deciding the same again is deciding once, whoever decides again. An acceptance that
// was begun stands, and is completed by the next decision or by Resume. The error wraps
// ErrNotFound, ErrDecided, ErrOriginal, ErrNotPublished or ErrUnavailable.
func (s *Source) Decide(ctx context.Context, by exchange.Caller, ticket names.Ticket, accept bool, reasons []*nodepb.FieldReason) (*Status, error) {
	release, err := s.locks.Acquire(ctx, "decide") // an original and its correction are decided one after the other
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.complete(ctx); err != nil {
		return nil, err
	}
	d, err := s.declaration(ticket)
	if err != nil {
		return nil, err
	}
	switch {
	case d.was.State == nodepb.DeclarationState_RECEIVED && accept:
		return s.accept(ctx, by, d)
	case d.was.State == nodepb.DeclarationState_RECEIVED:
		next := &nodepb.SubmissionStatus{Ticket: string(ticket), Declarant: d.kept.Declarant, State: nodepb.DeclarationState_DECLINED, Reasons: reasons}
		return s.conclude(ctx, by, d, next)
	case accept == (d.was.State == nodepb.DeclarationState_DECLINED):
		return nil, ErrDecided
	}
	return statusOf(d.kept.Status, d.was), nil
}

// Resume completes what was begun to be accepted before the node stopped.
func (s *Source) Resume(ctx context.Context) error {
	release, err := s.locks.Acquire(ctx, "decide")
	if err != nil {
		return err
	}
	defer release()
	return s.complete(ctx)
}

// complete accepts what was begun to be: it may have been published.
func (s *Source) complete(ctx context.Context) error {
	begun, err := s.cfg.Queue.IDs(tabAcceptances, "")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, id := range begun {
		a := new(nodepb.KeptAcceptance)
		if ok, err := load(s.cfg.Queue, key(tabAcceptances, names.Ticket(id)), a); err != nil || !ok {
			return err
		}
		d, err := s.declaration(names.Ticket(id))
		if err != nil {
			return err
		}
		by := exchange.Caller{Application: a.Application, User: names.UserID(a.User), AuthLevel: a.AuthLevel, Channel: a.Channel}
		if _, err := s.publishAccepted(ctx, by, d); err != nil && !errors.Is(err, ErrNotPublished) {
			return err
		}
	}
	return nil
}

// declared is a declaration that this institution has received.
type declared struct {
	ticket names.Ticket
	kept   *nodepb.KeptSubmission
	was    *nodepb.SubmissionStatus
	p      *registrypb.Publication
}

func (s *Source) declaration(ticket names.Ticket) (*declared, error) {
	d := &declared{ticket: ticket, kept: new(nodepb.KeptSubmission)}
	ok, err := load(s.cfg.Queue, key(tabSubmissions, ticket), d.kept)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrNotFound
	}
	if d.was, _, err = openStatus(d.kept.Status); err == nil {
		d.p, err = readPublication(d.kept.Publication)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return d, nil
}

// accept keeps that a declaration is accepted, and by whom, before it publishes it: from
// then on it cannot be declined, and whoever asks again publishes nothing of his own.
func (s *Source) accept(ctx context.Context, by exchange.Caller, d *declared) (*Status, error) {
	if _, err := s.original(d.p, d.kept); err != nil {
		return nil, err
	}
	c, err := row(key(tabAcceptances, d.ticket), &nodepb.KeptAcceptance{
		Application: by.Application, User: string(by.User), AuthLevel: by.AuthLevel, Channel: by.Channel,
	}, s.cfg.Now())
	if err == nil {
		err = s.cfg.Queue.Write(c)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return s.publishAccepted(ctx, by, d)
}

// publishAccepted publishes what was begun to be accepted, and says that it is.
func (s *Source) publishAccepted(ctx context.Context, by exchange.Caller, d *declared) (*Status, error) {
	original, err := s.original(d.p, d.kept)
	if err != nil {
		return nil, err
	}
	begun := outbox.Change{Key: key(tabAcceptances, d.ticket), Delete: true}
	published, err := s.publish(ctx, by, d.ticket, d.p, d.kept, original)
	if errors.Is(err, ErrNotPublished) { // nobody was told: nothing is decided
		if failed := s.cfg.Queue.Write(begun); failed != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, failed)
		}
	}
	if err != nil {
		return nil, err
	}
	changes := []outbox.Change{begun}
	if original != nil {
		more, err := s.supersede(ctx, by, d.p, original, d.ticket)
		if err != nil {
			return nil, err
		}
		changes = append(changes, more...)
	}
	return s.conclude(ctx, by, d, &nodepb.SubmissionStatus{
		Ticket: string(d.ticket), Declarant: d.kept.Declarant, State: nodepb.DeclarationState_ACCEPTED, Published: string(published),
	}, changes...)
}

// conclude signs and journals a decision, and then keeps it.
func (s *Source) conclude(ctx context.Context, by exchange.Caller, d *declared, next *nodepb.SubmissionStatus, with ...outbox.Change) (*Status, error) {
	signed, err := s.sign(next)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := s.journal(ctx, by, d.p, d.ticket, next, signed); err != nil {
		return nil, err
	}
	d.kept.Status, d.kept.Content = signed, nil
	c, err := row(key(tabSubmissions, d.ticket), d.kept, time.UnixMilli(d.kept.ReceivedUnixMs))
	if err == nil {
		err = s.cfg.Queue.Write(append(with, c)...)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return statusOf(signed, next), nil
}

func (s *Source) journal(ctx context.Context, by exchange.Caller, p *registrypb.Publication, ticket names.Ticket, st *nodepb.SubmissionStatus, signed []byte) error {
	e := entry(s.cfg.Now(), nodepb.Role_RECIPIENT, nodepb.Event_SUBMISSION_DECIDED, ticket, p, nodeRef(s.cfg.Self), p.Publisher, st, signed)
	e.User, e.Application, e.Channel = string(by.User), by.Application, by.Channel
	if _, err := s.cfg.Journal.Append(context.WithoutCancel(ctx), e); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// original gives what a correction or cancellation is of; nil for a declaration that is
// neither.
func (s *Source) original(p *registrypb.Publication, of *nodepb.KeptSubmission) (*declared, error) {
	if p.Change == registrypb.Change_CHANGED {
		return nil, nil
	}
	d, err := s.declaration(names.Ticket(p.RefersTo))
	if errors.Is(err, ErrNotFound) || err == nil && d.kept.Declarant != of.Declarant {
		return nil, ErrOriginal
	}
	if err != nil {
		return nil, err
	}
	if d.was.State != nodepb.DeclarationState_ACCEPTED || d.p.Dataset != p.Dataset || !sameSubject(d.kept, of) {
		return nil, ErrOriginal
	}
	return d, nil
}

// sameSubject follows what numbers were replaced by, as far as the clearances of both tell:
// that of the later one knows of what happened in between.
func sameSubject(a, b *nodepb.KeptSubmission) bool {
	for _, x := range a.Numbers {
		for _, y := range b.Numbers {
			if proto.Equal(x, y) {
				return true
			}
		}
	}
	return false
}

// publish tells everybody concerned. The client ticket is made of the declaration's, so
// that it is published once however often this is done.
func (s *Source) publish(ctx context.Context, by exchange.Caller, ticket names.Ticket, p *registrypb.Publication, kept *nodepb.KeptSubmission, original *declared) (names.Ticket, error) {
	c := notify.Change{
		Caller: by, ClientTicket: names.ClientTicket("decl-" + ticket), Dataset: names.DatasetID(p.Dataset), Scheme: subject.Scheme(p.Subject.Scheme), Number: p.Subject.Number,
		Period: record.Period(p.Period), Kind: p.Change, CausedBy: ticket, Record: bytes.TrimSuffix(bytes.TrimPrefix(kept.Content, []byte("[")), []byte("]")),
	}
	if original != nil {
		c.RefersTo = names.Ticket(original.was.Published)
	}
	done, err := s.cfg.Publisher.Publish(ctx, c)
	if errors.Is(err, exchange.ErrBadQuestion) { // as when the schema has changed since
		return "", fmt.Errorf("%w: %w", ErrNotPublished, err)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if done.Reason != registrypb.Reason_REASON_UNSPECIFIED {
		return "", fmt.Errorf("%w: %s", ErrNotPublished, done.Reason)
	}
	return done.Ticket, nil
}

// supersede says of an original what became of it.
func (s *Source) supersede(ctx context.Context, by exchange.Caller, p *registrypb.Publication, original *declared, with names.Ticket) ([]outbox.Change, error) {
	st := original.was
	st.State, st.SupersededBy = nodepb.DeclarationState_AMENDED, string(with)
	if p.Change == registrypb.Change_CANCELLED_CHANGE {
		st.State = nodepb.DeclarationState_ANNULLED
	}
	signed, err := s.sign(st)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := s.journal(ctx, by, original.p, original.ticket, st, signed); err != nil {
		return nil, err
	}
	original.kept.Status = signed
	c, err := row(key(tabSubmissions, original.ticket), original.kept, time.UnixMilli(original.kept.ReceivedUnixMs))
	return []outbox.Change{c}, err
}

// maxTickets is how many a declarant may ask about at once.
const maxTickets = 256

// Serve tells a declarant what became of its declarations. Another's look like none.
func (s *Source) Serve(_ context.Context, from names.NodeID, req *nodepb.SubmissionStatusRequest) (*nodepb.SubmissionStatusResponse, error) {
	resp := new(nodepb.SubmissionStatusResponse)
	for _, t := range req.GetTickets()[:min(len(req.GetTickets()), maxTickets)] {
		kept := new(nodepb.KeptSubmission)
		ok, err := load(s.cfg.Queue, key(tabSubmissions, names.Ticket(t)), kept)
		if err != nil {
			return nil, err
		}
		if ok && kept.Declarant == string(from.Institution) {
			resp.Statuses = append(resp.Statuses, kept.Status)
		}
	}
	return resp, nil
}

func statusOf(signed []byte, s *nodepb.SubmissionStatus) *Status {
	return &Status{Ticket: names.Ticket(s.Ticket), Source: names.InstitutionID(s.GetSource().GetInstitution()), State: s.State, Reasons: s.Reasons,
		Published: names.Ticket(s.Published), SupersededBy: names.Ticket(s.SupersededBy), Signed: signed}
}
