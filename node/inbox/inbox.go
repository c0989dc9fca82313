// Package inbox keeps what arrives for an institution until its own applications have
// it: notifications, declarations, results.
//
// Each item waits for every consumer that wants it: an application that is configured for
// it, an adapter that pushes, or another room of the node. A consumer takes items, which
// are then its own for a while (their visibility), and acknowledges them; what is not
// acknowledged in time is given again. An item whose consumers have all acknowledged it
// is deleted; one that nobody takes ends with its life.
//
//	in, err := box.Take(ctx, "back-office", inbox.Want{Max: 100, Visibility: time.Minute})
//	...
//	err = box.Acknowledge(ctx, inbox.Taker{Consumer: "back-office"}, receipts)
//
// About one subject, a consumer gets one item at a time, and in the order in which they
// came, under whatever number: the next one waits until the one before was acknowledged.
//
// Items lie sealed in the node's queue (package outbox), so that a crash or a loss of
// power loses none and leaves no content readable; what is kept in memory of each is some
// 300 bytes, and none of its content. That an item was taken is journaled before it is
// forgotten. Everything is safe for concurrent use.
package inbox

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	// ErrFull means that too much waits already: the institution's system takes nothing.
	ErrFull = errors.New("the inbox is full: the institution's own system must take what waits")
	// ErrNoConsumer means that nobody by that name is configured to take anything.
	ErrNoConsumer = errors.New("no such consumer of the inbox")
	// ErrNotTaken means that an item is not the consumer's: it never took it, it
	// acknowledged it before, or it took too long and somebody else has it now.
	ErrNotTaken = errors.New("the item is not in the hands of this consumer")
	// ErrUnavailable means that queue or journal could not be written.
	ErrUnavailable = errors.New("the inbox cannot be used")
)

// Kind is what sort of thing an item is.
type Kind uint32

// The kinds.
const (
	Notification Kind = 1 // a change that was published
	Declaration  Kind = 2 // a submission, for the authentic source to decide on
	Result       Kind = 3 // what became of something that this institution sent
)

var kinds = map[Kind]string{Notification: "notification", Declaration: "declaration", Result: "result"}

// String gives the word.
func (k Kind) String() string { return kinds[k] }

// KindOf gives the kind of a word; 0: there is none.
func KindOf(word string) Kind {
	for k, w := range kinds {
		if w == word {
			return k
		}
	}
	return 0
}

// Item is one thing that waits. Its numbers and content are personal data.
type Item struct {
	ID            uint64 // place in this inbox, never used again; 0: not put yet
	Kind          Kind
	Ticket        names.Ticket
	From          names.InstitutionID
	Dataset       names.DatasetID
	Purpose       names.Purpose
	Fields        []names.FieldName
	Authorization names.AuthorizationID
	Subject       subject.ID   // as the sender named it
	Current       subject.ID   // the number now in use
	KnownAs       []subject.ID // other numbers of the same subject
	FiledUnder    []subject.ID // of all these, those under which own files stand
	Period        names.Period
	Change        registrypb.Change
	RefersTo      names.Ticket
	CausedBy      names.Ticket
	Content       json.RawMessage // an array of records
	Received      time.Time
	Replayed      bool // it was sent once more because somebody asked
	Status        string
	ClientTicket  names.ClientTicket
}

// keys are the numbers under which the item's order is kept.
func (i *Item) keys() (keys []string) {
	for _, id := range append([]subject.ID{i.Subject, i.Current}, i.KnownAs...) {
		if !id.IsZero() && !slices.Contains(keys, string(id.Key())) {
			keys = append(keys, string(id.Key()))
		}
	}
	return keys
}

// Consumer is somebody who takes items.
type Consumer struct {
	Name string // a label
	// Wants says which items are for it. It sees no number and no content. Nil: all.
	Wants func(Item) bool
}

// Store is where items lie; *outbox.Outbox is one.
type Store interface {
	Get(k outbox.Key) ([]byte, error)
	Write(changes ...outbox.Change) error
	IDs(t outbox.Table, prefix string) ([]string, error)
}

// Journal is the node's own segment; *journal.Journal is one.
type Journal interface {
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
	// AppendAll returns once all entries are durable.
	AppendAll(ctx context.Context, entries []*nodepb.Entry) error
}

// The outbox tables of this package.
const (
	tabItems outbox.Table = 24 // id → KeptItem
	tabTaken outbox.Table = 25 // id, consumer → it has acknowledged
)

// Config is all that an Inbox needs. What has a default may be zero.
type Config struct {
	Self      names.NodeID
	Store     Store
	Journal   Journal
	Consumers []Consumer
	Life      time.Duration // that an item waits at most; 30 days
	Max       int           // items that wait; 1,000,000
	Now       func() time.Time
	Log       *slog.Logger
}

// Inbox is an open inbox.
type Inbox struct {
	cfg Config

	mu      sync.Mutex
	next    uint64
	items   map[uint64]*entry
	queues  map[string]*queue // by consumer
	changed chan struct{}     // closed, and replaced, when something came or was let go
}

// entry is what memory holds of an item.
type entry struct {
	Item             // without numbers and content
	order   []string // keys
	waiting int      // consumers that have not acknowledged
}

// Open reads what waits.
func Open(cfg Config) (*Inbox, error) {
	cfg.Life = cmp.Or(cfg.Life, 30*24*time.Hour)
	cfg.Max = cmp.Or(cfg.Max, 1_000_000)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	// Ids grow across restarts too, although nothing may be left to count on from: receivers
	// know items by them, and what a consumer took is remembered under them.
	b := &Inbox{cfg: cfg, next: uint64(cfg.Now().UnixMicro()), items: map[uint64]*entry{}, queues: map[string]*queue{}, changed: make(chan struct{})}
	for _, c := range cfg.Consumers {
		b.queues[c.Name] = newQueue(c)
	}
	ids, err := cfg.Store.IDs(tabItems, "")
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	for _, row := range ids {
		item, err := b.load(idOf(row))
		if errors.Is(err, outbox.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inbox: %w", err)
		}
		if err := b.enter(item, true); err != nil {
			return nil, fmt.Errorf("inbox: %w", err)
		}
	}
	return b, nil
}

// enter takes an item that is durable into memory. Its caller holds mu, or nobody else
// knows the inbox yet.
func (b *Inbox) enter(item *Item, recovered bool) error {
	b.next = max(b.next, item.ID)
	e := &entry{Item: *item, order: item.keys()}
	e.Subject, e.Current, e.KnownAs, e.FiledUnder, e.Content = subject.ID{}, subject.ID{}, nil, nil, nil
	for name, q := range b.queues {
		if q.Wants != nil && !q.Wants(e.Item) {
			continue
		}
		if recovered {
			_, err := b.cfg.Store.Get(takenKey(item.ID, name))
			if err == nil {
				continue
			}
			if !errors.Is(err, outbox.ErrNotFound) {
				return err
			}
		}
		e.waiting++
		q.add(e)
	}
	b.items[item.ID] = e
	return nil
}

// Room fails with ErrFull when n more items are too many.
func (b *Inbox) Room(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items)+n > b.cfg.Max {
		return ErrFull
	}
	return nil
}

// Put keeps items, in order, together with other changes of the same store: all are
// durable when it returns, or, after a crash, none is there. Their ids are set.
func (b *Inbox) Put(items []*Item, with ...outbox.Change) error {
	b.mu.Lock()
	for _, i := range items {
		b.next++
		i.ID = b.next
	}
	b.mu.Unlock()
	changes := with
	for _, i := range items {
		c, err := b.change(i)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		changes = append(changes, c)
	}
	if err := b.cfg.Store.Write(changes...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range items {
		if err := b.enter(i, false); err != nil {
			return err
		}
	}
	b.wake()
	return nil
}

// wake tells those who wait for items. Its caller holds mu.
func (b *Inbox) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Waiting gives how many items wait for a consumer, and since when the first does.
func (b *Inbox) Waiting(consumer string) (n int, since time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[consumer]
	if q == nil {
		return 0, since, ErrNoConsumer
	}
	if first := q.list.Front(); first != nil {
		since = first.Value.(*held).Received
	}
	return q.list.Len(), since, nil
}

// Consumers gives the names of all consumers, in order.
func (b *Inbox) Consumers() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.queues {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func rowOf(id uint64) string { return string(binary.BigEndian.AppendUint64(nil, id)) }

func idOf(row string) uint64 {
	if len(row) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(row[:8]))
}

func itemKey(id uint64) outbox.Key { return outbox.Key{Table: tabItems, ID: rowOf(id)} }

func takenKey(id uint64, consumer string) outbox.Key {
	return outbox.Key{Table: tabTaken, ID: rowOf(id) + consumer}
}
