package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/lease"
)

// past is the registry as the exchanges see it: nothing may be relied on before this
// node knows that its journal is the one that the network saw last. Else a disk that was
// restored from a backup would answer again what it has answered.
type past struct {
	*registry.Registry
	confirmed atomic.Bool
}

var errPast = errors.New("this node has not yet compared its journal with what the network saw of it")

// Standing is the registry's, once the past is confirmed.
func (p *past) Standing() (lease.Standing, error) {
	s, err := p.Registry.Standing()
	if err == nil && !p.confirmed.Load() {
		return lease.Standing{}, errPast
	}
	return s, err
}

// confirmPast compares the journal with its last anchored checkpoint as soon as this
// node's view of the registry is one to rely on. A journal that was rolled back takes
// no more entries, and so the node no more work.
func (n *Node) confirmPast(ctx context.Context) error {
	for {
		err := n.comparePast(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			n.past.confirmed.Store(true)
			return nil
		case errors.Is(err, journal.ErrRolledBack):
			_ = n.journal.Halt(err)
			return nil
		}
		n.log.Debug("the journal is not yet compared with what the network saw", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (n *Node) comparePast(ctx context.Context) error {
	if _, err := n.registry.WaitStanding(ctx); err != nil {
		return err
	}
	a, ok, err := n.lastAnchored(ctx)
	if err != nil || !ok {
		return err
	}
	return n.journal.CheckAnchored(ctx, a, n.tree.RootAt)
}

// lastAnchored gives the last checkpoint of this node's journal that the registry
// holds; a node that is no member asks one.
func (n *Node) lastAnchored(ctx context.Context) (a journal.Anchored, ok bool, err error) {
	notes, err := n.anchors(ctx, n.self)
	if err != nil || len(notes) == 0 {
		return a, false, err
	}
	return journal.Anchored{Size: uint64(notes[0].Size), Root: notes[0].Root}, true, nil
}

// signing says whose journal it is.
func (n *Node) signing() *journal.Signing {
	return &journal.Signing{Mesh: n.cfg.Mesh, Node: n.self, Signer: n.keys.signer, Now: n.deps.Now}
}

// runRetention erases what is older than the configuration keeps. The time counts only
// while a grant stands, for whose sake the leader's clock was compared: a clock that
// jumps ten years ahead must not erase ten years.
func (n *Node) runRetention(ctx context.Context) error {
	return n.journal.KeepRetention(ctx, n.cfg.Journal.Retention, func() (time.Time, error) {
		_, err := n.past.Standing()
		return n.deps.Now(), err
	})
}
