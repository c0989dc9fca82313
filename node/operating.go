package node

import (
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/operate"
)

// operations is what operators see and do through this node.
func (n *Node) operations() api.Operations {
	return operate.New(operate.Config{
		Self: n.self, Registry: n.registry, Peers: n.peers, Settings: n.cfg, Version: n.deps.Version, Metrics: n.metrics.Text,
		Ready: func() (all []api.Checked) {
			for _, c := range n.checks() {
				done := api.Checked{Name: c.Name, OK: c.Test() == nil}
				if !done.OK {
					done.Says = c.Says
				}
				all = append(all, done)
			}
			return all
		},
	})
}
