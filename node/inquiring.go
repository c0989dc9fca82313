package node

import (
	"github.com/crossroads-mesh/crossroads/node/inquiry"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// inquirer asks many sources at once, through the consultant that asks one.
func (n *Node) inquirer() *inquiry.Inquirer {
	return inquiry.New(inquiry.Config{
		Self: n.self, Consultations: n.metrics.Consultations(n.consulting()), Journal: n.askingJournal(), Outbox: n.outbox, Registry: n.registry,
		Schemes: subject.Belgian(), Life: n.cfg.Outbox.Life, Now: n.deps.Now, Log: n.log,
	})
}
