package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Publisher publishes changes, and tells of their deliveries; notify.Publisher is one.
type Publisher interface {
	Publish(ctx context.Context, c notify.Change) (*notify.Accepted, error)
	PublishAll(ctx context.Context, all []notify.Change) []notify.Published
	Status(application string, t names.ClientTicket) (*notify.Status, error)
	Deliveries(s notify.Select) ([]notify.Waiting, error)
	Lags() []notify.Lag
	Pending() int
	Redrive(ctx context.Context, by exchange.Caller, s notify.Select) (int, error)
	Drop(ctx context.Context, by exchange.Caller, s notify.Select) (int, error)
	Replay(ctx context.Context, by exchange.Caller, to names.InstitutionID, since time.Time) (int, error)
}

var changes = map[string]registrypb.Change{
	"": registrypb.Change_CHANGED, "CHANGED": registrypb.Change_CHANGED, "CORRECTED": registrypb.Change_CORRECTED, "CANCELLED": registrypb.Change_CANCELLED_CHANGE,
}

func changeWord(c registrypb.Change) string {
	for word, k := range changes {
		if k == c && word != "" {
			return word
		}
	}
	return ""
}

// publish takes in a change. Its form is the publisher's to judge.
func (s *Server) publish(q *request) (response, error) {
	in, err := decode[PublicationRequest](q.body)
	if err != nil {
		return nil, err
	}
	if in.ClientTicket == "" {
		in.ClientTicket = names.ClientTicket(uuid.NewString())
	}
	c, err := q.change(in)
	if err != nil {
		return nil, err
	}
	var done *notify.Accepted
	if q.mayPublish(in.Dataset) {
		done, err = s.cfg.Publisher.Publish(q.Context(), c)
	} else {
		done, err = s.refusePublication(q, c)
	}
	if err != nil {
		p := *asProblem(err)
		p.ClientTicket = in.ClientTicket
		return nil, fmt.Errorf("%w: %w", &p, err)
	}
	return publicationOf(done), nil
}

// publishBatch takes in several changes: each by itself, and all that are accepted made
// durable together.
func (s *Server) publishBatch(q *request) (response, error) {
	in, err := decode[PublicationBatch](q.body)
	if err != nil {
		return nil, err
	}
	if n := len(in.Items); n == 0 || n > notify.MaxChanges {
		return nil, problem(CodeMalformed, "items", fmt.Sprintf("Publish 1 to %d changes at once.", notify.MaxChanges))
	}
	out := PublicationOutcomes{Items: make([]PublicationOutcome, len(in.Items))}
	var all []notify.Change
	var at []int // places of all in out
	for i := range in.Items {
		item := &in.Items[i]
		if item.ClientTicket == "" {
			return nil, problem(CodeMalformed, fmt.Sprintf("items[%d].client_ticket", i), "Give each its own number: under it the same batch can be published again.")
		}
		c, err := q.change(item)
		switch {
		case err != nil:
			out.Items[i] = q.failedPublication(item.ClientTicket, err)
		case q.mayPublish(item.Dataset):
			all, at = append(all, c), append(at, i)
		default:
			done, err := s.refusePublication(q, c)
			if err != nil {
				return nil, err
			}
			p := publicationOf(done)
			out.Items[i].Publication = &p
		}
	}
	for k, done := range s.cfg.Publisher.PublishAll(q.Context(), all) {
		i := at[k]
		switch bad := new(exchange.QuestionError); {
		case done.Err == nil:
			p := publicationOf(done.Accepted)
			out.Items[i].Publication = &p
		case errors.As(done.Err, &bad), errors.Is(done.Err, notify.ErrTicketReused):
			out.Items[i] = q.failedPublication(in.Items[i].ClientTicket, done.Err)
		default: // the node cannot say what became of them: all are to be published again
			return nil, done.Err
		}
	}
	return out, nil
}

func (q *request) failedPublication(t names.ClientTicket, err error) PublicationOutcome {
	p := *asProblem(err)
	p.ClientTicket, p.RequestID = t, q.id
	return PublicationOutcome{Problem: &p}
}

// change reads what is to be published, as this application asks it.
func (q *request) change(in *PublicationRequest) (c notify.Change, err error) {
	kind, known := changes[in.Change]
	switch {
	case in.Period == nil:
		return c, problem(CodeMalformed, "period", "Say which days the change is about, as {\"from\": \"2026-01-01\", \"until\": \"2026-03-31\"}.")
	case !known:
		return c, problem(CodeMalformed, "change", "Want CHANGED, CORRECTED or CANCELLED.")
	case q.app.UsersAsserted && !q.user.asserted:
		return c, problem(CodeMalformed, HeaderUser, "Say which user publishes: a journal that names only the application is no answer to a complaint.")
	}
	return notify.Change{
		Caller: q.caller(), ClientTicket: in.ClientTicket, Dataset: in.Dataset, Scheme: subject.Scheme(in.Subject.Scheme), Number: in.Subject.Number,
		Period: *in.Period, Kind: kind, RefersTo: in.RefersTo, CausedBy: in.CausedBy, Record: in.Record, Fields: in.Fields,
	}, nil
}

// mayPublish reports whether the institution's own policy lets the application publish it.
func (q *request) mayPublish(d names.DatasetID) bool {
	return len(q.app.Datasets) == 0 || slices.Contains(q.app.Datasets, d)
}

func publicationOf(done *notify.Accepted) Publication {
	out := Publication{Ticket: done.Ticket, ClientTicket: done.ClientTicket, Status: "ACCEPTED"}
	if done.Reason != registrypb.Reason_REASON_UNSPECIFIED {
		out.Status = "REFUSED"
		out.Reason, out.Explanation = reasonOf(done.Reason)
	} else {
		at := done.Time.UTC()
		out.Time = &at
	}
	return out
}

// refusePublication is what the institution's own policy does not let an application
// publish. It is journaled, as every refusal.
func (s *Server) refusePublication(q *request, c notify.Change) (*notify.Accepted, error) {
	r := &notify.Accepted{Ticket: names.TicketOf(fresh()), ClientTicket: c.ClientTicket, Reason: registrypb.Reason_LOCAL_POLICY}
	e := s.entry(q, nodepb.Role_PUBLISHER, nodepb.Event_PUBLISHED, subject.ID{})
	e.Subject, e.Requester, e.Supplier = nil, nil, s.self()
	e.Ticket, e.ClientTicket, e.Mode = string(r.Ticket), string(c.ClientTicket), string(names.Notification)
	if c.Dataset.Validate() == nil {
		e.Dataset = string(c.Dataset)
	}
	e.Outcome, e.Reason, e.Detail = registrypb.Outcome_DENY, r.Reason, "refused by this institution's own policy; nobody is told"
	if id, err := s.cfg.Schemes.Parse(c.Scheme, c.Number); err == nil {
		e.Subject = &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
	}
	if _, err := s.cfg.Journal.Append(q.Context(), e); err != nil {
		return nil, unavailable(err)
	}
	return r, nil
}

func (s *Server) publicationStatus(q *request) (response, error) {
	t := names.ClientTicket(q.PathValue("client_ticket"))
	if err := form("client_ticket", t.Validate(), "Use at most 36 printable ASCII characters."); err != nil {
		return nil, err
	}
	st, err := s.cfg.Publisher.Status(q.app.Name, t)
	if err != nil {
		return nil, err
	}
	out := PublicationStatus{Ticket: st.Ticket, Decided: st.Decided, Incomplete: st.Incomplete, Recipients: []PublicationRecipient{}}
	out.Reason, out.Explanation = reasonOf(st.Reason)
	for _, r := range st.Recipients {
		out.Recipients = append(out.Recipients, PublicationRecipient{Recipient: r.Recipient, Purpose: r.Purpose, State: string(r.State)})
	}
	return out, nil
}

func (s *Server) deliveries(q *request) (response, error) {
	v := q.URL.Query()
	sel := notify.Select{Recipient: names.InstitutionID(v.Get("recipient")), Ticket: names.Ticket(v.Get("ticket")), Limit: 100}
	if l := v.Get("limit"); l != "" {
		n, err := strconv.Atoi(l)
		if err != nil || n < 1 || n > 1000 {
			return nil, problem(CodeMalformed, "limit", "Want 1 to 1000.")
		}
		sel.Limit = n
	}
	switch v.Get("dead") {
	case "", "false":
	case "true":
		sel.Dead = true
	default:
		return nil, problem(CodeMalformed, "dead", "Want true or false.")
	}
	if err := checkSelection(sel.Recipient, sel.Ticket); err != nil {
		return nil, err
	}
	list, err := s.cfg.Publisher.Deliveries(sel)
	if err != nil {
		return nil, err
	}
	out := Deliveries{Items: []Delivery{}}
	for _, w := range list {
		d := Delivery{Ticket: w.Ticket, Recipient: w.Recipient, Purpose: w.Purpose, Dataset: w.Dataset, Queued: w.Queued.UTC(),
			Refused: w.Refused, Dead: w.Dead, HeldBack: w.HeldBack, Replayed: w.Replayed}
		d.Reason, _ = reasonOf(w.Reason)
		out.Items = append(out.Items, d)
	}
	return out, nil
}

func checkSelection(recipient names.InstitutionID, ticket names.Ticket) error {
	if recipient != "" {
		if err := form("recipient", recipient.Validate(), labelForm); err != nil {
			return err
		}
	}
	if ticket != "" {
		return form("ticket", ticket.Validate(), "Use a ticket as it was given.")
	}
	return nil
}

func (s *Server) deliveryLags(*request) (response, error) {
	out := DeliveryLags{Pending: s.cfg.Publisher.Pending(), Items: []DeliveryLag{}}
	for _, l := range s.cfg.Publisher.Lags() {
		out.Items = append(out.Items, DeliveryLag{Recipient: l.Recipient, Purpose: l.Purpose, Waiting: l.Waiting, Dead: l.Dead,
			Oldest: timeOf(l.Oldest), SilentSince: timeOf(l.Since), Why: l.Why})
	}
	return out, nil
}

func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (s *Server) redrive(q *request) (response, error) { return s.treat(q, s.cfg.Publisher.Redrive) }
func (s *Server) drop(q *request) (response, error)    { return s.treat(q, s.cfg.Publisher.Drop) }

func (s *Server) treat(q *request, how func(context.Context, exchange.Caller, notify.Select) (int, error)) (response, error) {
	in, err := decode[DeliverySelection](q.body)
	if err != nil {
		return nil, err
	}
	if err := checkSelection(in.Recipient, in.Ticket); err != nil {
		return nil, err
	}
	n, err := how(q.Context(), q.caller(), notify.Select{Recipient: in.Recipient, Ticket: in.Ticket})
	if err != nil {
		return nil, err
	}
	return Count{n}, nil
}

func (s *Server) replayDeliveries(q *request) (response, error) {
	return s.replay(q, s.cfg.Publisher.Replay)
}

func (s *Server) replay(q *request, how func(context.Context, exchange.Caller, names.InstitutionID, time.Time) (int, error)) (response, error) {
	in, err := decode[ReplayRequest](q.body)
	if err != nil {
		return nil, err
	}
	if err := form("institution", in.Institution.Validate(), labelForm+" See GET /v1/institutions."); err != nil {
		return nil, err
	}
	if in.Since.IsZero() {
		return nil, problem(CodeMalformed, "since", "Say since when, as 2026-01-31T00:00:00Z.")
	}
	n, err := how(q.Context(), q.caller(), in.Institution, in.Since)
	if err != nil {
		return nil, err
	}
	return Count{n}, nil
}

func (s *Server) subscriptions(q *request) (response, error) {
	return list(s, q, func(v record.View, add func(Subscription)) error {
		return v.Subscriptions(func(r *registrypb.Subscription) error {
			if !r.GetWithdrawn() {
				add(Subscription{
					Institution: names.InstitutionID(r.GetInstitution()), Dataset: names.DatasetID(r.GetDataset()), Purpose: names.Purpose(r.GetPurpose()),
					Qualities: as[names.Quality](r.GetQualities()), Fields: as[names.FieldName](r.GetFields()), Period: periodOf(r.GetPeriod()),
				})
			}
			return nil
		})
	})
}

// subscribe journals who changes what is sent here, before the command leaves and after.
func (s *Server) subscribe(q *request) (response, error) {
	in, err := decode[SubscriptionRequest](q.body)
	if err != nil {
		return nil, err
	}
	for _, bad := range []error{
		form("dataset", in.Dataset.Validate(), "Name it with its version, as wages-quarterly/v1; see GET /v1/datasets."),
		form("purpose", in.Purpose.Validate(), labelForm+" See GET /v1/authorizations."),
	} {
		if bad != nil {
			return nil, bad
		}
	}
	sub := &registrypb.Subscription{Institution: string(s.cfg.Self.Institution), Dataset: string(in.Dataset), Purpose: string(in.Purpose), Withdrawn: in.Withdrawn}
	for i, quality := range in.Qualities {
		if err := form(fmt.Sprintf("qualities[%d]", i), quality.Validate(), labelForm); err != nil {
			return nil, err
		}
		sub.Qualities = append(sub.Qualities, string(quality))
	}
	for i, f := range in.Fields {
		if err := form(fmt.Sprintf("fields[%d]", i), f.Validate(), "Use a field as the dataset's schema names it."); err != nil {
			return nil, err
		}
		sub.Fields = append(sub.Fields, string(f))
	}
	span := names.Period{From: names.DateOf(s.cfg.Now().UTC()), Until: names.Forever}
	if in.Period != nil {
		span = *in.Period
	}
	if err := form("period", span.Validate(), "Let from be no later than until."); err != nil {
		return nil, err
	}
	sub.Period = &registrypb.Period{From: int32(span.From), Until: int32(span.Until)}
	if in.Withdrawn && len(sub.Qualities) == 0 {
		if err := s.asSubscribed(sub, in); err != nil {
			return nil, err
		}
	}
	e := s.entry(q, nodepb.Role_RECIPIENT, nodepb.Event_SUBSCRIPTION_CHANGED, subject.ID{})
	e.Subject, e.Ticket, e.Dataset, e.Purpose, e.Mode = nil, string(names.TicketOf(fresh())), sub.Dataset, sub.Purpose, string(names.Notification)
	e.Period, e.Fields, e.Detail = sub.Period, sub.Fields, map[bool]string{true: "withdrawn", false: "subscribed"}[in.Withdrawn]
	entries := []*nodepb.Entry{e}
	if err := s.journalAll(q.Context(), entries); err != nil {
		return nil, err
	}
	done, trouble := s.cfg.Author.Do(q.Context(), &registrypb.Command{Body: &registrypb.Command_SetSubscription{SetSubscription: sub}})
	if trouble != nil {
		done = nil
	}
	if err := s.journalOutcome(q, entries, done); err != nil {
		return nil, err
	}
	if trouble != nil {
		return nil, registryTrouble(trouble)
	}
	return s.decided(q, done), nil
}

// asSubscribed takes what is withdrawn as it stands.
func (s *Server) asSubscribed(sub *registrypb.Subscription, in *SubscriptionRequest) error {
	return s.cfg.Registry.View(func(v record.View) error {
		was, err := v.Subscription(in.Dataset, s.cfg.Self.Institution, in.Purpose)
		switch {
		case err != nil:
			return err
		case was == nil || was.Withdrawn:
			return problem(CodeNotFound, "purpose", "This institution has no such subscription; see GET /v1/subscriptions.")
		}
		sub.Qualities, sub.Fields, sub.Period = was.Qualities, was.Fields, was.Period
		return nil
	})
}
