package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// decision is what a clearing peer signed when it cleared nothing. It was verified.
type decision struct {
	envelope []byte
	*registrypb.Decision
}

// take makes a decision part of the ruling.
func (r *ruling) take(d *decision) verdict {
	switch {
	case d.GetReason() == registrypb.Reason_STALE_REQUEST:
		r.stale = true // one of the two clocks is wrong: another peer may agree with this one
		return recused
	case d.GetRecused():
		return recused
	case d.GetOutcome() == registrypb.Outcome_PERMIT && len(r.permits) == 0:
		return failed // it permits, and gives nothing
	case d.GetOutcome() == registrypb.Outcome_PERMIT: // all that remained was cleared before
		return decided
	case len(r.permits) > 0: // rights fell away meanwhile; suppliers will see that too
		r.incomplete, r.reason, r.refusal = true, d.GetReason(), d
		return decided
	}
	r.outcome, r.reason, r.successor = d.GetOutcome(), d.GetReason(), d.GetSuccessor()
	r.withheld, r.authorization, r.refusal = d.GetWithheld(), d.GetAuthorization(), d
	return decided
}

// denials are the reasons for which a clearing peer denies.
var denials = []registrypb.Reason{
	registrypb.Reason_UNKNOWN_SUBJECT, registrypb.Reason_REPLACED_NUMBER, registrypb.Reason_MALFORMED_NUMBER,
	registrypb.Reason_DECEASED_SUBJECT, registrypb.Reason_CANCELLED_NUMBER, registrypb.Reason_NOT_INTEGRATED,
	registrypb.Reason_NOT_ALLOWED, registrypb.Reason_NO_ELIGIBLE_CLEARER, registrypb.Reason_REQUESTER_NOT_ADMITTED,
	registrypb.Reason_NO_PERMITTED_FIELD, registrypb.Reason_AUTH_LEVEL_TOO_LOW, registrypb.Reason_MANDATE_MISSING,
	registrypb.Reason_STALE_REQUEST,
}

// verifyDecision insists that a member which is no party signed the decision, on this
// very request, and that it is one that can be: what it says goes to the application
// and into the journal.
func (x *consultation) verifyDecision(from names.NodeID, raw []byte) (*decision, error) {
	if len(raw) > maxClearance {
		return nil, errors.New("decision too large")
	}
	opened, err := envelope.Open(envelope.Decision, raw)
	if err != nil {
		return nil, err
	}
	d := &decision{raw, new(registrypb.Decision)}
	if err := proto.Unmarshal(opened.Payload, d.Decision); err != nil {
		return nil, errors.New("decision is not protobuf")
	}
	err = x.cfg.Registry.View(func(v record.View) error {
		own, err := v.Institution(x.cfg.Self.Institution)
		if err != nil {
			return err
		}
		member, err := v.IsMember(from)
		if err != nil {
			return err
		}
		noParty, err := x.noParty(v, own, from)
		if err != nil {
			return err
		}
		if !member || !noParty {
			return errors.New("decision by a party, or by no member")
		}
		return x.signedBy(v, opened, from.Institution)
	})
	if err != nil {
		return nil, err
	}
	q := x.request
	authorization := names.AuthorizationID(d.GetAuthorization())
	for what, wrong := range map[string]bool{
		"mesh":          d.GetMesh() != string(x.cfg.Mesh),
		"ticket":        d.GetTicket() != string(x.ticket),
		"clearer":       record.NodeID(d.GetClearer()) != from,
		"requester":     record.NodeID(d.GetRequester()) != x.cfg.Self,
		"request":       !bytes.Equal(d.GetRequestHash(), x.hash),
		"outcome":       !known(d.Decision),
		"fields":        !subset(d.GetWithheld(), q.GetFields()),
		"authorization": authorization != "" && authorization.Validate() != nil,
		"successor":     !x.succeeds(d.Decision),
		"time":          d.GetReason() != registrypb.Reason_STALE_REQUEST && !x.recent(d.GetTimeUnixMs()),
	} {
		if wrong {
			return nil, fmt.Errorf("decision is for another %s, or none there is", what)
		}
	}
	return d, nil
}

// known reports whether outcome and reason are such as a clearing peer gives together.
func known(d *registrypb.Decision) bool {
	switch d.GetOutcome() {
	case registrypb.Outcome_OUTCOME_UNSPECIFIED:
		return d.GetRecused() && d.GetReason() == registrypb.Reason_REASON_UNSPECIFIED
	case registrypb.Outcome_PERMIT:
		return d.GetReason() == registrypb.Reason_REASON_UNSPECIFIED
	case registrypb.Outcome_NOT_APPLICABLE:
		return !d.GetRecused() && d.GetReason() == registrypb.Reason_NOT_ALLOWED
	case registrypb.Outcome_DENY:
		return !d.GetRecused() && slices.Contains(denials, d.GetReason())
	}
	return false
}

// succeeds reports whether there is a successor where there must be one, and that it
// is a number that can be asked by instead.
func (x *consultation) succeeds(d *registrypb.Decision) bool {
	s := d.GetSuccessor()
	if replaced := d.GetReason() == registrypb.Reason_REPLACED_NUMBER; !replaced || s == nil {
		return !replaced && s == nil
	}
	asked := x.request.GetSubject()
	id, err := x.cfg.Schemes.Parse(subject.Scheme(s.GetScheme()), s.GetNumber())
	return err == nil && id.Number() == s.GetNumber() && s.GetScheme() == asked.GetScheme() && s.GetNumber() != asked.GetNumber()
}

// recent reports whether something was signed about now, by a clock of the mesh.
func (x *consultation) recent(unixMillis int64) bool {
	slack := (x.cfg.Bounds.Skew + x.cfg.ClearFor).Milliseconds()
	now := x.cfg.Now().UnixMilli()
	return now-slack <= unixMillis && unixMillis <= now+slack
}

// subset reports whether every field is one that was asked, and stands once.
func subset(fields, asked []string) bool {
	if len(fields) > len(asked) {
		return false
	}
	for i, f := range fields {
		if !slices.Contains(asked, f) || slices.Contains(fields[:i], f) {
			return false
		}
	}
	return true
}
