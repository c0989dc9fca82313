package receipt

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Source is the registry's public history; record.View is one.
type Source interface {
	// Commands calls fn with the accepted public commands from an index on, in order.
	Commands(from uint64, fn func(index uint64, envelope []byte) error) error
}

// Make makes the receipt of a ticket from what a node's own journal holds of it; there
// must be something. proofs are theirs (C2SP tlog-proof), empty where there is none. Readings are left out: they are the node's own business.
func Make(src Source, mesh names.MeshID, self names.NodeID, ticket names.Ticket, entries []*nodepb.StoredEntry, proofs [][]byte) (*Receipt, error) {
	r := &Receipt{Format: Format, Mesh: mesh, Ticket: ticket, Journal: self.String(), Registry: [][]byte{}}
	w := wanted{map[string]bool{string(self.Institution): true}, map[string]bool{}}
	for i, s := range entries {
		e, err := trace.Decode(s)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the own journal: %w", s.GetSequence(), err)
		}
		if e.Role == nodepb.Role_READER {
			continue
		}
		w.note(e)
		x := Entry{Sequence: s.Sequence, Entry: s.Entry, Salt: s.Salt, Commitment: s.Commitment}
		if i < len(proofs) && len(proofs[i]) > 0 {
			x.Proof = string(proofs[i])
			if err := w.witnesses(proofs[i]); err != nil {
				return nil, err
			}
		}
		r.Entries = append(r.Entries, x)
	}
	if len(r.Entries) == 0 {
		return nil, fmt.Errorf("the journal holds nothing under this ticket")
	}
	err := src.Commands(0, func(_ uint64, raw []byte) error {
		c, _, err := openCommand(raw)
		if err != nil {
			return fmt.Errorf("%w: %w", record.ErrCorrupt, err)
		}
		if w.wants(c) && len(r.Registry) < MaxCommands {
			r.Registry = append(r.Registry, raw)
		}
		return nil
	})
	return r, err
}

// wanted is what a receipt's registry commands must speak of.
type wanted struct{ institutions, authorizations map[string]bool }

func (w wanted) note(e *nodepb.Entry) {
	for _, ref := range []*registrypb.NodeRef{e.Requester, e.Clearer, e.Supplier, e.GetSecondClearance().GetClearer()} {
		w.institutions[ref.GetInstitution()] = true
	}
	w.authorizations[e.Authorization] = true
}

// witnesses notes who cosigned the checkpoint of a proof.
func (w wanted) witnesses(proof []byte) error {
	p, err := tlog.ParseProof(proof)
	if err != nil {
		return err
	}
	note, err := checkpoint.Parse(p.Checkpoint)
	if err != nil {
		return err
	}
	for _, m := range note.Witnesses() {
		w.institutions[string(m.Institution)] = true
	}
	return nil
}

func (w wanted) wants(c *registrypb.Command) bool {
	switch b := c.Body.(type) {
	case *registrypb.Command_SetInstitution:
		return w.institutions[b.SetInstitution.GetId()]
	case *registrypb.Command_SetKey:
		return w.institutions[c.Author]
	case *registrypb.Command_SetMembers:
		return true
	case *registrypb.Command_SetAuthorization:
		return w.authorizations[b.SetAuthorization.GetId()]
	}
	return false
}

func openCommand(raw []byte) (*registrypb.Command, *envelope.Opened, error) {
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil {
		return nil, nil, err
	}
	c := new(registrypb.Command)
	return c, opened, proto.Unmarshal(opened.Payload, c)
}
