package sector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// again is the pause before the nodes of a member are tried once more.
const again = 25 * time.Millisecond

// forward asks one member, node after node, until one replies or it is too late for an
// answer to be of use.
func (x *resolution) forward(ctx context.Context, route directory.Route) *reply {
	r := &reply{route: route, status: nodepb.Status_NO_RESULT, reason: registrypb.Reason_SUPPLIER_UNAVAILABLE}
	var err error
	if r.permission, err = x.permit(ctx, route); err != nil {
		r.detail = "no permission could be kept or journaled, so none left"
		if !errors.Is(err, ErrJournal) {
			r.detail = "not permitted: the mesh does not list it as of this sector, in good standing"
		}
		return r
	}
	message := &nodepb.Forward{Permission: r.permission, Request: x.Request, Clearance: x.Clearance}
	if message.Padding, err = veil.Padding(message); err != nil {
		r.detail = "too large"
		return r
	}
	x.reach(ctx, r, x.Checked.Ticket, func(to names.NodeID) error {
		resp, err := x.Peers.Forward(ctx, to, message)
		if err == nil {
			r.by = to
			x.judge(r, resp)
		}
		return err
	})
	return r
}

// reach tries the nodes of a member, one after the other, until one replies to ask or it is
// too late for a reply to be of use.
func (m *Manager) reach(ctx context.Context, r *reply, ticket names.Ticket, ask func(names.NodeID) error) {
	nodes, err := m.nodesOf(r.route.Member)
	if err != nil || len(nodes) == 0 {
		r.detail = "no node of it is known"
		return
	}
	for {
		for _, to := range nodes {
			err := ask(to)
			var refused *exchange.Refusal
			switch {
			case err == nil:
				return
			case errors.As(err, &refused) && refused.Reason != registrypb.Reason_REGISTRY_STALE:
				r.by, r.reason = to, refused.Reason
				return
			}
			r.detail = "nothing was heard from it in time"
			m.Log.Info("a cooperating institution did not answer", "peer", to.String(), "ticket", ticket, "err", err)
		}
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// permit gives the permission for one member, signed, kept and journaled before it
// leaves: that of before, after a crash, as long as it can be answered.
func (x *resolution) permit(ctx context.Context, route directory.Route) ([]byte, error) {
	sector, err := x.sectorOf(route.Member)
	if err != nil {
		return nil, err
	}
	key := outbox.Key{Table: permissions, ID: string(x.Checked.RequestHash) + string(route.Member)}
	parts := protoParts(route.Parts)
	kept := new(nodepb.KeptPermission)
	found, err := x.load(key, kept)
	if err != nil {
		return nil, err
	}
	if found && bytes.Equal(kept.GetClearanceHash(), x.Checked.Hash) && bytes.Equal(kept.GetPartsHash(), hashParts(parts)) && x.Now().UnixMilli() < kept.GetAnswerByUnixMs() {
		return kept.GetPermission(), nil // journaled before it was kept
	}
	p := &nodepb.SectorPermission{
		Mesh: string(x.Mesh), Id: fresh(idSize), Sector: string(sector), Manager: nodeRef(x.Self), Member: string(route.Member),
		Ticket: string(x.Checked.Ticket), RequestHash: x.Checked.RequestHash, ClearanceHash: x.Checked.Hash,
		Dataset: string(x.Checked.Dataset), Fields: texts(x.Checked.Fields), Parts: parts,
		PresentedUnixMs: x.Presented.UnixMilli(), IssuedUnixMs: x.Now().UnixMilli(), AnswerByUnixMs: x.answerBy.UnixMilli(),
	}
	raw, hash, err := x.sign(envelope.SectorPermission, p)
	if err != nil {
		return nil, err
	}
	e := x.entry(nodepb.Event_FORWARDED)
	e.Member, e.Supplier = string(route.Member), &registrypb.NodeRef{Institution: string(route.Member)}
	e.PermissionHash, e.Evidence = hash, [][]byte{raw, x.Request, x.Clearance}
	if err := x.journal(ctx, e); err != nil {
		return nil, err
	}
	return raw, x.keep(row(key, &nodepb.KeptPermission{
		Permission: raw, AnswerByUnixMs: p.AnswerByUnixMs, ClearanceHash: x.Checked.Hash, PartsHash: hashParts(parts),
	}, x.answerBy.Add(seenMargin)))
}

// sectorOf gives the sector, if the mesh lists a member as of it.
func (m *Manager) sectorOf(member names.InstitutionID) (sector names.SectorID, err error) {
	err = m.Registry.View(func(v record.View) error {
		var ok bool
		var err error
		if sector, ok, err = cooperates(v, m.Self.Institution, member); err == nil && !ok {
			err = ErrNotOfSector
		}
		return err
	})
	return sector, err
}

func protoParts(parts []directory.Part) (out []*nodepb.SectorPart) {
	for _, p := range parts {
		out = append(out, &nodepb.SectorPart{Subject: protoSubject(p.Subject), Period: protoPeriod(p.Period), Qualities: texts(p.Qualities)})
	}
	return out
}

// hashParts tells apart what was looked up.
func hashParts(parts []*nodepb.SectorPart) []byte {
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&nodepb.SectorPermission{Parts: parts})
	return sum(raw)
}

// judge takes an answer into r if it stands.
func (x *resolution) judge(r *reply, resp *nodepb.ForwardResponse) {
	a, records, err := x.verifyFor(r, resp, x.Checked.Fields, x.Checked.Ticket)
	if err != nil {
		x.Log.Warn("an answer within the sector does not verify", "peer", r.by.String(), "ticket", x.Checked.Ticket, "err", err)
		r.reason, r.detail = registrypb.Reason_SUPPLIER_ERROR, "its answer does not verify"
		return
	}
	r.answer, r.records, r.status, r.commitment = resp.GetAnswer(), records, a.GetStatus(), a.GetCommitment()
	r.reason, r.detail = registrypb.Reason_REASON_UNSPECIFIED, ""
}

// verifyFor insists that the member signed the answer for this very permission, and that it
// holds permitted fields only.
func (m *Manager) verifyFor(r *reply, resp *nodepb.ForwardResponse, fields []names.FieldName, ticket names.Ticket) (*nodepb.SectorAnswer, []exchange.Record, error) {
	a := new(nodepb.SectorAnswer)
	if err := m.open(envelope.SectorAnswer, resp.GetAnswer(), r.route.Member, a); err != nil {
		return nil, nil, err
	}
	for what, wrong := range map[string]bool{
		"mesh":       a.GetMesh() != string(m.Mesh),
		"ticket":     a.GetTicket() != string(ticket),
		"member":     record.NodeID(a.GetMember()) != r.by,
		"permission": !bytes.Equal(a.GetPermissionHash(), sum(r.permission)),
		"content": len(resp.GetBlinding()) != blindingSize || len(a.GetCommitment()) != sha256.Size ||
			!bytes.Equal(a.GetCommitment(), exchange.Commitment(resp.GetBlinding(), resp.GetContent())),
	} {
		if wrong {
			return nil, nil, fmt.Errorf("it is for another %s", what)
		}
	}
	records, status, err := exchange.ReadContent(resp.GetContent(), fields)
	if err == nil && status != a.GetStatus() {
		err = fmt.Errorf("status %s with %d records", a.GetStatus(), len(records))
	}
	return a, records, err
}
