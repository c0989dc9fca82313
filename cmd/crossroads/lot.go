package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newLot() *cobra.Command {
	return group("lot", "Ask the same about the many subjects of a file",
		newLotSubmit(), newLotStatus(), newLotList(), newLotResults(),
		newLotTurn("pause", "Begin nothing more of a lot, until it is resumed", (*api.Client).PauseLot),
		newLotTurn("resume", "Let a paused lot go on", (*api.Client).ResumeLot),
		newLotTurn("cancel", "End a lot: lines that were not asked yet are not asked any more", (*api.Client).CancelLot),
		newLotAck())
}

func newLotSubmit() *cobra.Command {
	var q api.LotRequest
	var dataset, purpose, clientTicket string
	var fields, suppliers []string
	var days period
	var wait bool
	c := &cobra.Command{
		Use:   "submit FILE",
		Short: "Hand in a file, and get its voucher",
		Long: `Sends a file of subjects to the node, which keeps it and gives a voucher at once. Each
subject is then decided on by itself, as in a consultation, a chunk of them at a time;
interactive traffic goes first. FILE - is standard input.

A file is CSV, JSON Lines, or has records of fixed columns. Every line gets a result, in
order, with --reference too your own reference; malformed lines and second lines about one
subject get theirs.

Handing in the same file under the same --client-ticket is handing it in once, so after
any error simply do it again.`,
		Example: `  crossroads lot submit customers.csv --endpoints net.json --as fps-economy --as-user jan \
      --dataset increased-reimbursement/v1 --purpose social-energy-tariff \
      --from 2025-01-02 --until 2026-01-01 --number ssin --reference customer --wait

  # records of fixed columns, 40 bytes each, from another program:
  crossroads lot submit - --api https://node.example:7480 --token-file app.token --as-user jan \
      --dataset wages-quarterly/v1 --purpose social-fraud-inspection \
      --format fixed --number 1-11 --reference 12-31 --length 40`,
		Args: cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	f := c.Flags()
	f.StringVar(&dataset, "dataset", "", "what is asked, as wages-quarterly/v1; see registry datasets")
	f.StringVar(&purpose, "purpose", "", "why; see registry authorizations")
	f.StringSliceVar(&fields, "field", nil, "ask only this field; repeat for more (default: all that are permitted)")
	f.StringSliceVar(&suppliers, "supplier", nil, "ask only this institution; repeat for more (default: all that can)")
	f.StringVar(&clientTicket, "client-ticket", "", "your own number of the lot (default: one is made)")
	f.StringVar(&q.Scheme, "scheme", "ssin", "identifier scheme of the numbers")
	f.StringVar(&q.Format, "format", "csv", "how the file is written: csv, jsonl or fixed")
	f.StringVar(&q.Number, "number", "", "where the number stands: a column's name, its place from 1, a field, or columns as 1-11 (default: number)")
	f.StringVar(&q.Reference, "reference", "", "likewise, of your own reference")
	f.StringVar(&q.Separator, "separator", "", "of CSV (default: comma)")
	f.IntVar(&q.Length, "length", 0, "bytes of a fixed record; 0: each is a line")
	f.BoolVar(&wait, "wait", false, "wait until the lot has ended")
	days.add(c)
	for _, name := range []string{"dataset", "purpose"} {
		_ = c.MarkFlagRequired(name)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		span, err := days.read(time.Now())
		if err != nil {
			return err
		}
		in := c.InOrStdin()
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		client, err := r.unbounded(c.Context())
		if err != nil {
			return err
		}
		q.ClientTicket = names.ClientTicket(cmp.Or(clientTicket, rand.Text()))
		q.Dataset, q.Purpose, q.Period = names.DatasetID(dataset), names.Purpose(purpose), span
		q.Fields, q.Suppliers = typed[names.FieldName](fields), typed[names.InstitutionID](suppliers)
		l, err := client.SubmitLot(c.Context(), q, in)
		if err != nil {
			return fmt.Errorf("%w\nIt is safe to hand the same in again under --client-ticket %s", err, q.ClientTicket)
		}
		if wait {
			if l, err = follow(c.Context(), client, l, c.ErrOrStderr()); err != nil {
				return err
			}
		}
		return out.print(c.OutOrStdout(), l, func(w io.Writer) error { return writeLot(w, l) })
	}
	return c
}

// unbounded connects without a time limit: files take as long as they take.
func (r *remote) unbounded(ctx context.Context) (*api.Client, error) {
	client, _, cancel, err := r.client(ctx)
	if err == nil {
		cancel()
	}
	return client, err
}

// follow waits until a lot has ended.
func follow(ctx context.Context, client *api.Client, l api.Lot, tell io.Writer) (api.Lot, error) {
	p := newProgress(tell, "lines")
	for l.Ended == nil {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return l, fmt.Errorf("the lot goes on without you: crossroads lot status %s", l.Voucher)
		}
		now, err := client.Lot(ctx, l.Voucher)
		if err != nil {
			return l, err
		}
		l = now
		if p.w != nil {
			fmt.Fprintf(p.w, "\r%d of %d lines (%d %%)  %s\x1b[K", l.Done, l.Lines, l.Done*100/max(l.Lines, 1), clean(l.Waits))
		}
	}
	if p.w != nil {
		fmt.Fprintln(p.w)
	}
	return l, nil
}

func writeLot(w io.Writer, l api.Lot) error {
	t := newTable("VOUCHER", string(l.Voucher))
	t.add("STATE", l.State)
	if l.Waits != "" {
		t.add("WAITS", clean(l.Waits))
	}
	t.add("CLIENT TICKET", string(l.ClientTicket))
	t.add("ASKED", fmt.Sprintf("%s, for %s, by %s", l.Dataset, l.Purpose, clean(string(l.User))))
	t.add("LINES", fmt.Sprintf("%d, about %d subjects; %d have a result", l.Lines, l.Subjects, l.Done))
	t.add("SUBMITTED", l.Submitted.Format(time.RFC3339))
	if l.Ended != nil {
		t.add("ENDED", l.Ended.Format(time.RFC3339)+", after "+l.Ended.Sub(l.Submitted).Round(time.Millisecond).String())
		t.add("KEPT UNTIL", l.Until.Format(time.RFC3339))
	}
	for _, k := range slices.SortedFunc(maps.Keys(l.Tally), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.Tally[b], l.Tally[a]), strings.Compare(a, b))
	}) {
		t.add("  "+k, fmt.Sprint(l.Tally[k]))
	}
	return t.write(w)
}

func newLotStatus() *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use: "status VOUCHER", Short: "Say how a lot stands",
		Long:    "Says how far a lot is, what came of the lines that have a result, and why it waits if it does.\nWith --wait it comes back when the lot has ended.",
		Example: "  crossroads lot status 0123456789abcdefghjkmnpqrs --endpoints net.json --as fps-economy",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.Flags().BoolVar(&wait, "wait", false, "wait until the lot has ended")
	c.RunE = onVoucher(func(c *cobra.Command, v names.Ticket) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		l, err := client.Lot(ctx, v)
		if err == nil && wait {
			l, err = follow(c.Context(), client, l, c.ErrOrStderr())
		}
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), l, func(w io.Writer) error { return writeLot(w, l) })
	})
	return c
}

func onVoucher(do func(*cobra.Command, names.Ticket) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		v := names.Ticket(args[0])
		if err := v.Validate(); err != nil {
			return usage("the voucher: %w", err)
		}
		return do(c, v)
	}
}

func newLotList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the application's lots that are not acknowledged",
		Example: "  crossroads lot list --endpoints net.json --as fps-economy", Args: cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		all, err := client.Lots(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), all, func(w io.Writer) error {
			t := newTable("VOUCHER", "STATE", "LINES", "DONE", "DATASET", "PURPOSE", "SUBMITTED", "WAITS")
			for _, l := range all.Items {
				t.add(string(l.Voucher), l.State, fmt.Sprint(l.Lines), fmt.Sprint(l.Done), string(l.Dataset), string(l.Purpose), l.Submitted.Format(time.RFC3339), clean(l.Waits))
			}
			return t.write(w)
		})
	}
	return c
}

func newLotTurn(verb, short string, do func(*api.Client, context.Context, names.Ticket) (api.Lot, error)) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " VOUCHER", Short: short, Args: cobra.ExactArgs(1),
		Example: "  crossroads lot " + verb + " 0123456789abcdefghjkmnpqrs --endpoints net.json --as fps-economy",
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = onVoucher(func(c *cobra.Command, v names.Ticket) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		l, err := do(client, ctx, v)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), l, func(w io.Writer) error { return writeLot(w, l) })
	})
	return c
}

func newLotAck() *cobra.Command {
	c := &cobra.Command{
		Use: "ack VOUCHER", Short: "Say that the results are held: the node deletes them",
		Example: "  crossroads lot ack 0123456789abcdefghjkmnpqrs --endpoints net.json --as fps-economy", Args: cobra.ExactArgs(1),
	}
	r := addRemote(c)
	c.RunE = onVoucher(func(c *cobra.Command, v names.Ticket) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		return client.AcknowledgeLot(ctx, v)
	})
	return c
}

func newLotResults() *cobra.Command {
	var to, format string
	c := &cobra.Command{
		Use:   "results VOUCHER",
		Short: "Fetch one result for every line, in order",
		Long: `Writes the results of a lot that has ended, as csv or jsonl. With --out the file has its
name once it is whole; to standard output, an error means that it is not.`,
		Example: "  crossroads lot results 0123456789abcdefghjkmnpqrs --out results.csv --endpoints net.json --as fps-economy",
		Args:    cobra.ExactArgs(1),
	}
	r := addRemote(c)
	c.Flags().StringVar(&to, "out", "", "file to write (default: standard output)")
	c.Flags().StringVar(&format, "format", "csv", "csv or jsonl")
	c.RunE = onVoucher(func(c *cobra.Command, v names.Ticket) error {
		client, err := r.unbounded(c.Context())
		if err != nil {
			return err
		}
		if to == "" {
			return client.LotResults(c.Context(), v, format, c.OutOrStdout())
		}
		f, err := os.OpenFile(to+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		err = client.LotResults(c.Context(), v, format, f)
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(to + ".part")
			return err
		}
		return os.Rename(to+".part", to)
	})
	return c
}
