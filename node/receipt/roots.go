package receipt

import (
	"crypto/ed25519"
	"slices"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// roots is what signed commands say, each believed only when those who may give it
// signed it; all of it goes back to the keys in the genesis file.
type roots struct {
	genesis        *genesis.File
	keys           map[names.InstitutionID][]ed25519.PublicKey
	names          map[names.InstitutionID]string
	members        [][]names.NodeID // each voting membership there was
	authorizations map[string][]*registrypb.Authorization
	bad            []int // commands, from 1, that are not signed by those who may give them
}

func newRoots(g *genesis.File, commands [][]byte) *roots {
	r := &roots{
		genesis: g, keys: map[names.InstitutionID][]ed25519.PublicKey{}, names: map[names.InstitutionID]string{},
		authorizations: map[string][]*registrypb.Authorization{},
	}
	var first []names.NodeID
	for _, m := range g.Members {
		r.addKey(m.Institution, m.PublicKey)
		r.names[m.Institution] = m.Name
		first = append(first, m.ID())
	}
	r.members = append(r.members, first)
	for i, raw := range commands {
		if !r.take(raw) {
			r.bad = append(r.bad, i+1)
		}
	}
	return r
}

func (r *roots) addKey(i names.InstitutionID, pub ed25519.PublicKey) bool {
	if envelope.CheckKey(pub) != nil {
		return false
	}
	r.keys[i] = append(r.keys[i], pub)
	return true
}

// take believes one command if it is in order.
func (r *roots) take(raw []byte) bool {
	c, opened, err := openCommand(raw)
	if err != nil || c.Mesh != string(r.genesis.Mesh) {
		return false
	}
	operators := func() bool {
		return c.Author == record.Operators && opened.CountVerified(r.genesis.Operators.Keys) >= r.genesis.Operators.Threshold
	}
	switch b := c.Body.(type) {
	case *registrypb.Command_SetInstitution:
		if !operators() {
			return false
		}
		id := names.InstitutionID(b.SetInstitution.GetId())
		r.names[id] = b.SetInstitution.GetName()
		if k := b.SetInstitution.GetFirstKey(); k != nil {
			return r.addKey(id, k.GetPublicKey())
		}
		return true
	case *registrypb.Command_SetKey:
		author := names.InstitutionID(c.Author)
		if b.SetKey.GetInstitution() != c.Author || !slices.ContainsFunc(r.keys[author], opened.VerifiedBy) {
			return false
		}
		return b.SetKey.GetRetired() || r.addKey(author, b.SetKey.GetPublicKey())
	case *registrypb.Command_SetMembers:
		if !operators() {
			return false
		}
		var voters []names.NodeID
		for _, v := range b.SetMembers.GetVoters() {
			voters = append(voters, record.NodeID(v))
		}
		r.members = append(r.members, voters)
		return true
	case *registrypb.Command_SetAuthorization:
		if c.Author != record.Committee || opened.CountVerified(r.genesis.Committee.Keys) < r.genesis.Committee.Threshold {
			return false
		}
		a := b.SetAuthorization
		r.authorizations[a.GetId()] = append(r.authorizations[a.GetId()], a)
		return true
	}
	return false
}

// keysOf is trace.Keys.
func (r *roots) keysOf(i names.InstitutionID) ([]ed25519.PublicKey, error) { return r.keys[i], nil }

// anchored reports whether most of a voting membership cosigned.
func (r *roots) anchored(n *checkpoint.Note) (bool, error) {
	if n.Mesh != r.genesis.Mesh {
		return false, nil
	}
	for _, voters := range r.members {
		if ok, err := trace.Majority(n, voters, r.keysOf); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// isMember reports whether n ever voted.
func (r *roots) isMember(n names.NodeID) bool {
	return slices.ContainsFunc(r.members, func(voters []names.NodeID) bool { return slices.Contains(voters, n) })
}
