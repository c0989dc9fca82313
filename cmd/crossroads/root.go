package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes; the help of the root command lists them.
const (
	exitOK         = 0
	exitFailure    = 1
	exitUsage      = 2
	exitRefused    = 3
	exitIncomplete = 4
	exitFindings   = 5
)

// exit ends a verb with a code of its own. With err nil the verb has said all there is
// to say.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// usage is an error of whoever wrote the command line.
func usage(format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf(format, args...)}
}

// run carries out one command line and gives its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	began := false
	mark(root, &began)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var e *exit
	switch {
	case errors.As(err, &e) && e.err == nil:
		return e.code
	case e == nil && began:
		e = &exit{exitFailure, err}
	case e == nil: // cobra refused the command line before any verb began
		e = &exit{exitUsage, err}
	}
	fmt.Fprintln(errOut, "crossroads:", strings.TrimSpace(err.Error()))
	if e.code == exitUsage {
		fmt.Fprintln(errOut, "See crossroads --help, or --help after any verb.")
	}
	return e.code
}

// mark sets began when a verb begins, which tells its errors from those of the
// command line.
func mark(c *cobra.Command, began *bool) {
	if verb := c.RunE; verb != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			*began = true
			return verb(c, args)
		}
	}
	for _, sub := range c.Commands() {
		mark(sub, began)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "crossroads",
		Short: "Exchange personal data between institutions, every exchange checked, signed and traced",
		Long: `Crossroads lets institutions ask each other what they already know, without a
central bank of data: every exchange is checked beforehand by a node that is no party
to it, logged by all, and can be traced afterwards.

Most verbs speak to a node. Say which with --api and --token-file (or CROSSROADS_API
and CROSSROADS_TOKEN), or, for a test network, with --endpoints FILE --as INSTITUTION.

Exit codes:
  0  done; a consultation was permitted
  1  failed
  2  the command line is wrong
  3  refused by the network (NO_RESULT): the reason is printed
  4  incomplete: some suppliers did not answer
  5  the trace, or the journal, is not consistent: something is missing or contradicted;
     or the receipt, or the snapshot, does not hold`,
		Example: `  # A whole network on this machine, in one command:
  crossroads testnet up --endpoints net.json

  # Ask it something, and see what happened:
  crossroads registry authorizations --endpoints net.json --as pcsa-ghent
  crossroads consult --endpoints net.json --as pcsa-ghent --as-user alice \
      --dataset wages-quarterly/v1 --purpose social-inquiry --subject 74071238186
  crossroads trace TICKET --endpoints net.json --as pcsa-ghent

  # A node of your own:
  crossroads config example > node.yaml
  crossroads config validate node.yaml
  crossroads node run --config node.yaml`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	root.AddCommand(
		newNode(), newConfig(), newTestnet(), newBench(), newConsult(), newTrace(), newReceipt(), newJournal(), newRegistry(),
		newInquire(), newLot(), newMandate(),
		newSubject(), newOfficer(), newOrder(), newSector(),
		newPublish(), newDeliveries(), newInbox(), newDeclare(), newDeclaration(),
		newOperator(),
		newCommand(), newCerts(), newGenesis(), newVersion(),
	)
	return root
}

// group is a command that only holds others; it refuses what is none of them.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				hint := ""
				if near := c.SuggestionsFor(args[0]); len(near) > 0 {
					hint = "; did you mean " + strings.Join(near, " or ") + "?"
				}
				return usage("unknown verb %q for %q%s", args[0], c.CommandPath(), hint)
			}
			return c.Help()
		},
	}
	c.AddCommand(subs...)
	return c
}
