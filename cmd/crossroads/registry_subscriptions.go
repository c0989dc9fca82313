package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newRegistrySubscriptions() *cobra.Command {
	c := listing("subscriptions", "Who is told of which changes automatically", (*api.Client).Subscriptions,
		[]string{"INSTITUTION", "DATASET", "PURPOSE", "QUALITIES", "FIELDS", "FROM", "UNTIL"},
		func(s api.Subscription) []any {
			return []any{s.Institution, s.Dataset, s.Purpose, joined(s.Qualities), joined(s.Fields), s.Period.From, s.Period.Until}
		})
	c.AddCommand(changeSubscription("set", "Subscribe this institution to the changes of a dataset", false),
		changeSubscription("withdraw", "End a subscription: once this is answered, nothing comes any more", true))
	return c
}

func changeSubscription(use, short string, withdraw bool) *cobra.Command {
	var dataset, purpose string
	var qualities, fields []string
	var days period
	c := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    short + ".\nA subscription is no right: an authorization for mode notification must give that.\nIt takes an application with admin: true, and is journaled.",
		Example: "  crossroads registry subscriptions " + use + " --dataset person-address/v1 --purpose pension-calculation --endpoints net.json --as fpd",
		Args:    cobra.NoArgs,
	}
	if !withdraw {
		c.Example += " --quality pensioner"
	}
	r, out := addRemote(c), addFormat(c)
	f := c.Flags()
	f.StringVar(&dataset, "dataset", "", "of which changes are told, as person-address/v1")
	f.StringVar(&purpose, "purpose", "", "what for; see registry authorizations")
	_ = c.MarkFlagRequired("dataset")
	_ = c.MarkFlagRequired("purpose")
	if !withdraw {
		f.StringSliceVar(&qualities, "quality", nil, "about whom: subjects on whom there is a file in this quality; repeat for more")
		f.StringSliceVar(&fields, "field", nil, "only this field; repeat for more (default: all that the authorization allows)")
		days.add(c)
		_ = c.MarkFlagRequired("quality")
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		req := api.SubscriptionRequest{Dataset: names.DatasetID(dataset), Purpose: names.Purpose(purpose),
			Qualities: typed[names.Quality](qualities), Fields: typed[names.FieldName](fields), Withdrawn: withdraw}
		if !withdraw {
			span, err := days.readOpen(time.Now())
			if err != nil {
				return err
			}
			req.Period = &span
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := client.Subscribe(ctx, req)
		if err != nil {
			return err
		}
		return printSubmitted(c, *out, done)
	}
	return c
}
