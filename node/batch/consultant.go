package batch

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/batch/pace"
	"github.com/crossroads-mesh/crossroads/node/batch/spool"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ConsultantConfig is all that a Consultant needs. What has a default may be zero.
type ConsultantConfig struct {
	Mesh     names.MeshID
	Self     names.NodeID
	Signer   crypto.Signer
	Schemes  subject.Schemes // nil: the built-in ones
	Registry exchange.Registry
	Peers    Peers
	Journal  Journal
	Outbox   exchange.Outbox
	Spool    *spool.Spool
	Bounds   genesis.Bounds

	// ChunkLines is how many lines of a file make a chunk. 2048; at most chunk.MaxSubjects.
	ChunkLines int
	// MaxLines is how many lines a file may have. 5,000,000.
	MaxLines uint64
	// MaxOpen is how many lots of one application may be there that are not acknowledged. 64.
	MaxOpen int
	// AtOnce is how many chunks are worked on beside each other. 3.
	AtOnce int
	// Patience is how long a chunk is tried again that nobody clears or a supplier does not
	// answer. 15 minutes.
	Patience time.Duration
	// Keep is how long a lot and its results are kept after its end. 30 days.
	Keep time.Duration
	// ClearTimeout and PresentTimeout bound one call. 4 s, 8 s.
	ClearTimeout, PresentTimeout time.Duration
	// Window is when lots are worked on. The zero one: always.
	Window pace.Window
	// Gate is where chunks wait for interactive traffic. Nil: they do not.
	Gate *pace.Gate
	Now  func() time.Time
	Log  *slog.Logger
}

func (c *ConsultantConfig) setDefaults() {
	c.ChunkLines = min(cmp.Or(c.ChunkLines, 2048), chunk.MaxSubjects)
	c.MaxLines = min(cmp.Or(c.MaxLines, 5_000_000), 1<<31)
	c.MaxOpen = cmp.Or(c.MaxOpen, 64)
	c.AtOnce = cmp.Or(c.AtOnce, 3)
	c.Patience = cmp.Or(c.Patience, 15*time.Minute)
	c.Keep = cmp.Or(c.Keep, 30*24*time.Hour)
	c.ClearTimeout = cmp.Or(c.ClearTimeout, 4*time.Second)
	c.PresentTimeout = cmp.Or(c.PresentTimeout, 8*time.Second)
	if c.Schemes == nil {
		c.Schemes = subject.Belgian()
	}
	if c.Gate == nil {
		c.Gate = new(pace.Gate)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Consultant carries out lots for the applications of its own institution. It is safe for
// concurrent use.
type Consultant struct {
	cfg      ConsultantConfig
	verifier envelope.Verifier
	naming   keyed         // by application and client ticket
	wake     chan struct{} // there is something to do
	acks     chan acknowledgement

	mu   sync.Mutex
	lots map[names.Ticket]*lot
	turn []names.Ticket // in the order of their turns
}

// lot is one that is not acknowledged yet, in memory.
type lot struct {
	*chunk.Order
	kept *nodepb.KeptLot // guarded by Consultant.mu
	doneBits

	inFlight  map[int]bool
	notBefore map[int]time.Time // chunks that wait
	failedAt  map[int]time.Time // since when
	tries     map[int]int
	cursor    int // no chunk before it is left
	waits     string
	ending    bool // somebody writes its end

	following sync.Mutex // held while a chunk looks for numbers to ask instead
	filesOnce sync.Mutex // guards files
	files     *files
}

// NewConsultant makes a Consultant and takes up the lots that are kept. Run works on them.
func NewConsultant(cfg ConsultantConfig) (*Consultant, error) {
	cfg.setDefaults()
	c := &Consultant{cfg: cfg, wake: make(chan struct{}, 1), acks: make(chan acknowledgement, 1024), lots: map[names.Ticket]*lot{}}
	used := map[string]bool{}
	err := cfg.Outbox.Each(lotRows, func(id string, value []byte) error {
		k := new(nodepb.KeptLot)
		if err := unmarshal(value, k); err != nil {
			return err
		}
		if k.State == nodepb.LotState_LOT_ACKNOWLEDGED {
			return nil
		}
		used[k.Files] = true
		l, err := c.take(k)
		if err == nil {
			c.lots[l.Ticket], c.turn = l, append(c.turn, l.Ticket)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	slices.SortFunc(c.turn, func(a, b names.Ticket) int {
		return cmp.Or(cmp.Compare(c.lots[a].TimeUnixMs, c.lots[b].TimeUnixMs), cmp.Compare(a, b))
	})
	return c, c.dropStrays(used)
}

// take puts a kept lot into memory.
func (c *Consultant) take(k *nodepb.KeptLot) (*lot, error) {
	o, err := chunk.OpenOrder(c.cfg.Mesh, k.Order)
	if err != nil {
		return nil, err
	}
	l := &lot{Order: o, kept: k, inFlight: map[int]bool{}, notBefore: map[int]time.Time{}, failedAt: map[int]time.Time{}, tries: map[int]int{}}
	l.doneBits = doneBits{k}
	return l, nil
}

// dropStrays removes spooled files of no lot: a crash came before their lot was kept, or
// after it was acknowledged.
func (c *Consultant) dropStrays(used map[string]bool) error {
	all, err := c.cfg.Spool.List()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, n := range all {
		if of, _, ok := strings.Cut(n, "."); ok && !used[of] {
			if err := c.cfg.Spool.Remove(n); err != nil {
				return fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
		}
	}
	return nil
}

// doneBits says which chunks of a lot are finished.
type doneBits struct{ k *nodepb.KeptLot }

func (d doneBits) done(i int) bool { return d.k.Done[i/8]&(1<<(i%8)) != 0 }

func (d doneBits) allDone() bool {
	for i := range int(d.k.Chunks) {
		if !d.done(i) {
			return false
		}
	}
	return true
}

// of finds a lot of an application; another's looks like none.
func (c *Consultant) of(application string, voucher names.Ticket) (*lot, error) {
	l := c.lots[voucher]
	if l == nil || l.Application != application {
		return nil, ErrNotFound
	}
	return l, nil
}

// Status says how a lot stands. The error is ErrNotFound.
func (c *Consultant) Status(application string, voucher names.Ticket) (*Lot, error) {
	c.mu.Lock()
	l, err := c.of(application, voucher)
	if err == nil {
		defer c.mu.Unlock()
		return c.show(l), nil
	}
	c.mu.Unlock()
	k, err := c.load(voucher) // acknowledged, and not forgotten yet
	if err != nil {
		return nil, err
	}
	o, err := chunk.OpenOrder(c.cfg.Mesh, k.Order)
	if err != nil || o.Application != application {
		return nil, ErrNotFound
	}
	return c.show(&lot{Order: o, kept: k, doneBits: doneBits{k}}), nil
}

func (c *Consultant) load(voucher names.Ticket) (*nodepb.KeptLot, error) {
	k := new(nodepb.KeptLot)
	ok, err := load(c.cfg.Outbox, outbox.Key{Table: lotRows, ID: string(voucher)}, k)
	if err == nil && !ok {
		err = ErrNotFound
	}
	return k, err
}

// List gives the lots of an application that are not acknowledged, the newest first.
func (c *Consultant) List(application string) (all []*Lot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lots {
		if l.Application == application {
			all = append(all, c.show(l))
		}
	}
	slices.SortFunc(all, func(a, b *Lot) int {
		return cmp.Or(b.Submitted.Compare(a.Submitted), cmp.Compare(a.Voucher, b.Voucher))
	})
	return all
}

func (c *Consultant) show(l *lot) *Lot {
	s := &Lot{
		Voucher: l.Ticket, ClientTicket: names.ClientTicket(l.ClientTicket), Application: l.Application, User: names.UserID(l.User),
		Purpose: names.Purpose(l.Purpose), Dataset: names.DatasetID(l.Dataset), State: l.kept.State, Submitted: time.UnixMilli(l.TimeUnixMs).UTC(),
		Lines: l.Lines, Subjects: l.kept.Subjects, Tally: map[string]uint64{}, Waits: l.waits,
	}
	for k, n := range l.kept.Tally {
		s.Tally[k] = n
		s.Done += n
	}
	if l.kept.EndedUnixMs > 0 {
		s.Ended, s.Until = time.UnixMilli(l.kept.EndedUnixMs).UTC(), time.UnixMilli(l.kept.UntilUnixMs).UTC()
	}
	if l.kept.State == nodepb.LotState_LOT_RUNNING && s.Waits == "" {
		if wait := c.cfg.Window.Opens(c.cfg.Now()); wait > 0 {
			s.Waits = fmt.Sprintf("until lots may run, in %v", wait.Round(time.Second))
		}
	}
	return s
}

// Pause lets what is under way end and begins nothing more of a lot, until Resume. The
// errors wrap ErrNotFound, ErrState or ErrUnavailable.
func (c *Consultant) Pause(application string, voucher names.Ticket) (*Lot, error) {
	return c.turnTo(application, voucher, nodepb.LotState_LOT_PAUSED, nodepb.LotState_LOT_RUNNING)
}

// Resume lets a paused lot go on.
func (c *Consultant) Resume(application string, voucher names.Ticket) (*Lot, error) {
	return c.turnTo(application, voucher, nodepb.LotState_LOT_RUNNING, nodepb.LotState_LOT_PAUSED)
}

// Cancel ends a lot: what is under way ends, all other lines get the reason LOT_CANCELLED
// and nobody is asked about them any more.
func (c *Consultant) Cancel(application string, voucher names.Ticket) (*Lot, error) {
	return c.turnTo(application, voucher, nodepb.LotState_LOT_CANCELLED, nodepb.LotState_LOT_RUNNING, nodepb.LotState_LOT_PAUSED)
}

func (c *Consultant) turnTo(application string, voucher names.Ticket, to nodepb.LotState, from ...nodepb.LotState) (*Lot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, err := c.of(application, voucher)
	if err != nil {
		return nil, err
	}
	if l.kept.State == to { // said again
		return c.show(l), nil
	}
	if !slices.Contains(from, l.kept.State) {
		return nil, fmt.Errorf("%w: it is %s", ErrState, StateName(l.kept.State))
	}
	was := l.kept.State
	l.kept.State = to
	if err := c.keep(l); err != nil {
		l.kept.State = was
		return nil, err
	}
	c.nudge()
	return c.show(l), nil
}

// StateName gives a state as it is shown.
func StateName(s nodepb.LotState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "LOT_"))
}

// keep writes a lot's row, and other changes with it. The caller holds mu.
func (c *Consultant) keep(l *lot, more ...outbox.Change) error {
	row := outbox.Change{Key: outbox.Key{Table: lotRows, ID: string(l.Ticket)}, Value: marshalled(l.kept)}
	name := outbox.Change{Key: nameKey(l.Application, l.ClientTicket), Value: []byte(l.Ticket)}
	if l.kept.UntilUnixMs > 0 {
		row.Until = time.UnixMilli(l.kept.UntilUnixMs)
		name.Until = row.Until
		more = append(more, name)
	}
	if err := c.cfg.Outbox.Write(append(more, row)...); err != nil {
		return fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	return nil
}

func nameKey(application, clientTicket string) outbox.Key {
	return outbox.Key{Table: lotNames, ID: application + "\x00" + clientTicket}
}

// Acknowledge says that the application holds the results: they are deleted. The lot can be
// asked for until its life ends. It may be said again.
func (c *Consultant) Acknowledge(application string, voucher names.Ticket) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, err := c.of(application, voucher)
	if errors.Is(err, ErrNotFound) {
		if k, err := c.load(voucher); err == nil && k.State == nodepb.LotState_LOT_ACKNOWLEDGED {
			if o, err := chunk.OpenOrder(c.cfg.Mesh, k.Order); err == nil && o.Application == application {
				return nil
			}
		}
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	if l.kept.EndedUnixMs == 0 {
		return fmt.Errorf("%w: it is %s and has not ended; cancel it first", ErrState, StateName(l.kept.State))
	}
	was := l.kept.State
	l.kept.State = nodepb.LotState_LOT_ACKNOWLEDGED
	if err := c.keep(l); err != nil {
		l.kept.State = was
		return err
	}
	c.forget(l)
	return nil
}

// forget drops a lot from memory and its files from disk. The caller holds mu. Files that
// cannot be removed are strays at the next start.
func (c *Consultant) forget(l *lot) {
	delete(c.lots, l.Ticket)
	c.turn = slices.DeleteFunc(c.turn, func(t names.Ticket) bool { return t == l.Ticket })
	l.close()
	if err := c.cfg.Spool.Remove(l.kept.Files + "."); err != nil {
		c.cfg.Log.Error("the files of a lot could not be removed; they are at the next start", "ticket", string(l.Ticket), "err", err)
	}
}

func (c *Consultant) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
