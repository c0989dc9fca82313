package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/testnet/bench"
)

func newBenchLots() *cobra.Command {
	var o bench.LotOptions
	var jsonFile string
	c := &cobra.Command{
		Use:   "lots",
		Short: "Measure a file of many subjects, and what consultations feel of it",
		Long: `Brings up seven institutions, each node a process of its own, and hands in one file about
every invented person, twice: alone, and beside consultations at a steady rate, which are
measured before and after too. Prints subjects a second, processor time of a subject and
peak memory by process, and the consultations' p50 and p99; the reference is the
supplier's adapter alone, asked in the same run as lots ask it.

Each lot is cancelled after --within, and reported as far as it came. With --subjects
1000000 the network alone takes several minutes to fill.`,
		Example: `  crossroads bench lots
  crossroads bench lots --subjects 1000000 --within 15m --json lots.json
  crossroads bench lots --subjects 20000 --profile ./profiles`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.IntVar(&o.Subjects, "subjects", 100_000, "subjects of the lot, 100 to 2,000,000")
	f.IntVar(&o.Steady, "steady", 100, "consultations a second beside it")
	f.DurationVar(&o.For, "for", 8*time.Second, "how long consultations are measured before and after")
	f.DurationVar(&o.Within, "within", 10*time.Minute, "cancel a lot after so long")
	f.StringVar(&o.Profile, "profile", "", "folder for profiles of every process while the lot runs alone")
	f.StringVar(&jsonFile, "json", "", "write the report to this file, as JSON")
	_ = c.MarkFlagDirname("profile")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Out = c.ErrOrStderr()
		r, err := bench.RunLots(c.Context(), o)
		if err != nil {
			return err
		}
		return give(c, out, jsonFile, r)
	}
	return c
}
