package clearing

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Apart reports whether two institutions may clear one exchange together: they are not
// one, nor of one sector.
func Apart(v record.View, a, b names.InstitutionID) (bool, error) {
	x, err := v.Institution(a)
	if err != nil || x == nil {
		return false, err
	}
	y, err := v.Institution(b)
	if err != nil || y == nil {
		return false, err
	}
	return !party(x, y), nil
}

// Together reports whether two clearances for one request permit the same thing to the
// same supplier, so that they can stand for one exchange. Who signed them, and whether
// they stand, is another question.
func Together(a, b *registrypb.Clearance) bool {
	return !bytes.Equal(a.Id, b.Id) && bytes.Equal(a.RequestHash, b.RequestHash) && a.Ticket == b.Ticket && a.Supplier == b.Supplier &&
		a.Authorization == b.Authorization && proto.Equal(a.Mandate, b.Mandate) &&
		slices.Equal(a.Fields, b.Fields) && slices.Equal(a.Withheld, b.Withheld) && slices.Equal(a.SupplierQualities, b.SupplierQualities) &&
		slices.EqualFunc(a.FiledUnder, b.FiledUnder, func(x, y *registrypb.Subject) bool { return proto.Equal(x, y) })
}

// withSecond holds a checked clearance to what its authorization says of a second clearing
// peer. check checks the second as the first was.
func (k *Checked) withSecond(v record.View, p Part, check func(Part) (*Checked, *Refusal)) *Refusal {
	z := k.Authorization
	switch {
	case !z.SecondClearingPeer && p.Second != nil:
		return invalid("authorization %s does not ask for a second clearing peer", z.Id)
	case !z.SecondClearingPeer:
		return nil
	case p.Second == nil:
		return invalid("authorization %s takes two clearing peers, and one cleared it", z.Id)
	}
	second, no := check(*p.Second)
	if no != nil {
		return no
	}
	if !Together(p.Clearance, p.Second.Clearance) {
		return invalid("its two clearances permit different things, or are one")
	}
	k.second = second
	if second.ReleaseBy.Before(k.ReleaseBy) {
		k.ReleaseBy = second.ReleaseBy
	}
	return k.secondStands(v)
}

// secondStands: the second clearance stands as the first does, and its issuer is apart
// from that of the first.
func (k *Checked) secondStands(v record.View) *Refusal {
	if k.second == nil {
		return nil
	}
	apart, err := Apart(v, k.Clearer.Institution, k.second.Clearer.Institution)
	if err != nil {
		return unsure(err)
	}
	if !apart {
		return invalid("%s and %s are one, or of one sector, and may not clear together", k.Clearer.Institution, k.second.Clearer.Institution)
	}
	return k.second.stands(v)
}

// Second gives the second clearance that was checked with this one, or nil.
func (k *Checked) Second() *Checked { return k.second }
