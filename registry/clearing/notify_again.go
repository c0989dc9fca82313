package clearing

import (
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// openTelling reads the clearance of a notification as a Ruling.
func openTelling(raw []byte) (*Ruling, error) {
	c := new(registrypb.NotificationClearance)
	opened, err := open(envelope.NotificationClearance, raw, c)
	return &Ruling{
		Clearer: record.NodeID(c.Clearer), Ticket: names.Ticket(c.Ticket), RegistryIndex: c.RegistryIndex,
		mesh: c.Mesh, requestHash: c.PublicationHash, at: time.UnixMilli(c.IssuedUnixMs), opened: opened, telling: c, published: true,
	}, err
}

// publishedAgain decides again on a publication, in the clearer's place and as of its index;
// of a clearance for its recipient alone, so that the reply tells nothing of others.
func (r *Redecider) publishedAgain(past record.View, p *registrypb.Publication, was *Ruling, resp *registrypb.RedecideResponse) error {
	if time.UnixMilli(p.TimeUnixMs).After(was.at.Add(r.cfg.Bounds.Skew)) {
		resp.Outcome, resp.Reason = registrypb.Outcome_DENY, registrypb.Reason_STALE_REQUEST
		return nil
	}
	c := NotificationCase{Publication: p, Cleared: was.decision.GetCleared(), Only: was.decision.GetOnly()}
	if was.telling != nil {
		c.Only = []string{Address(was.telling.Recipient, was.telling.Purpose)}
	}
	d, err := NewNotifier(past, was.Clearer.Institution, r.cfg.Rules.Schemes, was.at).Decide(c)
	if err != nil {
		return err
	}
	resp.Outcome, resp.Reason, resp.Recused = d.Outcome, d.Reason, d.Recused
	if was.telling == nil {
		resp.Told = len(d.Recipients) > 0
		return nil
	}
	for _, to := range d.Recipients { // at most one
		resp.Authorization, resp.Fields = to.Authorization.GetId(), to.Fields
		for _, q := range to.Qualities {
			resp.SupplierQualities = append(resp.SupplierQualities, string(q))
		}
		for _, q := range d.PublisherQualities {
			resp.PublisherQualities = append(resp.PublisherQualities, string(q))
		}
	}
	return nil
}

// notificationDiffers is Differs of a ruling on a publication.
func (w *Ruling) notificationDiffers(again *registrypb.RedecideResponse) string {
	c, d := w.telling, w.decision
	switch {
	case c == nil && again.Told:
		return "it said that nobody is to be told, and by the registry somebody was"
	case c == nil && d.Recused != again.Recused, c == nil && (d.Outcome != again.Outcome || d.Reason != again.Reason):
		return refusalDiffers(d, again)
	case c == nil:
		return ""
	case again.Recused && len(again.SupplierQualities) == 0:
		return "it was itself a party, or of a party's sector"
	case again.Outcome != registrypb.Outcome_PERMIT:
		return "the registry said " + again.Outcome.String() + ", " + again.Reason.String()
	case len(again.SupplierQualities) == 0:
		return fmt.Sprintf("by the registry %s was not to be told for %s", c.Recipient, c.Purpose)
	case again.Authorization != c.Authorization:
		return "the registry permitted it under " + again.Authorization + " alone"
	case !slices.Equal(again.Fields, c.Fields):
		return "the registry permitted other fields"
	case !slices.Equal(again.SupplierQualities, c.Qualities):
		return "the registry gave the route by other files of the recipient"
	case !slices.Equal(again.PublisherQualities, c.PublisherQualities):
		return "the registry gave the route by other files of the publisher"
	}
	return ""
}
