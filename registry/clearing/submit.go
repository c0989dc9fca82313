package clearing

import (
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// submission decides on a declaration: the declarant must be authorized to make it and
// integrated, and it goes to the authentic sources, which offer the dataset; they need
// have no file yet, since the declaration may be why they come to have one.
func (n *Notifier) submission(c NotificationCase, id subject.ID, declarant, self *registrypb.Institution) (Notification, error) {
	p := c.Publication
	no := func(r registrypb.Reason) (Notification, error) {
		return Notification{Outcome: registrypb.Outcome_DENY, Reason: r}, nil
	}
	dataset, err := n.v.Dataset(names.DatasetID(p.Dataset))
	if err != nil {
		return Notification{}, err
	}
	rows, err := n.v.AuthorizationsFor(names.InstitutionType(declarant.Type), names.DatasetID(p.Dataset), names.Purpose(p.Purpose))
	if err != nil {
		return Notification{}, err
	}
	rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool { return !maySubmit(z) || !holdsOn(z.Period, p, n.at) })
	if len(rows) == 0 {
		return no(registrypb.Reason_NOT_ALLOWED)
	}
	if dataset.GetScheme() != string(id.Scheme()) {
		return no(registrypb.Reason_MALFORMED_NUMBER)
	}
	family, err := n.v.Family(id)
	if err != nil {
		return Notification{}, err
	}
	refs, err := n.v.References(family[0])
	if err != nil {
		return Notification{}, err
	}
	rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool {
		return !integrated(refs, names.InstitutionID(declarant.Id), z.RequesterQualities, record.Period(p.Period))
	})
	if len(rows) == 0 {
		return no(registrypb.Reason_NOT_INTEGRATED)
	}
	rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool { return !subset(p.Fields, z.Fields) })
	if len(rows) == 0 {
		return no(registrypb.Reason_NO_PERMITTED_FIELD)
	}
	z := rows[0]
	if p.AuthLevel < z.MinAuthLevel {
		return no(registrypb.Reason_AUTH_LEVEL_TOO_LOW)
	}
	d := Notification{Outcome: registrypb.Outcome_PERMIT, Family: family,
		PublisherQualities: qualitiesOf(refs, names.InstitutionID(declarant.Id), z.RequesterQualities, record.Period(p.Period), record.Period(p.Period))}
	offerings, err := n.v.OfferingsOf(names.DatasetID(p.Dataset))
	if err != nil {
		return Notification{}, err
	}
	for _, o := range offerings {
		source, err := n.v.Institution(names.InstitutionID(o.Institution))
		if err != nil {
			return Notification{}, err
		}
		r := Recipient{Institution: names.InstitutionID(o.Institution), Authorization: z, Fields: p.Fields}
		for _, q := range o.Qualities {
			r.Qualities = append(r.Qualities, names.Quality(q))
		}
		switch {
		case o.Withdrawn, source == nil, source.Suspended, o.Institution == declarant.Id, !record.Period(o.Period).Overlaps(record.Period(p.Period)),
			slices.Contains(c.Cleared, r.Address()), len(c.Only) > 0 && !slices.Contains(c.Only, r.Address()):
		case party(self, source), len(d.Recipients) == MaxRecipients:
			d.Recused = true
		default:
			for _, number := range family {
				r.know(number, p)
			}
			d.Recipients = append(d.Recipients, r)
		}
	}
	return d, nil
}

// maySubmit reports whether an authorization can give a right to declare.
func maySubmit(z *registrypb.Authorization) bool {
	return !z.Revoked && slices.Contains(z.Modes, string(names.Submission)) && !z.MandateRequired && !z.SecondClearingPeer
}

// submissionStands is what stands behind a declaration, beside its parties.
func (d *Desk) submissionStands(t *Told, declarant *registrypb.Institution) *Refusal {
	c, p := t.Clearance, t.Publication
	z, err := d.v.Authorization(t.authorizedBy)
	if err != nil {
		return unsure(err)
	}
	if z == nil || z.Dataset != c.Dataset || z.Purpose != c.Purpose || z.RequesterType != declarant.Type || p.AuthLevel < z.MinAuthLevel {
		return invalid("authorization %s is for something else", c.Authorization)
	}
	if !maySubmit(z) || !holdsOn(z.Period, p, t.issued) || !subset(c.PublisherQualities, z.RequesterQualities) {
		return refuse(registrypb.Reason_REVOKED, "authorization %s gives no right to declare this, or no longer", c.Authorization)
	}
	if !slices.Equal(c.Fields, p.Fields) || !subset(p.Fields, z.Fields) {
		return invalid("authorization %s permits other fields", c.Authorization)
	}
	o, err := d.v.Offering(names.DatasetID(c.Dataset), t.Recipient)
	if err != nil {
		return unsure(err)
	}
	if o == nil || o.Withdrawn || !record.Period(o.Period).Overlaps(record.Period(c.Period)) || !subset(c.Qualities, o.Qualities) {
		return refuse(registrypb.Reason_REVOKED, "%s is no authentic source of %s for this period", t.Recipient, c.Dataset)
	}
	return nil
}
