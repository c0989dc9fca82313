package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Inbox keeps what arrives; inbox.Inbox is one.
type Inbox interface {
	Take(ctx context.Context, consumer string, w inbox.Want) ([]inbox.Taken, error)
	Acknowledge(ctx context.Context, by inbox.Taker, receipts []inbox.Receipt) error
	Release(consumer string, receipts ...inbox.Receipt) error
	Waiting(consumer string) (n int, since time.Time, err error)
}

// Replayer asks publishers to tell once more; notify.Recipient is one.
type Replayer interface {
	Replay(ctx context.Context, by exchange.Caller, publisher names.InstitutionID, since time.Time) (int, error)
}

func (q *request) takesInbox() error {
	if !q.app.Inbox {
		return problem(CodeForbidden, "Authorization", "This takes an application with inbox: true in the node's configuration.")
	}
	return nil
}

// spare is kept of a request's time, so that what was taken still reaches the taker.
const spare = 500 * time.Millisecond

// takeInbox waits for something to take for as long as the caller waits ("Prefer").
func (s *Server) takeInbox(q *request) (response, error) {
	if err := q.takesInbox(); err != nil {
		return nil, err
	}
	in, err := decode[InboxQuery](q.body)
	if err != nil {
		return nil, err
	}
	w := inbox.Want{Max: in.Max, Visibility: time.Duration(in.Visibility) * time.Second, Datasets: in.Datasets}
	if w.Max == 0 {
		w.Max = 100
	}
	if w.Visibility == 0 {
		w.Visibility = time.Minute
	}
	switch {
	case w.Max < 1 || w.Max > inbox.MaxTake:
		return nil, problem(CodeMalformed, "max", fmt.Sprintf("Want 1 to %d.", inbox.MaxTake))
	case w.Visibility < time.Second || w.Visibility > inbox.MaxVisibility:
		return nil, problem(CodeMalformed, "visibility_seconds", fmt.Sprintf("Want 1 to %d.", int(inbox.MaxVisibility/time.Second)))
	}
	for i, word := range in.Kinds {
		k := inbox.KindOf(word)
		if k == 0 {
			return nil, problem(CodeMalformed, fmt.Sprintf("kinds[%d]", i), "Want notification, declaration or result.")
		}
		w.Kinds = append(w.Kinds, k)
	}
	for i, d := range in.Datasets {
		if err := form(fmt.Sprintf("datasets[%d]", i), d.Validate(), "Name it with its version, as wages-quarterly/v1; see GET /v1/datasets."); err != nil {
			return nil, err
		}
	}
	if len(in.Tickets) > 0 {
		w.Wants = func(i inbox.Item) bool { return slices.Contains(in.Tickets, i.Ticket) }
	}
	ctx := q.Context()
	if deadline, ok := ctx.Deadline(); ok {
		limited, cancel := context.WithDeadline(ctx, deadline.Add(-spare))
		defer cancel()
		ctx = limited
	}
	taken, err := s.cfg.Inbox.Take(ctx, q.app.Name, w)
	if err != nil {
		return nil, err
	}
	out := InboxItems{Items: []InboxItem{}}
	for _, t := range taken {
		out.Items = append(out.Items, inboxItemOf(t))
	}
	return out, nil
}

func inboxItemOf(t inbox.Taken) InboxItem {
	i := InboxItem{
		ID: t.ID, Lease: t.Lease, Expires: t.Expires.UTC(), Kind: t.Kind.String(), Ticket: t.Ticket, From: t.From, Dataset: t.Dataset, Purpose: t.Purpose,
		Fields: t.Fields, Change: changeWord(t.Change), RefersTo: t.RefersTo, CausedBy: t.CausedBy, Status: t.Status, ClientTicket: t.ClientTicket,
		Replayed: t.Replayed, Received: t.Received.UTC(), Records: t.Content,
	}
	if !t.Subject.IsZero() {
		i.Subject = wireSubject(t.Subject)
	}
	if !t.Current.IsZero() && t.Current != t.Subject {
		i.Current = wireSubject(t.Current)
	}
	for _, id := range t.FiledUnder {
		i.FiledUnder = append(i.FiledUnder, *wireSubject(id))
	}
	if t.Period != (names.Period{}) {
		i.Period = &t.Period
	}
	return i
}

func wireSubject(id subject.ID) *Subject {
	return &Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func (s *Server) inboxReceipts(q *request) ([]inbox.Receipt, error) {
	if err := q.takesInbox(); err != nil {
		return nil, err
	}
	in, err := decode[InboxReceipts](q.body)
	if err != nil {
		return nil, err
	}
	if len(in.Items) == 0 || len(in.Items) > inbox.MaxTake {
		return nil, problem(CodeMalformed, "items", fmt.Sprintf("Send 1 to %d.", inbox.MaxTake))
	}
	var receipts []inbox.Receipt
	for _, r := range in.Items {
		receipts = append(receipts, inbox.Receipt{ID: r.ID, Lease: r.Lease})
	}
	return receipts, nil
}

func (s *Server) acknowledgeInbox(q *request) (response, error) {
	receipts, err := s.inboxReceipts(q)
	if err != nil {
		return nil, err
	}
	return nil, s.cfg.Inbox.Acknowledge(q.Context(), inbox.Taker{Consumer: q.app.Name, User: q.user.id, Channel: q.user.channel}, receipts)
}

func (s *Server) releaseInbox(q *request) (response, error) {
	receipts, err := s.inboxReceipts(q)
	if err != nil {
		return nil, err
	}
	return nil, s.cfg.Inbox.Release(q.app.Name, receipts...)
}

func (s *Server) inboxState(q *request) (response, error) {
	if !q.app.Inbox && !q.app.Admin {
		return nil, q.takesInbox()
	}
	var st InboxState
	if q.app.Inbox {
		n, since, err := s.cfg.Inbox.Waiting(q.app.Name)
		if err != nil {
			return nil, err
		}
		st.Waiting, st.Oldest = n, timeOf(since)
	}
	if !q.app.Admin {
		return st, nil
	}
	for _, p := range s.cfg.Pushers {
		pushed := p.Status()
		n, since, err := s.cfg.Inbox.Waiting(pushed.Name)
		if err != nil {
			return nil, err
		}
		st.Pushes = append(st.Pushes, pushStateOf(pushed, n, since))
	}
	return st, nil
}

func pushStateOf(p push.Status, waiting int, since time.Time) PushState {
	st := PushState{
		Name: p.Name, State: PushWorks, Waiting: waiting, Oldest: timeOf(since), Delivered: p.Delivered, Failures: p.Failures,
		FailingSince: timeOf(p.Since), Next: timeOf(p.Next), Why: p.Why, Refused: p.Refused,
	}
	switch {
	case p.Paused:
		st.State = PushPaused
	case p.Failures > 0:
		st.State = PushFails
	}
	for _, t := range p.Trouble {
		st.Trouble = append(st.Trouble, PushTrouble{
			ID: t.ID, Ticket: t.Ticket, Attempts: t.Attempts, Since: t.Since.UTC(), Next: t.Next.UTC(), Refused: t.Refused, Why: t.Why,
		})
	}
	return st
}

// resumePush has a system sent at once what it did not accept.
func (s *Server) resumePush(q *request) (response, error) {
	in, err := decode[PushResume](q.body)
	if err != nil {
		return nil, err
	}
	for _, p := range s.cfg.Pushers {
		if p.Status().Name == in.Name {
			return Count{p.Resume()}, nil
		}
	}
	return nil, problem(CodeNotFound, "name", "See GET /v1/inbox for the systems that are sent what arrives.")
}

func (s *Server) replayInbox(q *request) (response, error) { return s.replay(q, s.cfg.Replayer.Replay) }
