package clearing

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Told is the clearance of one notification that stood when it was checked.
type Told struct {
	Ticket          names.Ticket
	Publisher       names.NodeID
	Recipient       names.InstitutionID
	Clearer         names.NodeID
	Publication     *registrypb.Publication // not to be changed, nor is Clearance
	PublicationHash []byte
	Clearance       *registrypb.NotificationClearance
	Hash            []byte // SHA-256 of the clearance's envelope
	Subject         subject.ID
	Current         subject.ID   // the number now in use; Subject if that is it
	KnownAs         []subject.ID // other numbers of it
	Deliberation    names.Deliberation
	// PresentBy and ReleaseBy are the last moments, on the own clock, at which it may
	// arrive and be stored.
	PresentBy, ReleaseBy time.Time

	issued       time.Time
	publication  *envelope.Opened
	clearance    *envelope.Opened
	grant        *lease.Signed
	authorizedBy names.AuthorizationID
}

// Address is that of the recipient.
func (t *Told) Address() string { return Address(string(t.Recipient), t.Clearance.GetPurpose()) }

// Desk checks the clearances of notifications that come together: all in one view, which
// must be one to rely on, and at one moment. What is public and common to them is looked
// up once. It is used by one goroutine.
type Desk struct {
	checker *Checker
	v       record.View
	now     time.Time
	bounds  genesis.Bounds
	mesh    names.MeshID

	own      names.InstitutionID // whose publications this node signed itself
	keys     map[names.KeyID]*registrypb.Key
	verdicts map[string]verdict       // by all that they depend on
	key      []byte                   // of the verdict in hand
	grants   map[string]*lease.Signed // that stand; by their bytes
	last     struct {                 // the publication read last: one goes to many
		raw    []byte
		p      *registrypb.Publication
		opened *envelope.Opened
		hash   []byte
	}
}

// verdict is what came of the standing of a notification's parties and rights.
type verdict struct {
	refusal      *Refusal
	deliberation names.Deliberation
}

// Desk begins to check in one view.
func (m *Checker) Desk(v record.View, now time.Time, b genesis.Bounds, mesh names.MeshID) *Desk {
	return &Desk{checker: m, v: v, now: now, bounds: b, mesh: mesh, keys: map[names.KeyID]*registrypb.Key{}, verdicts: map[string]verdict{}, grants: map[string]*lease.Signed{}}
}

// Own says that the publications checked are this node's, as it kept them: that it signed
// them it knows, and only whether the key that they name is still in force is looked up.
func (d *Desk) Own(self names.NodeID) *Desk {
	d.own = self.Institution
	return d
}

// Check is everything that publisher and recipient can verify of a clearance: that a
// member which is no party signed it, in time and within its grant, for this very
// publication, which the publisher signed, to this recipient; and that all it rests on
// still stands, the recipient's subscription included. An empty recipient is whichever
// the clearance names, for a publisher that learns only from it who is to be told.
//
// Not checked here, because it is not public: the references of either side, and whether
// the recipient was told before.
func (d *Desk) Check(publisher names.NodeID, recipient names.InstitutionID, publication, clearance []byte) (*Told, *Refusal) {
	p, signed, hash, err := d.open(publication)
	if err != nil {
		return nil, invalid("malformed publication")
	}
	c := new(registrypb.NotificationClearance)
	opened, err := open(envelope.NotificationClearance, clearance, c)
	if err != nil || record.NodeID(c.Clearer).Validate() != nil || names.AuthorizationID(c.Authorization).Validate() != nil || names.Purpose(c.Purpose).Validate() != nil {
		return nil, invalid("malformed clearance")
	}
	if recipient == "" && names.InstitutionID(c.Recipient).Validate() == nil {
		recipient = names.InstitutionID(c.Recipient)
	}
	t := &Told{
		Ticket: names.TicketOf(publication), Publisher: publisher, Recipient: recipient, Clearer: record.NodeID(c.Clearer),
		Publication: p, PublicationHash: hash, Clearance: c, Hash: sum(clearance),
		Subject: subject.Raw(subject.Scheme(p.Subject.Scheme), p.Subject.Number), issued: time.UnixMilli(c.IssuedUnixMs),
		publication: signed, clearance: opened, authorizedBy: names.AuthorizationID(c.Authorization),
	}
	t.Current = t.Subject
	if c.Current != nil {
		t.Current = subject.Raw(subject.Scheme(c.Current.Scheme), c.Current.Number)
	}
	for _, s := range c.KnownAs {
		t.KnownAs = append(t.KnownAs, subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber()))
	}
	if r := t.bound(d.mesh); r != nil {
		return nil, r
	}
	if t.grant = d.grants[string(c.Grant)]; t.grant == nil {
		if t.grant, err = d.checker.grant(d.mesh, c.Grant, trust(d.v)); err != nil {
			return nil, invalid("it shows no grant by a registry member")
		}
		d.grants[string(c.Grant)] = t.grant
	}
	if r := t.inTime(d.now, d.bounds); r != nil {
		return nil, r
	}
	return t, d.Stands(t)
}

func (d *Desk) open(raw []byte) (*registrypb.Publication, *envelope.Opened, []byte, error) {
	l := &d.last
	if l.p != nil && bytes.Equal(l.raw, raw) {
		return l.p, l.opened, l.hash, nil
	}
	p, opened, err := OpenPublication(d.mesh, raw)
	if err != nil {
		return nil, nil, nil, err
	}
	l.raw, l.p, l.opened, l.hash = raw, p, opened, sum(raw)
	return p, opened, l.hash, nil
}

// bound insists that the clearance says of everything what the publication says.
func (t *Told) bound(mesh names.MeshID) *Refusal {
	c, p := t.Clearance, t.Publication
	for _, f := range []struct {
		what string
		same bool
	}{
		{"mesh", c.Mesh == string(mesh)},
		{"id", len(c.Id) == nonceSize},
		{"publication", bytes.Equal(c.PublicationHash, t.PublicationHash)},
		{"ticket", c.Ticket == string(t.Ticket)},
		{"publisher", record.NodeID(c.Publisher) == t.Publisher && record.NodeID(p.Publisher) == t.Publisher},
		{"recipient", c.Recipient == string(t.Recipient) && t.Recipient != t.Publisher.Institution},
		{"subject", proto.Equal(c.Subject, p.Subject)},
		{"dataset", c.Dataset == p.Dataset},
		{"period", proto.Equal(c.Period, p.Period)},
		{"mode", c.Mode == p.Mode && (p.Mode == "" || c.Purpose == p.Purpose)},
	} {
		if !f.same {
			return invalid("it is for another %s", f.what)
		}
	}
	if len(c.KnownAs) > maxFiledUnder {
		return invalid("it names %d numbers of one subject, at most %d are read", len(c.KnownAs), maxFiledUnder)
	}
	for _, id := range append([]*registrypb.Subject{c.Current}, c.KnownAs...) {
		if id != nil && (id.GetScheme() != p.Subject.Scheme || len(id.GetNumber()) > maxNumber) {
			return invalid("it names numbers of another scheme")
		}
	}
	if len(c.Fields) == 0 || len(c.Qualities) == 0 || len(c.PublisherQualities) == 0 || len(c.Fields) > len(p.Fields) {
		return invalid("it names no field, or no file of one side")
	}
	return nil
}

// inTime judges all times by the own clock, as Checked.inTime does.
func (t *Told) inTime(now time.Time, b genesis.Bounds) *Refusal {
	c, g := t.Clearance, t.grant.Grant
	granted := time.UnixMilli(g.LeaderTimeUnixMs)
	presentBy, releaseBy := time.UnixMilli(c.PresentByUnixMs), time.UnixMilli(c.ReleaseByUnixMs)
	bound := granted.Add(b.Lease + b.ReleaseLife + b.Skew)
	switch {
	case record.NodeID(g.Holder) != t.Clearer:
		return invalid("its grant is another's")
	case g.CommitIndex > c.RegistryIndex:
		return invalid("it was decided at index %d, before that of its grant, %d", c.RegistryIndex, g.CommitIndex)
	case presentBy.Before(t.issued) || presentBy.After(t.issued.Add(b.PresentLife)),
		releaseBy.Before(presentBy) || releaseBy.After(t.issued.Add(b.ReleaseLife)):
		return invalid("it gives itself longer than the bounds of the mesh")
	case t.issued.After(now.Add(b.Skew)) || granted.After(now.Add(b.Skew)):
		return invalid("it comes from the future: compare the clocks of %s, %s and this node", t.Clearer, record.NodeID(g.Leader))
	case t.issued.Before(granted.Add(-b.Skew)) || t.issued.After(granted.Add(b.Lease+b.Skew)):
		return invalid("it was not issued within its grant")
	case time.UnixMilli(t.Publication.TimeUnixMs).After(t.issued.Add(b.Skew)):
		return invalid("the publication was from the future when it was cleared")
	}
	t.PresentBy, t.ReleaseBy = earlier(presentBy.Add(b.Skew), bound), earlier(releaseBy.Add(b.Skew), bound)
	if now.After(t.PresentBy) {
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "it had to be presented by %s", presentBy)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Stands looks everything up that may fall away. It is for the moment just before
// content leaves, and before it is stored, too.
func (d *Desk) Stands(t *Told) *Refusal {
	if d.now.After(t.ReleaseBy) {
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "content had to be there by %s", t.ReleaseBy)
	}
	for _, s := range []struct {
		what   string
		by     names.InstitutionID
		opened *envelope.Opened
	}{{"clearance", t.Clearer.Institution, t.clearance}, {"publication", t.Publisher.Institution, t.publication}} {
		signed := d.Signed
		if s.opened == t.publication && s.by == d.own {
			signed = d.namesKey
		}
		ok, err := signed(s.opened, s.by)
		if err != nil {
			return unsure(err)
		}
		if !ok {
			return invalid("no key in force of %s signed the %s", s.by, s.what)
		}
	}
	d.key = t.appendVerdictKey(d.key[:0])
	s, known := d.verdicts[string(d.key)]
	if !known {
		s.refusal = d.rightsStand(t)
		if z, err := d.v.Authorization(t.authorizedBy); err == nil && z != nil {
			s.deliberation = names.Deliberation(z.Deliberation)
		}
		d.verdicts[string(d.key)] = s
	}
	t.Deliberation = s.deliberation
	return s.refusal
}

// appendVerdictKey appends all that the standing of parties and rights depends on, beside
// what the messages say of their own times; everything with its length, for who sends it is
// not to be trusted to send names.
func (t *Told) appendVerdictKey(b []byte) []byte {
	c, p, leader := t.Clearance, t.Publication, t.grant.Grant.GetLeader()
	text := func(s string) { b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) }
	for _, s := range [...]string{
		string(t.Publisher.Institution), string(t.Publisher.Node), string(t.Clearer.Institution), string(t.Clearer.Node), leader.GetInstitution(), leader.GetNode(),
		c.Recipient, c.Dataset, c.Purpose, c.Mode, c.Authorization,
	} {
		text(s)
	}
	for _, n := range [...]int32{int32(dayOf(p.TimeUnixMs)), int32(dayOf(c.IssuedUnixMs)), c.Period.GetFrom(), c.Period.GetUntil()} {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	for _, list := range [...][]string{c.Fields, p.Fields, c.Qualities, c.PublisherQualities} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
		for _, s := range list {
			text(s)
		}
	}
	return b
}

func dayOf(unixMs int64) names.Date { return names.DateOf(time.UnixMilli(unixMs).UTC()) }

// Signed reports whether a key of the institution that is not retired signed; roots of
// groups that verified are remembered.
func (d *Desk) Signed(o *envelope.Opened, by names.InstitutionID) (bool, error) {
	return d.anyKey(o, by, func(k *registrypb.Key) bool { return d.checker.verifier.VerifiedBy(o, k.PublicKey) })
}

// namesKey reports whether it names a key of the institution that is not retired.
func (d *Desk) namesKey(o *envelope.Opened, by names.InstitutionID) (bool, error) {
	return d.anyKey(o, by, func(*registrypb.Key) bool { return true })
}

func (d *Desk) anyKey(o *envelope.Opened, by names.InstitutionID, is func(*registrypb.Key) bool) (bool, error) {
	for _, id := range o.KeyIDs() {
		k, ok := d.keys[id]
		if !ok {
			var err error
			if k, err = d.v.Key(id); err != nil {
				return false, err
			}
			d.keys[id] = k
		}
		if k != nil && !k.Retired && k.Institution == string(by) && is(k) {
			return true, nil
		}
	}
	return false, nil
}

// rightsStand is what many notifications have in common.
func (d *Desk) rightsStand(t *Told) *Refusal {
	c, p := t.Clearance, t.Publication
	member, err := d.v.IsMember(t.Clearer)
	if err != nil {
		return unsure(err)
	}
	if !member {
		return invalid("%s is no registry member in good standing", t.Clearer)
	}
	if err := t.grant.Check(trust(d.v)); err != nil {
		return invalid("its grant is no longer by a registry member")
	}
	parties := make([]*registrypb.Institution, 3)
	for i, id := range []names.InstitutionID{t.Clearer.Institution, t.Publisher.Institution, t.Recipient} {
		if parties[i], err = d.v.Institution(id); err != nil {
			return unsure(err)
		}
		if parties[i] == nil {
			return invalid("%s is not admitted", id)
		}
	}
	clearer, publisher, recipient := parties[0], parties[1], parties[2]
	if party(clearer, publisher) || party(clearer, recipient) {
		return invalid("%s is a party, or of the sector of one", t.Clearer.Institution)
	}
	stands, err := d.v.NodeStands(t.Publisher)
	if err != nil {
		return unsure(err)
	}
	if !stands || recipient.Suspended {
		return refuse(registrypb.Reason_REVOKED, "publisher or recipient is suspended, or the publisher's node removed")
	}
	if c.Mode == string(names.Submission) {
		return d.submissionStands(t, publisher)
	}
	o, err := d.v.Offering(names.DatasetID(c.Dataset), t.Publisher.Institution)
	if err != nil {
		return unsure(err)
	}
	if o == nil || o.Withdrawn || !record.Period(o.Period).Overlaps(record.Period(c.Period)) || !subset(c.PublisherQualities, o.Qualities) {
		return refuse(registrypb.Reason_REVOKED, "%s does not offer %s for this period and its files", t.Publisher.Institution, c.Dataset)
	}
	z, err := d.v.Authorization(t.authorizedBy)
	if err != nil {
		return unsure(err)
	}
	if z == nil || z.Dataset != c.Dataset || z.Purpose != c.Purpose || z.RequesterType != recipient.Type {
		return invalid("authorization %s is for something else", c.Authorization)
	}
	if !mayBeTold(z) || !holdsOn(z.Period, p, t.issued) || !subset(c.Qualities, z.RequesterQualities) {
		return refuse(registrypb.Reason_REVOKED, "authorization %s gives no right to this, or no longer", c.Authorization)
	}
	s, err := d.v.Subscription(names.DatasetID(c.Dataset), t.Recipient, names.Purpose(c.Purpose))
	if err != nil {
		return unsure(err)
	}
	if s == nil || !subscribed(s, p, t.issued) || !subset(c.Qualities, s.Qualities) {
		return refuse(registrypb.Reason_REVOKED, "%s is not subscribed to this, or no longer", t.Recipient)
	}
	if !slices.Equal(c.Fields, toldOf(p, z, s)) {
		return invalid("authorization %s and the subscription give other fields", c.Authorization)
	}
	return nil
}

func subset(part, whole []string) bool {
	return !slices.ContainsFunc(part, func(s string) bool { return !slices.Contains(whole, s) })
}

// GenuineNotification reports whether the publisher signed the publication and a
// registry member the clearance, by keys in force: then both are worth keeping as
// evidence, even if they are refused.
func GenuineNotification(v record.View, mesh names.MeshID, publisher names.NodeID, publication, clearance []byte) bool {
	p, signed, err := OpenPublication(mesh, publication)
	if err != nil || record.NodeID(p.Publisher).Institution != publisher.Institution {
		return false
	}
	c := new(registrypb.NotificationClearance)
	opened, err := open(envelope.NotificationClearance, clearance, c)
	clearer := record.NodeID(c.GetClearer())
	if err != nil || clearer.Validate() != nil {
		return false
	}
	if member, err := v.IsMember(clearer); err != nil || !member {
		return false
	}
	if ok, err := signedBy(v, nil, signed, publisher.Institution); err != nil || !ok {
		return false
	}
	ok, err := signedBy(v, nil, opened, clearer.Institution)
	return err == nil && ok
}
