package main

import (
	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistryAuthorizations() *cobra.Command {
	return listing("authorizations", "Who may obtain what, why, and who decided it", (*api.Client).Authorizations,
		[]string{"AUTHORIZATION", "REQUESTER", "DATASET", "FIELDS", "PURPOSE", "DELIBERATION", "UNTIL", ""},
		func(a api.Authorization) []any {
			return []any{a.ID, a.RequesterType, a.Dataset, joined(a.Fields), a.Purpose, decidedBy(a), a.Period.Until, yes(a.Revoked, "revoked")}
		})
}

// decidedBy tells a decision of the committee from a law that replaces one.
func decidedBy(a api.Authorization) string {
	if a.Law != nil {
		return "law: " + a.Law.Title + ", " + a.Law.Article
	}
	return string(a.Deliberation)
}
