package testnet

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Outcome is what came of one example.
type Outcome struct {
	Title     string              `json:"title"`
	Requester names.InstitutionID `json:"requester"`
	Purpose   names.Purpose       `json:"purpose"`
	Dataset   names.DatasetID     `json:"dataset"`
	Fields    []names.FieldName   `json:"fields,omitempty"`
	Scheme    string              `json:"scheme"`
	Number    string              `json:"number"`
	Period    names.Period        `json:"period"`
	AuthLevel uint32              `json:"auth_level"`
	Expected  string              `json:"expected"` // status, and reason if there is one
	// With Run:
	Got     string       `json:"got,omitempty"`
	Differs string       `json:"differs,omitempty"` // how it is not what the lives say
	Ticket  names.Ticket `json:"ticket,omitempty"`
	Trace   string       `json:"trace,omitempty"` // the verdict
}

// Examples lists what is worth asking a running network, and what the lives of its
// invented persons say must come out. With run it asks, compares, and traces.
func Examples(ctx context.Context, e *Endpoints, run bool) ([]Outcome, error) {
	world, err := e.World()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	var outcomes []Outcome
	for _, x := range world.Examples(names.DateOf(time.Now().UTC())) {
		o := Outcome{
			Title: x.Title, Requester: x.Requester, Purpose: x.Purpose, Dataset: x.Dataset, Fields: x.Fields,
			Scheme: string(x.Scheme), Number: x.Number, Period: x.Period, AuthLevel: x.AuthLevel,
			Expected: says(x.Answer.Status.String(), reasonWord(x.Answer.Reason)),
		}
		if run {
			if err := o.run(ctx, e, x); err != nil {
				return outcomes, fmt.Errorf("%s: %w", x.Title, err)
			}
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

func (o *Outcome) run(ctx context.Context, e *Endpoints, x data.Example) error {
	at, ok := e.Of(x.Requester)
	if !ok {
		return fmt.Errorf("the network has no %s", x.Requester)
	}
	client := api.NewClient(at.API, at.Token)
	client.User = names.UserID("testnet@" + string(x.Requester))
	client.AuthLevel = strconv.FormatUint(uint64(x.AuthLevel), 10)
	got, err := client.Consult(ctx, Question(x.Consultation, ""))
	if err != nil {
		return err
	}
	o.Got, o.Ticket, o.Differs = says(got.Status, got.Reason), got.Ticket, Differs(got, x.Answer)
	story, err := client.Trace(ctx, got.Ticket)
	if err != nil {
		return err
	}
	o.Trace = string(story.Verdict)
	if story.Verdict != trace.Consistent && o.Differs == "" {
		o.Differs = "its trace: " + story.Summary
	}
	return nil
}

func says(status, reason string) string {
	if reason == "" {
		return status
	}
	return status + " " + reason
}

func reasonWord(r registrypb.Reason) string {
	if r == registrypb.Reason_REASON_UNSPECIFIED {
		return ""
	}
	return r.String()
}

// Differs says how an answer is not the one that was expected, or nothing.
func Differs(got api.Consultation, want data.Answer) string {
	if g, w := says(got.Status, got.Reason), says(want.Status.String(), reasonWord(want.Reason)); g != w {
		return "got " + g + ", want " + w
	}
	if (got.Successor != nil) != !want.Successor.IsZero() || got.Successor != nil && got.Successor.Number != want.Successor.Number() {
		return "another successor"
	}
	if len(got.Suppliers) != len(want.Suppliers) {
		return fmt.Sprintf("%d suppliers, want %d", len(got.Suppliers), len(want.Suppliers))
	}
	for i, s := range want.Suppliers {
		if got.Suppliers[i].Supplier != s.Supplier || got.Suppliers[i].Status != s.Status.String() {
			return "supplier " + string(s.Supplier) + " came out otherwise"
		}
		if s.Status == nodepb.Status_DATA_FOUND && canonical(got.Suppliers[i].Records) != canonical(s.Records) {
			return "other records of " + string(s.Supplier)
		}
	}
	return ""
}

// canonical forgets the order of keys, and white space.
func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var generic any
	if err := json.Unmarshal(b, &generic); err != nil {
		return err.Error()
	}
	b, _ = json.Marshal(generic)
	return string(b)
}
