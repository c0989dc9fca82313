package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// ErrOtherRules means that a state was founded under other rules: another genesis
// file, or another mesh. Mend it by naming the right genesis file, or by starting
// the replica from an empty directory.
var ErrOtherRules = errors.New("registry state belongs to another genesis")

// Bootstrap writes the first rows, those the genesis file speaks of, into an empty
// state. On a state founded already it only checks that the rules are the same.
func Bootstrap(s State, r *Rules) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("registry rules: %w", err)
	}
	founded, err := s.Get([]byte{tabRules})
	switch {
	case err != nil:
		return err
	case founded == nil:
		return found(s, r)
	case !bytes.Equal(founded, r.Fingerprint()):
		return ErrOtherRules
	}
	return r.checkLevel(s)
}

func found(s State, r *Rules) error {
	if r.Level > r.knows() {
		return r.tooOld(r.Level)
	}
	o := newOverlay(s)
	a := newApplier(o, r)
	members := new(registrypb.Members)
	managing := make(map[string]string) // sector to institution; scans do not see what is being founded
	for i, m := range r.Members {
		if inst := m.Institution; inst.GetManagingBody() {
			if other := managing[inst.Sector]; other != "" && other != inst.Id {
				return fmt.Errorf("first member %d: %s is the managing body of sector %s already", i+1, other, inst.Sector)
			}
			managing[inst.Sector] = inst.Id
		}
		if err := a.firstMember(m); err != nil {
			return fmt.Errorf("first member %d: %w", i+1, err)
		}
		members.Voters = append(members.Voters, m.Node.GetRef())
	}
	if err := a.checkVoters(members); err != nil {
		return fmt.Errorf("first members: %w", err)
	}
	if err := errors.Join(o.Set([]byte{tabMembers}, encodeMembers(members)), o.Set([]byte{tabRules}, r.Fingerprint())); err != nil {
		return err
	}
	if r.Level > 1 {
		if err := o.Set([]byte{tabLevel}, packLevel(r.Level)); err != nil {
			return err
		}
	}
	return o.commit()
}

func (a *applier) firstMember(m FirstMember) error {
	id := m.Institution.GetId()
	if err := a.checkInstitution(m.Institution); err != nil {
		return err
	}
	k := &registrypb.Key{Institution: id, Id: string(envelope.KeyID(m.Key)), PublicKey: m.Key}
	known, err := a.view.Key(names.KeyID(k.Id))
	if err != nil {
		return err
	}
	if known.GetInstitution() != id { // several nodes of one institution may be members
		if err := a.addKey(k); err != nil {
			return err
		}
	}
	if err := checkNode(m.Node, id); err != nil {
		return err
	}
	ref := m.Node.GetRef()
	return errors.Join(
		a.Set(key(tabInstitution, id), encodeInstitution(m.Institution)),
		a.Set(key(tabNode, ref.GetInstitution()+"/"+ref.GetNode()), encodeNode(m.Node)))
}

// The genesis rows have no author whose bytes could be kept, so they are encoded
// here field by field: what a protobuf library writes may change between versions.

func encodeInstitution(i *registrypb.Institution) []byte {
	var b []byte
	b = appendText(b, 1, i.GetId())
	b = appendText(b, 2, i.GetName())
	b = appendText(b, 3, i.GetType())
	b = appendText(b, 4, i.GetSector())
	if i.GetManagingBody() {
		b = protowire.AppendVarint(protowire.AppendTag(b, 5, protowire.VarintType), 1)
	}
	for _, s := range i.GetNumberSchemes() {
		b = appendText(b, 7, s)
	}
	return b
}

func encodeNode(n *registrypb.Node) []byte {
	var b []byte
	b = appendText(b, 1, string(encodeRef(n.GetRef())))
	b = appendText(b, 2, n.GetAddress())
	b = appendText(b, 3, string(n.GetGossipKey()))
	return b
}

func encodeMembers(m *registrypb.Members) []byte {
	var b []byte
	for _, v := range m.GetVoters() {
		b = appendText(b, 1, string(encodeRef(v)))
	}
	return b
}

func encodeRef(r *registrypb.NodeRef) []byte {
	return appendText(appendText(nil, 1, r.GetInstitution()), 2, r.GetNode())
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// SetAppliedIndex writes down that everything up to and with index is decided. A
// store does so in the transaction of the change itself.
func SetAppliedIndex(s State, index uint64) error {
	return s.Set([]byte{tabApplied}, binary.BigEndian.AppendUint64(nil, index))
}

// packKey gives the row of a key: retired, public key, institution.
func packKey(k *registrypb.Key) []byte {
	b := make([]byte, 1, 1+ed25519.PublicKeySize+len(k.GetInstitution()))
	if k.GetRetired() {
		b[0] = 1
	}
	b = append(b, k.GetPublicKey()...)
	return append(b, k.GetInstitution()...)
}

func unpackKey(id string, b []byte) (*registrypb.Key, error) {
	if len(b) < 2+ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: key", ErrCorrupt)
	}
	return &registrypb.Key{
		Id: id, Retired: b[0] == 1,
		PublicKey:   b[1 : 1+ed25519.PublicKeySize],
		Institution: string(b[1+ed25519.PublicKeySize:]),
	}, nil
}
