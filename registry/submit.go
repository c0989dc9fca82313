package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	// hedgeAfter is how long one way to the leader may stay silent before another is
	// tried beside it. It is no timeout: a command that takes a right away is
	// answered only when that holds everywhere.
	hedgeAfter = 2 * time.Second
	hedges     = 4
	retryLeast = 25 * time.Millisecond
	retryMost  = 250 * time.Millisecond
	// leaderLook is how often a waiting call looks whether the leader is the same.
	leaderLook = 50 * time.Millisecond
)

// Submit has the signed command in envelope decided, by whatever member leads, and
// tries until ctx ends: on errors of the way, through elections, and along another
// way beside one that is silent. That is safe because the same bytes are decided
// once: a repeat is answered with the first verdict, Repeated. A refusal is an
// answer, not an error. One with index 0 was given at the door: what is no command of
// this mesh, or is signed by nobody who ever could sign for its author, the leader does
// not put before the replicas. It costs nobody anything, and is not remembered.
//
// A command that takes a right away, or might, is answered only when nobody relies on the
// right any more: lease + release life + twice the skew after it was committed. That is
// not the leader's word alone: a majority of the members must have signed states that
// hold the command, and the wait counts from then. The answer carries what they signed.
//
// When ctx ends it is unknown whether the command was decided; submitting the same
// bytes again tells.
func (r *Registry) Submit(ctx context.Context, envelope []byte) (*registrypb.SubmitResponse, error) {
	if err := checkSize(envelope); err != nil {
		return nil, err
	}
	select {
	case <-r.begun: // a node may submit while it is coming up
	case <-ctx.Done():
		return nil, fmt.Errorf("submit: %w", ctx.Err())
	}
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	type outcome struct {
		resp *registrypb.SubmitResponse
		err  error
	}
	outcomes := make(chan outcome, hedges)
	next := time.NewTimer(0)
	defer next.Stop()
	underWay, retry := 0, retryLeast
	last := ErrNoLeader
	c, err := r.confirm(ctx, envelope)
	if err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	defer c.end()
	for {
		select {
		case <-next.C:
			next.Reset(hedgeAfter)
			if underWay == hedges {
				continue
			}
			nth := underWay
			underWay++
			wg.Go(func() {
				resp, err := r.submitOnce(ctx, nth, envelope)
				outcomes <- outcome{resp, err}
			})
		case o := <-outcomes:
			underWay--
			if o.err == nil {
				resp, err := r.acknowledged(ctx, c, o.resp)
				if err == nil {
					return resp, nil
				}
				o.err = err // another way, perhaps another leader, may fare better
			}
			last = o.err
			next.Reset(retry/2 + rand.N(retry/2))
			retry = min(2*retry, retryMost)
		case <-ctx.Done():
			return nil, fmt.Errorf("submit: %w (last: %w)", ctx.Err(), last)
		}
	}
}

func checkSize(envelope []byte) error {
	if len(envelope) == 0 || len(envelope) > record.MaxCommand {
		return fmt.Errorf("%w: command of %d bytes, want 1 to %d: send it in parts", ErrMalformed, len(envelope), record.MaxCommand)
	}
	return nil
}

// submitOnce goes one way; nth counts those that are under way already.
func (r *Registry) submitOnce(ctx context.Context, nth int, envelope []byte) (*registrypb.SubmitResponse, error) {
	if r.member != nil && r.member.leads() {
		return r.member.propose(ctx, envelope)
	}
	req, resp := &registrypb.SubmitRequest{Envelope: envelope}, new(registrypb.SubmitResponse)
	if r.member != nil {
		return resp, r.member.toLeader(ctx, MethodSubmit, req, resp)
	}
	return resp, r.route.call(ctx, nth, MethodSubmit, req, resp)
}

// HandleSubmit answers MethodSubmit on a member: it proposes if it leads, and else
// passes on to the leader, unless the sender is a member and could do that itself.
func (r *Registry) HandleSubmit(ctx context.Context, from names.NodeID, req *registrypb.SubmitRequest) (*registrypb.SubmitResponse, error) {
	if r.member == nil {
		return nil, ErrNotMember
	}
	if err := checkSize(req.GetEnvelope()); err != nil {
		return nil, err
	}
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	voter := r.isVoter(from) // has counted already whom it passes on
	if !voter && !r.limits.take(from.Institution, len(req.Envelope), r.cfg.Tuning) {
		return nil, fmt.Errorf("%w: %s", ErrBusy, from.Institution)
	}
	if r.member.leads() {
		return r.member.propose(ctx, req.Envelope)
	}
	if voter {
		return nil, ErrNotLeader
	}
	resp := new(registrypb.SubmitResponse)
	return resp, r.member.toLeader(ctx, MethodSubmit, req, resp)
}

// propose has the command decided, as leader.
func (m *member) propose(ctx context.Context, envelope []byte) (*registrypb.SubmitResponse, error) {
	term := m.raft().CurrentTerm()
	if err := m.reg.Sound(); err != nil { // its verdict might be another than everybody's
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	m.door.ahead(envelope)
	if refused, err := m.atDoor(ctx, envelope, term); refused != nil || err != nil {
		return refused, err
	}
	p := m.batch.propose(envelope)
	if p.err != nil {
		return nil, notLeading(p.err)
	}
	res := p.result
	resp := &registrypb.SubmitResponse{Index: p.index, Accepted: res.Accepted, Refusal: res.Refusal, Repeated: res.Repeated, RemovesRight: res.RemovesRight}
	if res.Repeated {
		resp.Index = res.FirstIndex
	}
	if res.Accepted && res.RemovesRight {
		if err := m.outlast(ctx, term, m.reg.removals.appliedAt(resp.Index)); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// outlast waits until every standing has ended that does not know of what was
// applied here at the time since, and every clearance that was given under one.
func (m *member) outlast(ctx context.Context, term uint64, since time.Time) error {
	end := time.NewTimer(time.Until(since.Add(m.reg.revocationBound())))
	defer end.Stop()
	look := time.NewTicker(leaderLook)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			if !m.leads() || m.raft().CurrentTerm() != term {
				return ErrNotLeader
			}
			return nil
		case <-look.C:
			if !m.leads() || m.raft().CurrentTerm() != term {
				return ErrNotLeader
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Registry) revocationBound() time.Duration {
	b := r.cfg.Genesis.Bounds
	return b.Lease + b.ReleaseLife + 2*b.Skew
}

// removals remembers when commands that took rights away were applied here, which
// is no earlier than when they were committed: a retry need not wait anew, even at
// a new leader. What it has forgotten is waited for in full. The zero value is
// ready, and safe for concurrent use.
type removals struct {
	mu sync.Mutex
	at map[uint64]time.Time
}

func (r *removals) note(index uint64, keep time.Duration) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = make(map[uint64]time.Time)
	}
	for i, t := range r.at {
		if now.Sub(t) > keep {
			delete(r.at, i)
		}
	}
	r.at[index] = now
}

func (r *removals) appliedAt(index uint64) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.at[index]; ok {
		return t
	}
	return time.Now()
}

// toLeader asks the leader, and gives up when another one, or none, takes its place.
func (m *member) toLeader(ctx context.Context, method string, req, resp proto.Message) error {
	leader, ok := m.leader()
	if !ok {
		return ErrNoLeader
	}
	if leader == m.reg.cfg.Self {
		return ErrNotLeader // elected, or deposed, this moment
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		look := time.NewTicker(leaderLook)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				if now, ok := m.leader(); !ok || now != leader {
					cancel(ErrNoLeader)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	err := m.reg.cfg.Peers.Call(ctx, leader, method, req, resp)
	if err != nil && errors.Is(context.Cause(ctx), ErrNoLeader) {
		return ErrNoLeader
	}
	return err
}
