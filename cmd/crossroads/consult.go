package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newConsult() *cobra.Command {
	var dataset, purpose, clientTicket string
	var fields, suppliers []string
	var days period
	c := &cobra.Command{
		Use:   "consult",
		Short: "Ask for one dataset about one subject",
		Long: `Asks the node, which has the question cleared by a registry member that is no party,
presents the clearance to each supplier, and answers with the permitted fields.

Asking again under the same --client-ticket is asking once, so after any error simply ask
again under the one that was printed. What was answered under it, a refusal or a supplier
that was not reached included, stays the answer: to ask anew, leave it out.

Exit code 3 means that the network refused, and the reason is printed; 4 that some
suppliers did not answer.`,
		Example: `  crossroads consult --endpoints net.json --as pcsa-ghent --as-user alice \
      --dataset wages-quarterly/v1 --purpose social-inquiry --subject 74071238186

  # without the number in the shell's history, two fields, one supplier, a period:
  crossroads consult --api https://node.example:7480 --token-file app.token --as-user alice \
      --dataset wages-quarterly/v1 --purpose social-inquiry --subject - \
      --field quarter --field gross_wage --supplier nsso --from 2026-01-01 --until 2026-03-31`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	f := c.Flags()
	f.StringVar(&dataset, "dataset", "", "what is asked, as wages-quarterly/v1; see registry datasets")
	f.StringVar(&purpose, "purpose", "", "why; see registry authorizations")
	f.StringSliceVar(&fields, "field", nil, "ask only this field; repeat for more (default: all that are permitted)")
	f.StringSliceVar(&suppliers, "supplier", nil, "ask only this institution; repeat for more (default: all that can)")
	f.StringVar(&clientTicket, "client-ticket", "", "your own number of the question (default: one is made)")
	days.add(c)
	for _, name := range []string{"dataset", "purpose", "subject"} {
		_ = c.MarkFlagRequired(name)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		subject, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if subject == nil {
			return usage("--subject is empty")
		}
		span, err := days.read(time.Now())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		if clientTicket == "" { // made here, so that it is known whatever becomes of the answer
			clientTicket = rand.Text()
		}
		answer, err := client.Consult(ctx, api.ConsultationRequest{
			ClientTicket: names.ClientTicket(clientTicket), Subject: *subject, Dataset: names.DatasetID(dataset),
			Fields: typed[names.FieldName](fields), Purpose: names.Purpose(purpose), Period: &span,
			Suppliers: typed[names.InstitutionID](suppliers),
		})
		if err != nil && !strings.Contains(err.Error(), clientTicket) {
			err = fmt.Errorf("%w\nIt is safe to ask again under --client-ticket %s", err, clientTicket)
		}
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), answer, func(w io.Writer) error { return writeConsultation(w, answer) }); err != nil {
			return err
		}
		switch answer.Status {
		case "NO_RESULT":
			return &exit{code: exitRefused}
		case "INCOMPLETE_DATA":
			return &exit{code: exitIncomplete}
		}
		return nil
	}
	return c
}

func writeConsultation(w io.Writer, a api.Consultation) error {
	t := newTable("STATUS", a.Status)
	pairs := [][2]string{
		{"REASON", a.Reason}, {"", a.Explanation}, {"TICKET", string(a.Ticket)}, {"CLIENT TICKET", string(a.ClientTicket)},
		{"AUTHORIZATION", string(a.Authorization)}, {"WITHHELD", joined(a.Withheld)},
	}
	if a.Successor != nil {
		pairs = append(pairs, [2]string{"ASK UNDER", a.Successor.Scheme + " " + a.Successor.Number})
	}
	for _, p := range pairs {
		if p[1] != "" {
			t.add(p[0], p[1])
		}
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, s := range a.Suppliers {
		fmt.Fprintf(w, "\n%s: %s", s.Supplier, s.Status)
		if s.Reason != "" {
			fmt.Fprintf(w, ", %s: %s", s.Reason, clean(s.Explanation))
		}
		if len(s.Withheld) > 0 {
			fmt.Fprintf(w, "; withheld %s", joined(s.Withheld))
		}
		fmt.Fprintln(w)
		if err := writeRecords(w, s.Records); err != nil {
			return err
		}
	}
	return nil
}

// writeRecords prints records as a table with a column for every field.
func writeRecords(w io.Writer, raw json.RawMessage) error {
	if len(raw) == 0 {
		return nil
	}
	var records []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &records); err != nil {
		return fmt.Errorf("the node's answer: %w", err)
	}
	var columns []string
	for _, r := range records {
		for name := range r {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	slices.Sort(columns)
	t := newTable()
	t.rows = nil
	heading := make([]any, len(columns))
	for i, name := range columns {
		heading[i] = strings.ToUpper(name)
	}
	if len(records) > 0 {
		t.add(heading...)
	}
	for _, r := range records {
		cells := make([]any, len(columns))
		for i, name := range columns {
			cells[i] = cell(r[name])
		}
		t.add(cells...)
	}
	return t.write(w)
}

// cell shows a string without its quotes and everything else as JSON.
func cell(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// period is told by --from and --until.
type period struct{ from, until string }

func (p *period) add(c *cobra.Command) {
	c.Flags().StringVar(&p.from, "from", "", "first day, as 2026-01-31 (default: today)")
	c.Flags().StringVar(&p.until, "until", "", "last day (default: the first, or today if that is later)")
}

func (p *period) read(now time.Time) (names.Period, error) {
	today := names.DateOf(now)
	span := names.Period{From: today, Until: today}
	var err error
	if p.from != "" {
		if span.From, err = names.ParseDate(p.from); err != nil {
			return span, usage("--from: %w", err)
		}
	}
	if span.Until = max(span.From, today); p.until != "" {
		if span.Until, err = names.ParseDate(p.until); err != nil {
			return span, usage("--until: %w", err)
		}
	}
	if err := span.Validate(); err != nil {
		return span, usage("%w", err)
	}
	return span, nil
}

func typed[T ~string](in []string) []T {
	out := make([]T, len(in))
	for i, s := range in {
		out[i] = T(s)
	}
	return out
}
