package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newJournal() *cobra.Command {
	return group("journal", "The node's own log segment", newJournalFind(), newJournalVerify(), newJournalRebuild(), newJournalExport(), newJournalArchive(),
		newJournalErase(), newJournalRestoreDeclared())
}

func newJournalFind() *cobra.Command {
	var ticket, user, from, until string
	var limit int
	c := &cobra.Command{
		Use:   "find",
		Short: "Find who asked, decided or supplied what, about whom, when",
		Long: `Searches this node's own journal. An application may read its own tickets; to search by
subject, user or time takes an application with admin: true. That you looked is journaled.`,
		Example: `  crossroads journal find --ticket 0123456789abcdefghjkmnpqrs --endpoints net.json --as pcsa-ghent
  crossroads journal find --subject - --from 2026-01-01 --api http://127.0.0.1:7480 --token-file admin.token
  crossroads journal find --user alice -o json --endpoints net.json --as pcsa-ghent`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	f := c.Flags()
	f.StringVar(&ticket, "ticket", "", "of this transaction")
	f.StringVar(&user, "user", "", "by this user")
	f.StringVar(&from, "from", "", "from this day (UTC) or time on, as 2026-01-31 or 2026-01-31T08:00:00Z")
	f.StringVar(&until, "until", "", "before this day or time")
	f.IntVar(&limit, "limit", 100, "at most so many, 1 to 1000")
	c.RunE = func(c *cobra.Command, _ []string) error {
		q := api.JournalQuery{Ticket: names.Ticket(ticket), User: names.UserID(user), Limit: limit}
		var err error
		if q.Subject, err = who.read(c.InOrStdin()); err != nil {
			return err
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
		found, err := client.FindJournal(ctx, q)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("TIME", "ROLE", "EVENT", "TICKET", "USER", "APPLICATION", "DATASET", "PURPOSE", "SUPPLIER", "OUTCOME")
			for _, e := range found.Items {
				t.add(e.Time.Format(time.RFC3339), e.Role, e.Event, e.Ticket, e.User, e.Application, e.Dataset, e.Purpose, e.Supplier, outcome(e))
			}
			if err := t.write(w); err != nil {
				return err
			}
			for _, e := range found.Erased {
				fmt.Fprintln(w, clean(e))
			}
			return nil
		})
	}
	return c
}

// outcome says how an entry ended, in one cell.
func outcome(e api.JournalEntry) string {
	switch {
	case e.Reason != "":
		return e.Reason
	case e.Status != "":
		return e.Status
	case e.Outcome != "":
		return e.Outcome
	}
	return e.Detail
}

func moment(flag, s string) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return &t, nil
		}
	}
	return nil, usage("%s: want 2026-01-31 or 2026-01-31T08:00:00Z", flag)
}
