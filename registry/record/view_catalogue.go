package record

import (
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Dataset gives a dataset.
func (v View) Dataset(id names.DatasetID) (*registrypb.Dataset, error) {
	if v.memo == nil {
		return v.dataset(id)
	}
	return remember(v.memo, v.memo.datasets, id, func() (*registrypb.Dataset, error) { return v.dataset(id) })
}

func (v View) dataset(id names.DatasetID) (*registrypb.Dataset, error) {
	d := new(registrypb.Dataset)
	ok, err := v.message(key(tabDataset, string(id)), d)
	if err != nil || !ok {
		return nil, err
	}
	return d, nil
}

// Datasets calls fn with every dataset, in order of id.
func (v View) Datasets(fn func(*registrypb.Dataset) error) error {
	return v.scan([]byte{tabDataset}, func(_, b []byte) error {
		d := new(registrypb.Dataset)
		if err := decodeRow(b, d); err != nil {
			return err
		}
		return fn(d)
	})
}

// Offering gives what an institution says of a dataset, also when withdrawn.
func (v View) Offering(dataset names.DatasetID, inst names.InstitutionID) (*registrypb.Offering, error) {
	if v.memo == nil {
		return v.offering(dataset, inst)
	}
	return remember(v.memo, v.memo.offering, offeringOf{dataset, inst}, func() (*registrypb.Offering, error) { return v.offering(dataset, inst) })
}

func (v View) offering(dataset names.DatasetID, inst names.InstitutionID) (*registrypb.Offering, error) {
	o := new(registrypb.Offering)
	ok, err := v.message(key(tabOffering, string(dataset), string(inst)), o)
	if err != nil || !ok {
		return nil, err
	}
	return o, nil
}

// Offerings calls fn with every offering, withdrawn ones too, in order of dataset
// and institution.
func (v View) Offerings(fn func(*registrypb.Offering) error) error {
	return v.offerings([]byte{tabOffering}, fn)
}

// OfferingsOf gives the offerings of one dataset, withdrawn ones too, in order of
// institution.
func (v View) OfferingsOf(dataset names.DatasetID) ([]*registrypb.Offering, error) {
	if v.memo == nil {
		return v.offeringsOf(dataset)
	}
	return rememberAll(v.memo, v.memo.offerings, dataset, func() ([]*registrypb.Offering, error) { return v.offeringsOf(dataset) })
}

func (v View) offeringsOf(dataset names.DatasetID) (offerings []*registrypb.Offering, err error) {
	err = v.offerings(under(tabOffering, string(dataset)), func(o *registrypb.Offering) error {
		offerings = append(offerings, o)
		return nil
	})
	return offerings, err
}

func (v View) offerings(prefix []byte, fn func(*registrypb.Offering) error) error {
	return v.scan(prefix, func(_, b []byte) error {
		o := new(registrypb.Offering)
		if err := decodeRow(b, o); err != nil {
			return err
		}
		return fn(o)
	})
}

// Authorization gives an authorization; Revoked is as it now stands.
func (v View) Authorization(id names.AuthorizationID) (*registrypb.Authorization, error) {
	if v.memo == nil {
		return v.authorization(id)
	}
	return remember(v.memo, v.memo.authorization, id, func() (*registrypb.Authorization, error) { return v.authorization(id) })
}

func (v View) authorization(id names.AuthorizationID) (*registrypb.Authorization, error) {
	z := new(registrypb.Authorization)
	ok, err := v.message(key(tabAuthorization, string(id)), z)
	if err != nil || !ok {
		return nil, err
	}
	return z, v.revoked(z)
}

func (v View) revoked(z *registrypb.Authorization) (err error) {
	z.Revoked, err = v.has(key(tabRevoked, z.Id))
	return err
}

// Authorizations calls fn with every authorization, revoked and expired ones too,
// in order of id.
func (v View) Authorizations(fn func(*registrypb.Authorization) error) error {
	return v.scan([]byte{tabAuthorization}, func(_, b []byte) error {
		z := new(registrypb.Authorization)
		if err := errors.Join(decodeRow(b, z), v.revoked(z)); err != nil {
			return err
		}
		return fn(z)
	})
}

// AuthorizationsFor gives the rows that speak of a type of requester, a dataset
// and a purpose, revoked and expired ones too, in order of id.
func (v View) AuthorizationsFor(t names.InstitutionType, d names.DatasetID, p names.Purpose) ([]*registrypb.Authorization, error) {
	if v.memo == nil {
		return v.authorizationsFor(t, d, p)
	}
	return rememberAll(v.memo, v.memo.authorizations, grantOf{t, d, p}, func() ([]*registrypb.Authorization, error) { return v.authorizationsFor(t, d, p) })
}

func (v View) authorizationsFor(t names.InstitutionType, d names.DatasetID, p names.Purpose) (rows []*registrypb.Authorization, err error) {
	if err := errors.Join(t.Validate(), d.Validate(), p.Validate()); err != nil {
		return nil, nil // no row speaks of what is no name
	}
	prefix := under(tabGrantIndex, string(t), string(d), string(p))
	err = v.scan(prefix, func(k, _ []byte) error {
		z, err := v.Authorization(names.AuthorizationID(k[len(prefix):]))
		if err == nil && z == nil {
			err = fmt.Errorf("%w: index of authorizations", ErrCorrupt)
		}
		rows = append(rows, z)
		return err
	})
	return rows, err
}
