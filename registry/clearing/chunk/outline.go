package chunk

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxOutlined is how many subjects a clearance may have that holds an outline: more would
// not fit the messages and entries of a sector.
const MaxOutlined = 2048

// BlindingSize is the size of a blinding and of a leaf, in bytes.
const BlindingSize = 16

// outline puts the clearance's outline into it: the same, signed, with a leaf for each
// subject instead of its numbers. A managing body shows each institution behind it the
// outline and the blindings of that institution's own subjects. So each sees for itself
// that a third party cleared them, and a leaf of another's is a hash that nobody can guess.
func (s *Service) outline(c *registrypb.ChunkClearance) (err error) {
	total := 0
	for _, g := range c.Groups {
		total += packed.Len(g.Subjects)
	}
	if total > MaxOutlined {
		return nil // the managing body will want it in smaller parts
	}
	o := proto.CloneOf(c)
	seed := make([]byte, sha256.Size)
	rand.Read(seed)
	place := 0
	for i, g := range o.Groups {
		for at, number := range packed.All(c.Groups[i].Subjects) {
			g.Leaves = append(g.Leaves, leafOf(Blinding(seed, place), number, FiledUnder(c.Groups[i], at))...)
			place++
		}
		g.Subjects, g.FiledUnder = &registrypb.Subjects{Scheme: g.Subjects.Scheme}, nil
	}
	c.OutlineSeed = seed
	c.Outline, err = s.sign(envelope.LotOutline, o)
	return err
}

// Blinding derives the blinding of a place over all groups.
func Blinding(seed []byte, place int) []byte {
	m := hmac.New(sha256.New, seed)
	_ = binary.Write(m, binary.BigEndian, uint32(place))
	return m.Sum(nil)[:BlindingSize]
}

func leafOf(blinding []byte, number string, filedUnder []string) []byte {
	b := append([]byte{0}, blinding...)
	for _, n := range append([]string{number}, filedUnder...) {
		b = append(append(b, byte(len(n))), n...)
	}
	return sum(b)[:BlindingSize]
}

// ReadOutline is Read for whoever is shown an outline instead of the clearance. It verifies
// no signature.
func ReadOutline(mesh names.MeshID, demand, outline []byte) (*Presented, *clearing.Refusal) {
	p := &Presented{Demand: new(registrypb.ChunkDemand), Clearance: new(registrypb.ChunkClearance), Hash: sum(outline)}
	var err error
	if p.clearance, err = clearing.Open(envelope.LotOutline, outline, p.Clearance); err != nil {
		return nil, invalid("malformed outline of a clearance")
	}
	if bad := p.openDemand(mesh, demand); bad != nil {
		return nil, bad
	}
	c := p.Clearance
	switch {
	case p.Demand.Mesh != string(mesh) || !bytes.Equal(c.OrderHash, p.Order.Hash) || c.Ticket != string(p.Order.Ticket):
		return nil, invalid("the outline is for another order")
	case len(c.Groups) == 0 || len(c.Groups) > MaxGroups || len(c.RequestHash) != len(p.Hash):
		return nil, invalid(errGroups.Error())
	}
	for _, g := range c.Groups {
		if packed.Len(g.GetSubjects()) > 0 || g.Subjects.GetScheme() != p.Order.Scheme || len(g.Leaves)%BlindingSize != 0 {
			return nil, invalid("it is no outline")
		}
	}
	return p, nil
}

// Outlined gives the group of a place of an outline, if the subject with these numbers is
// the one that was cleared there.
func (p *Presented) Outlined(place int, blinding []byte, number string, filedUnder []string) (group int, ok bool) {
	for i, g := range p.Clearance.Groups {
		n := len(g.Leaves) / BlindingSize
		if place >= n {
			place -= n
			continue
		}
		leaf := g.Leaves[place*BlindingSize : (place+1)*BlindingSize]
		return i, place >= 0 && len(blinding) == BlindingSize && bytes.Equal(leaf, leafOf(blinding, number, filedUnder))
	}
	return 0, false
}
