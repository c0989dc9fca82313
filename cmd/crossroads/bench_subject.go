package main

import (
	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/testnet/bench"
)

func newBenchSubject() *cobra.Command {
	var o bench.SubjectOptions
	var jsonFile string
	c := &cobra.Command{
		Use:   "subject",
		Short: "Measure a person's view of who looked, over seven full journals",
		Long: `Brings up seven institutions, each node a process of its own, fills their journals with half
a year of consultations, and measures how long a person waits who wants to see what was
done with its data in the last six months: one node asks all others over the mesh, and
every journal notes the reading before it tells. Beside it stands the same search in the
largest of the journals alone.

Filling takes about half a minute a million entries on two cores, and 600 MB of disk. With
--dir the network is kept, and measured as it is the next time.`,
		Example: `  crossroads bench subject
  crossroads bench subject --entries 10000000 --dir /var/tmp/subject
  crossroads bench subject --entries 10000000 --dir /var/tmp/subject --profile ./profiles`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.IntVar(&o.Entries, "entries", 1_000_000, "entries in the seven journals together")
	f.IntVar(&o.Views, "views", 200, "views that are measured, one after the other")
	f.StringVar(&o.Dir, "dir", "", "keep the network in this folder (default: a temporary folder)")
	f.StringVar(&o.Profile, "profile", "", "folder for profiles of every process while views are measured")
	f.StringVar(&jsonFile, "json", "", "write the report to this file, as JSON")
	_ = c.MarkFlagDirname("dir")
	_ = c.MarkFlagDirname("profile")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Out = c.ErrOrStderr()
		r, err := bench.MeasureSubject(c.Context(), o)
		if err != nil {
			return err
		}
		return give(c, out, jsonFile, r)
	}
	return c
}
