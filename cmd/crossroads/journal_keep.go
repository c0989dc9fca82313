package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// ownJournal is a journal on this machine's disk, as its node's configuration names it.
type ownJournal struct {
	file string
	cfg  *config.Config
	journal.Config
}

func addOwnJournal(c *cobra.Command) *ownJournal {
	o := new(ownJournal)
	c.Flags().StringVar(&o.file, "config", "", "the node's configuration file")
	_ = c.MarkFlagRequired("config")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return o
}

// read reads the configuration and the keys that it names.
func (o *ownJournal) read() (err error) {
	if o.cfg, err = config.Load(o.file); err != nil {
		return err
	}
	o.Dir = filepath.Join(o.cfg.Data.Dir, "journal")
	if o.Key, err = certs.LoadStorageKey(o.cfg.Data.KeyFile); err != nil {
		return err
	}
	signer, err := certs.LoadSigner(o.cfg.Signing.KeyFile)
	if err != nil {
		return err
	}
	o.Signing = &journal.Signing{Mesh: o.cfg.Mesh, Node: o.cfg.Node.ID(), Signer: signer}
	return nil
}

// open opens the journal for writing, which its node must not have open.
func (o *ownJournal) open() (*journal.Journal, error) {
	if err := o.read(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "log")); err != nil {
		return nil, fmt.Errorf("there is no journal here: %w", err)
	}
	j, err := journal.Open(o.Config)
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("%w; stop the node first", err)
	}
	return j, err
}

// operator names whoever is at the keyboard.
func operator() string {
	if u, err := user.Current(); err == nil {
		return "operator " + u.Username
	}
	return "operator"
}

func newJournalErase() *cobra.Command {
	var month, reason string
	var early bool
	c := &cobra.Command{
		Use:   "erase --config FILE --period YYYY-MM",
		Short: "Erase one month of this node's journal, for good",
		Long: `Destroys the key that one month's entries are encrypted under, so that nobody can read
them any more; a signed tombstone says so, and proofs over everything else stay. A
running node does this by itself, daily, for what is past journal.retention; by hand it
takes a stopped node, and --early for a month that is not past it yet.

Copies of the data folder are not touched: whoever holds one with its key files, and
the storage key, can still read the month.`,
		Example: "  crossroads journal erase --config /etc/crossroads/node.yaml --period 2016-03",
		Args:    cobra.NoArgs,
	}
	own := addOwnJournal(c)
	c.Flags().StringVar(&month, "period", "", "the month (UTC), as 2016-03")
	c.Flags().StringVar(&reason, "reason", "", "why, in few words, for the tombstone (default: the retention)")
	c.Flags().BoolVar(&early, "early", false, "erase it although the retention is not over; takes --reason")
	_ = c.MarkFlagRequired("period")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		t, err := time.Parse("2006-01", month)
		if err != nil {
			return usage("--period: want a month, as 2016-03")
		}
		if early && reason == "" {
			return usage("--early takes --reason: the tombstone says why")
		}
		j, err := own.open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, j.Close()) }()
		now := time.Now()
		over := t.AddDate(0, 1+own.cfg.Journal.Retention, 0)
		if !early && now.Before(over) {
			return fmt.Errorf("%s is kept until %s (journal.retention: %d months); --early erases it now", month, over.Format(time.DateOnly), own.cfg.Journal.Retention)
		}
		if reason == "" {
			reason = fmt.Sprintf("journal.retention of %d months", own.cfg.Journal.Retention)
		}
		e, err := j.Erase(c.Context(), journal.Erase{Period: month, Reason: reason, Who: operator(), Time: now})
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s\n%d entries, the first %d, the last %d; their commitments stay\n", clean(e.String()), e.Entries, e.First, e.Last)
		return nil
	}
	return c
}

func newJournalRestoreDeclared() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "restore-declared --config FILE --reason TEXT",
		Short: "Declare that this node's disk was restored from a backup",
		Long: `A disk that is put back to an older state is a rollback: the network notices, and the
node refuses to work. When it was restored on purpose, say so here, before the node is
started: a new epoch begins, signed by the institution and written into the journal. What
the journal held after the backup is lost, and told to be; clearances that were issued
before the epoch are refused, for the node cannot know which of them it has seen.

The registry's members are told when the node starts. They accept three such epochs of a
journal within 30 days, and keep all of them, for everybody to see.`,
		Example: `  crossroads journal restore-declared --config /etc/crossroads/node.yaml --reason "disk replaced, backup of 3 May"`,
		Args:    cobra.NoArgs,
	}
	own := addOwnJournal(c)
	c.Flags().StringVar(&reason, "reason", "", "what happened, in few words")
	_ = c.MarkFlagRequired("reason")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		j, err := own.open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, j.Close()) }()
		e, err := j.BeginEpoch(c.Context(), reason, operator())
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "epoch %d began on %s, after %d entries; start the node now\n", e.Number, e.Started.UTC().Format(time.RFC3339), e.ResumesAt)
		return nil
	}
	return c
}
