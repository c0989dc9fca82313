package record

import (
	"slices"
	"sync"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Memo holds what views have read and decoded of the public tables (OfCatalogue), what
// is absent too; of one state, or of several that do not differ in these. It is safe for
// concurrent use, and bounded.
type Memo struct {
	mu   sync.RWMutex
	size int

	institutions   map[names.InstitutionID]*registrypb.Institution
	keys           map[names.KeyID]*registrypb.Key
	keysOf         map[names.InstitutionID][]*registrypb.Key
	nodes          map[names.NodeID]*registrypb.Node
	nodesOf        map[names.InstitutionID][]*registrypb.Node
	members        map[struct{}][]names.NodeID
	datasets       map[names.DatasetID]*registrypb.Dataset
	offerings      map[names.DatasetID][]*registrypb.Offering
	offering       map[offeringOf]*registrypb.Offering
	authorization  map[names.AuthorizationID]*registrypb.Authorization
	authorizations map[grantOf][]*registrypb.Authorization
}

// maxMemo bounds what a Memo remembers, in rows and lists; a mesh of thousands of
// institutions fits.
const maxMemo = 1 << 16

type grantOf struct {
	t names.InstitutionType
	d names.DatasetID
	p names.Purpose
}

type offeringOf struct {
	d names.DatasetID
	i names.InstitutionID
}

// NewMemo makes an empty one.
func NewMemo() *Memo {
	return &Memo{
		institutions: map[names.InstitutionID]*registrypb.Institution{}, keys: map[names.KeyID]*registrypb.Key{},
		keysOf: map[names.InstitutionID][]*registrypb.Key{},
		nodes:  map[names.NodeID]*registrypb.Node{}, nodesOf: map[names.InstitutionID][]*registrypb.Node{},
		members: map[struct{}][]names.NodeID{}, datasets: map[names.DatasetID]*registrypb.Dataset{},
		offerings: map[names.DatasetID][]*registrypb.Offering{}, offering: map[offeringOf]*registrypb.Offering{},
		authorization:  map[names.AuthorizationID]*registrypb.Authorization{},
		authorizations: map[grantOf][]*registrypb.Authorization{},
	}
}

// Full reports whether it takes nothing more.
func (m *Memo) Full() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size >= maxMemo
}

// Remembering gives the same view for whoever asks much the same of the public tables
// again and again: institutions, keys, nodes, members, datasets, offerings and
// authorizations are read and decoded once, where many views are of one state once for
// all of them. What it gives is shared and must not be changed, but for the slices
// themselves.
func (v View) Remembering() View {
	if v.memo = v.shared; v.memo == nil {
		v.memo = NewMemo()
	}
	return v
}

// remember gives what m, a part of memo, holds under k, or reads it.
func remember[K comparable, V any](memo *Memo, m map[K]V, k K, read func() (V, error)) (V, error) {
	memo.mu.RLock()
	got, ok := m[k]
	memo.mu.RUnlock()
	if ok {
		return got, nil
	}
	got, err := read()
	if err != nil {
		return got, err
	}
	memo.mu.Lock()
	defer memo.mu.Unlock()
	if memo.size < maxMemo {
		m[k] = got
		memo.size++
	}
	return got, nil
}

// rememberAll is remember for a list of which the caller may take away.
func rememberAll[K comparable, V any](memo *Memo, m map[K][]V, k K, read func() ([]V, error)) ([]V, error) {
	got, err := remember(memo, m, k, read)
	return slices.Clone(got), err
}
