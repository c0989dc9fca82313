package main

import (
	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/testnet/bench"
)

func newBenchNotices() *cobra.Command {
	var o bench.NoticeOptions
	var jsonFile string
	c := &cobra.Command{
		Use:   "notices",
		Short: "Measure automatic communications, from the publication to the recipients' inboxes",
		Long: `Brings up seven institutions, each node a process of its own, and has the national register
publish changes of addresses over its HTTP interface, three times: one by one and then many
in each request, while everybody who is told is there; and while one of them is down, which
is told when it is back, each delivery cleared anew. A delivery counts once it lies durably in the recipient's inbox.

Prints deliveries a second and the processor's time of each, for all nodes together and by
process; the reference is appends to a journal alone, of which a delivery needs four.`,
		Example: `  crossroads bench notices
  crossroads bench notices --changes 20000 --json notices.json
  crossroads bench notices --profile ./profiles`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.IntVar(&o.Changes, "changes", 5_000, "changes published in each round")
	f.IntVar(&o.InFlight, "in-flight", 64, "publications under way at once")
	f.IntVar(&o.Batch, "batch", 128, "changes in one request of the second round")
	f.IntVar(&o.Persons, "persons", 2_000, "invented persons")
	f.StringVar(&o.Profile, "profile", "", "folder for profiles of every process in the first round")
	f.StringVar(&jsonFile, "json", "", "write the report to this file, as JSON")
	_ = c.MarkFlagDirname("profile")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Out = c.ErrOrStderr()
		r, err := bench.RunNotices(c.Context(), o)
		if err != nil {
			return err
		}
		return give(c, out, jsonFile, r)
	}
	return c
}
