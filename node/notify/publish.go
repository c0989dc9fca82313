package notify

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxChanges is how many changes are taken in by one call of PublishAll.
const MaxChanges = 256

// Published is what came of one of several changes: it was accepted, or there is an error,
// as Publish gives it.
type Published struct {
	*Accepted
	Err error
}

// Publish accepts a change, or gives what it gave for the same one under the same
// application and client ticket. When it returns, the change is durable and journaled,
// and everybody concerned will be told without further asking.
//
// A change that this institution has no right to publish is Accepted with a Reason, and
// journaled. The error is an *exchange.QuestionError, wraps ErrTicketReused or
// ErrUnavailable, or is the context's.
func (p *Publisher) Publish(ctx context.Context, c Change) (*Accepted, error) {
	r := p.PublishAll(ctx, []Change{c})[0]
	return r.Accepted, r.Err
}

// PublishAll accepts changes as Publish does each, in their order, and gives what came of
// each: with one signature, and made durable together. None but its own error keeps one
// from being accepted, but that journal or queue fail. A client ticket may stand in it
// once. More than MaxChanges at once are an error of each.
func (p *Publisher) PublishAll(ctx context.Context, changes []Change) []Published {
	out := make([]Published, len(changes))
	work, err := p.intake(changes, out)
	if err != nil {
		return failed(out, err)
	}
	release, err := p.lockAll(ctx, work, func(w *incoming) string { return w.key.ID })
	if err != nil {
		return failed(out, err)
	}
	defer release()
	if work, err = p.unknown(ctx, work); err != nil {
		return failed(out, err)
	}
	// From numbering to handing on, one at a time about one subject: the order in which
	// changes are accepted is that in which they arrive.
	ordered, err := p.lockAll(ctx, work, func(w *incoming) string { return string(w.subject.Key()) })
	if err != nil {
		return failed(out, err)
	}
	defer ordered()
	if err := p.accept(ctx, work); err != nil {
		return failed(out, err)
	}
	return out
}

// incoming is a change on its way in.
type incoming struct {
	*change
	key outbox.Key // of its client ticket
	out *Published // for what came of it
}

// failed notes an error of all of which nothing else came.
func failed(out []Published, err error) []Published {
	for i := range out {
		if out[i].Accepted == nil && out[i].Err == nil {
			out[i].Err = err
		}
	}
	return out
}

// intake checks the form of each.
func (p *Publisher) intake(changes []Change, out []Published) (work []*incoming, err error) {
	if len(changes) > MaxChanges {
		return nil, &exchange.QuestionError{Field: "items", Remedy: fmt.Sprintf("publish at most %d at once", MaxChanges)}
	}
	seen := map[string]bool{}
	for i, c := range changes {
		if c.ClientTicket == "" {
			c.ClientTicket = names.ClientTicket(rand.Text())
		}
		a, err := p.canonical(c)
		if err != nil {
			out[i].Err = err
			continue
		}
		w := &incoming{change: a, key: outbox.Key{Table: tabTickets, ID: a.Application + "\x00" + string(a.ClientTicket)}, out: &out[i]}
		if seen[w.key.ID] {
			out[i].Err = &exchange.QuestionError{Field: "client_ticket", Remedy: "it stands twice here: give each change its own"}
			continue
		}
		seen[w.key.ID] = true
		work = append(work, w)
	}
	return work, nil
}

// lockAll takes a lock for each, in order of the keys, so that no two callers wait for each
// other.
func (p *Publisher) lockAll(ctx context.Context, work []*incoming, key func(*incoming) string) (release func(), err error) {
	keys := make([]string, len(work))
	for i, w := range work {
		keys[i] = key(w)
	}
	slices.Sort(keys)
	var held []func()
	release = func() {
		for _, r := range held {
			r()
		}
	}
	for _, k := range slices.Compact(keys) {
		r, err := p.locks.Acquire(ctx, k)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, r)
	}
	return release, nil
}

// unknown gives those that are to be accepted: what was accepted before is given again, and
// what this institution has no right to publish is refused.
func (p *Publisher) unknown(ctx context.Context, work []*incoming) (fresh []*incoming, err error) {
	var looked []*incoming
	reasons := map[*incoming]registrypb.Reason{}
	for _, w := range work {
		switch done, err := p.known(w); {
		case err != nil:
			w.out.Err = err
		case done != nil:
			w.out.Accepted = done
		case w.malformed:
			reasons[w] = registrypb.Reason_MALFORMED_NUMBER
		default:
			looked = append(looked, w)
		}
	}
	err = p.cfg.Registry.View(func(v record.View) error {
		for _, w := range looked {
			reason, err := p.mayPublish(v, w.change)
			switch {
			case err != nil:
				w.out.Err = err
			case reason != registrypb.Reason_REASON_UNSPECIFIED:
				reasons[w] = reason
			default:
				fresh = append(fresh, w)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, w := range work {
		if reason, refused := reasons[w]; refused {
			w.out.Accepted, w.out.Err = p.refuse(ctx, w.change, reason)
		}
	}
	return fresh, nil
}

// known gives what was given for the same change before; nil: it is a new one.
func (p *Publisher) known(w *incoming) (*Accepted, error) {
	kept := new(nodepb.KeptClientTicket)
	switch ok, err := p.load(w.key, kept); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !ok:
		return nil, nil
	case !bytes.Equal(kept.ChangeHash, w.hash()):
		return nil, ErrTicketReused
	}
	return &Accepted{Ticket: names.Ticket(kept.Ticket), ClientTicket: w.ClientTicket, Time: time.UnixMilli(kept.TimeUnixMs)}, nil
}

// accept signs changes, journals them, keeps them and hands them on. In this order: a
// change that is kept is told, and its ticket given again, whatever comes between; so its
// entry must be there. An entry whose change was not kept is one that nobody was given.
func (p *Publisher) accept(ctx context.Context, work []*incoming) error {
	if len(work) == 0 {
		return nil
	}
	now := p.cfg.Now()
	publications, raws, err := p.sign(work, now)
	if err != nil {
		return err
	}
	p.mu.Lock()
	first := p.next + 1
	p.next += uint64(len(work))
	p.mu.Unlock()
	until := now.Add(p.cfg.Keep)
	rows, entries := make([]outbox.Change, 0, 2*len(work)), make([]*nodepb.Entry, len(work))
	sequences, accepted := make([]uint64, len(work)), make([]*Accepted, len(work))
	for i, w := range work {
		ticket := names.TicketOf(raws[i])
		sequences[i] = first + uint64(i)
		row, err1 := changeOf(publicationKey(sequences[i]), &nodepb.KeptPublication{Publication: raws[i], Record: w.Record, UntilUnixMs: until.UnixMilli()}, until)
		mark, err2 := changeOf(w.key, &nodepb.KeptClientTicket{Sequence: sequences[i], ChangeHash: w.hash(), Ticket: string(ticket), TimeUnixMs: now.UnixMilli()}, until)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		rows = append(rows, row, mark)
		entries[i] = publicationEntry(now, nodepb.Role_PUBLISHER, nodepb.Event_PUBLISHED, ticket, publications[i], sum(raws[i]))
		entries[i].Evidence = [][]byte{raws[i]}
		accepted[i] = &Accepted{Ticket: ticket, ClientTicket: w.ClientTicket, Time: now}
	}
	if err := appendAll(ctx, p.cfg.Journal, entries); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := p.cfg.Queue.Write(rows...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.mu.Lock()
	p.pending = append(p.pending, sequences...)
	p.mu.Unlock()
	p.nudge()
	for i, w := range work {
		w.out.Accepted = accepted[i]
	}
	return nil
}

// sign gives the publications and their envelopes: several with one signature, and one
// with those that others publish at the same time.
func (p *Publisher) sign(work []*incoming, now time.Time) (all []*registrypb.Publication, raws [][]byte, err error) {
	var payloads [][]byte
	for _, w := range work {
		m := w.publication(p.cfg.Mesh, p.cfg.Self, now.UnixMilli())
		payload, err := proto.Marshal(m)
		if err != nil {
			return nil, nil, fmt.Errorf("encode publication: %w", err)
		}
		all, payloads = append(all, m), append(payloads, payload)
	}
	if len(payloads) == 1 {
		raws = make([][]byte, 1)
		raws[0], err = p.group.Sign(envelope.Publication, payloads[0])
	} else {
		raws, err = envelope.SignAll(envelope.Publication, payloads, p.cfg.Signer)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("sign publication: %w", err)
	}
	return all, raws, nil
}
