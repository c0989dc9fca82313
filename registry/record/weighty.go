package record

import (
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MayRemove reports whether a command, if it is accepted, may take a right away, as far as
// this view can tell beforehand: it is for an author who must not take the word of whoever
// decides for that. When in doubt it may: kinds that this function does not know do.
func (v View) MayRemove(c *registrypb.Command) (bool, error) {
	switch b := c.GetBody().(type) {
	case *registrypb.Command_SetDataset, *registrypb.Command_SetAuthorization, *registrypb.Command_SetOffering,
		*registrypb.Command_DeclareReferences, *registrypb.Command_DeclarePacked, *registrypb.Command_SetNumbers, *registrypb.Command_SetAnchors:
		return false, nil
	case *registrypb.Command_SetKey:
		return b.SetKey.GetRetired(), nil
	case *registrypb.Command_SetNode:
		return b.SetNode.GetRemoved(), nil
	case *registrypb.Command_SetSuspended:
		return b.SetSuspended.GetSuspended(), nil
	case *registrypb.Command_SetInstitution:
		was, err := v.Institution(names.InstitutionID(b.SetInstitution.GetId()))
		return was != nil, err
	case *registrypb.Command_SetIdentityProvider:
		was, err := v.IdentityProvider(names.ProviderID(b.SetIdentityProvider.GetId()))
		return was != nil, err
	}
	return true, nil
}

// keepRights are the kinds of command of which MayRemove is false, whatever stands in them,
// and of which there are many.
var keepRights = []protowire.Number{bodyNumber("declare_references"), bodyNumber("declare_packed"), bodyNumber("set_numbers"), bodyNumber("set_anchors")}

// KeepsRights reports whether the payload of a command is of a kind that takes no right
// away, without decoding it. False: see MayRemove.
func KeepsRights(payload []byte) (keeps bool) {
	for b := payload; len(b) > 0; {
		num, _, n := protowire.ConsumeField(b)
		switch {
		case n < 0:
			return false
		case slices.Contains(keepRights, num):
			keeps = true
		case num >= firstBody:
			return false
		}
		b = b[n:]
	}
	return keeps
}

// AcceptedAt gives the index at which the command whose payload has this SHA-256 was
// accepted, and whether it took a right away; 0: it is not in this replica's tables.
// Anchors are not found.
func (v View) AcceptedAt(payloadHash []byte) (index uint64, removesRight bool, err error) {
	b, err := v.g.Get(hashKey(payloadHash))
	switch {
	case err != nil || b == nil:
		return 0, false, err
	case len(b) != 9:
		return 0, false, fmt.Errorf("%w: command hash", ErrCorrupt)
	}
	return binary.BigEndian.Uint64(b), b[8] == 1, nil
}
