package inquiry

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// check refuses a question of which a part could not be asked, before any is.
func (i *Inquirer) check(q Question) error {
	bad := func(field, remedy string) error { return &exchange.QuestionError{Field: field, Remedy: remedy} }
	if len(q.Parts) > MaxParts {
		return bad("parts", fmt.Sprintf("at most %d", MaxParts))
	}
	parts := q.Parts
	if len(parts) == 0 {
		parts = []Part{{Dataset: "any/v1"}} // all but the dataset is checked
	}
	for n, p := range parts {
		if slices.ContainsFunc(parts[:n], func(o Part) bool { return o.Dataset == p.Dataset }) {
			return bad("parts", fmt.Sprintf("%s stands there twice", p.Dataset))
		}
		err := exchange.Question{
			Caller: q.Caller, ClientTicket: q.ClientTicket, Purpose: q.Purpose, Dataset: p.Dataset, Fields: p.Fields,
			Scheme: q.Scheme, Number: q.Number, Period: q.Period, Suppliers: p.Suppliers,
		}.Check(i.cfg.Schemes)
		if err != nil {
			return err
		}
	}
	return nil
}

// allowed gives the datasets that authorizations in force today give this institution for
// the purpose, in order.
func (x *inquiry) allowed() (parts []Part, err error) {
	today := names.DateOf(x.cfg.Now().UTC())
	err = x.cfg.Registry.View(func(v record.View) error {
		self, err := v.Institution(x.cfg.Self.Institution)
		if err != nil || self == nil {
			return err
		}
		return v.Authorizations(func(z *registrypb.Authorization) error {
			p := Part{Dataset: names.DatasetID(z.Dataset)}
			if z.RequesterType == self.Type && z.Purpose == string(x.asked.Purpose) && !z.Revoked && record.Period(z.Period).Contains(today) &&
				slices.Contains(z.Modes, string(names.Consultation)) &&
				!slices.ContainsFunc(parts, func(o Part) bool { return o.Dataset == p.Dataset }) {
				parts = append(parts, p)
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	case len(parts) == 0:
		return nil, ErrNothingAllowed
	case len(parts) > MaxParts:
		return nil, &exchange.QuestionError{Field: "parts", Remedy: fmt.Sprintf("%d datasets are allowed for this purpose: name at most %d", len(parts), MaxParts)}
	}
	slices.SortFunc(parts, func(a, b Part) int { return slices.Compare([]byte(a.Dataset), []byte(b.Dataset)) })
	return parts, nil
}

// hash binds a client ticket to everything that is asked and to who asks.
func (q Question) hash() []byte {
	h := sha256.New()
	put := func(s string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	count := func(n uint32) { h.Write(binary.BigEndian.AppendUint32(nil, n)) }
	put("crossroads inquiry v1")
	for _, s := range []string{q.Application, string(q.User), q.Channel, string(q.Purpose), string(q.Scheme), q.Number} {
		put(s)
	}
	for _, n := range []uint32{q.AuthLevel, uint32(q.Period.From), uint32(q.Period.Until), uint32(len(q.Parts))} {
		count(n)
	}
	for _, p := range q.Parts {
		put(string(p.Dataset))
		count(uint32(len(p.Fields)))
		for _, f := range p.Fields {
			put(string(f))
		}
		count(uint32(len(p.Suppliers)))
		for _, s := range p.Suppliers {
			put(string(s))
		}
	}
	return h.Sum(nil)
}
