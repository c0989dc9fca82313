package node

import (
	"cmp"
	"context"
	"errors"
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
	confirmed chan struct{} // closed once it is
}

var errPast = errors.New("this node has not yet compared its journal with what the network saw of it")

// Standing is the registry's, once the past is confirmed.
func (p *past) Standing() (lease.Standing, error) {
	s, err := p.Registry.Standing()
	select {
	case <-p.confirmed:
		return s, err
	default:
		return lease.Standing{}, cmp.Or(err, errPast)
	}
}

// anchorOnceConfirmed shows checkpoints to others only when they cannot contradict what
// was shown before: a rollback that nobody meant is no evidence yet.
func (n *Node) anchorOnceConfirmed(ctx context.Context) error {
	select {
	case <-n.past.confirmed:
		return n.anchor.Run(ctx)
	case <-ctx.Done():
		return nil
	}
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
			close(n.past.confirmed)
			return nil
		case errors.Is(err, journal.ErrRolledBack):
			_ = n.journal.Halt(err)
			return nil
		}
		n.log.Debug("the journal is not yet compared with what the network saw", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(250 * time.Millisecond):
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

// lastAnchored gives the last checkpoint of this node's journal that was anchored, as a
// member has it in the registry.
func (n *Node) lastAnchored(ctx context.Context) (a journal.Anchored, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	notes, err := n.anchors(ctx, n.self)
	for _, c := range notes {
		if c.Node == n.self {
			a, ok = journal.Anchored{Size: uint64(c.Size), Root: c.Root, Epoch: uint64(c.Epoch)}, true
		}
	}
	return a, ok, err
}

// signing says whose journal it is.
func (n *Node) signing() *journal.Signing {
	return &journal.Signing{Mesh: n.cfg.Mesh, Node: n.self, Signer: n.keys.signer, Now: n.deps.Now}
}

// runRetention erases what is older than the configuration keeps. The time counts only
// while a grant stands, for whose sake the leader's clock was compared: a clock that
// jumps ten years ahead must not erase ten years.
func (n *Node) runRetention(ctx context.Context) error {
	return n.journal.KeepRetention(ctx, n.cfg.Journal.Retention, n.retentionClock)
}

func (n *Node) retentionClock() (time.Time, error) {
	_, err := n.past.Standing()
	return n.deps.Now(), err
}
