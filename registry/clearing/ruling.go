package clearing

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Ruling is what a clearing peer signed on a request or a publication, and can be held
// to: a clearance, or a decision that cleared nothing.
type Ruling struct {
	Clearer       names.NodeID
	Ticket        names.Ticket
	RegistryIndex uint64

	mesh        string
	requestHash []byte
	at          time.Time // by the clearer's clock
	opened      *envelope.Opened
	clearance   *registrypb.Clearance // one of the three
	telling     *registrypb.NotificationClearance
	decision    *registrypb.Decision
	published   bool // it is on a publication
}

// OpenRuling reads what is to be decided again. It verifies no signature. The error wraps
// ErrMalformed.
func OpenRuling(rr *registrypb.RedecideRequest) (*Ruling, error) {
	w, err := openRuling(rr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return w, nil
}

func openRuling(rr *registrypb.RedecideRequest) (*Ruling, error) {
	if (len(rr.GetClearance()) > 0) == (len(rr.GetDecision()) > 0) {
		return nil, fmt.Errorf("want a clearance or a decision")
	}
	if raw := rr.GetDecision(); len(raw) > 0 {
		d, kind := new(registrypb.Decision), envelope.Decision
		_, err := envelope.Open(envelope.NotificationDecision, raw)
		published := err == nil
		if published {
			kind = envelope.NotificationDecision
		}
		opened, err := open(kind, raw, d)
		if err == nil && max(len(d.Cleared), len(d.Only)) > maxCleared {
			err = fmt.Errorf("more than %d suppliers cleared", maxCleared)
		}
		return &Ruling{
			Clearer: record.NodeID(d.Clearer), Ticket: names.Ticket(d.Ticket), RegistryIndex: d.RegistryIndex,
			mesh: d.Mesh, requestHash: d.RequestHash, at: time.UnixMilli(d.TimeUnixMs), opened: opened, decision: d, published: published,
		}, err
	}
	if _, err := envelope.Open(envelope.NotificationClearance, rr.GetClearance()); err == nil {
		return openTelling(rr.Clearance)
	}
	c := new(registrypb.Clearance)
	opened, err := open(envelope.Clearance, rr.GetClearance(), c)
	return &Ruling{
		Clearer: record.NodeID(c.Clearer), Ticket: names.Ticket(c.Ticket), RegistryIndex: c.RegistryIndex,
		mesh: c.Mesh, requestHash: c.RequestHash, at: time.UnixMilli(c.IssuedUnixMs), opened: opened, clearance: c,
	}, err
}

// Permits tells a clearance from a decision that cleared nothing.
func (w *Ruling) Permits() bool { return w.decision == nil }

// supplier gives the other side of what was permitted: of a publication, who is told.
func (w *Ruling) supplier() names.InstitutionID {
	if w.telling != nil {
		return names.InstitutionID(w.telling.Recipient)
	}
	return names.InstitutionID(w.clearance.GetSupplier())
}

// Differs says in a few words where the ruling departs from what was decided again at its
// index: empty, where it does not. It names no subject.
func (w *Ruling) Differs(again *registrypb.RedecideResponse) string {
	if !again.GetMember() {
		return "it was no registry member in good standing"
	}
	if w.published {
		return w.notificationDiffers(again)
	}
	if w.decision != nil {
		return refusalDiffers(w.decision, again)
	}
	return clearanceDiffers(w.clearance, again)
}

func clearanceDiffers(c *registrypb.Clearance, again *registrypb.RedecideResponse) string {
	switch {
	case again.Outcome == registrypb.Outcome_OUTCOME_UNSPECIFIED:
		return "it was itself a party, or of a party's sector"
	case again.Outcome != registrypb.Outcome_PERMIT:
		return "the registry said " + again.Outcome.String() + ", " + again.Reason.String()
	case len(again.SupplierQualities) == 0:
		return "the registry gave no route to " + c.GetSupplier()
	case again.Authorization != c.GetAuthorization():
		return "the registry permitted it under " + again.Authorization + " alone"
	case again.Mandate != c.GetMandate().GetId():
		return "the registry permitted it on another mandate, or on none"
	case !slices.Equal(again.Fields, c.GetFields()):
		return "the registry permitted other fields"
	case !slices.Equal(again.Withheld, c.GetWithheld()):
		return "the registry withheld other fields"
	case !slices.Equal(again.SupplierQualities, c.GetSupplierQualities()):
		return "the registry gave the route by other files of the supplier"
	}
	return ""
}

func refusalDiffers(d *registrypb.Decision, again *registrypb.RedecideResponse) string {
	switch {
	case d.Recused && !again.Recused:
		return "it stood aside, and was no party"
	case again.Recused && !d.Recused:
		return "it was itself a party, or of a party's sector"
	case again.Outcome != d.Outcome || again.Reason != d.Reason:
		return fmt.Sprintf("it said %s, %s, and the registry %s, %s", d.Outcome, d.Reason, again.Outcome, again.Reason)
	case again.Authorization != d.Authorization:
		return "it named " + d.Authorization + " where the registry had " + again.Authorization
	case !proto.Equal(again.Successor, d.Successor):
		return "it told another number than the one that replaced the subject's"
	case !slices.Equal(again.Withheld, d.Withheld):
		return "the registry withheld other fields"
	}
	return ""
}
