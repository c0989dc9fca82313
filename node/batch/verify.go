package batch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// rulings are what one clearing peer's reply says, verified.
type rulings struct {
	permits []*permit
	refused *decision
	left    packed.Bits // whom another must be asked about
}

// verify insists that a reply decides on every subject that was pending, on no other one, on
// none in two ways, and that a member which is no party signed it for this very request.
// One thing that is wrong discredits all of it.
func (p *part) verify(from names.NodeID, resp *registrypb.ClearChunkResponse, cleared []string) (*rulings, error) {
	if len(resp.GetClearances()) > clearing.MaxSuppliers || len(resp.GetRecused()) > len(p.left) {
		return nil, errors.New("more clearances, or more subjects, than there can be")
	}
	got := &rulings{left: packed.NewBits(len(p.kept.Lines))}
	settled := packed.NewBits(len(p.kept.Lines))
	for i := range p.kept.Lines {
		if packed.Bits(resp.GetRecused()).Has(i) {
			if !p.left.Has(i) {
				return nil, errors.New("it stands aside from what was not asked")
			}
			got.left.Set(i)
			settled.Set(i)
		}
	}
	err := p.cfg.Registry.View(func(v record.View) error {
		for _, raw := range resp.Clearances {
			c, err := p.verifyPermit(v, from, raw, settled)
			if err != nil {
				return err
			}
			if slices.Contains(cleared, c.Supplier) || slices.ContainsFunc(got.permits, func(o *permit) bool { return o.Supplier == c.Supplier }) {
				return errors.New("two clearances for one supplier")
			}
			got.permits = append(got.permits, c)
		}
		if len(resp.Decision) == 0 {
			return nil
		}
		var err error
		got.refused, err = p.verifyDecision(v, from, resp.Decision, settled)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range p.kept.Lines {
		// What others had cleared whole needs no word of this peer.
		if p.left.Has(i) && !settled.Has(i) && len(cleared) == 0 {
			return nil, errors.New("it says nothing of a subject that was asked")
		}
	}
	return got, nil
}

// signedByMember insists that a member which is no party signed.
func (p *part) signedByMember(v record.View, o *envelope.Opened, by names.NodeID) error {
	member, err := v.IsMember(by)
	if err != nil {
		return err
	}
	own, err := v.Institution(p.cfg.Self.Institution)
	if err != nil {
		return err
	}
	inst, err := v.Institution(by.Institution)
	if err != nil {
		return err
	}
	if !member || inst.GetId() == own.GetId() || own.GetSector() != "" && own.GetSector() == inst.GetSector() {
		return errors.New("signed by a party, or by no member")
	}
	signed, err := clearing.SignedBy(v, &p.verifier, o, by.Institution)
	if err == nil && !signed {
		err = errors.New("not signed by a key in force")
	}
	return err
}

// mark marks the subjects of a group as decided; none may be that was not asked.
func (p *part) mark(s *registrypb.Subjects, into packed.Bits, twice packed.Bits) error {
	if packed.CheckForm(s, chunk.MaxSubjects) != nil || s.Scheme != p.l.Scheme {
		return errors.New("malformed subjects")
	}
	for _, n := range packed.All(s) {
		i, ok := p.places[n]
		if !ok || !p.left.Has(i) {
			return errors.New("it names a subject that was not asked")
		}
		if twice.Has(i) {
			return errors.New("it names a subject twice")
		}
		twice.Set(i)
		into.Set(i)
	}
	return nil
}

func (p *part) verifyPermit(v record.View, from names.NodeID, raw []byte, settled packed.Bits) (*permit, error) {
	c := new(registrypb.ChunkClearance)
	opened, err := clearing.Open(envelope.LotClearance, raw, c)
	if err != nil {
		return nil, err
	}
	if err := p.signedByMember(v, opened, from); err != nil {
		return nil, err
	}
	o := p.l.Order
	supplier := names.InstitutionID(c.Supplier)
	for _, check := range []struct {
		what string
		same bool
	}{
		{"mesh", c.Mesh == string(p.cfg.Mesh)}, {"id", len(c.Id) == 16}, {"ticket", c.Ticket == string(o.Ticket)},
		{"clearer", record.NodeID(c.Clearer) == from}, {"requester", record.NodeID(c.Requester) == p.cfg.Self},
		{"supplier", supplier.Validate() == nil && supplier != p.cfg.Self.Institution && (len(o.Suppliers) == 0 || slices.Contains(o.Suppliers, c.Supplier))},
		{"order", bytes.Equal(c.OrderHash, o.Hash)}, {"request", bytes.Equal(c.RequestHash, p.request.Hash)},
		{"chunk", c.Number == p.request.Number && c.RequestTimeUnixMs == p.request.TimeUnixMs}, {"dataset", c.Dataset == o.Dataset},
		{"period", proto.Equal(c.Period, o.Period)}, {"purpose", c.Purpose == o.Purpose && c.Mode == string(names.Batch)},
		{"group", len(c.Groups) > 0 && len(c.Groups) <= chunk.MaxGroups},
	} {
		if !check.same {
			return nil, fmt.Errorf("clearance is for another %s", check.what)
		}
	}
	seen := packed.NewBits(len(p.kept.Lines))
	for _, g := range c.Groups {
		outside := func(f string) bool { return len(o.Fields) > 0 && !slices.Contains(o.Fields, f) }
		if len(g.Fields) == 0 || slices.ContainsFunc(g.Fields, outside) || names.AuthorizationID(g.Authorization).Validate() != nil {
			return nil, errors.New("clearance is for other fields, or under no authorization")
		}
		if err := p.mark(g.Subjects, settled, seen); err != nil {
			return nil, err
		}
	}
	return &permit{c, raw, sum(raw)}, nil
}

func (p *part) verifyDecision(v record.View, from names.NodeID, raw []byte, settled packed.Bits) (*decision, error) {
	d := new(registrypb.ChunkDecision)
	opened, err := clearing.Open(envelope.LotDecision, raw, d)
	if err != nil {
		return nil, err
	}
	if err := p.signedByMember(v, opened, from); err != nil {
		return nil, err
	}
	switch {
	case d.Mesh != string(p.cfg.Mesh), d.Ticket != string(p.l.Ticket), !bytes.Equal(d.RequestHash, p.request.Hash), record.NodeID(d.Clearer) != from,
		record.NodeID(d.Requester) != p.cfg.Self, len(d.Groups) == 0 || len(d.Groups) > chunk.MaxGroups:
		return nil, errors.New("decision is for another request, or on nobody")
	}
	seen := packed.NewBits(len(p.kept.Lines))
	for _, g := range d.Groups {
		if err := p.mark(g.Subjects, settled, seen); err != nil {
			return nil, err
		}
		replaced := g.Reason == registrypb.Reason_REPLACED_NUMBER
		switch {
		case g.Outcome == registrypb.Outcome_PERMIT, g.Outcome != registrypb.Outcome_OUTCOME_UNSPECIFIED && g.Reason == 0:
			return nil, errors.New("decision of no kind there is")
		case replaced && len(g.Successors) != packed.Len(g.Subjects), !replaced && len(g.Successors) > 0:
			return nil, errors.New("decision without the numbers that replaced others, or with some that did not")
		}
		for i, n := range g.Successors {
			if id, err := p.cfg.Schemes.Parse(subject.Scheme(p.l.Scheme), n); err != nil || id.Number() != n || n == packed.At(g.Subjects, i) {
				return nil, errors.New("decision names a successor that is no other number")
			}
		}
	}
	return &decision{d, raw}, nil
}

// judge takes an answer into r if it stands.
func (p *part) judge(r *reply, from names.NodeID, resp *nodepb.ChunkResponse) {
	r.by, r.detail = from, ""
	items, err := p.verifyAnswer(r.permit, from, resp)
	if err != nil {
		p.cfg.Log.Warn("answer to a chunk does not verify", "peer", from.String(), "ticket", string(p.l.Ticket), "err", err)
		r.reason, r.detail = registrypb.Reason_SUPPLIER_ERROR, "answer does not verify: "+err.Error()
		return
	}
	r.resp, r.items, r.reason = resp, items, 0
}

// verifyAnswer insists that an answer was signed by the supplier for this very clearance,
// commits to what came with it, and holds what each group permits and no more.
func (p *part) verifyAnswer(permit *permit, from names.NodeID, resp *nodepb.ChunkResponse) ([]content.Item, error) {
	if len(resp.GetAnswer()) > maxAnswer {
		return nil, errors.New("too large")
	}
	a := new(nodepb.ChunkAnswer)
	opened, err := clearing.Open(envelope.LotAnswer, resp.Answer, a)
	if err != nil {
		return nil, err
	}
	err = p.cfg.Registry.View(func(v record.View) error {
		signed, err := clearing.SignedBy(v, &p.verifier, opened, from.Institution)
		if err == nil && !signed {
			err = errors.New("not signed by a key in force of the supplier")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	n := 0
	for _, g := range permit.Groups {
		n += packed.Len(g.Subjects)
	}
	switch {
	case a.Mesh != string(p.cfg.Mesh), a.Ticket != string(p.l.Ticket), record.NodeID(a.Supplier) != from, string(from.Institution) != permit.Supplier,
		!bytes.Equal(a.RequestHash, p.request.Hash), !bytes.Equal(a.ClearanceHash, permit.hash), int(a.Subjects) != n:
		return nil, errors.New("it is for another clearance")
	}
	items, err := content.Read(resp.Content, n)
	if err != nil {
		return nil, err
	}
	root, err := content.Root(resp.Seed, numbersOf(permit.ChunkClearance), items)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(root[:], a.Root) {
		return nil, errors.New("it does not commit to its content")
	}
	place := 0
	for _, g := range permit.Groups {
		known := map[string]bool{} // many are the very same bytes
		for range packed.Len(g.Subjects) {
			if err := checkItem(items[place], g, known); err != nil {
				return nil, err
			}
			place++
		}
	}
	return items, nil
}

func checkItem(i content.Item, g *registrypb.ClearedGroup, known map[string]bool) error {
	switch i.Code {
	case content.Yes, content.No:
		if !g.YesNo {
			return errors.New("yes or no, where records were asked")
		}
	case content.Records:
		if g.YesNo {
			return errors.New("records, where yes or no is all that may leave")
		}
		if known[string(i.Records)] {
			return nil
		}
		n, err := exchange.CheckContent(i.Records, named[names.FieldName](g.Fields))
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("data, and no record")
		}
		if len(known) < maxRemembered {
			known[string(i.Records)] = true
		}
	}
	return nil
}
