package node

import (
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// checks are what must hold before this node can do its work.
func (n *Node) checks() []api.Check {
	return []api.Check{
		{Name: "identity", Says: "The node's certificate cannot be used; its log says why.", Test: func() error { _, err := n.identity.GetX509SVID(); return err }},
		{Name: "journal", Says: "The journal takes no entries, so nothing is answered; the node's log says why.", Test: n.journalHealthy},
		{Name: "checkpoints", Says: "No checkpoint of the journal can be made; the node's log says why.", Test: n.tree.Healthy},
		{Name: "registry", Says: "No registry member confirms what this node holds of the registry; it goes on trying, and its log says more.", Test: func() error { _, err := n.past.Standing(); return err }},
		{Name: "registry-state", Says: "This node's copy of the registry is not the one that most members signed; its log says where it differs. It clears nothing. Start it again: it makes its copy anew.", Test: n.registry.Sound},
		{Name: "sector", Says: "The sector's own journal takes no entries, so nothing of the sector is answered; the node's log says why.", Test: n.sectorHealthy},
		{Name: "listed", Says: "The registry cannot be read; the node's log says why.", Test: n.checkListed},
	}
}

// journalHealthy tells anybody that a disk was restored, since only that has its own
// remedy.
func (n *Node) journalHealthy() error {
	err := n.journal.Healthy()
	if errors.Is(err, journal.ErrRolledBack) {
		return fmt.Errorf("%w (%w)", api.Plain("The journal is older than what the network has seen of it: use the newer disk, or declare the restore (crossroads journal restore-declared)."), err)
	}
	return err
}

// checkListed reports whether others can find and admit this node.
func (n *Node) checkListed() error {
	return n.registry.View(func(v record.View) error {
		inst, err := v.Institution(n.self.Institution)
		switch {
		case err != nil:
			return err
		case inst == nil:
			return api.Plain(fmt.Sprintf("institution %s is not admitted to the mesh; its operators admit it", n.self.Institution))
		case inst.Suspended:
			return api.Plain(fmt.Sprintf("institution %s is suspended; ask the operators of the mesh", n.self.Institution))
		}
		rec, err := v.Node(n.self)
		if err == nil && (rec == nil || rec.Removed) {
			err = api.Plain("the registry does not list this node yet; it registers itself when it reaches a member")
		}
		return err
	})
}
