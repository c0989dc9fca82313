package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newOfficer() *cobra.Command {
	c := group("officer", "What the institution's own users did, for its security officer", newOfficerSearch(), newOfficerReport())
	c.Long = `These verbs take the token of an application with officer: true, which may be limited to
some users. They read this node's journal; an institution with several nodes has one at
each. That you looked is journaled.`
	return c
}

func newOfficerSearch() *cobra.Command {
	var user, from, until, dataset, purpose, outcome string
	var limit int
	c := &cobra.Command{
		Use:   "search",
		Short: "List what users did: who asked what, about whom, when and why",
		Example: `  crossroads officer search --user alice --from 2026-01-01 --endpoints net.json --as pcsa-ghent
  crossroads officer search --outcome DENY -o csv --api http://127.0.0.1:7480 --token-file officer.token > denied.csv`,
		Args: cobra.NoArgs,
	}
	r, out := addRemote(c), addSheetFormat(c)
	r.officer = true
	f := c.Flags()
	f.StringVar(&user, "user", "", "of this user")
	f.StringVar(&from, "from", "", "from this day (UTC) or time on, as 2026-01-31 or 2026-01-31T08:00:00Z")
	f.StringVar(&until, "until", "", "before this day or time")
	f.StringVar(&dataset, "dataset", "", "about this dataset")
	f.StringVar(&purpose, "purpose", "", "for this purpose")
	f.StringVar(&outcome, "outcome", "", "with this outcome, status or reason, as DENY or NO_DATA_FOUND")
	f.IntVar(&limit, "limit", 1000, "at most so many, 1 to 10000")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		q := api.OfficerSearch{
			User: names.UserID(user), Dataset: names.DatasetID(dataset), Purpose: names.Purpose(purpose), Outcome: outcome, Limit: limit,
		}
		if q.From, err = moment("--from", from); err != nil {
			return err
		}
		if q.Until, err = moment("--until", until); err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		if out.format == "csv" {
			return client.OfficerCSV(ctx, c.OutOrStdout(), q)
		}
		found, err := client.OfficerSearch(ctx, q)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("TIME", "USER", "EVENT", "TICKET", "SUBJECT", "DATASET", "PURPOSE", "SUPPLIER", "OUTCOME")
			for _, e := range found.Items {
				number := ""
				if e.Subject != nil {
					number = e.Subject.Number
				}
				t.add(e.Time.Format(time.RFC3339), e.User, e.Event, e.Ticket, number, e.Dataset, e.Purpose, e.Supplier, outcomeOf(e))
			}
			if err := t.write(w); err != nil || !found.More {
				return err
			}
			_, err := fmt.Fprintln(w, "There are more: narrow the search, or raise --limit.")
			return err
		})
	}
	return c
}

// outcomeOf adds to the outcome of an entry whether a reading was allowed.
func outcomeOf(e api.JournalEntry) string {
	if e.Event == "READ" && e.Outcome != "" {
		return e.Outcome
	}
	return outcome(e)
}

func newOfficerReport() *cobra.Command {
	var q api.OfficerReport
	var from, until string
	c := &cobra.Command{
		Use:   "report",
		Short: "Point out unusual use: off-hours, far more than others, the same person again and again",
		Long: `Unusual is not wrong: the report says where to look. The median is that of all users whom
the officer oversees.`,
		Example: `  crossroads officer report --zone Europe/Brussels --endpoints net.json --as pcsa-ghent
  crossroads officer report --from 2026-01-01 --until 2026-02-01 --volume 5 -o csv --api http://127.0.0.1:7480 --token-file officer.token`,
		Args: cobra.NoArgs,
	}
	r, out := addRemote(c), addSheetFormat(c)
	r.officer = true
	f := c.Flags()
	f.StringVar(&from, "from", "", "from this day (UTC) or time on (default: 30 days before the end)")
	f.StringVar(&until, "until", "", "before this day or time (default: now)")
	f.StringVar(&q.Zone, "zone", "", "time zone of the working day (default: UTC)")
	f.StringVar(&q.Begins, "begins", "", "when the working day begins (default: 07:00)")
	f.StringVar(&q.Ends, "ends", "", "when it ends (default: 19:00)")
	f.BoolVar(&q.Weekends, "weekends", false, "weekends are working days too")
	f.Float64Var(&q.Volume, "volume", 0, "how many times the median is much (default: 3)")
	f.IntVar(&q.Repeated, "repeated", 0, "how many questions of one user about one person are many (default: 5)")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if q.From, err = moment("--from", from); err != nil {
			return err
		}
		if q.Until, err = moment("--until", until); err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		report, err := client.OfficerReport(ctx, q)
		if err != nil {
			return err
		}
		if out.format == "csv" {
			return writeCSV(c.OutOrStdout(), reportRows(report))
		}
		return out.print(c.OutOrStdout(), report, func(w io.Writer) error { return writeReport(w, report) })
	}
	return c
}

func reportRows(r *reading.Report) [][]string {
	rows := [][]string{{"kind", "user", "uses", "times_median", "subject_scheme", "subject_number", "days", "first", "last"}}
	for _, o := range r.OffHours {
		rows = append(rows, []string{"off-hours", o.User, strconv.Itoa(o.Uses), "", "", "", "", o.First.Format(time.RFC3339), o.Last.Format(time.RFC3339)})
	}
	for _, v := range r.Volume {
		rows = append(rows, []string{"volume", v.User, strconv.Itoa(v.Uses), strconv.FormatFloat(v.Times, 'f', 1, 64), "", "", "", "", ""})
	}
	for _, p := range r.Repeated {
		rows = append(rows, []string{
			"repeated", p.User, strconv.Itoa(p.Uses), "", p.Subject.Scheme, p.Subject.Number, strconv.Itoa(p.Days),
			p.First.Format(time.RFC3339), p.Last.Format(time.RFC3339),
		})
	}
	return rows
}

func writeReport(w io.Writer, r *reading.Report) error {
	fmt.Fprintf(w, "From %s until %s: %d questions of %d users, median %.1f.\n\n",
		r.From.Format(time.RFC3339), r.Until.Format(time.RFC3339), r.Uses, r.Users, r.Median)
	t := newTable("UNUSUAL", "USER", "USES", "DETAIL")
	for _, o := range r.OffHours {
		t.add("off-hours", o.User, o.Uses, fmt.Sprintf("outside %s-%s %s, last %s", r.Begins, r.Ends, r.Zone, o.Last.Format(time.RFC3339)))
	}
	for _, v := range r.Volume {
		t.add("volume", v.User, v.Uses, fmt.Sprintf("%.1f times the median", v.Times))
	}
	for _, p := range r.Repeated {
		t.add("repeated", p.User, p.Uses, fmt.Sprintf("about %s %s on %d days, last ticket %s", p.Subject.Scheme, p.Subject.Number, p.Days, p.Tickets[0]))
	}
	if err := t.write(w); err != nil || !r.Partial {
		return err
	}
	_, err := fmt.Fprintln(w, "Too much to look at: ask for a shorter time.")
	return err
}
