package chunk

import (
	"bytes"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Presented is a demand and its clearance, read. Nothing of it is to be believed before
// Check passed.
type Presented struct {
	Order     *Order
	Demand    *registrypb.ChunkDemand
	Clearance *registrypb.ChunkClearance
	Hash      []byte // SHA-256 of the clearance's envelope

	demand, clearance *envelope.Opened
}

func invalid(detail string) *clearing.Refusal {
	return &clearing.Refusal{Reason: registrypb.Reason_CLEARANCE_INVALID, Detail: detail}
}

// Read takes a demand and a clearance apart and checks their form, and that they speak of
// each other. It verifies no signature.
func Read(mesh names.MeshID, schemes subject.Schemes, demand, clearance []byte) (*Presented, *clearing.Refusal) {
	p := &Presented{Demand: new(registrypb.ChunkDemand), Clearance: new(registrypb.ChunkClearance), Hash: sum(clearance)}
	var err error
	if p.clearance, err = clearing.Open(envelope.LotClearance, clearance, p.Clearance); err != nil {
		return nil, invalid("malformed clearance of a chunk")
	}
	if bad := p.openDemand(mesh, demand); bad != nil {
		return nil, bad
	}
	c := p.Clearance
	switch {
	case p.Demand.Mesh != string(mesh) || !bytes.Equal(p.Demand.ClearanceHash, p.Hash):
		return nil, invalid("the demand is for another clearance")
	case !bytes.Equal(c.OrderHash, p.Order.Hash) || c.Ticket != string(p.Order.Ticket):
		return nil, invalid("the clearance is for another order")
	case len(c.Groups) == 0 || len(c.Groups) > MaxGroups || len(c.RequestHash) != len(p.Hash):
		return nil, invalid(errGroups.Error())
	}
	return p, p.subjects(schemes)
}

// openDemand takes a demand, and the order in it, apart.
func (p *Presented) openDemand(mesh names.MeshID, demand []byte) *clearing.Refusal {
	var err error
	if p.demand, err = clearing.Open(envelope.LotDemand, demand, p.Demand); err != nil {
		return invalid("malformed demand")
	}
	if p.Order, err = OpenOrder(mesh, p.Demand.Order); err != nil {
		return invalid("malformed order")
	}
	return nil
}

// subjects checks the numbers that the clearance names.
func (p *Presented) subjects(schemes subject.Schemes) *clearing.Refusal {
	total, size := 0, 0
	var lists []*registrypb.Subjects
	for _, g := range p.Clearance.Groups {
		if packed.Check(g.GetSubjects(), schemes, MaxSubjects) != nil || g.Subjects.Scheme != p.Order.Scheme {
			return invalid("it names what are no numbers, or of another scheme")
		}
		lists = append(lists, g.Subjects)
		total += packed.Len(g.Subjects)
		size += packed.Size(g.Subjects)
		for i, f := range g.FiledUnder {
			if int(f.GetAt()) >= packed.Len(g.Subjects) || i > 0 && f.At <= g.FiledUnder[i-1].At || len(f.Numbers) == 0 || len(f.Numbers) > maxFiledUnder {
				return invalid("it names other numbers of nobody, or too many")
			}
			for _, n := range f.Numbers {
				if id, err := schemes.Parse(subject.Scheme(p.Order.Scheme), n); err != nil || id.Number() != n {
					return invalid("it names other numbers that are none")
				}
			}
		}
	}
	if total > MaxSubjects || size > MaxBytes || twice(lists...) {
		return invalid("it names too many subjects, or one of them twice")
	}
	return nil
}

// Checker checks clearances for chunks; the zero value is ready, and safe for concurrent use.
type Checker struct{ checker clearing.Checker }

// Checked is a clearance for a chunk that stood when it was checked.
type Checked struct {
	*Presented
	Groups []*clearing.Checked // one for each group of the clearance
	// ReleaseBy is the last moment, on the own clock, at which data may leave.
	ReleaseBy time.Time
}

// Check is clearing.Checker.Check for each group of subjects: all that a supplier can verify
// in its own view. Not checked here: the own reference on each subject, and whether the
// chunk was answered before.
func (m *Checker) Check(v record.View, now time.Time, b genesis.Bounds, mesh names.MeshID, self, from names.NodeID, p *Presented) (*Checked, *clearing.Refusal) {
	k := &Checked{Presented: p}
	dataset, err := v.Dataset(names.DatasetID(p.Order.Dataset))
	if err != nil {
		return nil, &clearing.Refusal{Reason: registrypb.Reason_REGISTRY_STALE, Detail: "the dataset cannot be read"}
	}
	for i, g := range p.Clearance.Groups {
		part := clearing.Part{
			Ticket: p.Order.Ticket, Request: p.Order.Request(p.Clearance.RequestTimeUnixMs), RequestHash: p.Clearance.RequestHash, Signed: p.demand,
			Clearance: Single(p.Clearance, g), Hash: p.Hash, Opened: p.clearance,
		}
		c, r := m.checker.CheckPart(v, now, b, mesh, self, from, part)
		if r != nil {
			return nil, r
		}
		if g.YesNo != YesNo(dataset, g.Fields) {
			return nil, invalid("it gives more than yes or no, or less, than its authorization")
		}
		k.Groups = append(k.Groups, c)
		if i == 0 || c.ReleaseBy.Before(k.ReleaseBy) {
			k.ReleaseBy = c.ReleaseBy
		}
	}
	return k, nil
}

// Recheck is for the moment just before data leave.
func (k *Checked) Recheck(v record.View, now time.Time, mesh names.MeshID) *clearing.Refusal {
	for _, g := range k.Groups {
		if r := g.Recheck(v, now, mesh); r != nil {
			return r
		}
	}
	return nil
}

// Genuine reports whether the requester's institution signed the demand and a registry
// member the clearance, by keys in force.
func (p *Presented) Genuine(v record.View, from names.NodeID) bool {
	clearer := record.NodeID(p.Clearance.Clearer)
	if member, err := v.IsMember(clearer); err != nil || !member || record.NodeID(p.Order.Requester).Institution != from.Institution {
		return false
	}
	for _, s := range []struct {
		o  *envelope.Opened
		by names.InstitutionID
	}{{p.demand, from.Institution}, {p.clearance, clearer.Institution}} {
		if ok, err := clearing.SignedBy(v, nil, s.o, s.by); err != nil || !ok {
			return false
		}
	}
	return true
}

// Single gives a group as a clearance of a consultation would say it, about nobody.
func Single(c *registrypb.ChunkClearance, g *registrypb.ClearedGroup) *registrypb.Clearance {
	return &registrypb.Clearance{
		Mesh: c.Mesh, Id: c.Id, Ticket: c.Ticket, Clearer: c.Clearer, Requester: c.Requester, Supplier: c.Supplier, RequestHash: c.RequestHash,
		Subject: &registrypb.Subject{Scheme: g.GetSubjects().GetScheme()}, Dataset: c.Dataset, Fields: g.Fields, Withheld: g.Withheld, Period: c.Period,
		Purpose: c.Purpose, Mode: c.Mode, Authorization: g.Authorization, SupplierQualities: g.SupplierQualities, RegistryIndex: c.RegistryIndex,
		IssuedUnixMs: c.IssuedUnixMs, PresentByUnixMs: c.PresentByUnixMs, ReleaseByUnixMs: c.ReleaseByUnixMs, Grant: c.Grant,
	}
}

// At gives the group and the number of a place over all groups.
func At(c *registrypb.ChunkClearance, place int) (*registrypb.ClearedGroup, string, bool) {
	for _, g := range c.GetGroups() {
		if n := packed.Len(g.Subjects); place < n {
			return g, packed.At(g.Subjects, place), true
		} else {
			place -= n
		}
	}
	return nil, "", false
}

// FiledUnder gives the other numbers that a group names of the subject in a place.
func FiledUnder(g *registrypb.ClearedGroup, at int) []string {
	i, ok := slices.BinarySearchFunc(g.FiledUnder, uint32(at), func(f *registrypb.FiledUnder, at uint32) int { return int(f.At) - int(at) })
	if !ok {
		return nil
	}
	return g.FiledUnder[i].Numbers
}
