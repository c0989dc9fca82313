package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/receipt"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newReceipt() *cobra.Command {
	return group("receipt", "Files that show what happened under a ticket, without any node's help", newReceiptGet(), newReceiptVerify())
}

func newReceiptGet() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "get TICKET",
		Short: "Fetch the receipt of a ticket",
		Long: `Fetches what this node's journal holds of a ticket, with the signed request, clearances
and answers and all that is needed to verify them later. It holds no content, but it does
name the subject and the user: keep it as you keep the file that it belongs to. That you
fetched it is journaled.`,
		Example: "  crossroads receipt get 0123456789abcdefghjkmnpqrs --out receipt.json --endpoints net.json --as pcsa",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&out, "out", "", "file to write, which must not exist yet")
	_ = c.MarkFlagRequired("out")
	r := addRemote(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		ticket := names.Ticket(args[0])
		if err := ticket.Validate(); err != nil {
			return usage("%w", err)
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		got, err := client.Receipt(ctx, ticket)
		if err != nil {
			return err
		}
		b, err := got.Bytes()
		if err != nil {
			return err
		}
		if err := writeNew(out, b); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d entries of %s; check it with crossroads receipt verify\n", out, len(got.Entries), clean(got.Journal))
		return err
	}
	return c
}

func newReceiptVerify() *cobra.Command {
	var genesisPath string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a receipt, offline, and say what it shows",
		Long: `Checks every commitment and every signature in the receipt, with nothing but the mesh's
genesis file, and says in plain words what happened. Get the genesis file from elsewhere
than the receipt, and compare its hash (crossroads genesis hash).

Exit code 5 means that something in it does not hold; the findings say what.`,
		Example: "  crossroads receipt verify receipt.json --genesis genesis.json",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&genesisPath, "genesis", "", "the mesh's genesis file")
	_ = c.MarkFlagRequired("genesis")
	_ = c.MarkFlagFilename("genesis", "json")
	out := addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		g, err := readGenesis(genesisPath, c.InOrStdin())
		if err != nil {
			return err
		}
		b, err := readReceipt(args[0])
		if err != nil {
			return err
		}
		rec, err := receipt.Parse(b)
		if err != nil {
			return &exit{exitFindings, fmt.Errorf("%s: %w", args[0], err)}
		}
		report := receipt.Verify(rec, g)
		if err := out.print(c.OutOrStdout(), report, report.Write); err != nil {
			return err
		}
		if !report.Holds {
			return &exit{code: exitFindings}
		}
		return nil
	}
	return c
}

func readReceipt(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, receipt.MaxSize+1))
}
