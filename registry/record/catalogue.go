package record

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// setDataset also takes a better text for a known dataset, but no other meaning:
// authorizations name its fields, so a field that goes needs a new version.
func (a *applier) setDataset(d *registrypb.Dataset) error {
	if err := valid(names.DatasetID(d.Id).Validate()); err != nil {
		return err
	}
	if err := checkText("title of "+d.Id, d.Title, 200); err != nil {
		return err
	}
	if _, ok := a.rules.Schemes[subject.Scheme(d.Scheme)]; !ok {
		return refuse("dataset %s: unknown identifier scheme", d.Id)
	}
	if err := checkList[names.Quality]("qualities of "+d.Id, d.Qualities, 0, maxList); err != nil {
		return err
	}
	fields, err := SchemaFields(d.Schema)
	if err != nil {
		return refuse("dataset %s: %v", d.Id, err)
	}
	was, err := a.view.Dataset(names.DatasetID(d.Id))
	if err != nil {
		return err
	}
	if was != nil {
		old, err := SchemaFields(was.Schema)
		if err != nil {
			return errors.Join(ErrCorrupt, err)
		}
		gone := slices.ContainsFunc(old, func(f names.FieldName) bool { return !slices.Contains(fields, f) })
		if gone || was.Scheme != d.Scheme {
			return refuse("dataset %s loses a field or changes its scheme: that is a new version", d.Id)
		}
	}
	return a.Set(key(tabDataset, d.Id), bytes.Clone(a.body))
}

// dataset gives a dataset that must exist, with its fields.
func (a *applier) dataset(id string) ([]names.FieldName, error) {
	if err := valid(names.DatasetID(id).Validate()); err != nil {
		return nil, err
	}
	d, err := a.view.Dataset(names.DatasetID(id))
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, refuse("there is no dataset %s", id)
	}
	fields, err := SchemaFields(d.Schema)
	if err != nil {
		return nil, errors.Join(ErrCorrupt, err)
	}
	return fields, nil
}

func (a *applier) setOffering(o *registrypb.Offering) error {
	if err := a.mayOffer(o.Institution); err != nil {
		return err
	}
	if _, err := a.dataset(o.Dataset); err != nil {
		return err
	}
	if err := checkList[names.Quality]("qualities of the offering", o.Qualities, 1, maxList); err != nil {
		return err
	}
	if err := checkPeriod(o.Period); err != nil {
		return refuse("offering: %v", err)
	}
	return a.Set(key(tabOffering, o.Dataset, o.Institution), bytes.Clone(a.body))
}

// mayOffer lets an institution speak for itself, and a managing body for its sector.
func (a *applier) mayOffer(inst string) error {
	if inst == a.author {
		return nil
	}
	ok, err := a.manages(a.author, inst)
	if err != nil || !ok {
		return orRefuse(err, "the offering is another institution's")
	}
	return a.reached(2, "a managing body's offering for its sector")
}

func checkPeriod(p *registrypb.Period) error {
	if p == nil {
		return refuse("no period")
	}
	return valid(Period(p).Validate())
}

// underLaw holds who writes which authorizations. The committee writes its own
// decisions. What a law grants needs none, and is written by the operators: they are
// several, sign together, gain nothing by it, and already vouch for other public facts,
// as admissions. The row says which law, everybody can read both, and the committee,
// which watches over legality, may revoke it. They never write in each other's name.
func (a *applier) underLaw(z *registrypb.Authorization) error {
	l := z.Law
	switch {
	case l == nil && a.author != Committee:
		return refuse("%s may write an authorization that rests on law, and this one cites none: the committee decides on it", a.author)
	case l == nil:
		return nil
	case a.author != Operators:
		return refuse("an authorization that rests on law is no decision of %s: operators write it", a.author)
	}
	if err := a.reached(2, "an authorization that rests on law"); err != nil {
		return err
	}
	return cmp.Or(checkText("title of the law", l.Title, 300), checkText("article of the law", l.Article, 200),
		checkText("where the law is published", l.Published, 200))
}

// setAuthorization writes a row that never changes again: what a clearance or a
// trace names by its id must mean the same for ever.
func (a *applier) setAuthorization(z *registrypb.Authorization) error {
	if err := a.underLaw(z); err != nil {
		return err
	}
	if err := valid(cmp.Or(names.AuthorizationID(z.Id).Validate(), names.Deliberation(z.Deliberation).Validate(),
		names.InstitutionType(z.RequesterType).Validate(), names.Purpose(z.Purpose).Validate())); err != nil {
		return err
	}
	if err := checkText("legal basis", z.LegalBasis, 500); err != nil && z.LegalBasis != "" {
		return err
	}
	if err := cmp.Or(
		checkList[names.Quality]("requester qualities", z.RequesterQualities, 1, maxList),
		checkList[names.FieldName]("fields", z.Fields, 1, maxFields),
		checkList[names.Mode]("modes", z.Modes, 1, maxList)); err != nil {
		return err
	}
	if err := checkPeriod(z.Period); err != nil {
		return refuse("authorization %s: %v", z.Id, err)
	}
	if z.Revoked {
		return refuse("revocation is a command of its own: revoke_authorization")
	}
	fields, err := a.dataset(z.Dataset)
	if err != nil {
		return err
	}
	for _, f := range z.Fields {
		if !slices.Contains(fields, names.FieldName(f)) {
			return refuse("dataset %s has no field %s", z.Dataset, f)
		}
	}
	known, err := a.Get(key(tabAuthorization, z.Id))
	if err != nil {
		return err
	}
	if known != nil {
		return refuse("authorization %s exists and never changes: revoke it, and grant another under a new id", z.Id)
	}
	return errors.Join(
		a.Set(key(tabAuthorization, z.Id), bytes.Clone(a.body)),
		a.Set(key(tabGrantIndex, z.RequesterType, z.Dataset, z.Purpose, z.Id), present))
}

func (a *applier) revokeAuthorization(id *registrypb.AuthorizationID) error {
	if err := valid(names.AuthorizationID(id.Id).Validate()); err != nil {
		return err
	}
	z, err := a.view.Authorization(names.AuthorizationID(id.Id))
	if err != nil {
		return err
	}
	switch {
	case z == nil:
		return refuse("there is no authorization %s", id.Id)
	case z.Revoked:
		return refuse("authorization %s is revoked already", id.Id)
	case a.author != Committee && z.Law == nil:
		return refuse("%s may not write that: authorization %s is the committee's decision", a.author, id.Id)
	}
	a.removes = true
	return a.Set(key(tabRevoked, id.Id), present)
}
