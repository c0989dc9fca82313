package node

import (
	"context"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// declaration tells the registry's members of the epoch that this journal is in, signed,
// and names the journal's last anchored checkpoint, which they compare with theirs. It
// gives nil once the registry holds a checkpoint of the epoch.
func (n *Node) declaration(ctx context.Context) ([]byte, error) {
	e := n.journal.Epoch()
	if e == nil || e.Number <= 1 {
		return nil, nil
	}
	notes, err := n.anchors(ctx, n.self)
	if err != nil {
		return nil, err
	}
	after := ""
	for _, c := range notes {
		if c.Node != n.self {
			continue
		}
		if c.Epoch >= int64(e.Number) {
			return nil, nil
		}
		after = c.Text
	}
	statement := sha256.Sum256(e.Statement)
	payload, err := proto.Marshal(&registrypb.EpochDeclaration{
		Mesh: string(n.cfg.Mesh), Node: &registrypb.NodeRef{Institution: string(n.self.Institution), Node: string(n.self.Node)},
		Number: int64(e.Number), Id: e.ID[:], StartedUnixMs: e.Started.UnixMilli(), ResumesAt: int64(e.ResumesAt), ResumesRoot: e.ResumesRoot[:],
		After: after, StatementHash: statement[:],
	})
	if err != nil {
		return nil, err
	}
	return envelope.Sign(envelope.EpochDeclaration, payload, n.keys.signer)
}

// Declared gives the epochs that journals declared: those that stand in the registry,
// and those that this member did not accept. A node that is no member holds none.
func (w witnessing) Declared() (all []api.DeclaredEpoch, err error) {
	if w.n.witness == nil {
		return nil, nil
	}
	refused, err := w.n.witness.Refused()
	if err != nil {
		return nil, err
	}
	err = w.n.registry.View(func(v record.View) error {
		return v.EachDeclared(func(d *record.Declared) error {
			e := declaredEpoch(d.Declaration, d.Envelope)
			e.Time, e.Accepted, e.Says = d.Time, true, "nothing that was anchored was lost"
			if e.Anchored > e.ResumesAt {
				e.Says = fmt.Sprintf("entries %d to %d, which were anchored, were lost", e.ResumesAt, e.Anchored-1)
			}
			all = append(all, e)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, r := range refused {
		d, _, err := record.OpenDeclaration(r.Envelope)
		if err != nil {
			return nil, err
		}
		e := declaredEpoch(d, r.Envelope)
		e.Time, e.Says = r.Found, "refused: "+r.Why
		all = append(all, e)
	}
	return all, nil
}

func declaredEpoch(d *registrypb.EpochDeclaration, raw []byte) api.DeclaredEpoch {
	e := api.DeclaredEpoch{Journal: record.NodeID(d.Node).String(), Epoch: d.Number, ResumesAt: d.ResumesAt, Declaration: raw}
	if last, err := checkpoint.ParseText(d.After); err == nil {
		e.Anchored = last.Size
	}
	return e
}
