package node

import (
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// maxIdentities bounds what identities remembers, each way; a mesh of thousands of nodes
// fits.
const maxIdentities = 1 << 14

// identities gives nodes their SPIFFE IDs in a mesh and the other way round, which every
// call asks several times. It remembers that one names the other and nothing else: who is
// admitted is the registry's to say. It is safe for concurrent use.
type identities struct {
	mesh names.MeshID

	mu    sync.RWMutex
	nodes map[spiffeid.ID]names.NodeID
	ids   map[names.NodeID]spiffeid.ID
}

func newIdentities(mesh names.MeshID) *identities {
	return &identities{mesh: mesh, nodes: make(map[spiffeid.ID]names.NodeID), ids: make(map[names.NodeID]spiffeid.ID)}
}

// node gives the node that id names; the errors are those of certs.NodeOf.
func (i *identities) node(id spiffeid.ID) (names.NodeID, error) {
	return known(&i.mu, i.nodes, id, func() (names.NodeID, error) { return certs.NodeOf(i.mesh, id) })
}

// of gives the ID of a node; the errors are those of certs.NodeSPIFFE.
func (i *identities) of(n names.NodeID) (spiffeid.ID, error) {
	return known(&i.mu, i.ids, n, func() (spiffeid.ID, error) { return certs.NodeSPIFFE(i.mesh, n) })
}

func known[K comparable, V any](mu *sync.RWMutex, m map[K]V, k K, find func() (V, error)) (V, error) {
	mu.RLock()
	v, ok := m[k]
	mu.RUnlock()
	if ok {
		return v, nil
	}
	v, err := find()
	if err != nil {
		return v, err
	}
	mu.Lock()
	defer mu.Unlock()
	if len(m) >= maxIdentities {
		clear(m)
	}
	m[k] = v
	return v, nil
}
