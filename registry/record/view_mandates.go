package record

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Mandate is a right that a person or an enterprise gave an institution: to ask for data
// about the giver, for a purpose, some datasets and a while.
type Mandate struct {
	ID       names.MandateID
	Giver    subject.ID // the number it was given under
	Holder   names.InstitutionID
	OnBehalf subject.ID // the enterprise for which the holder uses it; zero: for itself
	Purpose  names.Purpose
	Datasets []names.DatasetID
	Period   names.Period
	// Provider attests, with AuthLevel, that the giver gave it, at the time Given. Vouched
	// reports whether it still stands behind that.
	Provider  names.ProviderID
	AuthLevel uint32
	Given     time.Time
	Vouched   bool
	// Revoked: the giver, the holder or who registered it took it back. RevokedBy is the
	// institution that said so, ByGiver that it showed the giver's token.
	Revoked   bool
	RevokedBy names.InstitutionID
	ByGiver   bool
}

// InForce reports whether the mandate may be used on a day.
func (m *Mandate) InForce(day names.Date) bool {
	return m.Vouched && !m.Revoked && m.Period.Contains(day)
}

// Opens reports whether the mandate lets an institution ask for a dataset for a purpose.
func (m *Mandate) Opens(holder names.InstitutionID, purpose names.Purpose, d names.DatasetID) bool {
	return m.Holder == holder && m.Purpose == purpose && slices.Contains(m.Datasets, d)
}

// Use gives what a clearance says of the mandate.
func (m *Mandate) Use() *registrypb.MandateUse {
	u := &registrypb.MandateUse{Id: string(m.ID), Provider: string(m.Provider), AuthLevel: m.AuthLevel}
	if !m.OnBehalf.IsZero() {
		u.OnBehalf = &registrypb.Subject{Scheme: string(m.OnBehalf.Scheme()), Number: m.OnBehalf.Number()}
	}
	return u
}

// Mandate gives a mandate by its id, also one that was revoked; nil if this replica holds
// none. Only members hold all.
func (v View) Mandate(id names.MandateID) (*Mandate, error) {
	b, err := v.g.Get(key(tabMandateGiver, string(id)))
	if err != nil || b == nil {
		return nil, err
	}
	return v.mandate(b, string(id))
}

// MandatesOf gives the mandates of a giver, under all the numbers it had, revoked ones too:
// those under the number now in use first, and of one number in order of id.
func (v View) MandatesOf(giver subject.ID) (all []*Mandate, err error) {
	family, err := v.Family(giver)
	if err != nil {
		return nil, err
	}
	for _, id := range family {
		prefix := mandateKey(id, "")
		err := v.scan(prefix, func(k, _ []byte) error {
			m, err := v.mandate(id.Key(), string(k[len(prefix):]))
			all = append(all, m)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// MandatesRegistered gives those that an institution registered, MandatesHeld those that
// it may use, revoked ones too, in order of id. Of one held, only members know all.
func (v View) MandatesRegistered(inst names.InstitutionID) ([]*Mandate, error) {
	return v.mandates(key(tabMandateGiver, string(inst)+"/"), 1)
}

// MandatesHeld: see MandatesRegistered.
func (v View) MandatesHeld(inst names.InstitutionID) ([]*Mandate, error) {
	prefix := under(tabMandateHolder, string(inst))
	return v.mandates(prefix, len(prefix))
}

// mandates reads what an index names: ids begin at a place in its keys, and its values
// are givers' keys.
func (v View) mandates(prefix []byte, at int) (all []*Mandate, err error) {
	err = v.scan(prefix, func(k, giver []byte) error {
		m, err := v.mandate(giver, string(k[at:]))
		all = append(all, m)
		return err
	})
	return all, err
}

func (v View) mandate(giver []byte, id string) (*Mandate, error) {
	scheme, number, ok := bytes.Cut(giver, []byte{0})
	if !ok {
		return nil, fmt.Errorf("%w: giver of a mandate", ErrCorrupt)
	}
	filed := subject.Raw(subject.Scheme(scheme), string(number))
	row := new(registrypb.Mandate)
	if ok, err := v.message(mandateKey(filed, id), row); err != nil || !ok {
		if err == nil {
			err = fmt.Errorf("%w: index of mandates", ErrCorrupt)
		}
		return nil, err
	}
	t := new(registrypb.MandateTerms)
	token, opened, err := openToken(row.Token)
	if err != nil || proto.Unmarshal(row.Terms, t) != nil {
		return nil, fmt.Errorf("%w: mandate", ErrCorrupt)
	}
	m := &Mandate{
		ID: names.MandateID(t.Id), Giver: filed, Holder: names.InstitutionID(t.Holder), Purpose: names.Purpose(t.Purpose), Period: Period(t.Period),
		Provider: names.ProviderID(token.Provider), AuthLevel: token.AuthLevel, Given: time.UnixMilli(token.IssuedUnixMs).UTC(),
	}
	for _, d := range t.Datasets {
		m.Datasets = append(m.Datasets, names.DatasetID(d))
	}
	if t.OnBehalf != nil {
		m.OnBehalf = subject.Raw(subject.Scheme(t.OnBehalf.Scheme), t.OnBehalf.Number)
	}
	if m.Vouched, err = v.vouches(token, opened); err != nil {
		return nil, err
	}
	return m, v.revocations(m)
}

// revocations says whether one of those written for the mandate's id counts.
func (v View) revocations(m *Mandate) error {
	family, err := v.Family(m.Giver)
	if err != nil {
		return err
	}
	prefix := under(tabMandateEnd, string(m.ID))
	return v.scan(prefix, func(k, b []byte) error {
		r, t := new(registrypb.MandateRevocation), new(registrypb.RevocationTerms)
		if decodeRow(b, r) != nil || proto.Unmarshal(r.Terms, t) != nil {
			return fmt.Errorf("%w: revocation of a mandate", ErrCorrupt)
		}
		by := names.InstitutionID(k[len(prefix):])
		ofGiver := slices.Contains(family, subject.Raw(subject.Scheme(t.Giver.GetScheme()), t.Giver.GetNumber()))
		byGiver := len(r.Token) > 0
		if ofGiver && (byGiver || by == m.Holder || by == m.ID.Registrar()) {
			m.Revoked, m.RevokedBy, m.ByGiver = true, by, byGiver
			return ErrStop
		}
		return nil
	})
}
