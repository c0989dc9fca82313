package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newCerts() *cobra.Command {
	c := group("certs", "Keys, and the certificates by which nodes know each other",
		newCertsInit(), newCertsIssue(), newCertsToken(), newCertsJoin(), newCertsInspect(), newCertsKeygen())
	c.Long = `The built-in authority gives nodes their X.509-SVIDs, for test networks and to bootstrap
a mesh that has no SPIRE. Whoever reads its folder can pass for any node: guard it.

A certificate lets a node in at the door and no further: the registry decides who is
admitted.`
	return c
}

// nodeFlags name the node that a certificate is for.
type nodeFlags struct {
	authority, institution, node string
	ttl                          time.Duration
}

func addNode(c *cobra.Command, ttl time.Duration) *nodeFlags {
	n := new(nodeFlags)
	f := c.Flags()
	f.StringVar(&n.authority, "authority", "", "the authority's folder, as certs init made it")
	f.StringVar(&n.institution, "institution", "", "the institution's ID in the registry")
	f.StringVar(&n.node, "node", "n1", "the node's name")
	if ttl > 0 {
		f.DurationVar(&n.ttl, "ttl", ttl, "how long it is valid")
	}
	for _, name := range []string{"authority", "institution"} {
		_ = c.MarkFlagRequired(name)
	}
	_ = c.MarkFlagDirname("authority")
	return n
}

// open gives the authority and the node's identity in its mesh.
func (n *nodeFlags) open() (*authority.Authority, spiffeid.ID, error) {
	a, err := authority.Open(n.authority)
	if err != nil {
		return nil, spiffeid.ID{}, err
	}
	mesh, err := a.Mesh()
	if err != nil {
		return nil, spiffeid.ID{}, err
	}
	id, err := certs.NodeSPIFFE(mesh, names.NodeID{Institution: names.InstitutionID(n.institution), Node: names.NodeName(n.node)})
	if err != nil {
		return nil, spiffeid.ID{}, usage("%w", err)
	}
	return a, id, nil
}
