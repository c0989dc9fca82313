package node

import (
	"context"

	"github.com/crossroads-mesh/crossroads/registry/recovery"
)

// watchRecovery warns of announced changes of keys, and on a member times them.
func (n *Node) watchRecovery(ctx context.Context) error {
	return recovery.New(recovery.Config{
		Self: n.self.Institution, Delay: n.keys.genesis.RecoveryDelay,
		Registry: n.registry, Author: n.author, Now: n.deps.Now, Log: n.log,
	}).Run(ctx)
}
