package inbox

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// sweepEvery is how often Run looks for items whose life has ended.
const sweepEvery = 10 * time.Second

// Run ends items that nobody took in time, until ctx is done.
func (b *Inbox) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := b.Sweep(ctx); err != nil && ctx.Err() == nil {
				b.cfg.Log.Error("inbox: items whose life ended could not be journaled; will try again", "err", err)
			}
		}
	}
}

// Sweep journals and drops items whose life has ended.
func (b *Inbox) Sweep(ctx context.Context) error {
	now := b.cfg.Now()
	var ended []*entry
	b.mu.Lock()
	for _, e := range b.items {
		if now.After(e.Received.Add(b.cfg.Life)) {
			ended = append(ended, e)
		}
	}
	b.mu.Unlock()
	for _, e := range ended {
		item, err := b.load(e.ID)
		if err != nil {
			item = &e.Item
		}
		j := b.journalEntry(nodepb.Event_INBOX_ENDED, item)
		j.Detail = fmt.Sprintf("%s: %d consumers did not take it while it was kept", e.Kind, e.waiting)
		if e.waiting > 0 {
			if _, err := b.cfg.Journal.Append(ctx, j); err != nil {
				return err
			}
		}
		b.mu.Lock()
		for _, q := range b.queues {
			q.remove(e.ID)
		}
		b.mu.Unlock()
	}
	b.forget(ended)
	return nil
}

// change is an item on its way to the disk.
func (b *Inbox) change(i *Item) (outbox.Change, error) {
	k := &nodepb.KeptItem{
		Kind: uint32(i.Kind), Ticket: string(i.Ticket), From: string(i.From), Dataset: string(i.Dataset), Purpose: string(i.Purpose),
		Authorization: string(i.Authorization), Subject: wireSubject(i.Subject), Current: wireSubject(i.Current),
		Period: &registrypb.Period{From: int32(i.Period.From), Until: int32(i.Period.Until)}, Change: i.Change,
		RefersTo: string(i.RefersTo), CausedBy: string(i.CausedBy), Content: i.Content, ReceivedUnixMs: i.Received.UnixMilli(),
		Replayed: i.Replayed, Status: i.Status, ClientTicket: string(i.ClientTicket),
	}
	for _, f := range i.Fields {
		k.Fields = append(k.Fields, string(f))
	}
	for _, id := range i.KnownAs {
		k.KnownAs = append(k.KnownAs, wireSubject(id))
	}
	for _, id := range i.FiledUnder {
		k.FiledUnder = append(k.FiledUnder, id.Number())
	}
	raw, err := proto.Marshal(k)
	// The row outlives the item a little, so that Sweep can say what it was.
	return outbox.Change{Key: itemKey(i.ID), Value: raw, Until: i.Received.Add(b.cfg.Life + time.Hour)}, err
}

// load reads an item. The error wraps outbox.ErrNotFound when it is gone.
func (b *Inbox) load(id uint64) (*Item, error) {
	raw, err := b.cfg.Store.Get(itemKey(id))
	if err != nil {
		return nil, err
	}
	k := new(nodepb.KeptItem)
	if err := proto.Unmarshal(raw, k); err != nil {
		return nil, fmt.Errorf("item %d: %w", id, err)
	}
	i := &Item{
		ID: id, Kind: Kind(k.Kind), Ticket: names.Ticket(k.Ticket), From: names.InstitutionID(k.From), Dataset: names.DatasetID(k.Dataset),
		Purpose: names.Purpose(k.Purpose), Authorization: names.AuthorizationID(k.Authorization), Subject: subjectID(k.Subject),
		Current: subjectID(k.Current), Period: record.Period(k.Period), Change: k.Change, RefersTo: names.Ticket(k.RefersTo),
		CausedBy: names.Ticket(k.CausedBy), Content: k.Content, Received: time.UnixMilli(k.ReceivedUnixMs), Replayed: k.Replayed,
		Status: k.Status, ClientTicket: names.ClientTicket(k.ClientTicket),
	}
	for _, f := range k.Fields {
		i.Fields = append(i.Fields, names.FieldName(f))
	}
	for _, s := range k.KnownAs {
		i.KnownAs = append(i.KnownAs, subjectID(s))
	}
	for _, n := range k.FiledUnder {
		i.FiledUnder = append(i.FiledUnder, subject.Raw(i.Subject.Scheme(), n))
	}
	return i, nil
}

func wireSubject(id subject.ID) *registrypb.Subject {
	if id.IsZero() {
		return nil
	}
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func subjectID(s *registrypb.Subject) subject.ID {
	if s == nil {
		return subject.ID{}
	}
	return subject.Raw(subject.Scheme(s.Scheme), s.Number)
}
