package belgium

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const aloneMesh names.MeshID = "alone.belgium.test"

// alone is a store of a mesh of its own, without consensus or network: what a member
// spends on applying, and a smaller directory to compare with.
type alone struct {
	*store.Store
	operator ed25519.PrivateKey
	sequence uint64
	previous []byte
	index    uint64
	batch    []store.Entry
}

func openAlone(dir string, storageKey []byte) (*alone, error) {
	a := &alone{operator: Key("@operators")}
	group := record.Threshold{M: 1, Keys: []ed25519.PublicKey{a.operator.Public().(ed25519.PublicKey)}}
	rules := &record.Rules{
		Mesh: aloneMesh, Operators: group, Committee: group, Recovery: group, Schemes: subject.Belgian(),
		Members: []record.FirstMember{{
			Institution: &registrypb.Institution{Id: "alone", Name: "alone", Type: "register"}, Key: Key("alone").Public().(ed25519.PublicKey),
			Node: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: "alone", Node: "n1"}, Address: "127.0.0.1:1", GossipKey: make([]byte, 32)},
		}},
	}
	var err error
	a.Store, err = store.Open(badgerdb.Config{Dir: dir, Key: storageKey}, rules)
	return a, err
}

// do has the operators decide something.
func (a *alone) do(cmd *registrypb.Command) error {
	a.sequence++
	cmd.Mesh, cmd.Author, cmd.Sequence, cmd.Previous, cmd.TimeUnixMs = string(aloneMesh), record.Operators, a.sequence, a.previous, 1
	payload, err := proto.Marshal(cmd)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(payload)
	a.previous = hash[:]
	raw, err := envelope.Sign(envelope.Command, payload, a.operator)
	if err != nil {
		return err
	}
	return a.put(raw)
}

// admit raises the mesh to the level at which references may be packed, and has all
// institutions of c admitted.
func (a *alone) admit(c *Country) error {
	if err := a.do(&registrypb.Command{Body: &registrypb.Command_SetFeatureLevel{SetFeatureLevel: &registrypb.FeatureLevel{Level: record.Level}}}); err != nil {
		return err
	}
	for _, i := range c.Institutions() {
		if err := a.do(&registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: i.admission()}}); err != nil {
			return err
		}
	}
	return a.flush()
}

// admission is the record with which operators admit an institution.
func (i *Institution) admission() *registrypb.Institution {
	pub := Key(i.ID).Public().(ed25519.PublicKey)
	return &registrypb.Institution{
		Id: string(i.ID), Name: i.Name, Type: i.Type,
		FirstKey: &registrypb.Key{Institution: string(i.ID), Id: string(envelope.KeyID(pub)), PublicKey: pub},
	}
}

// load declares every reference of c, some institutions taking turns as they would in a
// network. It gives the bytes of what was sent.
func (a *alone) load(c *Country, atOnce int) (sent int, err error) {
	type sender struct {
		*Institution
		next     int
		previous []byte
	}
	var live []*sender
	for n := 0; n < len(c.Institutions()) || len(live) > 0; {
		for ; n < len(c.Institutions()) && len(live) < atOnce; n++ {
			live = append(live, &sender{Institution: &c.Institutions()[n]})
		}
		kept := live[:0]
		for _, s := range live {
			raw, hash, err := c.Command(aloneMesh, s.Institution, s.next, s.previous)
			if err != nil {
				return sent, err
			}
			sent += len(raw)
			if err := a.put(raw); err != nil {
				return sent, err
			}
			s.next, s.previous = s.next+1, hash
			if s.next < s.Commands() {
				kept = append(kept, s)
			}
		}
		live = kept
	}
	return sent, a.flush()
}

func (a *alone) put(raw []byte) error {
	a.index++
	a.batch = append(a.batch, store.Entry{Index: a.index, Envelope: raw})
	if len(a.batch) < 32 {
		return nil
	}
	return a.flush()
}

func (a *alone) flush() error {
	results, err := a.ApplyBatch(a.batch)
	if err != nil {
		return err
	}
	for _, r := range results {
		if !r.Accepted {
			return fmt.Errorf("refused: %s", r.Refusal)
		}
	}
	a.batch = a.batch[:0]
	return nil
}
