package testnet

import (
	"context"
	"path/filepath"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Promote makes a node a voting member: it is started again, as one that holds nothing,
// and the operators write it into the members record. It returns when they have; the
// node then still has everything to fetch.
func (n *Network) Promote(ctx context.Context, id names.InstitutionID) error {
	s := n.site(id)
	if err := n.StopNode(id); err != nil {
		return err
	}
	s.member = true
	if err := n.layout.writeConfig(s, n.systems.Sources(id), n.options.Configure); err != nil {
		return err
	}
	if err := n.StartNode(id, nil); err != nil {
		return err
	}
	operators, err := n.Operators(ctx)
	if err != nil {
		return err
	}
	all := new(registrypb.Members)
	for _, s := range n.layout.sites {
		if s.member {
			all.Voters = append(all.Voters, &registrypb.NodeRef{Institution: string(s.ID), Node: string(nodeName)})
		}
	}
	if err := do(ctx, operators, &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: all}}); err != nil {
		return err
	}
	return n.layout.writeNetwork(n.options, true)
}

// DataDir is where a node keeps everything; its configuration names it.
func (n *Network) DataDir(id names.InstitutionID) string {
	return filepath.Join(n.site(id).dir, "data")
}

// ConfigFile is a node's configuration.
func (n *Network) ConfigFile(id names.InstitutionID) string { return n.site(id).configFile() }

// SubmitThrough hands commands to the registry through a node's local API, as an
// author's own tools would.
func (n *Network) SubmitThrough(id names.InstitutionID) registry.Submitter {
	return apiSubmitter{n.Client(id)}
}
