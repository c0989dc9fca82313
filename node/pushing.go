package node

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
)

// pushed gives the systems that are sent what arrives, as consumers of the inbox.
func pushed(pushes []config.Push) (all []inbox.Consumer) {
	for _, p := range pushes {
		all = append(all, inbox.Consumer{Name: p.Name, Wants: func(i inbox.Item) bool {
			return (len(p.Kinds) == 0 || slices.Contains(p.Kinds, i.Kind.String())) &&
				(len(p.Purposes) == 0 || slices.Contains(p.Purposes, i.Purpose)) && (len(p.Datasets) == 0 || slices.Contains(p.Datasets, i.Dataset))
		}})
	}
	return all
}

func (n *Node) openPushes() error {
	for _, p := range n.cfg.Inbox.Push {
		target := n.deps.Pushes[p.Name]
		if target == nil {
			return fmt.Errorf("inbox.push: nothing was opened for %s", p.Name)
		}
		n.notify.pushers = append(n.notify.pushers, push.New(push.Config{
			Consumer: p.Name, Self: n.self, Inbox: n.notify.inbox, Target: target, Timeout: p.Timeout, AtOnce: p.AtOnce, Now: n.deps.Now, Log: n.log,
		}))
	}
	n.metrics.Pushes(n.notify.pushers)
	return nil
}

func (n *Node) runPushes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range n.notify.pushers {
		g.Go(func() error { return p.Run(ctx) })
	}
	return g.Wait()
}
