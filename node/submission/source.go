package submission

import (
	"bytes"
	"context"
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
	c, err := row(key(tabSubmissions, t.Ticket), &nodepb.KeptSubmission{
		Declarant: string(t.Publisher.Institution), Publication: publication, Content: item.Content, Status: status, ReceivedUnixMs: item.Received.UnixMilli(),
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
// be; deciding the same again is deciding once. The error wraps ErrNotFound, ErrDecided,
// ErrOriginal, ErrNotPublished or ErrUnavailable.
func (s *Source) Decide(ctx context.Context, by exchange.Caller, ticket names.Ticket, accept bool, reasons []*nodepb.FieldReason) (*Status, error) {
	release, err := s.locks.Acquire(ctx, "decide") // an original and its correction are decided one after the other
	if err != nil {
		return nil, err
	}
	defer release()
	kept := new(nodepb.KeptSubmission)
	if ok, err := load(s.cfg.Queue, key(tabSubmissions, ticket), kept); err != nil || !ok {
		if err == nil {
			err = ErrNotFound
		}
		return nil, err
	}
	was, _, err := openStatus(kept.Status)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p, err := readPublication(kept.Publication)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if was.State != nodepb.DeclarationState_RECEIVED {
		if accept == (was.State == nodepb.DeclarationState_DECLINED) {
			return nil, ErrDecided
		}
		return statusOf(kept.Status, was), nil
	}
	next := &nodepb.SubmissionStatus{Ticket: string(ticket), Declarant: kept.Declarant, State: nodepb.DeclarationState_DECLINED, Reasons: reasons}
	var changes []outbox.Change
	if accept {
		next.State, next.Reasons = nodepb.DeclarationState_ACCEPTED, nil
		original, err := s.original(p, kept)
		if err != nil {
			return nil, err
		}
		published, err := s.publish(ctx, by, ticket, p, kept, original)
		if err != nil {
			return nil, err
		}
		next.Published = string(published)
		if original != nil {
			if changes, err = s.supersede(ctx, by, p, original, ticket); err != nil {
				return nil, err
			}
		}
	}
	signed, err := s.sign(next)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := s.journal(ctx, by, p, ticket, next, signed); err != nil {
		return nil, err
	}
	kept.Status, kept.Content = signed, nil
	c, err := row(key(tabSubmissions, ticket), kept, time.UnixMilli(kept.ReceivedUnixMs))
	if err == nil {
		err = s.cfg.Queue.Write(append(changes, c)...)
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
func (s *Source) original(p *registrypb.Publication, of *nodepb.KeptSubmission) (*nodepb.KeptSubmission, error) {
	if p.Change == registrypb.Change_CHANGED {
		return nil, nil
	}
	kept := new(nodepb.KeptSubmission)
	ok, err := load(s.cfg.Queue, key(tabSubmissions, names.Ticket(p.RefersTo)), kept)
	if err != nil {
		return nil, err
	}
	if !ok || kept.Declarant != of.Declarant {
		return nil, ErrOriginal
	}
	was, _, err := openStatus(kept.Status)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	about, err := readPublication(kept.Publication)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if was.State != nodepb.DeclarationState_ACCEPTED || about.Dataset != p.Dataset || !s.sameSubject(about.Subject, p.Subject) {
		return nil, ErrOriginal
	}
	return kept, nil
}

// sameSubject follows what numbers were replaced by, as far as this node knows.
func (s *Source) sameSubject(a, b *registrypb.Subject) (same bool) {
	if proto.Equal(a, b) {
		return true
	}
	_ = s.cfg.Registry.View(func(v record.View) error {
		x, err := v.Current(subject.Raw(subject.Scheme(a.GetScheme()), a.GetNumber()))
		if err != nil {
			return err
		}
		y, err := v.Current(subject.Raw(subject.Scheme(b.GetScheme()), b.GetNumber()))
		same = err == nil && x == y
		return err
	})
	return same
}

// publish tells everybody concerned. The client ticket is made of the declaration's, so
// that it is published once however often this is done.
func (s *Source) publish(ctx context.Context, by exchange.Caller, ticket names.Ticket, p *registrypb.Publication, kept, original *nodepb.KeptSubmission) (names.Ticket, error) {
	c := notify.Change{
		Caller: by, ClientTicket: names.ClientTicket("decl-" + ticket), Dataset: names.DatasetID(p.Dataset), Scheme: subject.Scheme(p.Subject.Scheme), Number: p.Subject.Number,
		Period: record.Period(p.Period), Kind: p.Change, CausedBy: ticket, Record: bytes.TrimSuffix(bytes.TrimPrefix(kept.Content, []byte("[")), []byte("]")),
	}
	if original != nil {
		was, _, err := openStatus(original.Status)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		c.RefersTo = names.Ticket(was.Published)
	}
	done, err := s.cfg.Publisher.Publish(ctx, c)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if done.Reason != registrypb.Reason_REASON_UNSPECIFIED {
		return "", fmt.Errorf("%w: %s", ErrNotPublished, done.Reason)
	}
	return done.Ticket, nil
}

// supersede says of an original what became of it.
func (s *Source) supersede(ctx context.Context, by exchange.Caller, p *registrypb.Publication, original *nodepb.KeptSubmission, with names.Ticket) ([]outbox.Change, error) {
	st, _, err := openStatus(original.Status)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	st.State, st.SupersededBy = nodepb.DeclarationState_AMENDED, string(with)
	if p.Change == registrypb.Change_CANCELLED_CHANGE {
		st.State = nodepb.DeclarationState_ANNULLED
	}
	signed, err := s.sign(st)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	about, err := readPublication(original.Publication)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := s.journal(ctx, by, about, names.Ticket(st.Ticket), st, signed); err != nil {
		return nil, err
	}
	original.Status = signed
	c, err := row(key(tabSubmissions, names.Ticket(st.Ticket)), original, time.UnixMilli(original.ReceivedUnixMs))
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
