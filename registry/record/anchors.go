package record

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxAnchors is how many notes one command may anchor. Each costs a replica a
// signature of the journal and those of a majority to verify, about 0.2 ms.
const MaxAnchors = 256

// Anchor is the last checkpoint of a journal that a majority of members cosigned.
type Anchor struct {
	Checkpoint *checkpoint.Note
	Index      uint64 // of the command that anchored it
}

// ErrNotAnchored means that a note is not one the registry may anchor: its form, its
// journal, its signature or its cosignatures are not in order.
var ErrNotAnchored = errors.New("not an anchored checkpoint")

// setAnchors takes each note by itself: one that is not in order, or does not grow its
// journal, changes nothing and spoils no other, since a key may be retired between
// the moment a note is gathered and this one. The command is refused only when none
// is in order, which every replica of whatever part of the tables judges alike.
//
// What it leaves behind is bounded: a command of which no note is anything's last
// one any more is forgotten, so there are never more of them than journals; but for those
// that stand for a declared epoch, and for the last one before it, which are kept.
func (a *applier) setAnchors(set *registrypb.Anchors) error {
	if len(set.GetNotes()) == 0 || len(set.Notes) > MaxAnchors {
		return refuse("%d anchors, want 1 to %d", len(set.GetNotes()), MaxAnchors)
	}
	if len(set.Declarations) > 0 {
		if len(set.Declarations) > len(set.Notes) {
			return refuse("%d declarations for %d anchors", len(set.Declarations), len(set.Notes))
		}
		if err := a.reached(2, "a declaration of an epoch"); err != nil {
			return err
		}
	}
	declarations := DeclarationsOf(set.Declarations)
	if ok, err := a.votes(names.InstitutionID(a.author)); err != nil || !ok {
		return cmp.Or(err, refuse("%s has no voting member; the member that leads writes anchors", a.author))
	}
	var first error
	inOrder, stand := 0, uint32(0) // stand: of its notes, and of the epochs that they begin
	touched := make(map[string]bool)
	for _, raw := range set.Notes {
		note, err := a.view.CheckAnchor(a.rules.Mesh, raw)
		var begins *Declared
		if err == nil && !touched[note.Node.String()] {
			begins, err = a.declares(note, declarations)
		}
		if errors.Is(err, ErrNotAnchored) || errors.Is(err, checkpoint.ErrMalformed) {
			if first == nil {
				first = err
			}
			continue
		}
		if err != nil {
			return err
		}
		inOrder++
		took, err := a.setAnchor(note, raw, begins, touched)
		if err != nil {
			return err
		}
		if took {
			stand++
		}
		if took && begins != nil {
			stand++
			if err := a.setDeclared(begins); err != nil {
				return err
			}
		}
	}
	if inOrder == 0 {
		return refuse("none of the anchors is in order; the first: %v", first)
	}
	if stand == 0 {
		a.forget = true
		return nil
	}
	return a.Set(indexKey(tabAnchored, a.index), binary.BigEndian.AppendUint32(nil, stand))
}

// votes reports whether a node of inst is a voting member that stands.
func (a *applier) votes(inst names.InstitutionID) (bool, error) {
	members, err := a.view.Members()
	if err != nil {
		return false, err
	}
	for _, m := range members {
		if m.Institution != inst {
			continue
		}
		if ok, err := a.view.NodeStands(m); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// setAnchor makes note the last one of its journal if it is larger, or of a later epoch. The
// one before a declared epoch is not let go, for the declaration names it.
func (a *applier) setAnchor(note *checkpoint.Note, raw []byte, begins *Declared, touched map[string]bool) (bool, error) {
	if touched[note.Node.String()] { // one note of each journal: the first counts, also when it does not grow
		return false, nil
	}
	touched[note.Node.String()] = true
	was, err := a.view.Anchor(note.Node)
	if err != nil {
		return false, err
	}
	if was != nil && !note.After(was.Checkpoint) {
		return false, nil
	}
	if was != nil && begins == nil {
		if err := a.release(was.Index); err != nil {
			return false, err
		}
	}
	return true, a.Set(anchorKey(note.Node), append(binary.BigEndian.AppendUint64(nil, a.index), bytes.Clone(raw)...))
}

// release takes one note off the count of what still stands of a command, and
// forgets the command with its last.
func (a *applier) release(index uint64) error {
	k := indexKey(tabAnchored, index)
	b, err := a.Get(k)
	if err != nil {
		return err
	}
	if len(b) != 4 {
		return fmt.Errorf("%w: count of anchors", ErrCorrupt)
	}
	if left := binary.BigEndian.Uint32(b) - 1; left > 0 {
		return a.Set(k, binary.BigEndian.AppendUint32(nil, left))
	}
	return errors.Join(a.Delete(k), a.Delete(indexKey(tabCommand, index)))
}

func anchorKey(n names.NodeID) []byte { return key(tabAnchor, n.String()) }

// CheckAnchor reads a note and verifies all that makes it an anchored checkpoint: it
// is of a journal of mesh whose node stands, a key in force of the node's
// institution signed it, and a majority of the voting members cosigned it with keys
// in force. A member counts once, and not while its node or institution does not
// stand. The error wraps ErrNotAnchored or checkpoint.ErrMalformed, or is that of
// the state.
func (v View) CheckAnchor(mesh names.MeshID, raw []byte) (*checkpoint.Note, error) {
	n, err := checkpoint.Parse(raw)
	if err != nil {
		return nil, err
	}
	if err := v.CheckCheckpoint(mesh, n); err != nil {
		return nil, err
	}
	members, err := v.Members()
	if err != nil {
		return nil, err
	}
	count := 0
	for _, m := range members {
		ok, err := v.Cosigned(n, m)
		if err != nil {
			return nil, err
		}
		if ok {
			count++
		}
		if count > len(members)/2 {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%w: %d of %d members cosigned, want a majority", ErrNotAnchored, count, len(members))
}

// CheckCheckpoint verifies that n is of a journal of mesh whose node stands and
// that a key in force of its institution signed it. The error is as of CheckAnchor.
func (v View) CheckCheckpoint(mesh names.MeshID, n *checkpoint.Note) error {
	if n.Mesh != mesh {
		return fmt.Errorf("%w: the journal is of another mesh", ErrNotAnchored)
	}
	if ok, err := v.NodeStands(n.Node); err != nil || !ok {
		return cmp.Or(err, fmt.Errorf("%w: no node of that name stands", ErrNotAnchored))
	}
	ok, err := v.signed(n.Node.Institution, func(k *registrypb.Key) bool { return n.SignedBy(k.PublicKey) })
	if err != nil || !ok {
		return cmp.Or(err, fmt.Errorf("%w: no key in force of its institution signed it", ErrNotAnchored))
	}
	return nil
}

// Cosigned reports whether a voting member that stands cosigned n with a key in force.
func (v View) Cosigned(n *checkpoint.Note, member names.NodeID) (bool, error) {
	if ok, err := v.IsMember(member); err != nil || !ok {
		return false, err
	}
	return v.signed(member.Institution, func(k *registrypb.Key) bool {
		_, ok := n.CosignedBy(member, k.PublicKey)
		return ok
	})
}

// signed reports whether ok is true of a key in force of inst.
func (v View) signed(inst names.InstitutionID, ok func(*registrypb.Key) bool) (bool, error) {
	keys, err := v.KeysOf(inst)
	for _, k := range keys {
		if !k.Retired && ok(k) {
			return true, err
		}
	}
	return false, err
}

// Anchor gives the last anchored checkpoint of a node's journal, or nil. Only members
// hold them.
func (v View) Anchor(n names.NodeID) (*Anchor, error) {
	b, err := v.g.Get(anchorKey(n))
	if err != nil || b == nil {
		return nil, err
	}
	return unpackAnchor(b)
}

// Anchors calls fn with the anchors of all journals after the given node, in order of
// institution and node; the zero NodeID begins at the first.
func (v View) Anchors(after names.NodeID, fn func(*Anchor) error) error {
	start := []byte{tabAnchor}
	if after != (names.NodeID{}) {
		start = append(anchorKey(after), 0)
	}
	return ended(v.g.Scan([]byte{tabAnchor}, start, func(_, b []byte) error {
		a, err := unpackAnchor(b)
		if err != nil {
			return err
		}
		return fn(a)
	}))
}

func unpackAnchor(b []byte) (*Anchor, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("%w: anchor", ErrCorrupt)
	}
	note, err := checkpoint.Parse(b[8:])
	if err != nil {
		return nil, fmt.Errorf("%w: anchor", ErrCorrupt)
	}
	return &Anchor{Checkpoint: note, Index: binary.BigEndian.Uint64(b)}, nil
}
