package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// catchingUpFile marks a member whose log began empty in a mesh that had begun.
const catchingUpFile = "CATCHING-UP"

// begin decides how a member with an empty log begins. One that the genesis file names
// founds the log, if nobody it can ask has begun; with others that have, or with
// Config.Join, it waits for their leader instead. It then has forgotten what it had and
// how it voted, if it ever did: it votes for nobody until a leader's grant has shown that
// it holds everything again.
func (m *member) begin(ctx context.Context) error {
	mark := filepath.Join(m.dir, catchingUpFile)
	if m.empty {
		if m.first && !m.reg.cfg.Join && !m.othersBegan(ctx) {
			return m.found()
		}
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			return err
		}
		m.log.Info("registry member begins with an empty log, and waits for the leader of a mesh that has begun")
	}
	_, err := os.Stat(mark)
	m.catchingUp.Store(err == nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// othersBegan asks the other first members, and whoever this replica knows to vote,
// whether they have taken part in an election yet.
func (m *member) othersBegan(ctx context.Context) bool {
	voters, err := m.reg.voters()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var mu sync.Mutex
	began := false
	var wg sync.WaitGroup
	for _, v := range voters {
		if v == m.reg.cfg.Self {
			continue
		}
		wg.Go(func() {
			resp := new(registrypb.StatusResponse)
			if m.reg.cfg.Peers.Call(ctx, v, MethodStatus, &registrypb.StatusRequest{}, resp) == nil && entryAt(resp.CommitIndex) > 1 {
				mu.Lock()
				began = true
				mu.Unlock()
				cancel() // one is enough
			}
		})
	}
	wg.Wait()
	return began
}

// mayVote reports whether this member remembers all that a voter must.
func (m *member) mayVote() bool { return !m.catchingUp.Load() }

// finishCatchUp waits for a standing, which a leader gives only who holds everything.
func (m *member) finishCatchUp(ctx context.Context) error {
	if !m.catchingUp.Load() {
		return nil
	}
	if _, err := m.reg.holder.Wait(ctx); err != nil {
		return nil // ctx ended
	}
	if err := os.Remove(filepath.Join(m.dir, catchingUpFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("registry: %w", err)
	}
	m.catchingUp.Store(false)
	m.log.Info("registry member has caught up")
	return nil
}

// newcomer is what a member knows of the public tables from others, while its own replica
// is too old to know who leads: a member admitted later knows from the genesis file the
// first members only, and must let in, and find, a leader that came after them. It follows
// the public chain as a watcher does, with every signature verified, in memory.
type newcomer struct {
	reg *Registry

	mu    sync.RWMutex
	state *record.MapState // nil: own replica is good enough
	index uint64
}

const (
	newcomerAfter = 2 * time.Second // without a leader
	newcomerLook  = 250 * time.Millisecond
)

// run follows others whenever this member hears no leader for a while.
func (c *newcomer) run(ctx context.Context) error {
	heard := time.Now()
	if c.reg.member.catchingUp.Load() {
		heard = time.Time{}
	}
	for ctx.Err() == nil {
		if _, ok := c.reg.member.leader(); ok {
			heard = time.Now()
			c.drop()
		} else if time.Since(heard) > newcomerAfter {
			c.follow(ctx)
		}
		select {
		case <-time.After(newcomerLook):
		case <-ctx.Done():
		}
	}
	return nil
}

// drop forgets, once the own replica is as far.
func (c *newcomer) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != nil && c.reg.store.AppliedIndex() >= c.index {
		c.state, c.index = nil, 0
	}
}

// follow reads from each known member what it has, and ends when a leader is heard.
func (c *newcomer) follow(ctx context.Context) {
	c.mu.Lock()
	if c.state == nil {
		state := new(record.MapState)
		if err := record.Bootstrap(state, c.reg.rules); err != nil {
			c.mu.Unlock()
			return
		}
		c.state, c.index = state, 0
	}
	c.mu.Unlock()
	members, err := c.reg.knownMembers()
	if err != nil {
		return
	}
	for _, m := range members {
		if err := c.followOne(ctx, m); err != nil {
			c.reg.cfg.Log.Debug("registry newcomer: a member gave no more", "member", m.String(), "error", err)
		}
		if _, ok := c.reg.member.leader(); ok || ctx.Err() != nil {
			return
		}
	}
}

func (c *newcomer) followOne(ctx context.Context, m names.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, 3*c.reg.cfg.Tuning.WatchKeepalive)
	defer cancel()
	c.mu.RLock()
	from := c.index + 1
	c.mu.RUnlock()
	stream, err := c.reg.cfg.Peers.Watch(ctx, m, &registrypb.WatchRequest{FromIndex: from})
	if err != nil {
		return err
	}
	defer stream.Close()
	for ctx.Err() == nil {
		e, err := stream.Receive()
		if err != nil {
			return err
		}
		if err := c.apply(e); err != nil {
			return err
		}
		if _, ok := c.reg.member.leader(); ok {
			return nil
		}
	}
	return ctx.Err()
}

func (c *newcomer) apply(e *registrypb.WatchEvent) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil || e.GetIndex() <= c.index || len(e.GetEnvelope()) == 0 {
		return nil // progress alone is nobody's word to rely on here
	}
	res, err := record.Apply(c.state, c.reg.rules, e.Index, e.Envelope)
	switch {
	case err != nil:
		return err
	case !res.Accepted:
		return fmt.Errorf("the command at index %d is refused: %s", e.Index, res.Refusal)
	}
	c.index = e.Index
	return nil
}

// PublicView calls fn with the newest view of the public tables that this node has, which
// on a member that is coming up may be ahead of its replica. It is for who may connect,
// and where to: rights are decided in View.
func (r *Registry) PublicView(fn func(record.View) error) error {
	if r.member != nil {
		c := &r.member.newcomer
		c.mu.RLock()
		if c.state != nil && c.index > r.store.AppliedIndex() {
			defer c.mu.RUnlock()
			return fn(record.NewView(c.state))
		}
		c.mu.RUnlock()
	}
	return r.View(fn)
}

// knownMembers gives the other members in the newest view, and those of the own one.
func (r *Registry) knownMembers() (all []names.NodeID, err error) {
	for _, view := range []func(func(record.View) error) error{r.PublicView, r.View} {
		err := view(func(v record.View) error {
			members, err := v.Members()
			for _, m := range members {
				if m != r.cfg.Self && !slices.Contains(all, m) {
					all = append(all, m)
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
