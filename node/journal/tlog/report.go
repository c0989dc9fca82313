package tlog

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// Kind is what is wrong with a journal.
type Kind string

// The kinds of finding.
const (
	// Damaged: what lies there cannot be read, or is not what its record commits to.
	Damaged Kind = "DAMAGED"
	// Missing: entries are gone.
	Missing Kind = "MISSING"
	// RolledBack: this is an older copy of a journal that others saw grow further.
	RolledBack Kind = "ROLLED BACK"
	// Altered: entries are not those that were signed.
	Altered Kind = "ALTERED"
	// TwoHistories: the journal's key signed two histories, of which one cannot be
	// the beginning of the other.
	TwoHistories Kind = "TWO HISTORIES"
)

// maxFindings bounds a report: the first findings tell what the rest would.
const maxFindings = 100

// Report is what Verify found.
type Report struct {
	Origin      string `json:"origin"`
	Entries     int64  `json:"entries"`     // read
	Erased      int64  `json:"erased"`      // of these, under a tombstone: only their commitments stand
	Checkpoints int    `json:"checkpoints"` // kept beside the log, and compared
	Anchors     int    `json:"anchors"`     // kept by others, and compared
	Running     bool   `json:"running"`     // a node has it open: entries after its last checkpoint were left out
	// Declared are the epochs that were begun because a disk was restored.
	Declared []Declared `json:"declared,omitempty"`
	Findings []Finding  `json:"findings"`
	More     bool       `json:"more"` // there were more findings than are kept
	// Notes are what else is to be known, and accuses nobody.
	Notes []string `json:"notes,omitempty"`

	signed []signedOver
}

// signedOver is a checkpoint that the log agrees with.
type signedOver struct {
	size   int64
	note   []byte
	anchor bool
}

// SignedOver gives a checkpoint, signed by the journal's present key, that covers an entry
// and that the log agrees with; anchored: others kept it. Nil: none does.
func (r *Report) SignedOver(seq int64) (note []byte, anchored bool) {
	for _, s := range r.signed {
		if seq < s.size {
			return s.note, s.anchor
		}
	}
	return nil, false
}

// Add adds a finding that rests on more than this journal.
func (r *Report) Add(f Finding) {
	if len(r.Findings) == maxFindings {
		r.More = true
		return
	}
	r.Findings = append(r.Findings, f)
}

// OK tells that nothing is wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// Finding is one thing that is wrong, with what proves it.
type Finding struct {
	Kind     Kind   `json:"kind"`
	Origin   string `json:"origin"` // whose journal
	From     int64  `json:"from"`   // the entries: From <= sequence < Until
	Until    int64  `json:"until"`
	Where    string `json:"where,omitempty"` // file and offset; empty: not one place
	What     string `json:"what,omitempty"`  // was done to the entries, as far as the tiles prove it
	Expected string `json:"expected"`
	Found    string `json:"found"`
	// Checkpoint is the signed checkpoint that contradicts. Empty, and Statement too:
	// nothing that was signed does, and nobody is accused.
	Checkpoint noteText `json:"checkpoint,omitempty"`
	// Anchored says that Checkpoint was kept by others.
	Anchored bool `json:"anchored"`
	// Unsigned says that Checkpoint, which was kept here, is not signed by this
	// journal's present key: an earlier key signed it, or nobody did.
	Unsigned bool `json:"unsigned"`
	// Statement is what the holder signed otherwise and the log contradicts: an envelope
	// of a nodepb.Tombstone. Empty: nothing.
	Statement []byte `json:"statement,omitempty"`
	// Other is, for TwoHistories, the checkpoint of the other history.
	Other noteText `json:"other,omitempty"`
}

// noteText is a signed note, which JSON shows as the text it is.
type noteText []byte

// MarshalText gives the text.
func (n noteText) MarshalText() ([]byte, error) { return n, nil }

// Culprit gives the origin of the journal whose own signature contradicts what it
// holds, and "" when no signature does: a disk fails too.
func (f Finding) Culprit() string {
	if len(f.Statement) > 0 || len(f.Checkpoint) > 0 && !f.Unsigned {
		return f.Origin
	}
	return ""
}

// narrow says which entries differ, and what was done to them, from the leaves that
// were signed and those that are there, both from entry base on.
func (f *Finding) narrow(base int64, was, is []Hash) {
	n := min(len(was), len(is))
	first := 0
	for first < n && was[first] == is[first] {
		first++
	}
	if first == n {
		return
	}
	last, differ := first, 0
	for i := first; i < n; i++ {
		if was[i] != is[i] {
			last = i
			differ++
		}
	}
	f.From, f.Until = base+int64(first), base+int64(last)+1
	w, s := was[first:n], is[first:n]
	switch {
	case shifted(w, s):
		f.What = fmt.Sprintf("entry %d was taken out, and those behind it moved up", f.From)
	case shifted(s, w):
		f.What = fmt.Sprintf("an entry was put in at %d, and those behind it moved down", f.From)
	case differ == 2 && was[first] == is[last] && was[last] == is[first]:
		f.What = fmt.Sprintf("entries %d and %d changed places", f.From, f.Until-1)
	case differ == 1:
		f.What = fmt.Sprintf("entry %d was changed", f.From)
	default:
		f.What = fmt.Sprintf("%d entries were changed", differ)
	}
	f.Expected += fmt.Sprintf("; leaf %d is %v", f.From, was[first])
	f.Found += fmt.Sprintf("; leaf %d is %v", f.From, is[first])
}

// shifted tells whether b is a without its first.
func shifted(a, b []Hash) bool {
	if len(a) < 2 || a[0] == b[0] {
		return false
	}
	for i := 1; i < len(a); i++ {
		if a[i] != b[i-1] {
			return false
		}
	}
	return true
}

// String gives the finding with its evidence, complete in itself.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", f.Kind, f.summary())
	line := func(what, says string) {
		if says != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", what, says)
		}
	}
	line("journal", f.Origin)
	line("where", f.Where)
	line("what", f.What)
	line("expected", f.Expected)
	line("found", f.Found)
	switch {
	case len(f.Statement) > 0:
		line("culprit", "the holder of this journal, who signed "+base64.StdEncoding.EncodeToString(f.Statement))
	case len(f.Checkpoint) == 0:
		line("culprit", "nobody: no signed checkpoint contradicts this; it may be the disk")
	case f.Unsigned:
		line("culprit", "nobody can be named: the checkpoint kept here is not signed by the journal's present key")
	default:
		line("culprit", "the holder of this journal, whose own signature it contradicts")
	}
	evidence := func(title string, n noteText) {
		if len(n) > 0 {
			fmt.Fprintf(&b, "  %s:\n    %s\n", title, strings.ReplaceAll(strings.TrimRight(string(n), "\n"), "\n", "\n    "))
		}
	}
	title := "the checkpoint, as it was kept beside the log"
	if f.Anchored {
		title = "the checkpoint, as others kept it"
	}
	evidence(title, f.Checkpoint)
	evidence("the checkpoint of the other history", f.Other)
	return b.String()
}

func (f Finding) summary() string {
	which := fmt.Sprintf("entries %d to %d", f.From, f.Until-1)
	switch f.Until - f.From {
	case 0:
		which = f.Where
	case 1:
		which = fmt.Sprintf("entry %d", f.From)
	}
	switch f.Kind {
	case Missing:
		return "not all that was signed is there: " + which
	case RolledBack:
		return "others saw more than is there; this is an older copy, or another history: " + which
	case Altered:
		return "not all is what was signed: " + which
	case TwoHistories:
		return "two histories were signed; they part at or before " + which
	}
	return which + " cannot be trusted"
}
