package node

import (
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// checks are what must hold before this node can do its work.
func (n *Node) checks() []api.Check {
	return []api.Check{
		{Name: "identity", Test: func() error { _, err := n.identity.GetX509SVID(); return err }},
		{Name: "journal", Test: n.journal.Healthy},
		{Name: "checkpoints", Test: n.tree.Healthy},
		{Name: "registry", Test: func() error { _, err := n.past.Standing(); return err }},
		{Name: "listed", Test: n.checkListed},
	}
}

// checkListed reports whether others can find and admit this node.
func (n *Node) checkListed() error {
	return n.registry.View(func(v record.View) error {
		inst, err := v.Institution(n.self.Institution)
		switch {
		case err != nil:
			return err
		case inst == nil:
			return fmt.Errorf("institution %s is not admitted to the mesh; its operators admit it", n.self.Institution)
		case inst.Suspended:
			return fmt.Errorf("institution %s is suspended; ask the operators of the mesh", n.self.Institution)
		}
		rec, err := v.Node(n.self)
		if err == nil && (rec == nil || rec.Removed) {
			err = errors.New("the registry does not list this node yet; it registers itself when it reaches a member")
		}
		return err
	})
}
