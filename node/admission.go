package node

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// admission decides from the registry's records who is let in. A certificate of
// the mesh alone gives nothing.
type admission struct {
	identities *identities
	// registry is set once it is open. The socket is there before it, since
	// consensus runs over the mesh; who knocks until then is refused.
	registry atomic.Pointer[registry.Registry]
}

var errStarting = errors.New("this node is starting")

func (a *admission) view(fn func(record.View) error) error {
	r := a.registry.Load()
	if r == nil {
		return errStarting
	}
	return r.PublicView(func(v record.View) error { return fn(v.Remembering()) })
}

// institution lets in every node of an admitted institution that is not
// suspended. It does not ask for a node record, since a new node must reach the
// registry to have itself recorded.
func (a *admission) institution(id spiffeid.ID) error {
	node, err := a.identities.node(id)
	if err != nil {
		return err
	}
	return a.view(func(v record.View) error {
		inst, err := v.Institution(node.Institution)
		switch {
		case err != nil:
			return err
		case inst == nil:
			return fmt.Errorf("institution %s is not admitted to the mesh", node.Institution)
		case inst.Suspended:
			return fmt.Errorf("institution %s is suspended", node.Institution)
		}
		rec, err := v.Node(node)
		if err != nil {
			return err
		}
		if rec != nil && rec.Removed {
			return fmt.Errorf("node %s was removed by its institution", node)
		}
		return nil
	})
}

// listed lets in the nodes that the registry lists, and gives the caller's name.
func (a *admission) listed(id spiffeid.ID) (names.NodeID, error) {
	node, err := a.identities.node(id)
	if err != nil {
		return node, err
	}
	return node, a.view(func(v record.View) error {
		rec, err := v.Node(node)
		if err == nil && (rec == nil || rec.Removed) {
			err = mesh.Errorf(mesh.PermissionDenied, "the registry does not list node %s; its institution registers it with a set_node command", node)
		}
		return err
	})
}
