package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newRegistryDatasets() *cobra.Command {
	return listing("datasets", "The types of message there are, and their fields", (*api.Client).Datasets,
		[]string{"DATASET", "TITLE", "SUBJECTS", "FIELDS"},
		func(d api.Dataset) []any {
			var schema struct{ Properties map[string]json.RawMessage }
			_ = json.Unmarshal(d.Schema, &schema) // a schema without properties has no fields to show
			return []any{d.ID, d.Title, d.Scheme, strings.Join(slices.Sorted(maps.Keys(schema.Properties)), ", ")}
		})
}
