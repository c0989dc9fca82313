package trace

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Majority reports whether more than half of the members cosigned a checkpoint, each
// with a key that keys gives.
func Majority(n *checkpoint.Note, members []names.NodeID, keys Keys) (bool, error) {
	count := 0
	for _, m := range members {
		ours, err := keys(m.Institution)
		if err != nil {
			return false, err
		}
		for _, k := range ours {
			if _, ok := n.CosignedBy(m, k); ok {
				count++
				break
			}
		}
	}
	return count > len(members)/2, nil
}

// logged is what the proofs of one segment come to.
type logged struct {
	anchored, pending int
	checkpoints       map[string]*seenNote
}

// seenNote is a checkpoint that was looked at.
type seenNote struct {
	note     *checkpoint.Note // nil: it is none of this node's
	anchored bool
}

// logs reports whether a proof shows an entry in the log that its node published, and
// counts whether that is anchored. No proof: not yet.
func (b *builder) logs(n names.NodeID, s *nodepb.StoredEntry, proof []byte, l *logged) {
	if b.means.Keys == nil || b.means.Anchored == nil {
		return
	}
	if len(proof) == 0 {
		if known := b.means.Known[n]; int64(s.Sequence) < known {
			b.find(Unverified, []names.NodeID{n}, "%s does not show that entry %d is in the log of %d entries that it published.", show(n), s.Sequence, known)
			return
		}
		l.pending++
		return
	}
	p, err := tlog.ParseProof(proof)
	var seen *seenNote
	if err == nil && p.Index >= 0 && uint64(p.Index) == s.Sequence {
		seen = b.checkpoint(n, p.Checkpoint, l)
	}
	if seen == nil || seen.note == nil {
		b.find(Altered, []names.NodeID{n}, "%s gives no checkpoint of its own that entry %d would be under.", show(n), s.Sequence)
		return
	}
	leaf := tlog.Hash(journal.LeafHash([sha256.Size]byte(s.Commitment)))
	if p.Check(tlog.Checkpoint{Origin: seen.note.Origin, Size: seen.note.Size, Root: tlog.Hash(seen.note.Root)}, leaf) != nil {
		b.find(Altered, []names.NodeID{n}, "Entry %d of %s is not in the log of %d entries that %s published.", s.Sequence, show(n), seen.note.Size, show(n))
		return
	}
	if seen.anchored {
		l.anchored++
	} else {
		l.pending++
	}
}

// checkpoint opens a note of n's journal, each note once.
func (b *builder) checkpoint(n names.NodeID, raw []byte, l *logged) *seenNote {
	if s := l.checkpoints[string(raw)]; s != nil {
		return s
	}
	s := new(seenNote)
	if l.checkpoints == nil {
		l.checkpoints = map[string]*seenNote{}
	}
	l.checkpoints[string(raw)] = s
	note, err := checkpoint.Parse(raw)
	if err != nil || note.Node != n {
		return s
	}
	keys, err := b.means.Keys(n.Institution)
	if err != nil || !slices.ContainsFunc(keys, note.SignedBy) {
		return s
	}
	s.note = note
	s.anchored, err = b.means.Anchored(note)
	if err != nil {
		b.find(Unverified, []names.NodeID{n}, "Whether members cosigned the log of %s could not be told.", show(n))
	}
	// Two checkpoints of one size are one and the same, or else two histories.
	for other, o := range l.checkpoints {
		if o.note != nil && other != string(raw) && o.note.Size == note.Size && !bytes.Equal(o.note.Root[:], note.Root[:]) {
			b.find(Altered, []names.NodeID{n}, "%s signed two logs of %d entries.", show(n), note.Size)
		}
	}
	return s
}

// Unproved gives the nodes that show entries without proving them to be in their log.
func Unproved(segments map[names.NodeID]Segment) (nodes []names.NodeID) {
	for _, n := range sorted(segments) {
		s := segments[n]
		proved := min(len(s.Proofs), len(s.Entries))
		if proved < len(s.Entries) || slices.ContainsFunc(s.Proofs[:proved], func(p []byte) bool { return len(p) == 0 }) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// concludeLog says what of a segment is not yet anchored.
func (b *builder) concludeLog(n names.NodeID, j *Journal, l *logged) {
	j.Anchored = l.anchored
	if l.pending > 0 {
		b.find(NotAnchored, []names.NodeID{n}, "Of the entries that %s shows, %d are not yet anchored: only its own word keeps them.", show(n), l.pending)
	}
}
