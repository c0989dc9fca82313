// Command crossroads runs a node of the mesh and speaks to one.
//
// There is one file for each verb and no logic: what a verb does lives in the rooms.
// Everything a verb needs is passed to it, so that tests run verbs in their own process.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/crossroads-mesh/crossroads/node/slack"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(mainCode()) }

func mainCode() int {
	if len(os.Args) > 2 && os.Args[1] == "node" && os.Args[2] == "run" {
		if err := slack.Widen(); err != nil {
			fmt.Fprintf(os.Stderr, "crossroads: the node will wake more often than it need: %v\n", err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: whoever sends it has waited enough.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
