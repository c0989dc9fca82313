package certs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

var (
	// ErrOtherMesh means that an identity belongs to another trust domain.
	ErrOtherMesh = errors.New("identity of another mesh")
	// ErrNotNode means that a SPIFFE ID does not have the form of a node's.
	ErrNotNode = errors.New("not the identity of a node")
)

// NodeSPIFFE gives the SPIFFE ID of a node:
// spiffe://<mesh>/institution/<institution>/node/<node>. It fails if a name is
// malformed.
func NodeSPIFFE(mesh names.MeshID, n names.NodeID) (spiffeid.ID, error) {
	td, err := TrustDomain(mesh)
	if err != nil {
		return spiffeid.ID{}, err
	}
	if err := n.Validate(); err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromSegments(td, "institution", string(n.Institution), "node", string(n.Node))
}

// NodeOf gives the node that a SPIFFE ID names within mesh. It is the inverse of
// NodeSPIFFE. The error wraps ErrOtherMesh or ErrNotNode.
func NodeOf(mesh names.MeshID, id spiffeid.ID) (names.NodeID, error) {
	td, err := TrustDomain(mesh)
	if err != nil {
		return names.NodeID{}, err
	}
	if !id.MemberOf(td) {
		return names.NodeID{}, fmt.Errorf("%w: %s is not in %s", ErrOtherMesh, id, td)
	}
	s := strings.Split(id.Path(), "/")
	if len(s) != 5 || s[1] != "institution" || s[3] != "node" {
		return names.NodeID{}, fmt.Errorf("%w: %s: want /institution/<id>/node/<name>", ErrNotNode, id)
	}
	n := names.NodeID{Institution: names.InstitutionID(s[2]), Node: names.NodeName(s[4])}
	if err := n.Validate(); err != nil {
		return names.NodeID{}, fmt.Errorf("%w: %w", ErrNotNode, err)
	}
	return n, nil
}

// TrustDomain gives the SPIFFE trust domain of a mesh.
func TrustDomain(mesh names.MeshID) (spiffeid.TrustDomain, error) {
	if err := mesh.Validate(); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	return spiffeid.TrustDomainFromString(string(mesh))
}
