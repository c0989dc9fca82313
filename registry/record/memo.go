package record

import (
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// memo holds what a view has read and decoded of the public tables. It is for one
// goroutine.
type memo struct {
	institutions   map[names.InstitutionID]*registrypb.Institution
	nodes          map[names.NodeID]*registrypb.Node
	datasets       map[names.DatasetID]*registrypb.Dataset
	offerings      map[names.DatasetID][]*registrypb.Offering
	authorizations map[grantOf][]*registrypb.Authorization
}

type grantOf struct {
	t names.InstitutionType
	d names.DatasetID
	p names.Purpose
}

// Remembering gives the same view for whoever asks much the same of the public tables
// again and again, as one who decides on thousands of subjects: institutions, nodes,
// datasets, offerings and authorizations are read once. What it gives is shared and must
// not be changed, but for the slices themselves; it is for one goroutine.
func (v View) Remembering() View {
	v.memo = &memo{
		institutions: map[names.InstitutionID]*registrypb.Institution{}, nodes: map[names.NodeID]*registrypb.Node{},
		datasets: map[names.DatasetID]*registrypb.Dataset{}, offerings: map[names.DatasetID][]*registrypb.Offering{},
		authorizations: map[grantOf][]*registrypb.Authorization{},
	}
	return v
}

// remember gives what m holds under k, or reads it.
func remember[K comparable, V any](m map[K]V, k K, read func() (V, error)) (V, error) {
	if got, ok := m[k]; ok {
		return got, nil
	}
	got, err := read()
	if err == nil {
		m[k] = got
	}
	return got, err
}

// rememberAll is remember for a list of which the caller may take away.
func rememberAll[K comparable, V any](m map[K][]V, k K, read func() ([]V, error)) ([]V, error) {
	got, err := remember(m, k, read)
	return slices.Clone(got), err
}
