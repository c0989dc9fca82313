package registry

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// RulesOf turns the genesis file into the rules that every replica applies.
func RulesOf(f *genesis.File, schemes subject.Schemes) *record.Rules {
	r := &record.Rules{
		Mesh:      f.Mesh,
		Operators: record.Threshold{M: f.Operators.Threshold, Keys: f.Operators.Keys},
		Committee: record.Threshold{M: f.Committee.Threshold, Keys: f.Committee.Keys},
		Recovery:  record.Threshold{M: f.Recovery.Threshold, Keys: f.Recovery.Keys},
		Schemes:   schemes,

		RecoveryDelay: f.RecoveryDelay, Level: f.FeatureLevel,
	}
	for _, m := range f.Members {
		r.Members = append(r.Members, record.FirstMember{
			Institution: &registrypb.Institution{
				Id: string(m.Institution), Name: m.Name, Type: string(m.Type), Sector: string(m.Sector),
				ManagingBody: m.ManagingBody, NumberSchemes: m.NumberSchemes,
			},
			Key:  m.PublicKey,
			Node: &registrypb.Node{Ref: refOf(m.ID()), Address: m.Address, GossipKey: m.GossipKey[:]},
		})
	}
	return r
}

// Rules are what every replica of this mesh applies. They are not to be changed.
func (r *Registry) Rules() *record.Rules { return r.rules }

// voters gives the members record of this replica.
func (r *Registry) voters() (voters []names.NodeID, err error) {
	err = r.store.View(func(v record.View) error {
		voters, err = v.Members()
		return err
	})
	return voters, err
}

// isVoter reports whether n stands in the members record, and itself stands.
func (r *Registry) isVoter(n names.NodeID) bool {
	_, err := r.trust(n)
	return err == nil
}

var errNoVoter = errors.New("no voter of the members record that stands")

// trust gives the keys with which a member of the registry signs.
func (r *Registry) trust(n names.NodeID) (keys []ed25519.PublicKey, err error) {
	err = r.PublicView(func(v record.View) error {
		v = v.Remembering()
		ok, err := v.IsMember(n)
		if err != nil {
			return err
		}
		if !ok {
			return errNoVoter
		}
		all, err := v.KeysOf(n.Institution)
		for _, k := range all {
			if !k.Retired {
				keys = append(keys, k.PublicKey)
			}
		}
		return err
	})
	return keys, err
}

// admitted reports whether n may follow and hold a standing: of an institution
// that stands, and not a removed node. A new node may come before its record,
// since it is through the registry that it sends it.
func (r *Registry) admitted(n names.NodeID) error {
	return r.store.View(func(v record.View) error {
		v = v.Remembering()
		stands, err := v.Stands(n.Institution)
		if err != nil {
			return err
		}
		node, err := v.Node(n)
		if err != nil {
			return err
		}
		if !stands || node.GetRemoved() {
			return fmt.Errorf("%w: %s", ErrNotAdmitted, n)
		}
		return nil
	})
}

func refOf(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}
