package main

import (
	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistryOfferings() *cobra.Command {
	return listing("offerings", "What is available where", (*api.Client).Offerings,
		[]string{"INSTITUTION", "DATASET", "QUALITIES", "FROM", "UNTIL"},
		func(o api.Offering) []any {
			return []any{o.Institution, o.Dataset, joined(o.Qualities), o.Period.From, o.Period.Until}
		})
}
