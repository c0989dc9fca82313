package inbox

import (
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Limits of one Take.
const (
	MaxTake       = 1000
	maxTakeBytes  = 4 << 20
	MaxVisibility = 12 * time.Hour
)

// queue is what waits for one consumer, in order. Inbox.mu guards it.
type queue struct {
	Consumer
	list  *list.List // of *held
	place map[uint64]*list.Element
}

// held is an item as it waits for one consumer.
type held struct {
	*entry
	lease   string    // empty: nobody has it
	expires time.Time // of the lease, by the wall clock of the configuration
}

func newQueue(c Consumer) *queue {
	return &queue{Consumer: c, list: list.New(), place: map[uint64]*list.Element{}}
}

func (q *queue) add(e *entry) { q.place[e.ID] = q.list.PushBack(&held{entry: e}) }

func (q *queue) remove(id uint64) {
	if at := q.place[id]; at != nil {
		q.list.Remove(at)
		delete(q.place, id)
	}
}

// Want says which items to take.
type Want struct {
	Max        int           // 1 to MaxTake
	Visibility time.Duration // how long they are the taker's; at most MaxVisibility
	Kinds      []Kind        // none: all
	Datasets   []names.DatasetID
	Wants      func(Item) bool // beside what the consumer wants; nil: all
}

// Taken is an item in a consumer's hands.
type Taken struct {
	Item
	Lease   string // shows at Acknowledge whose it is
	Expires time.Time
}

// Take gives items that wait, the oldest first, and waits for one until ctx is done if
// there is none; then it gives none, and no error. The error wraps ErrNoConsumer or
// ErrUnavailable.
func (b *Inbox) Take(ctx context.Context, consumer string, w Want) ([]Taken, error) {
	for {
		picked, changed, soonest, err := b.pick(consumer, w)
		if err != nil {
			return nil, err
		}
		taken, err := b.read(consumer, picked)
		if err != nil || len(taken) > 0 {
			return taken, err
		}
		if !b.await(ctx, changed, soonest) {
			return nil, nil
		}
	}
}

// await waits for something to have changed, or for a lease to end; false: ctx is done.
func (b *Inbox) await(ctx context.Context, changed <-chan struct{}, soonest time.Time) bool {
	var expiry <-chan time.Time
	if !soonest.IsZero() {
		t := time.NewTimer(max(soonest.Sub(b.cfg.Now()), time.Millisecond))
		defer t.Stop()
		expiry = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-expiry:
	}
	return true
}

// pick leases what may be given now. If there is nothing, changed and soonest say when
// to look again.
func (b *Inbox) pick(consumer string, w Want) (picked []Taken, changed <-chan struct{}, soonest time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[consumer]
	if q == nil {
		return nil, nil, soonest, ErrNoConsumer
	}
	now := b.cfg.Now()
	blocked := map[string]bool{}
	for at := q.list.Front(); at != nil && len(picked) < w.Max; at = at.Next() {
		h := at.Value.(*held)
		free := !slices.ContainsFunc(h.order, func(k string) bool { return blocked[k] })
		for _, k := range h.order {
			blocked[k] = true
		}
		if h.lease != "" && now.Before(h.expires) {
			if soonest.IsZero() || h.expires.Before(soonest) {
				soonest = h.expires
			}
			continue
		}
		if !free || !w.fits(h.Item) {
			continue
		}
		h.lease, h.expires = rand.Text(), now.Add(w.Visibility)
		picked = append(picked, Taken{Item{ID: h.ID}, h.lease, h.expires})
	}
	return picked, b.changed, soonest, nil
}

func (w Want) fits(i Item) bool {
	return (len(w.Kinds) == 0 || slices.Contains(w.Kinds, i.Kind)) && (len(w.Datasets) == 0 || slices.Contains(w.Datasets, i.Dataset)) &&
		(w.Wants == nil || w.Wants(i))
}

// read adds the content; what does not fit in one answer is let go again.
func (b *Inbox) read(consumer string, picked []Taken) ([]Taken, error) {
	size := 0
	for i := range picked {
		item, err := b.load(picked[i].ID)
		if err == nil {
			picked[i].Item = *item
			if size += len(item.Content); size <= maxTakeBytes || i == 0 {
				continue
			}
		}
		for _, p := range picked[i:] {
			b.letGo(consumer, p)
		}
		if errors.Is(err, outbox.ErrNotFound) { // its life ended just now; Sweep says so
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return picked[:i], nil
	}
	return picked, nil
}

func (b *Inbox) letGo(consumer string, t Taken) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.inHand(consumer, t.ID, t.Lease); h != nil {
		h.lease = ""
		b.wake()
	}
}

// inHand gives an item that a consumer took under a lease which nobody else has taken
// over. Its caller holds mu.
func (b *Inbox) inHand(consumer string, id uint64, lease string) *held {
	q := b.queues[consumer]
	if q == nil || q.place[id] == nil || lease == "" {
		return nil
	}
	if h := q.place[id].Value.(*held); h.lease == lease {
		return h
	}
	return nil
}

// Release gives items back untreated: they are given again at once.
func (b *Inbox) Release(consumer string, receipts ...Receipt) error {
	for _, r := range receipts {
		b.letGo(consumer, Taken{Item: Item{ID: r.ID}, Lease: r.Lease})
	}
	return nil
}

// Hold keeps an item in a consumer's hands for so long from now, at most MaxVisibility.
// The error wraps ErrNotTaken.
func (b *Inbox) Hold(consumer string, r Receipt, visibility time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.inHand(consumer, r.ID, r.Lease)
	if h == nil {
		return fmt.Errorf("%w: %d", ErrNotTaken, r.ID)
	}
	h.expires = b.cfg.Now().Add(min(visibility, MaxVisibility))
	b.wake()
	return nil
}

// Receipt names an item in a consumer's hands.
type Receipt struct {
	ID    uint64
	Lease string
}

// Taker is who acknowledges, for the journal.
type Taker struct {
	Consumer string
	User     names.UserID // empty: the consumer itself
	Channel  string
}

// Acknowledge says that the consumer holds items durably: they are not given to it
// again. It is journaled before; then they are forgotten, if nobody else waits for them.
// Items that are not in its hands are named in the error, which wraps ErrNotTaken; the
// others are acknowledged all the same. Or it wraps ErrUnavailable, and then it is not
// known which were: acknowledging again is safe.
func (b *Inbox) Acknowledge(ctx context.Context, by Taker, receipts []Receipt) error {
	var refused []uint64
	var items []*entry
	b.mu.Lock()
	for _, r := range receipts {
		if h := b.inHand(by.Consumer, r.ID, r.Lease); h != nil {
			items = append(items, h.entry)
			continue
		}
		refused = append(refused, r.ID)
	}
	b.mu.Unlock()
	var changes []outbox.Change
	for _, e := range items {
		changes = append(changes, outbox.Change{Key: takenKey(e.ID, by.Consumer), Value: []byte{1}, Until: e.Received.Add(b.cfg.Life)})
	}
	if len(items) > 0 {
		if err := b.journalTaken(ctx, by, items); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if err := b.cfg.Store.Write(changes...); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	b.mu.Lock()
	var done []*entry
	for _, e := range items {
		if q := b.queues[by.Consumer]; q.place[e.ID] != nil {
			q.remove(e.ID)
			if e.waiting--; e.waiting == 0 {
				done = append(done, e)
			}
		}
	}
	b.wake()
	b.mu.Unlock()
	b.forget(done)
	if len(refused) > 0 {
		return fmt.Errorf("%w: %v", ErrNotTaken, refused)
	}
	return nil
}

// forget takes items off the disk. A crash that undoes it leaves them acknowledged.
func (b *Inbox) forget(done []*entry) {
	var changes []outbox.Change
	for _, e := range done {
		changes = append(changes, outbox.Change{Key: itemKey(e.ID), Delete: true, Lazy: true})
		for name := range b.queues {
			changes = append(changes, outbox.Change{Key: takenKey(e.ID, name), Delete: true, Lazy: true})
		}
	}
	if len(changes) == 0 {
		return
	}
	if err := b.cfg.Store.Write(changes...); err != nil {
		b.cfg.Log.Error("inbox: taken items could not be forgotten; they end with their life", "err", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range done {
		delete(b.items, e.ID)
	}
}

func (b *Inbox) journalTaken(ctx context.Context, by Taker, items []*entry) error {
	entries := make([]*nodepb.Entry, len(items))
	for i, e := range items {
		item, err := b.load(e.ID)
		if err != nil {
			return err
		}
		j := b.journalEntry(nodepb.Event_TAKEN, item)
		j.User, j.Application, j.Channel = string(by.User), by.Consumer, by.Channel
		if j.User == "" {
			j.User = by.Consumer
		}
		entries[i] = j
	}
	return b.cfg.Journal.AppendAll(context.WithoutCancel(ctx), entries)
}

// journalEntry says what an item is, without its content.
func (b *Inbox) journalEntry(event nodepb.Event, i *Item) *nodepb.Entry {
	e := &nodepb.Entry{
		TimeUnixMs: b.cfg.Now().UnixMilli(), Role: nodepb.Role_RECIPIENT, Event: event, Ticket: string(i.Ticket),
		Requester: &registrypb.NodeRef{Institution: string(b.cfg.Self.Institution), Node: string(b.cfg.Self.Node)},
		Supplier:  &registrypb.NodeRef{Institution: string(i.From)}, Purpose: string(i.Purpose), Dataset: string(i.Dataset),
		Mode: string(i.mode()), Authorization: string(i.Authorization), Detail: i.Kind.String(),
		Subject: wireSubject(i.Subject), Period: &registrypb.Period{From: int32(i.Period.From), Until: int32(i.Period.Until)},
	}
	for _, f := range i.Fields {
		e.Fields = append(e.Fields, string(f))
	}
	for _, id := range i.FiledUnder {
		if id != i.Subject {
			e.AlsoSubjects = append(e.AlsoSubjects, wireSubject(id))
		}
	}
	return e
}

func (i *Item) mode() names.Mode {
	if i.Kind == Notification {
		return names.Notification
	}
	return names.Submission
}
