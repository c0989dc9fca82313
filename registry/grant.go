package registry

import (
	"context"
	"fmt"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// askGrant brings this node's nonce to the leader.
func (r *Registry) askGrant(ctx context.Context, nonce []byte) ([]byte, error) {
	// Half a lease: what takes longer would come too late to be of use.
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Genesis.Bounds.Lease/2)
	defer cancel()
	if r.member != nil && r.member.leads() {
		return r.member.granter.Grant(ctx, r.cfg.Self, nonce)
	}
	req, resp := &registrypb.GrantRequest{Nonce: nonce}, new(registrypb.GrantResponse)
	if r.member != nil {
		err := r.member.toLeader(ctx, MethodGrant, req, resp)
		return resp.Grant, err
	}
	// With one question unanswered, the next goes to another member.
	nth := int(r.asking.Add(1)) - 1
	defer r.asking.Add(-1)
	m, err := r.route.member(nth)
	if err != nil {
		return nil, err
	}
	if err := r.route.callTo(ctx, m, MethodGrant, req, resp); err != nil {
		return nil, err
	}
	if s, err := lease.Read(r.cfg.Genesis.Mesh, resp.Grant); err != nil || record.NodeID(s.Grant.GetHolder()) != r.cfg.Self || s.Check(r.trust) != nil {
		// It was removed, and no leader answers it for others any more; or it follows one that
		// this view does not know yet, and whose news another member may have sooner.
		r.route.failed(m)
		r.grantFailed(ErrBehind)
	}
	return resp.Grant, nil
}

// HandleGrant answers MethodGrant on a member. The holder is whoever asks; only a
// member may ask for another, whose nonce it passes on.
func (r *Registry) HandleGrant(ctx context.Context, from names.NodeID, req *registrypb.GrantRequest) (*registrypb.GrantResponse, error) {
	if r.member == nil {
		return nil, ErrNotMember
	}
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	holder, passedOn := from, r.isVoter(from)
	if passedOn && req.Holder != nil {
		holder = record.NodeID(req.Holder)
		if err := holder.Validate(); err != nil {
			return nil, fmt.Errorf("%w: holder: %w", ErrMalformed, err)
		}
	}
	if r.member.leads() {
		if err := r.admitted(holder); err != nil {
			return nil, err
		}
		grant, err := r.member.granter.Grant(ctx, holder, req.Nonce)
		return &registrypb.GrantResponse{Grant: grant}, err
	}
	if passedOn {
		return nil, ErrNotLeader
	}
	resp := new(registrypb.GrantResponse)
	err = r.member.toLeader(ctx, MethodGrant, &registrypb.GrantRequest{Nonce: req.Nonce, Holder: refOf(holder)}, resp)
	return resp, err
}

// HandleHead answers MethodHead from this replica's view, which may be behind: a
// command made from it is then refused, and the refusal's index says how far behind.
// A directory chain is there for its author's nodes only; for others it is one that
// nobody has begun.
func (r *Registry) HandleHead(_ context.Context, from names.NodeID, req *registrypb.HeadRequest) (*registrypb.HeadResponse, error) {
	resp := new(registrypb.HeadResponse)
	switch registrypb.Chain(req.GetChain()) {
	case registrypb.Chain_PUBLIC:
	case registrypb.Chain_DIRECTORY:
		if req.Author != string(from.Institution) {
			return resp, nil
		}
	default:
		return resp, nil
	}
	err := r.store.View(func(v record.View) (err error) {
		resp.Sequence, resp.Hash, err = v.Head(req.Author, registrypb.Chain(req.Chain))
		return err
	})
	return resp, err
}

// HandleStatus answers MethodStatus.
func (r *Registry) HandleStatus(context.Context, names.NodeID, *registrypb.StatusRequest) (*registrypb.StatusResponse, error) {
	return r.Status()
}

// Status tells how this replica is doing.
func (r *Registry) Status() (*registrypb.StatusResponse, error) {
	s := &registrypb.StatusResponse{Node: refOf(r.cfg.Self), State: "watcher", AppliedIndex: r.store.AppliedIndex(), KnowsLevel: r.rules.KnownLevel()}
	_, err := r.Standing()
	s.GrantValid = err == nil
	if m := r.member; m != nil {
		s.State = "starting"
		if raft := m.raft(); raft != nil {
			s.State = strings.ToLower(raft.State().String())
			s.Term = raft.CurrentTerm()
			s.CommitIndex = indexAfter(raft.CommitIndex())
			s.LastLogIndex = indexAfter(raft.LastIndex())
			s.Votes = m.votes()
		}
		if l, ok := m.leader(); ok {
			s.Leader = refOf(l)
		}
	}
	r.describe(s)
	s.Verified, s.Verifying = r.Verifying()
	err = r.store.View(func(v record.View) error {
		c, err := v.Counts()
		if err != nil {
			return err
		}
		s.Subjects, s.References = c.Subjects, c.References
		s.FeatureLevel, err = v.FeatureLevel()
		return err
	})
	return s, err
}

// describe adds how this replica's state compares with the members'.
func (r *Registry) describe(s *registrypb.StatusResponse) {
	a := r.Agreement()
	s.StateIndex = a.Mark.Index
	if a.Mark.Index > 0 {
		s.StateRoot = a.Mark.Root[:]
		if r.member == nil {
			s.StateRoot = a.Mark.Public[:]
		}
	}
	refs := func(nodes []names.NodeID) (refs []*registrypb.NodeRef) {
		for _, n := range nodes {
			refs = append(refs, refOf(n))
		}
		return refs
	}
	s.StateSame, s.StateDiffer, s.StateSilent = refs(a.Same), refs(a.Differ), refs(a.Silent)
	if err := r.Sound(); err != nil {
		s.Diverged = err.Error()
	}
}
