package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
)

// format is how a verb prints what it found.
type format string

// addFormat adds -o to a verb.
func addFormat(c *cobra.Command) *format {
	f := format("table")
	c.Flags().VarP(&f, "output", "o", "how to print: table or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return &f
}

// Set takes table or json.
func (f *format) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("want table or json")
	}
	*f = format(s)
	return nil
}

// String gives the format.
func (f *format) String() string { return string(*f) }

// Type names the flag's value in help.
func (f *format) Type() string { return "format" }

// print writes v as JSON, or what table makes of it.
func (f format) print(w io.Writer, v any, table func(io.Writer) error) error {
	if f == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	return table(w)
}

// table prints rows under a heading, in columns.
type table struct{ rows [][]string }

func newTable(heading ...string) *table { return &table{rows: [][]string{heading}} }

// add adds a row.
func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = clean(fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

func (t *table) write(w io.Writer) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// clean keeps what others wrote from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// joined puts a list into one cell.
func joined[T ~string](list []T) string {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = string(s)
	}
	return strings.Join(parts, ", ")
}

// yes puts a flag into one cell.
func yes(b bool, word string) string {
	if b {
		return word
	}
	return ""
}
