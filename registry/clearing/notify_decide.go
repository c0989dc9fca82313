package clearing

import (
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// NotificationCase is a publication to be decided on, whose form and signature were
// checked.
type NotificationCase struct {
	Publication *registrypb.Publication
	Cleared     []string // addresses that other peers have cleared
	Only        []string // if any: no other address
}

// Notification is who is to be told of a change.
type Notification struct {
	// Outcome is unspecified when Recused says that this peer may not decide. PERMIT
	// without recipients: nobody is to be told.
	Outcome registrypb.Outcome
	Reason  registrypb.Reason
	// Recused: the peer is a party to all of this, or left recipients out because it is a
	// party to them or they are too many; another must be asked.
	Recused bool
	// Family are all numbers of the subject, the one now in use first. It is empty as
	// long as nothing may be told that depends on the subject.
	Family             []subject.ID
	PublisherQualities []names.Quality // of the publisher's files
	Recipients         []Recipient     // in order of address
}

// Recipient is an institution that is subscribed, authorized and integrated.
type Recipient struct {
	Institution   names.InstitutionID
	Authorization *registrypb.Authorization
	Fields        []string // of the publication's, in their order
	Qualities     []names.Quality
	KnownAs       []subject.ID // other numbers of the subject, those of its files first
}

// Address names a recipient with the purpose of its subscription: an institution that
// subscribes for two is told for each.
func (r Recipient) Address() string {
	return Address(string(r.Institution), r.Authorization.GetPurpose())
}

// Address joins both.
func Address(institution, purpose string) string { return institution + "/" + purpose }

// MaxRecipients is how many are cleared in one reply; more are left to another peer.
const MaxRecipients = 64

// Notifier decides on publications, all in one view and at one moment: what is public
// is read once for each dataset. It is used by one goroutine.
type Notifier struct {
	v        record.View
	self     names.InstitutionID
	schemes  subject.Schemes
	at       time.Time
	sources  map[names.NodeID]*source
	datasets map[string]*audience
}

// source is what a Notifier knows of a node that publishes.
type source struct {
	stands            bool
	institution, self *registrypb.Institution // of the node, and the Notifier's own
	offerings         map[string]*registrypb.Offering
}

// audience is what a Notifier knows of a dataset.
type audience struct {
	scheme     string
	candidates []candidate
}

// candidate is a subscription in force, with the rows that may give it a right.
type candidate struct {
	subscription *registrypb.Subscription
	rows         []*registrypb.Authorization
	institution  *registrypb.Institution
}

// NewNotifier makes a Notifier for a clearing peer of an institution.
func NewNotifier(v record.View, self names.InstitutionID, schemes subject.Schemes, at time.Time) *Notifier {
	return &Notifier{v: v, self: self, schemes: schemes, at: at, sources: map[names.NodeID]*source{}, datasets: map[string]*audience{}}
}

// Decide says who is to be told. The steps are those of the preventive check, with the
// parts changed: the publisher must be integrated before anything is told of the
// subject, and everybody else who is, and has subscribed, is where it goes. The error is
// that of the view.
func (n *Notifier) Decide(c NotificationCase) (Notification, error) {
	p := c.Publication
	from := record.NodeID(p.Publisher)
	no := func(r registrypb.Reason) (Notification, error) {
		return Notification{Outcome: registrypb.Outcome_DENY, Reason: r}, nil
	}

	// The publisher is admitted, and this peer no party.
	src, err := n.source(from)
	if err != nil {
		return Notification{}, err
	}
	if !src.stands {
		return no(registrypb.Reason_REQUESTER_NOT_ADMITTED)
	}
	publisher, self := src.institution, src.self
	if self == nil || party(self, publisher) {
		return Notification{Recused: true}, nil
	}

	// The number is well formed, and the publisher offers the dataset.
	id, err := n.schemes.Parse(subject.Scheme(p.Subject.GetScheme()), p.Subject.GetNumber())
	if err != nil || id.Number() != p.Subject.GetNumber() {
		return no(registrypb.Reason_MALFORMED_NUMBER)
	}
	if p.Mode == string(names.Submission) {
		return n.submission(c, id, publisher, self)
	}
	offering, known := src.offerings[p.Dataset]
	if !known {
		if offering, err = n.v.Offering(names.DatasetID(p.Dataset), from.Institution); err != nil {
			return Notification{}, err
		}
		src.offerings[p.Dataset] = offering
	}
	if offering == nil || offering.Withdrawn || !record.Period(offering.Period).Overlaps(record.Period(p.Period)) {
		return no(registrypb.Reason_NOT_ALLOWED)
	}
	told, err := n.audience(p)
	if err != nil {
		return Notification{}, err
	}
	if told.scheme != string(id.Scheme()) {
		return no(registrypb.Reason_MALFORMED_NUMBER)
	}

	// The publisher is integrated.
	family, err := n.v.Family(id)
	if err != nil {
		return Notification{}, err
	}
	refs, err := n.v.References(family[0])
	if err != nil {
		return Notification{}, err
	}
	own := qualitiesOf(refs, from.Institution, offering.Qualities, record.Period(offering.Period), record.Period(p.Period))
	if len(own) == 0 {
		return no(registrypb.Reason_NOT_INTEGRATED)
	}

	d := Notification{Outcome: registrypb.Outcome_PERMIT, Family: family, PublisherQualities: own}
	for _, k := range told.candidates {
		r, ok := k.recipient(p, n.at, refs)
		address := Address(k.subscription.Institution, k.subscription.Purpose)
		switch {
		case !ok, r.Institution == from.Institution, slices.Contains(c.Cleared, address), len(c.Only) > 0 && !slices.Contains(c.Only, address):
		case party(self, k.institution), len(d.Recipients) == MaxRecipients:
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

// source reads who publishes.
func (n *Notifier) source(from names.NodeID) (*source, error) {
	if s := n.sources[from]; s != nil {
		return s, nil
	}
	s := &source{offerings: map[string]*registrypb.Offering{}}
	var err error
	if s.stands, err = n.v.NodeStands(from); err != nil {
		return nil, err
	}
	if s.institution, err = n.v.Institution(from.Institution); err != nil {
		return nil, err
	}
	if s.self, err = n.v.Institution(n.self); err != nil {
		return nil, err
	}
	n.sources[from] = s
	return s, nil
}

// audience reads who subscribed to a publication's dataset and may have a right to it.
func (n *Notifier) audience(p *registrypb.Publication) (*audience, error) {
	if a := n.datasets[p.Dataset]; a != nil {
		return a, nil
	}
	dataset, err := n.v.Dataset(names.DatasetID(p.Dataset))
	if err != nil {
		return nil, err
	}
	a := &audience{scheme: dataset.GetScheme()}
	subscriptions, err := n.v.SubscriptionsTo(names.DatasetID(p.Dataset))
	if err != nil {
		return nil, err
	}
	for _, s := range subscriptions {
		inst, err := n.v.Institution(names.InstitutionID(s.Institution))
		if err != nil {
			return nil, err
		}
		if s.Withdrawn || inst == nil || inst.Suspended {
			continue
		}
		rows, err := n.v.AuthorizationsFor(names.InstitutionType(inst.Type), names.DatasetID(s.Dataset), names.Purpose(s.Purpose))
		if err != nil {
			return nil, err
		}
		if rows = slices.DeleteFunc(rows, func(z *registrypb.Authorization) bool { return !mayBeTold(z) }); len(rows) > 0 {
			a.candidates = append(a.candidates, candidate{s, rows, inst})
		}
	}
	n.datasets[p.Dataset] = a
	return a, nil
}

// mayBeTold reports whether an authorization can give a right to be told of changes:
// there is no user then who could be authenticated, and nobody shows a mandate.
func mayBeTold(z *registrypb.Authorization) bool {
	return !z.Revoked && slices.Contains(z.Modes, string(names.Notification)) && z.MinAuthLevel == 0 && !z.MandateRequired && !z.SecondClearingPeer
}

// recipient gives what a candidate is told of a change, under the row that permits most
// of it; among equals the first.
func (k candidate) recipient(p *registrypb.Publication, at time.Time, refs []record.Reference) (best Recipient, ok bool) {
	if !subscribed(k.subscription, p, at) {
		return best, false
	}
	for _, z := range k.rows {
		if !holdsOn(z.Period, p, at) {
			continue
		}
		r := Recipient{Institution: names.InstitutionID(k.subscription.Institution), Authorization: z, Fields: toldOf(p, z, k.subscription)}
		if len(r.Fields) <= len(best.Fields) {
			continue
		}
		for _, ref := range refs {
			if ref.Institution != r.Institution || !ref.Period.Overlaps(record.Period(p.Period)) ||
				!slices.Contains(k.subscription.Qualities, string(ref.Quality)) || !slices.Contains(z.RequesterQualities, string(ref.Quality)) {
				continue
			}
			if !slices.Contains(r.Qualities, ref.Quality) {
				r.Qualities = append(r.Qualities, ref.Quality)
			}
			r.know(ref.Filed, p)
		}
		if len(r.Qualities) > 0 {
			best, ok = r, true
		}
	}
	return best, ok
}

// know adds a number, unless it is the one published.
func (r *Recipient) know(id subject.ID, p *registrypb.Publication) {
	if id.Number() != p.Subject.Number && !slices.Contains(r.KnownAs, id) && len(r.KnownAs) < maxFiledUnder {
		r.KnownAs = append(r.KnownAs, id)
	}
}

// subscribed reports whether a subscription stands for a publication.
func subscribed(s *registrypb.Subscription, p *registrypb.Publication, at time.Time) bool {
	return !s.Withdrawn && holdsOn(s.Period, p, at)
}

// holdsOn reports whether a period holds both the day of publication and that of the
// decision: the former is only what the publisher says.
func holdsOn(period *registrypb.Period, p *registrypb.Publication, at time.Time) bool {
	in := record.Period(period)
	return in.Contains(names.DateOf(time.UnixMilli(p.TimeUnixMs).UTC())) && in.Contains(names.DateOf(at.UTC()))
}

// toldOf gives the fields of a change that a subscriber is told under a row.
func toldOf(p *registrypb.Publication, z *registrypb.Authorization, s *registrypb.Subscription) (fields []string) {
	for _, f := range p.Fields {
		if slices.Contains(z.Fields, f) && (len(s.Fields) == 0 || slices.Contains(s.Fields, f)) {
			fields = append(fields, f)
		}
	}
	return fields
}

// qualitiesOf gives the qualities, among those listed, of an institution's files that
// share a day with both periods.
func qualitiesOf(refs []record.Reference, inst names.InstitutionID, among []string, offered, asked names.Period) (all []names.Quality) {
	for _, r := range refs {
		if r.Institution == inst && slices.Contains(among, string(r.Quality)) && !slices.Contains(all, r.Quality) &&
			max(offered.From, r.Period.From, asked.From) <= min(offered.Until, r.Period.Until, asked.Until) {
			all = append(all, r.Quality)
		}
	}
	return all
}
