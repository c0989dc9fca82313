package main

import (
	"encoding/csv"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

// sheetFormat is the format of a verb that prints CSV too.
type sheetFormat struct{ format }

func addSheetFormat(c *cobra.Command) *sheetFormat {
	f := &sheetFormat{"table"}
	c.Flags().VarP(f, "output", "o", "how to print: table, json or csv")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "csv"}, cobra.ShellCompDirectiveNoFileComp))
	return f
}

// Set takes table, json or csv.
func (f *sheetFormat) Set(s string) error {
	if s == "csv" {
		f.format = "csv"
		return nil
	}
	if err := f.format.Set(s); err != nil {
		return fmt.Errorf("want table, json or csv")
	}
	return nil
}

// writeCSV prints rows; what a spreadsheet would take for a formula is kept from
// being one.
func writeCSV(w io.Writer, rows [][]string) error {
	c := csv.NewWriter(w)
	for _, row := range rows {
		safe := make([]string, len(row))
		for i, cell := range row {
			safe[i] = api.Cell(cell)
		}
		if err := c.Write(safe); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}
