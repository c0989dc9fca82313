package batch

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// ResultJSON is one line of results as JSON Lines give it.
type ResultJSON struct {
	Line      uint64       `json:"line"`
	Number    string       `json:"number,omitempty"` // canonical; none: it was malformed
	Reference string       `json:"reference,omitempty"`
	Status    string       `json:"status"`
	Reason    string       `json:"reason,omitempty"`
	Successor string       `json:"successor,omitempty"` // the number that replaced it
	SameAs    uint64       `json:"same_as,omitempty"`   // the line that is about the same subject
	Answer    string       `json:"answer,omitempty"`    // yes or no, of lots that may learn no more
	Suppliers []ResultPart `json:"suppliers,omitempty"`
}

// ResultPart is the part of one supplier.
type ResultPart struct {
	Supplier string          `json:"supplier"`
	Status   string          `json:"status"`
	Reason   string          `json:"reason,omitempty"`
	Answer   string          `json:"answer,omitempty"`
	Records  json.RawMessage `json:"records,omitempty"`
	Withheld []string        `json:"withheld,omitempty"`
}

func answerName(a nodepb.LotAnswer) string {
	switch a {
	case nodepb.LotAnswer_LOT_ANSWER_YES:
		return "yes"
	case nodepb.LotAnswer_LOT_ANSWER_NO:
		return "no"
	}
	return ""
}

// JSON gives a line as JSON Lines give it. A yes of one supplier is a yes.
func (l Line) JSON() ResultJSON {
	r := ResultJSON{
		Line: l.Line, Number: l.Number, Reference: l.Reference, Status: l.Status.String(), Successor: l.Successor, SameAs: l.SameAs,
	}
	if l.Reason != 0 {
		r.Reason = l.Reason.String()
	}
	for _, p := range l.Parts {
		part := ResultPart{Supplier: p.Supplier, Status: p.Status.String(), Answer: answerName(p.Answer), Records: p.Records, Withheld: p.Withheld}
		if p.Reason != 0 {
			part.Reason = p.Reason.String()
		}
		if part.Answer != "" && r.Answer != "yes" {
			r.Answer = part.Answer
		}
		r.Suppliers = append(r.Suppliers, part)
	}
	return r
}

var columns = []string{"line", "number", "reference", "status", "reason", "successor", "same_as", "answer", "suppliers", "records"}

// lineWriter gives what writes lines in a form.
func lineWriter(form string, w io.Writer) (func(Line) error, error) {
	switch form {
	case "jsonl":
		e := json.NewEncoder(w)
		return func(l Line) error { return e.Encode(l.JSON()) }, nil
	case "csv":
		c := csv.NewWriter(w)
		if err := c.Write(columns); err != nil {
			return nil, err
		}
		return func(l Line) error {
			r := l.JSON()
			var suppliers []string
			records := map[string]json.RawMessage{}
			for _, p := range r.Suppliers {
				suppliers = append(suppliers, p.Supplier)
				if len(p.Records) > 0 {
					records[p.Supplier] = p.Records
				}
			}
			row := []string{strconv.FormatUint(r.Line, 10), r.Number, r.Reference, r.Status, r.Reason, r.Successor, "", r.Answer, strings.Join(suppliers, " "), ""}
			if r.SameAs > 0 {
				row[6] = strconv.FormatUint(r.SameAs, 10)
			}
			if len(records) > 0 {
				b, err := json.Marshal(records)
				if err != nil {
					return err
				}
				row[9] = string(b)
			}
			if err := c.Write(row); err != nil {
				return err
			}
			c.Flush()
			return c.Error()
		}, nil
	}
	return nil, fmt.Errorf("form of results: want csv or jsonl")
}
