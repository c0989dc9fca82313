package sector

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Arrivals is where notifications come to the managing body.
type Arrivals interface {
	// Next gives some that came, and waits for one until ctx is done.
	Next(ctx context.Context) ([]Arrival, error)
	// Done says that the sector holds them durably.
	Done(ctx context.Context, all []Arrival) error
}

// Arrival is a notification that came, and what Arrivals knows it by.
type Arrival struct {
	Notification
	Handle any
}

// How the courier goes about it.
const (
	courierWidth = 16 // subjects delivered for at once
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 10 * time.Minute
)

// Courier takes what comes to the sector into a queue of its own, says at once that the
// sector has it, and then brings it to the right institution, however long that is down.
// So nothing that anybody outside can read tells when it was delivered, or that it was
// not. What is about one subject is delivered in the order in which it came.
type Courier struct {
	manager  *Manager
	arrivals Arrivals

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*notice
	nudge   chan struct{}
}

// notice is one that waits.
type notice struct {
	Notification
	seq   uint64
	after time.Time // when to try again
	tries int
	busy  bool
}

// NewCourier reads what waits.
func NewCourier(m *Manager, a Arrivals) (*Courier, error) {
	c := &Courier{manager: m, arrivals: a, waiting: map[uint64]*notice{}, nudge: make(chan struct{}, 1)}
	err := m.Queue.Each(deliveries, func(id string, raw []byte) error {
		if len(id) != 9 || id[0] != 'q' {
			return nil // a mark
		}
		k := new(nodepb.KeptSectorNotice)
		if err := proto.Unmarshal(raw, k); err != nil {
			return fmt.Errorf("%w: %w", ErrJournal, err)
		}
		n := &notice{Notification: noticeOf(k), seq: binary.BigEndian.Uint64([]byte(id[1:]))}
		c.waiting[n.seq], c.next = n, max(c.next, n.seq)
		return nil
	})
	return c, err
}

func waitKey(seq uint64) outbox.Key {
	return outbox.Key{Table: deliveries, ID: string(binary.BigEndian.AppendUint64([]byte{'q'}, seq))}
}

func takenMark(n *Notification) outbox.Key {
	return outbox.Key{Table: deliveries, ID: "t" + string(n.Publisher) + "\x00" + n.ID}
}

// Run takes and delivers until ctx is done.
func (c *Courier) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { c.collect(ctx) })
	both.Go(func() { c.deliver(ctx) })
	both.Wait()
	return nil
}

// Waiting gives how many are not delivered yet.
func (c *Courier) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// collect moves what comes into the queue.
func (c *Courier) collect(ctx context.Context) {
	for ctx.Err() == nil {
		came, err := c.arrivals.Next(ctx)
		if err == nil {
			err = c.take(came)
		}
		if err == nil && len(came) > 0 {
			err = c.arrivals.Done(ctx, came)
		}
		if err != nil && ctx.Err() == nil {
			c.manager.Log.Warn("what came to the sector could not be taken; it will be again", "err", err)
			pause(ctx, firstBackoff)
		}
	}
}

// take makes notifications durable, each once.
func (c *Courier) take(came []Arrival) error {
	var fresh []*notice
	var rows []outbox.Change
	until := c.manager.Now().Add(DeliveryLife)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range came {
		if err := a.validate(); err != nil {
			return err
		}
		mark := takenMark(&a.Notification)
		if _, err := c.manager.Queue.Get(mark); err == nil {
			continue
		} else if !errors.Is(err, outbox.ErrNotFound) {
			return fmt.Errorf("%w: %w", ErrJournal, err)
		}
		c.next++
		n := &notice{Notification: a.Notification, seq: c.next}
		fresh = append(fresh, n)
		rows = append(rows, row(waitKey(n.seq), keptNotice(&n.Notification), until), outbox.Change{Key: mark, Value: []byte{1}, Until: until})
	}
	if len(rows) == 0 {
		return nil
	}
	if err := c.manager.Queue.Write(rows...); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	for _, n := range fresh {
		c.waiting[n.seq] = n
	}
	c.wake()
	return nil
}

func (c *Courier) wake() {
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// deliver brings what waits, subject by subject.
func (c *Courier) deliver(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	slots := make(chan struct{}, courierWidth)
	for ctx.Err() == nil {
		ready, soonest := c.ready()
		for _, n := range ready {
			slots <- struct{}{}
			under.Go(func() {
				defer func() { <-slots }()
				c.attempt(ctx, n)
			})
		}
		timer := time.NewTimer(soonest)
		select {
		case <-ctx.Done():
		case <-c.nudge:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// ready gives the first of each subject, if its time has come, and how long to rest.
func (c *Courier) ready() (all []*notice, soonest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	soonest = lastBackoff
	now := time.Now()
	first := map[subject.ID]*notice{}
	for _, n := range c.waiting {
		for _, id := range n.ids() {
			if f := first[id]; f == nil || n.seq < f.seq {
				first[id] = n
			}
		}
	}
	for _, n := range c.waiting {
		leads := !n.busy
		for _, id := range n.ids() {
			leads = leads && first[id] == n
		}
		switch {
		case !leads:
		case now.Before(n.after):
			soonest = min(soonest, n.after.Sub(now))
		default:
			n.busy = true
			all = append(all, n)
		}
	}
	return all, soonest
}

func (n *Notification) ids() []subject.ID { return append([]subject.ID{n.Subject}, n.Also...) }

// attempt delivers one, or sets when to try again.
func (c *Courier) attempt(ctx context.Context, n *notice) {
	one, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := c.manager.Deliver(one, n.Notification)
	if err == nil {
		err = c.manager.Queue.Write(outbox.Change{Key: waitKey(n.seq), Delete: true, Lazy: true}) // undone by a crash, it is delivered once all the same
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.wake()
	n.busy = false
	if err == nil {
		delete(c.waiting, n.seq)
		return
	}
	if ctx.Err() == nil {
		c.manager.Log.Info("a notification within the sector waits", "ticket", n.Ticket, "tries", n.tries+1, "err", err)
	}
	n.after = time.Now().Add(min(firstBackoff<<min(n.tries, 16), lastBackoff))
	n.tries++
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func keptNotice(n *Notification) *nodepb.KeptSectorNotice {
	k := &nodepb.KeptSectorNotice{Id: n.ID, Ticket: string(n.Ticket), Publisher: string(n.Publisher), Purpose: string(n.Purpose), Dataset: string(n.Dataset),
		Subject: protoSubject(n.Subject), Period: protoPeriod(n.Period), Content: n.Content, Change: n.Change, RefersTo: string(n.RefersTo), PublishedUnixMs: n.Published.UnixMilli()}
	for _, id := range n.Also {
		k.Also = append(k.Also, protoSubject(id))
	}
	return k
}

func noticeOf(k *nodepb.KeptSectorNotice) Notification {
	id := func(s *registrypb.Subject) subject.ID {
		return subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
	}
	n := Notification{ID: k.GetId(), Ticket: names.Ticket(k.GetTicket()), Publisher: names.InstitutionID(k.GetPublisher()), Purpose: names.Purpose(k.GetPurpose()),
		Dataset: names.DatasetID(k.GetDataset()), Subject: id(k.GetSubject()), Period: record.Period(k.GetPeriod()), Content: k.GetContent(), Change: k.GetChange(), RefersTo: names.Ticket(k.GetRefersTo()), Published: time.UnixMilli(k.GetPublishedUnixMs())}
	for _, s := range k.GetAlso() {
		n.Also = append(n.Also, id(s))
	}
	return n
}
