package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// maxRecordFile is how much is read of a record, in bytes; the node takes less.
const maxRecordFile = 1 << 20

// change is what publish and declare have in common: a record about a subject, for some
// days, under a client ticket.
type change struct {
	who                                           *subjectFlags
	days                                          period
	dataset, record, kind, refersTo, clientTicket string
}

// addChange adds its flags to a verb; what is its word for what is sent.
func addChange(c *cobra.Command, what, kinds string) *change {
	s := &change{who: addSubject(c)}
	f := c.Flags()
	f.StringVar(&s.dataset, "dataset", "", "what kind of record it is, as person-address/v1; see registry datasets")
	f.StringVar(&s.record, "record", "", "the record: a file that holds one JSON object, - for standard input, or the object itself")
	f.StringVar(&s.kind, "change", "CHANGED", kinds)
	f.StringVar(&s.refersTo, "refers-to", "", "ticket of the "+what+" that is corrected or cancelled")
	f.StringVar(&s.clientTicket, "client-ticket", "", "your own number of the "+what+" (default: one is made)")
	s.days.add(c)
	for _, name := range []string{"dataset", "subject", "record"} {
		_ = c.MarkFlagRequired(name)
	}
	return s
}

// read gives what the flags say, under a client ticket that is made if none was given.
func (s *change) read(in io.Reader) (m api.DeclarationRequest, err error) {
	if s.who.number == "-" && s.record == "-" {
		return m, usage("--subject and --record cannot both be read from standard input")
	}
	subject, err := s.who.read(in)
	if err != nil {
		return m, err
	}
	if subject == nil {
		return m, usage("--subject is empty")
	}
	raw, err := readRecord(s.record, in)
	if err != nil {
		return m, err
	}
	span, err := s.days.readOpen(time.Now())
	if err != nil {
		return m, err
	}
	if s.clientTicket == "" {
		s.clientTicket = rand.Text()
	}
	return api.DeclarationRequest{
		ClientTicket: names.ClientTicket(s.clientTicket), Subject: *subject, Dataset: names.DatasetID(s.dataset), Period: &span, Record: raw,
		Change: s.kind, RefersTo: names.Ticket(s.refersTo),
	}, nil
}

// failed says what is wrong with a record, place by place, or that the same may be done
// again.
func (s *change) failed(c *cobra.Command, out format, err error, verb string) error {
	var p *api.Problem
	if errors.As(err, &p) && len(p.Faults) > 0 {
		to := c.ErrOrStderr()
		if out == "json" {
			to = c.OutOrStdout()
		} else {
			fmt.Fprintln(to, "crossroads:", p.Error())
		}
		err := out.print(to, p, func(w io.Writer) error {
			t := newTable("PLACE", "FAILS", "WHAT IS WRONG, AND HOW TO MEND IT")
			for _, f := range p.Faults {
				path := f.Path
				if path == "" {
					path = "(the record)"
				}
				t.add(path, f.Code, f.Wrong+" "+f.Mend)
			}
			return t.write(w)
		})
		if err != nil {
			return err
		}
		return &exit{code: exitFailure}
	}
	if !strings.Contains(err.Error(), s.clientTicket) {
		return fmt.Errorf("%w\nIt is safe to %s again under --client-ticket %s", err, verb, s.clientTicket)
	}
	return err
}

// readRecord reads a record from where a flag says.
func readRecord(from string, in io.Reader) (json.RawMessage, error) {
	var b []byte
	var err error
	switch {
	case strings.HasPrefix(strings.TrimSpace(from), "{"):
		b = []byte(from)
	case from == "-":
		b, err = io.ReadAll(io.LimitReader(in, maxRecordFile))
	default:
		b, err = os.ReadFile(from)
	}
	if err != nil {
		return nil, err
	}
	if !json.Valid(b) {
		return nil, usage("--record is no JSON object")
	}
	return b, nil
}

// readOpen gives a period that is without end unless --until says one.
func (p *period) readOpen(now time.Time) (names.Period, error) {
	span, err := p.read(now)
	if err == nil && p.until == "" {
		span.Until = names.Forever
	}
	return span, err
}
