package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Args:  cobra.NoArgs,
	}
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		v := map[string]string{"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
		return out.print(c.OutOrStdout(), v, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "crossroads %s (%s, %s)\n", v["version"], v["go"], v["platform"])
			return err
		})
	}
	return c
}

// buildVersion gives the version that the linker was told, else the commit.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if version != "dev" || !ok {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return version + "-" + s.Value[:12]
		}
	}
	return version
}
