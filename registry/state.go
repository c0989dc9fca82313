package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// markWithin is how long a member waits for the mark that it is asked for.
const markWithin = 2 * time.Second

// maxWitnessed bounds what one member passes on of others, as many as vote.
const maxWitnessed = 15

// HandleState answers MethodState on a member: what it signs of its own state. Asked for
// an index, the mark there; asked for a command, states of indexes at which it holds that;
// asked for nothing, its last mark, and the state as it is now.
func (r *Registry) HandleState(ctx context.Context, from names.NodeID, req *registrypb.StateRequest) (*registrypb.StateResponse, error) {
	if r.member == nil {
		return nil, ErrNotMember
	}
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := r.admitted(from); err != nil {
		return nil, err
	}
	states, err := r.states(ctx, req)
	if err != nil {
		return nil, err
	}
	resp := &registrypb.StateResponse{Witnessed: r.witnessed(req.GetIndex())}
	for _, s := range states {
		raw, err := agree.Sign(r.cfg.Genesis.Mesh, s, r.cfg.Signer)
		if err != nil {
			return nil, err
		}
		resp.States = append(resp.States, raw)
	}
	return resp, nil
}

// states gives what this member says of itself, unsigned.
func (r *Registry) states(ctx context.Context, req *registrypb.StateRequest) ([]agree.State, error) {
	var command agree.CommandHash
	var accepted uint64
	var removes bool
	if h := req.GetCommand(); len(h) > 0 {
		if len(h) != len(command) {
			return nil, fmt.Errorf("%w: hash of a command has %d bytes", ErrMalformed, len(h))
		}
		copy(command[:], h)
		err := r.store.View(func(v record.View) (err error) {
			accepted, removes, err = v.AcceptedAt(h)
			return err
		})
		if err != nil || accepted == 0 {
			return nil, err
		}
	}
	if req.GetIndex() > 0 {
		wait, cancel := context.WithTimeout(ctx, markWithin)
		defer cancel()
		if err := r.store.WaitApplied(wait, req.Index); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
	}
	marks, err := r.store.Marks(max(accepted, req.GetIndex()))
	if err != nil {
		return nil, err
	}
	var picked []store.Mark
	switch {
	case req.GetIndex() > 0:
		if len(marks) > 0 && marks[0].Index == req.Index {
			picked = marks[:1]
		}
	default:
		now, err := r.store.Now()
		if err != nil {
			return nil, err
		}
		picked = append(picked, now)
		if n := len(marks); n > 0 {
			picked = append(picked, marks[n-1])
		}
		if accepted > 0 && len(marks) > 1 {
			picked = append(picked, marks[0])
		}
	}
	var states []agree.State
	for _, m := range picked {
		states = append(states, agree.State{
			Member: r.cfg.Self, Index: m.Index, Root: m.Root, Public: m.Public, Command: command, CommandIndex: accepted, RemovesRight: removes,
		})
	}
	return states, nil
}

// askState asks one member, itself perhaps, and opens what it signed.
func (r *Registry) askState(ctx context.Context, m names.NodeID, req *registrypb.StateRequest) ([]agree.State, error) {
	states, _, err := r.askStates(ctx, m, req)
	return states, err
}

// askStates gives also what other members signed to that one, as far as they did.
func (r *Registry) askStates(ctx context.Context, m names.NodeID, req *registrypb.StateRequest) (states, witnessed []agree.State, err error) {
	resp := new(registrypb.StateResponse)
	if m == r.cfg.Self {
		resp, err = r.HandleState(ctx, m, req)
	} else {
		err = r.cfg.Peers.Call(ctx, m, MethodState, req, resp)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(resp.States) > agree.MaxStates || len(resp.Witnessed) > maxWitnessed {
		return nil, nil, fmt.Errorf("%w: %s sent %d and %d", agree.ErrInvalid, m, len(resp.States), len(resp.Witnessed))
	}
	keys, err := r.trust(m)
	if err != nil {
		return nil, nil, err
	}
	for _, raw := range resp.States {
		s, err := agree.Open(r.cfg.Genesis.Mesh, m, keys, raw)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m, err)
		}
		states = append(states, s)
	}
	for _, raw := range resp.Witnessed {
		s, opened, err := agree.Read(r.cfg.Genesis.Mesh, raw)
		if err != nil {
			return nil, nil, fmt.Errorf("%s passed on: %w", m, err)
		}
		keys, err := r.trust(s.Member)
		if err == nil && slices.ContainsFunc(keys, opened.VerifiedBy) { // else it is no evidence against anybody
			witnessed = append(witnessed, s)
		}
	}
	return states, witnessed, nil
}

// MajorityState gives the states that more than half of the voting members signed alike
// for an index, once they do: what they agree in is so, as long as fewer than half of
// them lie. Index 0 takes whatever index they agree on. Each member is asked directly;
// members and keys are those of this replica's view. Members keep marks at every multiple
// of store.MarkEvery, at each command that took a right away, and at each empty command,
// a few hundred of them. The error wraps agree.ErrNoMajority when ctx ends.
func (r *Registry) MajorityState(ctx context.Context, index uint64) ([]agree.State, error) {
	return r.majority(ctx, &registrypb.StateRequest{Index: index}, func(s agree.State) bool { return index == 0 || s.Index == index })
}

// majority asks those who vote as this replica comes to know them: the very command that is
// asked about may be the one that changes who votes, and who leaves signs nothing more.
func (r *Registry) majority(ctx context.Context, req *registrypb.StateRequest, fits func(agree.State) bool) ([]agree.State, error) {
	changed, stop := r.Changes()
	defer stop()
	for {
		voters, err := r.voters()
		if err != nil {
			return nil, err
		}
		states, err := r.majorityOf(ctx, voters, changed, req, fits)
		if !errors.Is(err, errVotersChanged) {
			return states, err
		}
	}
}

var errVotersChanged = errors.New("others vote now")

// majorityOf asks these voters until they are others.
func (r *Registry) majorityOf(ctx context.Context, voters []names.NodeID, changed <-chan struct{}, req *registrypb.StateRequest, fits func(agree.State) bool) (states []agree.State, err error) {
	asking, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		for {
			select {
			case <-changed:
				if now, err := r.voters(); err != nil || !slices.Equal(now, voters) {
					cancel(errVotersChanged)
					return
				}
			case <-asking.Done():
				return
			}
		}
	})
	states, err = r.majorityAmong(asking, voters, req, fits)
	if err != nil && errors.Is(context.Cause(asking), errVotersChanged) {
		return nil, errVotersChanged
	}
	return states, err
}

func (r *Registry) majorityAmong(ctx context.Context, voters []names.NodeID, req *registrypb.StateRequest, fits func(agree.State) bool) ([]agree.State, error) {
	return agree.Majority(ctx, voters, func(ctx context.Context, m names.NodeID) ([]agree.State, error) {
		return r.askState(ctx, m, req)
	}, fits)
}

// commandOf gives the hash of an envelope's payload and the command in it; nil: it is of a
// kind that never takes a right away, and not worth decoding.
func commandOf(raw []byte) (hash agree.CommandHash, cmd *registrypb.Command, err error) {
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil {
		return hash, nil, err
	}
	hash = sha256.Sum256(opened.Payload)
	if record.KeepsRights(opened.Payload) {
		return hash, nil, nil
	}
	cmd = new(registrypb.Command)
	return hash, cmd, proto.Unmarshal(opened.Payload, cmd)
}
