package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/testnet/belgium"
)

func newBenchRegistry() *cobra.Command {
	var o belgium.Options
	var jsonFile string
	var tell bool
	c := &cobra.Command{
		Use:   "registry",
		Short: "Load a country's references into three registry members, and measure",
		Long: `Makes up the person directory of a country (15.57 million persons, 124.9 million
references, some 2,600 institutions), loads it into three members as the institutions would
send it, each its own, signed by itself, 10,000 references to a signature, while other
traffic goes on; then measures lookups, a restart after a kill, a new member that catches
up, and commits beside bare consensus. The members are processes of their own.

At --scale 1 it needs about 30 GB of disk, 12 GB of memory and the better part of an hour of
a quiet machine with two cores. With --dir a run that was interrupted goes on where it was,
and measures what is left, or what --again names; remove the folder afterwards.`,
		Example: `  crossroads bench registry
  crossroads bench registry --scale 10 --json belgium-10.json
  crossroads bench registry --scale 1 --dir /var/tmp/belgium --json belgium.json --progress
  crossroads bench registry --scale 1 --dir /var/tmp/belgium --again lookups,commits`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.IntVar(&o.Scale, "scale", 100, "load one part in so many of the country; 1: all of it")
	f.StringVar(&o.Dir, "dir", "", "keep the network in this folder, to go on after an interruption (default: a temporary folder)")
	f.IntVar(&o.AtOnce, "at-once", 24, "institutions that send at the same time")
	f.DurationVar(&o.Within, "within", 90*time.Minute, "end the loading after so long, and measure what is loaded")
	f.StringSliceVar(&o.Again, "again", nil, "measure anew in a folder that was kept: "+strings.Join(belgium.Repeatable, ", "))
	f.StringVar(&o.Profile, "profile", "", "folder for profiles of every process, which are taken on SIGUSR1")
	f.BoolVar(&tell, "progress", false, "tell on stderr how far it is, once a minute, also where that is no terminal")
	f.StringVar(&jsonFile, "json", "", "write the report to this file, as JSON")
	_ = c.MarkFlagDirname("dir")
	_ = c.MarkFlagDirname("profile")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case onTerminal(c.ErrOrStderr()):
			o.Out = c.ErrOrStderr()
		case tell:
			o.Out, o.Every = c.ErrOrStderr(), time.Minute
		}
		r, err := belgium.Run(c.Context(), o)
		if errors.Is(err, belgium.ErrAgain) {
			return usage("--again: %w", err)
		}
		if err != nil {
			return err
		}
		return give(c, out, jsonFile, r)
	}
	return c
}
