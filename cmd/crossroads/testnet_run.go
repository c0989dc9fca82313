package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/scenario"
)

func newTestnetRun() *cobra.Command {
	var o scenario.Options
	c := &cobra.Command{
		Use:   "run [SCENARIO | all]",
		Short: "Play a scenario on a test network, or list them",
		Long: `Plays a flow of the field as its users would, on the network of --endpoints, or on one of
its own that it starts and ends. Prints what happens step by step with tickets, reads and
verifies the traces, and fails when anything differs from what the lives of the invented
persons say must come out.

Without an argument it lists the scenarios, and which institutions each needs beside the
seven that testnet up starts (testnet up --also).

Exit codes: 1 when a scenario failed; 4 when the network lacks an institution that one
needs, so that it was not played.`,
		Example: `  crossroads testnet run
  crossroads testnet run increased-reimbursement
  crossroads testnet run all --endpoints net.json`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			all := []string{"all"}
			for _, s := range scenario.All() {
				all = append(all, s.Name+"\t"+s.Title)
			}
			return all, cobra.ShellCompDirectiveNoFileComp
		},
	}
	out := addFormat(c)
	c.Flags().StringVar(&o.Endpoints, "endpoints", "", "file that `testnet up --endpoints` wrote (default: a network is started, and ended after)")
	c.Flags().IntVar(&o.Persons, "persons", scenario.DefaultPersons, "invented persons of a network that is started")
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "of what is invented in it")
	c.MarkFlagsMutuallyExclusive("endpoints", "persons")
	c.MarkFlagsMutuallyExclusive("endpoints", "seed")
	_ = c.MarkFlagFilename("endpoints", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return listScenarios(c.OutOrStdout(), *out)
		}
		var err error
		if o.Scenarios, err = chosenScenarios(args[0]); err != nil {
			return err
		}
		o.Command = commandLine
		return playScenarios(c, o, *out)
	}
	return c
}

func chosenScenarios(name string) ([]scenario.Scenario, error) {
	if name == "all" {
		return scenario.All(), nil
	}
	s, ok := scenario.Find(name)
	if !ok {
		return nil, usage("there is no scenario %q; `crossroads testnet run` lists them", name)
	}
	return []scenario.Scenario{s}, nil
}

func listScenarios(w io.Writer, f format) error {
	type listed struct {
		Name  string                `json:"name"`
		Flow  int                   `json:"flow,omitempty"`
		Title string                `json:"title"`
		Needs []names.InstitutionID `json:"needs"`
	}
	var all []listed
	t := newTable("SCENARIO", "FLOW", "NEEDS", "TITLE")
	for _, s := range scenario.All() {
		all = append(all, listed{s.Name, s.Flow, s.Title, s.Needs})
		t.add(s.Name, s.Flow, joined(s.Needs), s.Title)
	}
	return f.print(w, all, t.write)
}

// commandLine runs the command line within this process, for scenarios in which users
// do.
func commandLine(ctx context.Context, args ...string) (string, int) {
	var out bytes.Buffer
	code := run(ctx, args, strings.NewReader(""), &out, &out)
	return out.String(), code
}

func playScenarios(c *cobra.Command, o scenario.Options, f format) (err error) {
	tell := c.OutOrStdout()
	if f == "json" {
		tell = io.Discard
	}
	results, err := playOn(c, o, tell)
	if err != nil {
		return err
	}
	var failed, lacking []string
	for _, r := range results {
		switch {
		case r.Failed != "":
			failed = append(failed, r.Scenario)
		case len(r.Lacks) > 0:
			lacking = append(lacking, r.Scenario)
		}
	}
	summary := func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "\n%d played, %d failed, %d not played\n", len(results)-len(lacking), len(failed), len(lacking))
		return err
	}
	if err := f.print(c.OutOrStdout(), results, summary); err != nil {
		return err
	}
	switch {
	case len(failed) > 0:
		return fmt.Errorf("came out otherwise than it must: %s", strings.Join(failed, ", "))
	case len(lacking) > 0:
		return &exit{exitIncomplete, fmt.Errorf("the network lacks institutions for %s: start it with --also, or leave --endpoints out", strings.Join(lacking, ", "))}
	}
	return nil
}

// playOn plays scenarios on one network.
func playOn(c *cobra.Command, o scenario.Options, tell io.Writer) (results []scenario.Result, err error) {
	if o.Endpoints == "" {
		fmt.Fprintf(c.ErrOrStderr(), "Starting a network of %d persons ...\n", o.Persons)
	}
	n, err := scenario.Open(c.Context(), o)
	if errors.Is(err, testnet.ErrOptions) {
		return nil, usage("%w", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	for _, s := range o.Scenarios {
		results = append(results, scenario.Run(c.Context(), n, s, tell))
	}
	return results, nil
}
