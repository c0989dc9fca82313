package record

import (
	"strings"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// authorize checks that the author may write this kind of record at all, and that
// enough of the author's keys signed. Whether the record is the author's own is
// checked with the record.
func (a *applier) authorize(opened *envelope.Opened) error {
	group, isGroup, err := a.view.Group(a.rules, a.author)
	if err != nil {
		return err
	}
	if !isGroup {
		if strings.HasPrefix(a.author, "@") {
			return refuse("unknown author group")
		}
		if err := names.InstitutionID(a.author).Validate(); err != nil {
			return refuse("author: %v", err)
		}
	}
	if err := a.mayWrite(isGroup); err != nil {
		return err
	}
	if isGroup {
		return a.enoughSigned(opened, group)
	}
	known := a.known()
	inst, err := known.Institution(names.InstitutionID(a.author))
	if err != nil {
		return err
	}
	switch {
	case inst == nil:
		return refuse("%s is not admitted", a.author)
	case inst.Suspended:
		return refuse("%s is suspended", a.author)
	}
	for _, id := range opened.KeyIDs() {
		k, err := known.Key(id)
		if err != nil {
			return err
		}
		if k != nil && k.Institution == a.author && !k.Retired && a.verifiedBy(opened, k.PublicKey) {
			return nil
		}
	}
	return refuse("no key in force of %s signed the command", a.author)
}

// mayWrite holds the table of who writes what, and on which chain.
func (a *applier) mayWrite(isGroup bool) error {
	if need := levelOfKind(a.cmd); need > 1 {
		if err := a.reached(need, a.kind()); err != nil {
			return err
		}
	}
	var ok bool
	chain := registrypb.Chain_PUBLIC
	switch a.cmd.Body.(type) {
	case *registrypb.Command_SetInstitution, *registrypb.Command_SetMembers,
		*registrypb.Command_SetDataset, *registrypb.Command_SetSuspended, *registrypb.Command_SetIdentityProvider:
		ok = a.author == Operators
	case *registrypb.Command_SetFeatureLevel, *registrypb.Command_SetAutopilot:
		ok = a.author == Operators
	case *registrypb.Command_SetAuthorization, *registrypb.Command_RevokeAuthorization:
		ok = a.author == Committee || a.author == Operators // what rests on law: see the record
	case *registrypb.Command_SetGroup, *registrypb.Command_AnnounceRecovery, *registrypb.Command_CancelRecovery:
		ok = isGroup
	case *registrypb.Command_ConfirmRecovery:
		ok = !isGroup
	case *registrypb.Command_SetKey: // operators may retire one
		ok = !isGroup || a.author == Operators
	case *registrypb.Command_SetNode, *registrypb.Command_SetOffering, *registrypb.Command_SetSubscription:
		ok = !isGroup
	case *registrypb.Command_DeclareReferences, *registrypb.Command_DeclarePacked, *registrypb.Command_SetNumbers,
		*registrypb.Command_GiveMandate, *registrypb.Command_RevokeMandate:
		ok = !isGroup
		chain = registrypb.Chain_DIRECTORY
	case *registrypb.Command_SetAnchors:
		ok = !isGroup
		chain = registrypb.Chain_ANCHORS
	}
	switch {
	case !ok:
		return refuse("%s may not write %s", a.author, a.kind())
	case a.cmd.Chain != chain:
		return refuse("%s belongs on the chain %s", a.kind(), chain)
	}
	return nil
}

// applyBody checks the record and writes its rows.
func (a *applier) applyBody() error {
	switch b := a.cmd.Body.(type) {
	case *registrypb.Command_SetInstitution:
		return a.setInstitution(b.SetInstitution)
	case *registrypb.Command_SetMembers:
		return a.setMembers(b.SetMembers)
	case *registrypb.Command_SetDataset:
		return a.setDataset(b.SetDataset)
	case *registrypb.Command_SetAuthorization:
		return a.setAuthorization(b.SetAuthorization)
	case *registrypb.Command_RevokeAuthorization:
		return a.revokeAuthorization(b.RevokeAuthorization)
	case *registrypb.Command_SetKey:
		return a.setKey(b.SetKey)
	case *registrypb.Command_SetNode:
		return a.setNode(b.SetNode)
	case *registrypb.Command_SetOffering:
		return a.setOffering(b.SetOffering)
	case *registrypb.Command_DeclareReferences:
		return a.declareReferences(b.DeclareReferences)
	case *registrypb.Command_DeclarePacked:
		return a.declarePacked(b.DeclarePacked)
	case *registrypb.Command_SetNumbers:
		return a.setNumbers(b.SetNumbers)
	case *registrypb.Command_SetSuspended:
		return a.setSuspended(b.SetSuspended)
	case *registrypb.Command_SetAnchors:
		return a.setAnchors(b.SetAnchors)
	case *registrypb.Command_SetFeatureLevel:
		return a.setFeatureLevel(b.SetFeatureLevel)
	case *registrypb.Command_SetAutopilot:
		return a.setAutopilot(b.SetAutopilot)
	case *registrypb.Command_SetGroup:
		return a.setGroup(b.SetGroup)
	case *registrypb.Command_AnnounceRecovery:
		return a.announceRecovery(b.AnnounceRecovery)
	case *registrypb.Command_CancelRecovery:
		return a.cancelRecovery(b.CancelRecovery)
	case *registrypb.Command_ConfirmRecovery:
		return a.confirmRecovery(b.ConfirmRecovery)
	case *registrypb.Command_GiveMandate:
		return a.giveMandate(b.GiveMandate)
	case *registrypb.Command_RevokeMandate:
		return a.revokeMandate(b.RevokeMandate)
	case *registrypb.Command_SetIdentityProvider:
		return a.setProvider(b.SetIdentityProvider)
	case *registrypb.Command_SetSubscription:
		return a.setSubscription(b.SetSubscription)
	}
	return refuse("this version does not know %s", a.kind())
}
