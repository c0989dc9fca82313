package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newDeliveries() *cobra.Command {
	return group("deliveries", "What was published and is not yet where it must be",
		newDeliveriesList(), newDeliveriesLag(),
		treatDeliveries("redrive", "Try deliveries again that were given up, and at once what rests", (*api.Client).Redrive),
		treatDeliveries("drop", "Forget deliveries that were given up, so that later ones about the same subject can go", (*api.Client).DropDeliveries),
		newReplay("replay", "Tell a recipient once more what it was told since a time",
			"The recipient stores again only what it has asked for itself (crossroads inbox replay), or has lost.",
			"crossroads deliveries replay --institution fpd --since 2026-02-01T00:00:00Z --endpoints net.json --as national-register",
			(*api.Client).ReplayDeliveries))
}

type selection struct{ recipient, ticket string }

func (s *selection) add(c *cobra.Command) {
	c.Flags().StringVar(&s.recipient, "recipient", "", "only to this institution")
	c.Flags().StringVar(&s.ticket, "ticket", "", "only of this publication")
}

func (s *selection) api() api.DeliverySelection {
	return api.DeliverySelection{Recipient: names.InstitutionID(s.recipient), Ticket: names.Ticket(s.ticket)}
}

func newDeliveriesList() *cobra.Command {
	var s selection
	var dead bool
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "Notifications that their recipients do not have",
		Long: `Lists what waits, by recipient and in order. HELD BACK means that an earlier one about the
same subject has to go first. Dead letters are what the recipient refused so often that it
is not tried any more: redrive has it tried again. It takes an application with admin: true.`,
		Example: "  crossroads deliveries list --endpoints net.json --as national-register\n  crossroads deliveries list --dead --recipient fpd --endpoints net.json --as national-register -o json",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	s.add(c)
	c.Flags().BoolVar(&dead, "dead", false, "only dead letters")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.Deliveries(ctx, s.api(), dead, limit)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("TICKET", "RECIPIENT", "PURPOSE", "DATASET", "QUEUED", "REFUSED", "REASON", "STATE")
			for _, d := range found.Items {
				state := "waits"
				switch {
				case d.Dead:
					state = "dead"
				case d.HeldBack:
					state = "held back"
				}
				t.add(d.Ticket, d.Recipient, d.Purpose, d.Dataset, d.Queued.Format(time.RFC3339), d.Refused, d.Reason, state)
			}
			return t.write(w)
		})
	}
	return c
}

func newDeliveriesLag() *cobra.Command {
	c := &cobra.Command{
		Use:     "lag",
		Short:   "How far each recipient is behind",
		Long:    "Tells for each recipient how much waits, since when, and since when it does not answer.\nPrometheus reads the same at /metrics. It takes an application with admin: true.",
		Example: "  crossroads deliveries lag --endpoints net.json --as national-register",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		lags, err := client.DeliveryLags(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), lags, func(w io.Writer) error {
			if lags.Pending > 0 {
				fmt.Fprintf(w, "%d publications wait for a clearing peer.\n", lags.Pending)
			}
			t := newTable("RECIPIENT", "PURPOSE", "WAITING", "DEAD", "OLDEST", "SILENT SINCE", "WHY")
			for _, l := range lags.Items {
				t.add(l.Recipient, l.Purpose, l.Waiting, l.Dead, stamp(l.Oldest), stamp(l.SilentSince), l.Why)
			}
			return t.write(w)
		})
	}
	return c
}

func stamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}

func treatDeliveries(use, short string, how func(*api.Client, context.Context, api.DeliverySelection) (api.Count, error)) *cobra.Command {
	var s selection
	c := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    short + ". Without --recipient and --ticket: all.\nIt takes an application with admin: true, and is journaled.",
		Example: "  crossroads deliveries " + use + " --recipient fpd --endpoints net.json --as national-register",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	s.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		n, err := how(client, ctx, s.api())
		if err != nil {
			return err
		}
		return printCount(c, *out, n)
	}
	return c
}

func printCount(c *cobra.Command, out format, n api.Count) error {
	return out.print(c.OutOrStdout(), n, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, n.Count)
		return err
	})
}

func newReplay(use, short, more, example string, how func(*api.Client, context.Context, api.ReplayRequest) (api.Count, error)) *cobra.Command {
	var institution, since string
	c := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    short + ", as far as it is kept. Each goes cleared anew.\n" + more + "\nIt takes an application with admin: true, and is journaled.",
		Example: "  " + example,
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.Flags().StringVar(&institution, "institution", "", "the other institution")
	c.Flags().StringVar(&since, "since", "", "from this time on, as 2026-02-01T00:00:00Z")
	_ = c.MarkFlagRequired("institution")
	_ = c.MarkFlagRequired("since")
	c.RunE = func(c *cobra.Command, _ []string) error {
		at, err := time.Parse(time.RFC3339, since)
		if err != nil {
			return usage("--since: want a time as 2026-02-01T00:00:00Z")
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		n, err := how(client, ctx, api.ReplayRequest{Institution: names.InstitutionID(institution), Since: at})
		if err != nil {
			return err
		}
		return printCount(c, *out, n)
	}
	return c
}
