package record

import (
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// doorKeys bounds the signatures that are verified at the door: each costs a hash of
// the whole command.
const doorKeys = 4

// AtDoor says why a command need not be put before the replicas at all, or nothing. It
// is for whoever takes commands in: what has no form, is for another mesh, or is signed
// by nobody who ever could sign for its author, would cost every replica its size on
// disk for ever. A retired key still opens the door, and so does one of a suspended
// institution: what became of a command that was sent before must remain to be asked.
//
// It judges no more than that; whether a command is accepted only Apply says. v must
// hold everything that was accepted before the command was sent.
func AtDoor(v View, r *Rules, raw []byte) (refusal string, err error) {
	a := &applier{rules: r, view: v}
	return refusalOf(a.atDoor(raw))
}

func (a *applier) atDoor(raw []byte) error {
	opened, err := a.open(raw)
	if err != nil {
		return err
	}
	group, isGroup, err := a.view.Group(a.rules, a.author)
	if err != nil {
		return err
	}
	if isGroup {
		return a.enoughSigned(opened, group)
	}
	inst, err := a.view.Institution(names.InstitutionID(a.author))
	if err != nil {
		return err
	}
	if inst == nil {
		return refuse("the author is not admitted")
	}
	tried := 0
	for _, id := range opened.KeyIDs() {
		k, err := a.view.Key(id)
		if err != nil {
			return err
		}
		if k == nil || k.Institution != a.author {
			continue
		}
		if a.verifiedBy(opened, k.PublicKey) {
			return nil
		}
		if tried++; tried == doorKeys {
			break
		}
	}
	return refuse("no key of %s signed the command", a.author)
}

// open reads envelope and command; it verifies no signature.
func (a *applier) open(raw []byte) (*envelope.Opened, error) {
	if len(raw) > MaxCommand {
		return nil, refuse("the command has %d bytes, at most %d are accepted: send it in parts", len(raw), MaxCommand)
	}
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil {
		return nil, refuse("%v", err)
	}
	a.raw, a.recalled = raw, a.rules.Verified.Recall(raw, opened)
	return opened, a.decode(opened.Payload)
}

// verifiedBy reports whether pub signed the command, and remembers it.
func (a *applier) verifiedBy(opened *envelope.Opened, pub []byte) bool {
	if !opened.VerifiedBy(pub) {
		return false
	}
	if !a.recalled {
		a.rules.Verified.Note(a.raw, pub)
	}
	return true
}

func (a *applier) enoughSigned(opened *envelope.Opened, group Threshold) error {
	if n := opened.CountVerified(group.Keys); n < group.M {
		return refuse("%d of the keys of %s signed, want %d", n, a.author, group.M)
	}
	return nil
}
