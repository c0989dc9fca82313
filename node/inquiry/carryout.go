package inquiry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// inquiry is one execution of one question. The goroutine of its Inquire owns it.
type inquiry struct {
	*Inquirer
	key   outbox.Key
	asked Question // with its parts set out
	kept  *nodepb.KeptInquiry
	again bool // it was begun before
}

// Inquire carries out an inquiry, or gives the outcome of the one that was carried out
// under the same application and client ticket. It concludes a little before ctx's
// deadline with what there is. When ctx is cancelled before, nothing is concluded, and
// whoever asks the same again continues.
//
// A refusal is a Result. The error wraps ErrNothingAllowed or one of package exchange's:
// ErrBadQuestion, ErrTicketReused, ErrAcknowledged, ErrRegistryStale,
// ErrJournalUnavailable; or it is the context's.
func (i *Inquirer) Inquire(ctx context.Context, q Question) (*Result, error) {
	if q.ClientTicket == "" {
		q.ClientTicket = names.ClientTicket(rand.Text())
	}
	if err := i.check(q); err != nil {
		return nil, err
	}
	if id, err := i.cfg.Schemes.Parse(q.Scheme, q.Number); err == nil {
		q.Number = id.Number() // however it was written
	}
	key := keyOf(q.Application, q.ClientTicket)
	release, err := i.locks.Acquire(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	x := &inquiry{Inquirer: i, key: key, asked: q}
	if x.kept, err = i.load(key); errors.Is(err, outbox.ErrNotFound) {
		err = x.setOut()
	} else if err == nil {
		err = x.resume()
	}
	if err != nil {
		return nil, err
	}
	if !x.kept.Concluded {
		if err := x.journal(ctx, nodepb.Event_INQUIRED); err != nil {
			return nil, err
		}
	}
	results, err := x.askAll(ctx)
	if err != nil {
		return nil, err
	}
	r := x.result(results)
	if x.kept.Concluded {
		return r, nil
	}
	// The parts are concluded, whoever still waits.
	return r, x.conclude(context.WithoutCancel(ctx), r)
}

// setOut decides what the parts are, and keeps them before any is asked.
func (x *inquiry) setOut() error {
	var ticket [32]byte
	rand.Read(ticket[:])
	x.kept = &nodepb.KeptInquiry{
		QuestionHash: x.asked.hash(), Ticket: string(names.TicketOf(ticket[:])),
		// It ends before its parts do: what is not kept any more would be asked anew.
		UntilUnixMs: x.cfg.Now().Add(x.cfg.Life - min(x.cfg.Life/10, 10*time.Second)).UnixMilli(),
	}
	if len(x.asked.Parts) == 0 {
		var err error
		if x.asked.Parts, err = x.allowed(); err != nil {
			return err
		}
	}
	for _, p := range x.asked.Parts {
		// Of its own, so that no party can tell from it what else was asked.
		part := &nodepb.InquiryPart{Dataset: string(p.Dataset), ClientTicket: "part-" + rand.Text()}
		if x.asked.Permits != nil && !x.asked.Permits(p.Dataset) {
			part.Reason = registrypb.Reason_LOCAL_POLICY
		}
		x.kept.Parts = append(x.kept.Parts, part)
	}
	return x.keep()
}

// resume takes up the parts that were set out.
func (x *inquiry) resume() error {
	x.again = true
	switch {
	case !bytes.Equal(x.kept.QuestionHash, x.asked.hash()):
		return exchange.ErrTicketReused
	case x.kept.Acknowledged:
		return exchange.ErrAcknowledged
	}
	if len(x.asked.Parts) == 0 {
		for _, p := range x.kept.Parts {
			x.asked.Parts = append(x.asked.Parts, Part{Dataset: names.DatasetID(p.Dataset)})
		}
	}
	return nil
}

// askAll asks every part, all at the same time. It gives a result of each, or the first
// error once all have ended: nothing is concluded then, and what came is kept.
func (x *inquiry) askAll(ctx context.Context) ([]*exchange.Result, error) {
	by := x.concludeBy(ctx)
	results, errs := make([]*exchange.Result, len(x.kept.Parts)), make([]error, len(x.kept.Parts))
	var all sync.WaitGroup
	for n := range x.kept.Parts {
		all.Go(func() { results[n], errs[n] = x.ask(ctx, n, by) })
	}
	all.Wait()
	return results, errors.Join(errs...)
}

// concludeBy leaves of the caller's time what it takes to write the outcome down.
func (x *inquiry) concludeBy(ctx context.Context) time.Time {
	now := time.Now()
	left := x.cfg.Limit
	if deadline, ok := ctx.Deadline(); ok {
		left = deadline.Sub(now)
	}
	return now.Add(left - min(max(left/10, 50*time.Millisecond), time.Second))
}

func (x *inquiry) ask(ctx context.Context, n int, by time.Time) (*exchange.Result, error) {
	part, kept := x.asked.Parts[n], x.kept.Parts[n]
	q := x.question(part, names.ClientTicket(kept.ClientTicket))
	q.By = by
	if kept.Reason == registrypb.Reason_LOCAL_POLICY {
		return x.refuse(ctx, q, kept)
	}
	r, err := x.cfg.Consultations.Consult(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", part.Dataset, err)
	}
	return r, nil
}

func (x *inquiry) question(p Part, t names.ClientTicket) exchange.Question {
	return exchange.Question{
		Caller: x.asked.Caller, ClientTicket: t, Purpose: x.asked.Purpose, Dataset: p.Dataset, Fields: p.Fields,
		Scheme: x.asked.Scheme, Number: x.asked.Number, Period: x.asked.Period, Suppliers: p.Suppliers, Inquiry: names.Ticket(x.kept.Ticket),
	}
}

// refuse gives LOCAL_POLICY for a part that never leaves the node. Its journal entry is
// durable first.
func (x *inquiry) refuse(ctx context.Context, q exchange.Question, kept *nodepb.InquiryPart) (*exchange.Result, error) {
	r := &exchange.Result{
		Ticket: names.TicketOf([]byte("crossroads refused part\x00" + kept.ClientTicket)), ClientTicket: q.ClientTicket,
		Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_LOCAL_POLICY,
	}
	if x.kept.Concluded {
		return r, nil
	}
	e := LocalRefusal(x.cfg.Self, x.cfg.Now(), q, x.cfg.Schemes, r.Ticket)
	if _, err := x.cfg.Journal.Append(ctx, e); err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	return r, nil
}

// conclude journals the outcome, and keeps that there is one, before it is given away.
func (x *inquiry) conclude(ctx context.Context, r *Result) error {
	for n, p := range r.Parts {
		k := x.kept.Parts[n]
		k.Ticket, k.Status, k.Reason = string(p.Ticket), p.Status, p.Reason
	}
	if err := x.journal(ctx, nodepb.Event_CONCLUDED); err != nil {
		return err
	}
	x.kept.Concluded = true
	return x.keep()
}

// Acknowledge says that the application holds the outcome durably. The ticket stays taken
// until its life ends. The error wraps exchange.ErrNotFound or ErrJournalUnavailable, or
// is the context's.
func (i *Inquirer) Acknowledge(ctx context.Context, application string, t names.ClientTicket) error {
	key := keyOf(application, t)
	release, err := i.locks.Acquire(ctx, key.ID)
	if err != nil {
		return err
	}
	defer release()
	kept, err := i.load(key)
	switch {
	case errors.Is(err, outbox.ErrNotFound) || err == nil && !kept.Concluded:
		return exchange.ErrNotFound
	case err != nil || kept.Acknowledged:
		return err
	}
	for _, p := range kept.Parts {
		err := i.cfg.Consultations.Acknowledge(ctx, application, names.ClientTicket(p.ClientTicket))
		if err != nil && !errors.Is(err, exchange.ErrNotFound) { // one that was refused here is not kept
			return err
		}
	}
	kept.Acknowledged = true
	return (&inquiry{Inquirer: i, key: key, kept: kept}).keep()
}

// keyOf joins with a zero byte, which neither part can hold.
func keyOf(application string, t names.ClientTicket) outbox.Key {
	return outbox.Key{Table: table, ID: application + "\x00" + string(t)}
}

func (i *Inquirer) load(key outbox.Key) (*nodepb.KeptInquiry, error) {
	raw, err := i.cfg.Outbox.Get(key)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil, err
	}
	kept := new(nodepb.KeptInquiry)
	if err == nil {
		err = proto.Unmarshal(raw, kept)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	return kept, nil
}

func (x *inquiry) keep() error {
	raw, err := proto.Marshal(x.kept)
	if err != nil {
		return err
	}
	if err := x.cfg.Outbox.Write(outbox.Change{Key: x.key, Value: raw, Until: time.UnixMilli(x.kept.UntilUnixMs)}); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	return nil
}
