package testnet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Examples gives consultations worth trying on this network today.
func (n *Network) Examples() []data.Example {
	return n.World().Examples(names.DateOf(time.Now().UTC()))
}

// Consult asks what an example asks, through the API of the node that asks it.
func (n *Network) Consult(ctx context.Context, c data.Consultation, client names.ClientTicket) (api.Consultation, error) {
	asker := n.Client(c.Requester)
	asker.AuthLevel = strconv.FormatUint(uint64(c.AuthLevel), 10)
	return asker.Consult(ctx, Question(c, client))
}

// Question gives the body of POST /v1/consultations for a consultation.
func Question(c data.Consultation, client names.ClientTicket) api.ConsultationRequest {
	return api.ConsultationRequest{
		ClientTicket: client, Subject: api.Subject{Scheme: string(c.Scheme), Number: c.Number}, Dataset: c.Dataset,
		Fields: c.Fields, Purpose: c.Purpose, Period: &c.Period,
	}
}

// showExample carries out the first consultation that brings data, and shows its
// trace.
func (n *Network) showExample(ctx context.Context, w io.Writer) error {
	for _, e := range n.Examples() {
		if e.Answer.Status != nodepb.Status_DATA_FOUND {
			continue
		}
		fmt.Fprintf(w, "%s:\n\n", e.Title)
		fmt.Fprintf(w, "    %s asks %s for the purpose %s about an invented person.\n", e.Requester, e.Dataset, e.Purpose)
		got, err := n.Consult(ctx, e.Consultation, "")
		if err != nil {
			return fmt.Errorf("the worked example: %w", err)
		}
		body, err := json.MarshalIndent(got, "    ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "    %s\n\nIts trace, from the journals of everybody who took part:\n\n", body)
		story, err := n.Client(e.Requester).Trace(ctx, got.Ticket)
		if err != nil {
			return fmt.Errorf("the trace of the worked example: %w", err)
		}
		var text strings.Builder
		if err := story.Write(&text); err != nil {
			return err
		}
		fmt.Fprintln(w, indent(text.String()))
		return nil
	}
	return nil
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}
