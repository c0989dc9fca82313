package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newInbox() *cobra.Command {
	return group("inbox", "What has arrived for this institution: notifications, declarations, results",
		newInboxStatus(), newInboxTake(), newInboxAck(), newInboxResume(),
		newReplay("replay", "Ask a publisher to tell this institution once more what it told since a time",
			"What has arrived from it since then is stored again.",
			"crossroads inbox replay --institution national-register --since 2026-02-01T00:00:00Z --endpoints net.json --as fpd",
			(*api.Client).ReplayInbox))
}

func newInboxStatus() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "How much waits for the application",
		Long: `Tells how much waits for the application whose token is used, and since when; and, to an
admin, how the systems do that are sent what arrives (inbox.push in the configuration): what
they did not accept, why, and when it is sent again.

It takes an application with inbox: true or admin: true.`,
		Example: "  crossroads inbox status --endpoints net.json --as fpd",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		st, err := client.InboxState(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), st, func(w io.Writer) error {
			fmt.Fprintf(w, "%d wait%s\n", st.Waiting, yes(st.Oldest != nil, ", the oldest since "+stamp(st.Oldest)))
			return writePushes(w, st.Pushes)
		})
	}
	return c
}

func writePushes(w io.Writer, pushes []api.PushState) error {
	if len(pushes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable("PUSHED TO", "STATE", "WAITING", "OLDEST", "DELIVERED", "SET ASIDE", "FAILING SINCE", "NEXT", "WHY")
	for _, p := range pushes {
		t.add(p.Name, p.State, strconv.Itoa(p.Waiting), stamp(p.Oldest), strconv.FormatUint(p.Delivered, 10), strconv.Itoa(p.Refused), stamp(p.FailingSince), stamp(p.Next), p.Why)
	}
	if err := t.write(w); err != nil {
		return err
	}
	items := newTable("ITEM", "PUSHED TO", "TICKET", "ATTEMPTS", "SINCE", "NEXT", "SET ASIDE", "WHY")
	n := 0
	for _, p := range pushes {
		for _, i := range p.Trouble {
			n++
			items.add(strconv.FormatUint(i.ID, 10), p.Name, string(i.Ticket), strconv.Itoa(i.Attempts), stamp(&i.Since), stamp(&i.Next), yes(i.Refused, "yes"), i.Why)
		}
	}
	if n == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return items.write(w)
}

func newInboxResume() *cobra.Command {
	c := &cobra.Command{
		Use:   "resume NAME",
		Short: "Send at once what a system did not accept",
		Long: `Has what the system of that name (inbox.push in the configuration) refused sent to it again,
and tries it at once if it was left alone. Mend the cause first: see inbox status.

It takes an application with admin: true.`,
		Example: "  crossroads inbox resume case-system --endpoints net.json --as fpd",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		n, err := client.ResumePush(ctx, args[0])
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), n, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%d are sent again\n", n.Count)
			return err
		})
	}
	return c
}

func newInboxTake() *cobra.Command {
	var q api.InboxQuery
	var kinds, datasets, tickets []string
	var visible time.Duration
	var ack bool
	c := &cobra.Command{
		Use:   "take",
		Short: "Take what waits, oldest first",
		Long: `Takes items, waiting for some up to --timeout. What is taken is yours for --visibility and
given again if it is not acknowledged: with --ack at once, once it is printed; or with
inbox ack ID:LEASE. About one subject one item is given at a time.

It takes an application with inbox: true.`,
		Example: "  crossroads inbox take --max 10 --kind notification --endpoints net.json --as fpd -o json\n  crossroads inbox take --ack --timeout 30s --endpoints net.json --as fpd",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	f := c.Flags()
	f.IntVar(&q.Max, "max", 1, "at most so many, up to 1000")
	f.DurationVar(&visible, "visibility", time.Minute, "for how long they are yours")
	f.StringSliceVar(&kinds, "kind", nil, "only notification, declaration or result")
	f.StringSliceVar(&datasets, "dataset", nil, "only this dataset; repeat for more")
	f.StringSliceVar(&tickets, "ticket", nil, "only this ticket; repeat for more")
	f.BoolVar(&ack, "ack", false, "acknowledge them once they are printed")
	c.RunE = func(c *cobra.Command, _ []string) error {
		q.Kinds, q.Datasets, q.Tickets = kinds, typed[names.DatasetID](datasets), typed[names.Ticket](tickets)
		q.Visibility = int(visible / time.Second)
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.TakeInbox(ctx, q)
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), found, func(w io.Writer) error { return writeInbox(w, found) }); err != nil {
			return err
		}
		if !ack || len(found.Items) == 0 {
			return nil
		}
		var receipts []api.InboxReceipt
		for _, i := range found.Items {
			receipts = append(receipts, api.InboxReceipt{ID: i.ID, Lease: i.Lease})
		}
		return client.AcknowledgeInbox(ctx, receipts...)
	}
	return c
}

func writeInbox(w io.Writer, found api.InboxItems) error {
	if len(found.Items) == 0 {
		_, err := fmt.Fprintln(w, "nothing waits")
		return err
	}
	for n, i := range found.Items {
		if n > 0 {
			fmt.Fprintln(w)
		}
		t := newTable(strings.ToUpper(i.Kind), fmt.Sprintf("%d:%s", i.ID, i.Lease))
		pairs := [][2]string{{"TICKET", string(i.Ticket)}, {"FROM", string(i.From)}, {"DATASET", string(i.Dataset)}, {"PURPOSE", string(i.Purpose)},
			{"CHANGE", i.Change}, {"REFERS TO", string(i.RefersTo)}, {"STATUS", i.Status}, {"RECEIVED", i.Received.Format(time.RFC3339)}}
		if i.Subject != nil {
			pairs = append(pairs, [2]string{"ABOUT", i.Subject.Scheme + " " + i.Subject.Number})
		}
		if i.Current != nil {
			pairs = append(pairs, [2]string{"NOW", i.Current.Scheme + " " + i.Current.Number})
		}
		for _, p := range pairs {
			if p[1] != "" {
				t.add(p[0], p[1])
			}
		}
		if err := t.write(w); err != nil {
			return err
		}
		if err := writeRecords(w, i.Records); err != nil {
			return err
		}
	}
	return nil
}

func newInboxAck() *cobra.Command {
	c := &cobra.Command{
		Use:     "ack ID:LEASE ...",
		Short:   "Say that items are held durably, and need not be given again",
		Long:    "Acknowledges items that inbox take gave, named as it printed them. It is journaled.",
		Example: "  crossroads inbox ack 17:ABCDEFGHIJKLMNOPQRSTUVWXYZ --endpoints net.json --as fpd",
		Args:    cobra.MinimumNArgs(1),
	}
	r := addRemote(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		var receipts []api.InboxReceipt
		for _, a := range args {
			id, lease, ok := strings.Cut(a, ":")
			n, err := strconv.ParseUint(id, 10, 64)
			if !ok || err != nil {
				return usage("%q: want ID:LEASE as inbox take printed it", clean(a))
			}
			receipts = append(receipts, api.InboxReceipt{ID: n, Lease: lease})
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		return client.AcknowledgeInbox(ctx, receipts...)
	}
	return c
}
