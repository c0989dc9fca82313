package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// atDoor gives the refusal of what must not cost every replica its size on disk:
// commands of no form or mesh of ours, or signed by nobody who could. It gives nil for
// all others, also for those that the replicas will refuse.
func (m *member) atDoor(ctx context.Context, envelope []byte, term uint64) (*registrypb.SubmitResponse, error) {
	refusal, err := m.judgeAtDoor(envelope)
	if err == nil && refusal != "" {
		// A follower may apply before its leader does, and whoever saw it there comes here.
		if err = m.reg.store.WaitApplied(ctx, m.raft().CommitIndex()); err == nil {
			refusal, err = m.judgeAtDoor(envelope)
		}
	}
	if err == nil && refusal == "" {
		if refusal, err = m.raisable(ctx, envelope); err == nil && refusal == "" {
			err = m.handOverFirst(envelope)
		}
	}
	if err != nil || refusal == "" {
		return nil, err
	}
	if m.marked.Load() != term {
		// What an earlier leader accepted, as the admission of this author, may not be
		// applied here yet.
		return nil, fmt.Errorf("%w: it was elected this moment", ErrNotLeader)
	}
	return &registrypb.SubmitResponse{Refusal: refusal}, nil
}

func (m *member) judgeAtDoor(envelope []byte) (refusal string, err error) {
	err = m.reg.store.View(func(v record.View) (err error) {
		refusal, err = record.AtDoor(v, m.reg.rules, envelope)
		return err
	})
	return refusal, err
}

// handOverFirst hands the lead to a member that stays, before a record that leaves this
// leader out is proposed: what a leader vouched for counts with nobody once it is no
// member, and until another leads no exchange would be cleared.
func (m *member) handOverFirst(envelope []byte) error {
	next := record.NamesMembers(envelope)
	if len(next) == 0 || slices.Contains(next, m.reg.cfg.Self) {
		return nil
	}
	voters := votersOf(m.raft())
	for _, n := range next {
		s := server(n)
		if !slices.Contains(voters, s.ID) {
			continue
		}
		if err := m.raft().LeadershipTransferToServer(s.ID, s.Address).Error(); err == nil {
			m.log.Info("registry leader hands over, since a members record that comes leaves it out", "to", n.String())
			return fmt.Errorf("%w: it handed over to %s, which stays", ErrNotLeader, n)
		}
	}
	return nil // nobody of them votes yet
}

// askLevel bounds the question which feature level a member knows.
const askLevel = 2 * time.Second

// raisable says why the mesh must not be raised to a feature level now: a member would
// halt, or too few are known to go on. It is care, and no rule: whatever is in the log
// once, each replica judges by itself.
func (m *member) raisable(ctx context.Context, envelope []byte) (string, error) {
	level := record.Raises(envelope)
	if level == 0 {
		return "", nil
	}
	voters, err := m.reg.voters()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askLevel)
	defer cancel()
	knows := make([]uint32, len(voters)) // 0: no answer
	var wg sync.WaitGroup
	for i, v := range voters {
		if v == m.reg.cfg.Self {
			knows[i] = m.reg.rules.KnownLevel()
			continue
		}
		wg.Go(func() {
			resp := new(registrypb.StatusResponse)
			if err := m.reg.cfg.Peers.Call(ctx, v, MethodStatus, &registrypb.StatusRequest{}, resp); err == nil {
				knows[i] = max(1, resp.KnowsLevel)
			}
		})
	}
	wg.Wait()
	able := 0
	for i, l := range knows {
		if l >= level {
			able++
		} else if l > 0 {
			return fmt.Sprintf("member %s runs a program that knows feature level %d only, and would halt: install a newer release there first", voters[i], l), nil
		}
	}
	if able <= len(voters)/2 {
		return fmt.Sprintf("only %d of %d members answered that they know feature level %d: a majority must go on", able, len(voters), level), nil
	}
	return "", nil
}

// maxLimits bounds the institutions that are counted; certificates bound it too.
const maxLimits = 4096

// byteLimits counts what institutions send a member. The zero value is ready, and safe
// for concurrent use.
type byteLimits struct {
	mu sync.Mutex
	of map[names.InstitutionID]*rate.Limiter
}

// take reports whether inst may send n bytes now.
func (b *byteLimits) take(inst names.InstitutionID, n int, t Tuning) bool {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.of[inst]
	if l == nil {
		if b.of == nil || len(b.of) >= maxLimits {
			b.forget(now)
		}
		l = rate.NewLimiter(rate.Limit(t.SubmitRate), t.SubmitBurst)
		b.of[inst] = l
	}
	return l.AllowN(now, n)
}

// forget leaves out those who could send a whole burst again.
func (b *byteLimits) forget(now time.Time) {
	kept := make(map[names.InstitutionID]*rate.Limiter)
	for inst, l := range b.of {
		if l.TokensAt(now) < float64(l.Burst()) {
			kept[inst] = l
		}
	}
	b.of = kept
}
