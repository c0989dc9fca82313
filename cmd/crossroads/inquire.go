package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newInquire() *cobra.Command {
	var purpose, clientTicket string
	var datasets, fields []string
	var days period
	c := &cobra.Command{
		Use:   "inquire",
		Short: "Ask many sources about one subject at once",
		Long: `Asks for several datasets about one subject, for one purpose, all at the same time, and
prints for each source what came of it. Each dataset is a consultation of its own, cleared
and traced by itself; the trace of the inquiry's ticket joins them.

Without --dataset it asks for everything that the authorizations in force give your
institution for the purpose. A source that has not answered shortly before --timeout is
told as unavailable, and never holds up the others.

Asking again under the same --client-ticket is asking once, so after any error simply ask
again under the one that was printed.

Exit code 3 means that nothing was to be had, and the reason is printed; 4 that some
sources did not answer, or were not to be asked.`,
		Example: `  # everything that a social inquiry may ask:
  crossroads inquire --endpoints net.json --as pcsa-ghent --as-user alice \
      --purpose social-inquiry --subject 74071238186 --from 2025-01-01 --until 2025-12-31

  # two datasets, of one of them two fields:
  crossroads inquire --endpoints net.json --as pcsa-ghent --as-user alice --purpose social-inquiry --subject - \
      --dataset pension-rights/v1 --dataset wages-quarterly/v1 --field wages-quarterly/v1:quarter --field wages-quarterly/v1:gross_wage`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	f := c.Flags()
	f.StringVar(&purpose, "purpose", "", "why; see registry authorizations")
	f.StringSliceVar(&datasets, "dataset", nil, "what is asked, as wages-quarterly/v1; repeat for more (default: all that may be asked for the purpose)")
	f.StringSliceVar(&fields, "field", nil, "of a dataset ask only this field, as DATASET:FIELD; repeat for more (default: all that are permitted)")
	f.StringVar(&clientTicket, "client-ticket", "", "your own number of the question (default: one is made)")
	days.add(c)
	for _, name := range []string{"purpose", "subject"} {
		_ = c.MarkFlagRequired(name)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		parts, err := inquiryParts(datasets, fields)
		if err != nil {
			return err
		}
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
		if clientTicket == "" {
			clientTicket = rand.Text()
		}
		answer, err := client.Inquire(ctx, api.InquiryRequest{
			ClientTicket: names.ClientTicket(clientTicket), Subject: *subject, Purpose: names.Purpose(purpose), Period: &span, Parts: parts,
		})
		if err != nil && !strings.Contains(err.Error(), clientTicket) {
			err = fmt.Errorf("%w\nIt is safe to ask again under --client-ticket %s", err, clientTicket)
		}
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), answer, func(w io.Writer) error { return writeInquiry(w, answer) }); err != nil {
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

// inquiryParts puts the fields to their datasets.
func inquiryParts(datasets, fields []string) (parts []api.InquiryPart, err error) {
	place := make(map[string]int)
	for _, d := range datasets {
		place[d] = len(parts)
		parts = append(parts, api.InquiryPart{Dataset: names.DatasetID(d)})
	}
	for _, f := range fields {
		dataset, field, ok := strings.Cut(f, ":")
		n, asked := place[dataset]
		if !ok || !asked {
			return nil, usage("--field %s: write it as DATASET:FIELD, of a dataset that --dataset names", f)
		}
		parts[n].Fields = append(parts[n].Fields, names.FieldName(field))
	}
	return parts, nil
}

func writeInquiry(w io.Writer, a api.Inquiry) error {
	t := newTable("STATUS", a.Status)
	pairs := [][2]string{{"REASON", a.Reason}, {"", a.Explanation}, {"TICKET", string(a.Ticket)}, {"CLIENT TICKET", string(a.ClientTicket)}}
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
	fmt.Fprintln(w)
	sources := newTable("DATASET", "SOURCE", "STATUS", "REASON", "WITHHELD", "TICKET")
	for _, p := range a.Parts {
		if len(p.Suppliers) == 0 {
			sources.add(p.Dataset, "", p.Status, p.Reason, joined(p.Withheld), p.Ticket)
		}
		for _, s := range p.Suppliers {
			sources.add(p.Dataset, s.Supplier, s.Status, s.Reason, joined(s.Withheld), p.Ticket)
		}
	}
	if err := sources.write(w); err != nil {
		return err
	}
	for _, p := range a.Parts {
		for _, s := range p.Suppliers {
			if s.Status != "DATA_FOUND" {
				continue
			}
			fmt.Fprintf(w, "\n%s, %s:\n", p.Dataset, s.Supplier)
			if err := writeRecords(w, s.Records); err != nil {
				return err
			}
		}
	}
	return nil
}
