package batch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// orderEntry begins a journal entry with what an order says.
func orderEntry(now time.Time, role nodepb.Role, event nodepb.Event, o *chunk.Order) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: now.UnixMilli(), Role: role, Event: event, Ticket: string(o.Ticket), ClientTicket: o.ClientTicket, Requester: o.Requester,
		User: o.User, Application: o.Application, Channel: o.Channel, Purpose: o.Purpose, Mode: string(names.Batch), Dataset: o.Dataset,
		Fields: o.Fields, Period: o.Period, AuthLevel: o.AuthLevel,
	}
}

// addClearance adds what a clearance says; who fared how stands in its groups.
func addClearance(e *nodepb.Entry, c *registrypb.ChunkClearance, hash []byte) {
	e.Outcome, e.Supplier, e.Clearer = registrypb.Outcome_PERMIT, &registrypb.NodeRef{Institution: c.Supplier}, c.Clearer
	e.RequestHash, e.ClearanceId, e.ClearanceHash = c.RequestHash, c.Id, hash
	e.RegistryIndex, e.PresentByUnixMs = c.RegistryIndex, c.PresentByUnixMs
	e.Fields = nil
	if len(c.Groups) > 0 { // for who reads a list of entries; each subject's own stand in its group
		e.Fields, e.Withheld, e.Authorization = c.Groups[0].Fields, c.Groups[0].Withheld, c.Groups[0].Authorization
	}
}

// deliberations names the decisions behind an entry's authorizations, as far as the view
// knows them. It is for readers only.
func deliberations(r exchange.Registry, e *nodepb.Entry) {
	_ = r.View(func(v record.View) error {
		known := map[string]string{}
		of := func(id string) string {
			if d, ok := known[id]; ok || id == "" {
				return d
			}
			z, err := v.Authorization(names.AuthorizationID(id))
			if err == nil {
				known[id] = z.GetDeliberation()
			}
			return known[id]
		}
		e.Deliberation = of(e.Authorization)
		for _, g := range e.GetLot().GetGroups() {
			g.Deliberation = of(g.Authorization)
		}
		return nil
	})
}

// groupOf is what a journal keeps of a cleared group.
func groupOf(g *registrypb.ClearedGroup) *nodepb.LotSubjects {
	return &nodepb.LotSubjects{
		Subjects: g.Subjects, Outcome: registrypb.Outcome_PERMIT, Authorization: g.Authorization, Fields: g.Fields, Withheld: g.Withheld,
	}
}

func refusedGroup(g *registrypb.RefusedGroup) *nodepb.LotSubjects {
	return &nodepb.LotSubjects{Subjects: g.Subjects, Outcome: g.Outcome, Reason: g.Reason, Authorization: g.Authorization, Withheld: g.Withheld}
}

// append writes an entry also when whoever asked has gone: an outcome is an outcome.
func appendEntry(ctx context.Context, j Journal, e *nodepb.Entry) error {
	if len(e.Detail) > journal.MaxDetail {
		e.Detail = e.Detail[:journal.MaxDetail]
	}
	if _, err := j.Append(context.WithoutCancel(ctx), e); err != nil {
		return fmt.Errorf("%w: journal: %w", ErrUnavailable, err)
	}
	return nil
}

// stands reports whether the own journal holds an entry of a chunk request: after a crash
// only the journal knows. since bounds the search to what can be.
func stands(ctx context.Context, j Journal, ticket string, requestHash []byte, since time.Time, fits func(*nodepb.Entry) bool) (bool, error) {
	const page = 64
	q := journal.Query{Ticket: names.Ticket(ticket), From: since.Add(-time.Minute), Limit: page}
	for {
		found, err := j.Find(ctx, q)
		if err != nil {
			return false, fmt.Errorf("%w: journal: %w", ErrUnavailable, err)
		}
		for _, f := range found {
			if bytes.Equal(f.Entry.GetRequestHash(), requestHash) && fits(f.Entry) {
				return true, nil
			}
		}
		if len(found) < q.Limit {
			return false, nil
		}
		if last := time.UnixMilli(found[len(found)-1].Entry.GetTimeUnixMs()); last.After(q.From) {
			q.From, q.Limit = last, page
		} else { // a page of one millisecond
			q.Limit *= 2
		}
	}
}

func marshalled(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // of our own, in memory
		panic(err)
	}
	return b
}

func sum(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// load reads a row of the outbox; false: there is none.
func load(o exchange.Outbox, k outbox.Key, m proto.Message) (bool, error) {
	raw, err := o.Get(k)
	if errors.Is(err, outbox.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		return false, fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	return true, nil
}

func nodeRef(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

func texts[N ~string](list []N) (out []string) {
	for _, n := range list {
		out = append(out, string(n))
	}
	return out
}

func named[N ~string](list []string) (out []N) {
	for _, s := range list {
		out = append(out, N(s))
	}
	return out
}

// keyed holds a lock for each key in use. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]*held
}

type held struct {
	free chan struct{}
	uses int
}

// acquire waits for the key until ctx is done.
func (l *keyed) acquire(ctx context.Context, key string) (release func(), err error) {
	l.mu.Lock()
	h := l.held[key]
	if h == nil {
		h = &held{free: make(chan struct{}, 1)}
		h.free <- struct{}{}
		if l.held == nil {
			l.held = make(map[string]*held)
		}
		l.held[key] = h
	}
	h.uses++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if h.uses--; h.uses == 0 {
			delete(l.held, key)
		}
	}
	select {
	case <-h.free:
		return func() { h.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
