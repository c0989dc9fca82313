package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/testnet"
)

func newTestnetExamples() *cobra.Command {
	var path string
	var run bool
	c := &cobra.Command{
		Use:   "examples",
		Short: "List what is worth asking a running test network, or ask all of it",
		Long: `Lists consultations that bring data, and at least one for every reason of refusal that the
data alone can bring about, each as a command to paste, with what must come out by the
lives of the invented persons.

With --run it asks them all, compares, and traces each; exit code 1 if anything differs.`,
		Example: `  crossroads testnet examples --endpoints net.json
  crossroads testnet examples --endpoints net.json --run`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&path, "endpoints", "", "file that `testnet up --endpoints` wrote")
	c.Flags().BoolVar(&run, "run", false, "ask them, and compare")
	_ = c.MarkFlagRequired("endpoints")
	_ = c.MarkFlagFilename("endpoints", "json")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		e, err := testnet.ReadEndpoints(path)
		if err != nil {
			return err
		}
		outcomes, err := testnet.Examples(c.Context(), e, run)
		if err != nil {
			return err
		}
		print := func(w io.Writer) error { return printExamples(w, path, outcomes) }
		if run {
			print = func(w io.Writer) error { return printOutcomes(w, outcomes) }
		}
		if err := out.print(c.OutOrStdout(), outcomes, print); err != nil {
			return err
		}
		for _, o := range outcomes {
			if o.Differs != "" {
				return fmt.Errorf("%s: %s", o.Title, o.Differs)
			}
		}
		return nil
	}
	return c
}

func printExamples(w io.Writer, path string, outcomes []testnet.Outcome) error {
	for _, o := range outcomes {
		fields := ""
		for _, f := range o.Fields {
			fields += " --field " + string(f)
		}
		_, err := fmt.Fprintf(w, "# %s: %s\ncrossroads consult --endpoints %s --as %s --as-user jan --auth-level %d \\\n    --dataset %s --purpose %s --from %s --until %s --scheme %s --subject %s%s\n\n",
			o.Title, o.Expected, path, o.Requester, o.AuthLevel, o.Dataset, o.Purpose, o.Period.From, o.Period.Until, o.Scheme, o.Number, fields)
		if err != nil {
			return err
		}
	}
	return nil
}

func printOutcomes(w io.Writer, outcomes []testnet.Outcome) error {
	t := newTable("OUTCOME", "AS EXPECTED", "TRACE", "TICKET", "EXAMPLE")
	for _, o := range outcomes {
		as := "yes"
		if o.Differs != "" {
			as = "NO"
		}
		t.add(o.Got, as, strings.ToUpper(o.Trace), o.Ticket, o.Title)
	}
	return t.write(w)
}
