package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// history is half a year of consultations, in bursts of a second, each told by three nodes in
// four entries. Those it is about have some two hundred entries each, everybody else 32.
type history struct {
	nodes   []names.NodeID
	about   []subject.ID
	entries int // of all journals
	until   time.Time
}

const (
	perConsultation = 4
	perPerson       = 8  // consultations of anybody
	perLooking      = 50 // consultations of those who will look
	perBurst        = 16 // consultations of one user at each node
	appendersEach   = 128
)

// consultation is the i-th: its time, who takes part, and whom it is about.
type consultation struct {
	number                       int
	at                           time.Time
	requester, clearer, supplier int
	about                        *registrypb.Subject
}

func (h *history) count() int { return h.entries / perConsultation }

func (h *history) consultation(i int) consultation {
	span := h.until.Sub(h.until.AddDate(0, -6, 0)) - 24*time.Hour
	n := len(h.nodes)
	c := consultation{number: i, at: h.until.Add(-span + time.Duration(float64(span)*float64(i/perBurst*perBurst)/float64(h.count())))}
	c.requester = i % n
	c.supplier = (c.requester + 1 + i/n%(n-1)) % n
	for c.clearer = i / 3 % n; c.clearer == c.requester || c.clearer == c.supplier; {
		c.clearer = (c.clearer + 1) % n
	}
	if every := max(1, h.count()/(perLooking*len(h.about))); i%every == 0 {
		id := h.about[i/every%len(h.about)]
		c.about = &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
		return c
	}
	c.about = &registrypb.Subject{Scheme: string(subject.SSIN), Number: fmt.Sprintf("9%010d", i*7919%max(1, h.count()/perPerson))}
	return c
}

// of gives the entries of a consultation in one node's journal.
func (h *history) of(c consultation, node int) (all []*nodepb.Entry) {
	if node != c.requester && node != c.clearer && node != c.supplier {
		return nil
	}
	ref := func(i int) *registrypb.NodeRef {
		return &registrypb.NodeRef{Institution: string(h.nodes[i].Institution), Node: string(h.nodes[i].Node)}
	}
	tell := func(after time.Duration, role nodepb.Role, event nodepb.Event) *nodepb.Entry {
		e := &nodepb.Entry{
			TimeUnixMs: c.at.Add(after).UnixMilli(), Role: role, Event: event, Ticket: fmt.Sprintf("%026d", c.number), Requester: ref(c.requester),
			User: fmt.Sprintf("user-%d", c.number/perBurst*7919%500), Application: "desk", Channel: "api", AuthLevel: 3, Purpose: "social-inquiry", Mode: "consultation",
			Dataset: "wages-quarterly/v1", Fields: []string{"gross_wage", "quarter", "year"}, Subject: c.about, RequestHash: make([]byte, 32),
		}
		if event != nodepb.Event_REQUESTED {
			e.Clearer, e.Supplier, e.Authorization, e.Deliberation = ref(c.clearer), ref(c.supplier), "demo-2026-001", "DEMO-2026/001"
			e.Outcome, e.ClearanceHash = registrypb.Outcome_PERMIT, make([]byte, 32)
		}
		if event == nodepb.Event_SUPPLIED || event == nodepb.Event_ANSWERED {
			e.Status, e.AnswerCommitment = nodepb.Status_DATA_FOUND, make([]byte, 32)
		}
		return e
	}
	switch node {
	case c.requester:
		return []*nodepb.Entry{tell(0, nodepb.Role_CONSULTANT, nodepb.Event_REQUESTED), tell(20*time.Millisecond, nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED)}
	case c.clearer:
		return []*nodepb.Entry{tell(5*time.Millisecond, nodepb.Role_CLEARING_PEER, nodepb.Event_DECIDED)}
	}
	return []*nodepb.Entry{tell(10*time.Millisecond, nodepb.Role_SUPPLIER, nodepb.Event_SUPPLIED)}
}

// write fills the journals that lie in dir, one after the other, and gives how many
// entries it wrote.
func (h *history) write(ctx context.Context, dir string) (written int64, err error) {
	for node, id := range h.nodes {
		j, err := openJournal(dir, id.Institution)
		if err != nil {
			return written, err
		}
		n, err := h.fill(ctx, j, node)
		written += n
		if err := errors.Join(err, j.Close()); err != nil {
			return written, fmt.Errorf("%s: %w", id, err)
		}
	}
	return written, nil
}

// fill writes one node's part of all consultations, by many appenders at once.
func (h *history) fill(ctx context.Context, j *journal.Journal, node int) (int64, error) {
	begin, err := h.filled(ctx, j)
	if err != nil {
		return 0, err
	}
	var next, written atomic.Int64
	next.Store(int64(begin))
	g, ctx := errgroup.WithContext(ctx)
	for range appendersEach {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < h.count(); i = int(next.Add(1)) - 1 {
				for _, e := range h.of(h.consultation(i), node) {
					if _, err := j.Append(ctx, e); err != nil {
						return err
					}
					written.Add(1)
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return written.Load(), err
}

// filled gives where filling goes on that was interrupted.
func (h *history) filled(ctx context.Context, j *journal.Journal) (begin int, err error) {
	last, err := j.Find(ctx, journal.Query{Limit: 100, NewestFirst: true})
	for _, s := range last {
		if n, err := strconv.Atoi(s.Entry.Ticket); err == nil {
			begin = max(begin, n+1)
		}
	}
	return begin, err
}
