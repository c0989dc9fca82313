package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

func newJournalVerify() *cobra.Command {
	var file string
	var anchors []string
	c := &cobra.Command{
		Use:   "verify --config FILE",
		Short: "Check a whole journal against everything that was ever signed of it",
		Long: `Reads every entry of a node's journal, computes its tree again, and compares that with
every checkpoint kept beside it. Changes nothing. Best with the node stopped; while it
runs, what its last checkpoint covers is checked.

Whoever has the disk and all keys can forge what is kept there. What others kept they
cannot: give such checkpoints with --anchor (one a file, as GET /tlog/checkpoint gives
them), and no change to what they cover stays hidden.

A node of a sector has a second journal, which is checked likewise. No member cosigns it, so no
checkpoint of it can be given; but what a managing body answers outside carries a seal of the
outcome within, and each such outcome must be there, whole.

Exits with 5 when something is wrong, and prints the evidence: which entries, what was
signed, what is there, and the signed checkpoint that says so.`,
		Example: `  crossroads journal verify --config /etc/crossroads/node.yaml
  crossroads journal verify --config node.yaml --anchor kept-by-auditor.txt`,
		Args: cobra.NoArgs,
	}
	out := addFormat(c)
	addConfig(c, &file)
	c.Flags().StringArrayVar(&anchors, "anchor", nil, "a file with a checkpoint of this journal that somebody else kept; may be repeated")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(file)
		if err != nil {
			return err
		}
		var notes [][]byte
		for _, name := range anchors {
			note, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			notes = append(notes, note)
		}
		bar := newProgress(c.ErrOrStderr(), "verifying")
		report, err := node.VerifyJournal(c.Context(), cfg, notes, bar.show)
		bar.end()
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), report, func(w io.Writer) error {
			if err := printReport(w, report.Report); err != nil || report.Sector == nil {
				return err
			}
			fmt.Fprintln(w)
			return printReport(w, report.Sector)
		}); err != nil {
			return err
		}
		if !report.OK() {
			return &exit{exitFindings, nil}
		}
		return nil
	}
	return c
}

func printReport(w io.Writer, r *tlog.Report) error {
	fmt.Fprintf(w, "%s\n%d entries, compared with %d checkpoints kept here and %d kept by others\n", r.Origin, r.Entries, r.Checkpoints, r.Anchors)
	if r.Erased > 0 {
		fmt.Fprintf(w, "%d entries were erased under a tombstone; what proves them stands\n", r.Erased)
	}
	for _, d := range r.Declared {
		if _, err := d.WriteTo(w); err != nil {
			return err
		}
	}
	var times []time.Time
	for _, d := range r.Declared {
		if record.TooMany(times, d.Started) {
			fmt.Fprintf(w, "epoch %d was declared although members accept no more than %d within %d days: ask for `crossroads registry evidence`\n",
				d.Epoch, record.MaxDeclared, record.DeclaredPeriod/(24*time.Hour))
		}
		times = append(times, d.Started)
	}
	if r.Running {
		fmt.Fprintln(w, "the node is running: entries after its last checkpoint were left out")
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	if r.OK() {
		_, err := fmt.Fprintln(w, "nothing is wrong")
		return err
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n%s", f)
	}
	if r.More {
		fmt.Fprintln(w, "\nand more of the kind")
	}
	return nil
}

func newJournalRebuild() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "rebuild --config FILE",
		Short: "Make the index and the tiles of a journal again from its log",
		Long: `Drops what is derived from the log of a stopped node, the index and the hash tiles, and
makes both again. The log itself and the checkpoints signed over it are not touched; a
log that contradicts its last checkpoint is refused.`,
		Example: "  crossroads journal rebuild --config /etc/crossroads/node.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			n, err := node.RebuildJournal(c.Context(), cfg, newLog(cfg.Log, c.ErrOrStderr(), new(slog.LevelVar)))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "index and tiles of %d entries are made again\n", n)
			return err
		},
	}
	addConfig(c, &file)
	return c
}

// addConfig adds the flag that names a node's configuration file.
func addConfig(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", "", "the node's configuration file")
	_ = c.MarkFlagRequired("config")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
}
