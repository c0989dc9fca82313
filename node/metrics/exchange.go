package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The outcomes beside those of the protocol.
const (
	outcomeAnswered = "ANSWERED"
	outcomeRefused  = "REFUSED"
	outcomeError    = "ERROR"
	noReason        = ""
)

// Consultations carries out questions; exchange.Consultant does.
type Consultations interface {
	Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error)
	Acknowledge(ctx context.Context, application string, t names.ClientTicket) error
}

// Consultations counts what goes through next.
func (m *Metrics) Consultations(next Consultations) Consultations { return counted{m, next} }

type counted struct {
	m    *Metrics
	next Consultations
}

// Consult counts by the result's status and reason.
func (c counted) Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
	began := time.Now()
	r, err := c.next.Consult(ctx, q)
	outcome, reason := outcomeError, noReason
	if err == nil {
		outcome, reason = r.Status.String(), word(r.Reason)
	}
	c.m.consultations.done(began, outcome, reason)
	return r, err
}

// Acknowledge counts those that succeed.
func (c counted) Acknowledge(ctx context.Context, application string, t names.ClientTicket) error {
	err := c.next.Acknowledge(ctx, application, t)
	if err == nil {
		c.m.acknowledgedBy.Inc()
	}
	return err
}

// handler is what answers another node.
type handler[Req, Resp any] = func(ctx context.Context, from names.NodeID, req *Req) (*Resp, error)

// Presentations counts what a supplier is presented with.
func (m *Metrics) Presentations(next handler[nodepb.Presentation, nodepb.PresentResponse]) handler[nodepb.Presentation, nodepb.PresentResponse] {
	return func(ctx context.Context, from names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error) {
		began := time.Now()
		resp, err := next(ctx, from, req)
		outcome, reason := outcomeAnswered, noReason
		var refusal *exchange.Refusal
		switch {
		case errors.As(err, &refusal):
			outcome, reason = outcomeRefused, word(refusal.Reason)
		case err != nil:
			outcome = outcomeError
		}
		m.presentations.done(began, outcome, reason)
		return resp, err
	}
}

// Clearings counts what a clearing peer decides. One that recuses itself counts as
// RECUSED when it cleared nothing.
func (m *Metrics) Clearings(next handler[registrypb.ClearRequest, registrypb.ClearResponse]) handler[registrypb.ClearRequest, registrypb.ClearResponse] {
	return func(ctx context.Context, from names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error) {
		began := time.Now()
		resp, err := next(ctx, from, req)
		outcome, reason := outcomeError, noReason
		switch {
		case err != nil:
		case resp.GetRecused() && len(resp.GetClearances()) == 0:
			outcome = "RECUSED"
		default:
			outcome, reason = resp.GetOutcome().String(), word(resp.GetReason())
		}
		m.clearings.done(began, outcome, reason)
		return resp, err
	}
}

func word(r registrypb.Reason) string {
	if r == registrypb.Reason_REASON_UNSPECIFIED {
		return noReason
	}
	return r.String()
}
