package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistryInstitutions() *cobra.Command {
	return listing("institutions", "The members of the network, and their nodes", (*api.Client).Institutions,
		[]string{"INSTITUTION", "NAME", "TYPE", "SECTOR", "NODES", ""},
		func(i api.Institution) []any {
			var nodes []string
			for _, n := range i.Nodes {
				nodes = append(nodes, string(n.Name)+" "+n.Address+yes(n.Voter, " (member)"))
			}
			return []any{i.ID, i.Name, i.Type, i.Sector, strings.Join(nodes, ", "), yes(i.Suspended, "suspended")}
		})
}
