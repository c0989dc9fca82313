package trace

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

type leaves []merkle.Hash

func (l leaves) ReadHashes(at []int64) (found []merkle.Hash, err error) {
	for _, i := range at {
		found = append(found, l[i])
	}
	return found, nil
}

var witnesses = []names.NodeID{rrn, {Institution: "neo", Node: "n1"}, {Institution: "fin", Node: "n1"}}

func anchoredBy(n *checkpoint.Note) (bool, error) { return Majority(n, witnesses, keysOf) }

// publish puts a segment's entries into a log of size leaves, has it cosigned, and proves them.
func publish(t *testing.T, n names.NodeID, seg Segment, size int64, by ...names.NodeID) [][]byte {
	t.Helper()
	var tree leaves
	for i := range size {
		commitment := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		for _, e := range seg.Entries {
			if int64(e.Sequence) == i {
				commitment = [32]byte(e.Commitment)
			}
		}
		add, err := merkle.StoredHashesForRecordHash(i, merkle.Hash(journal.LeafHash(commitment)), tree)
		if err != nil {
			t.Fatal(err)
		}
		tree = append(tree, add...)
	}
	root, err := merkle.TreeHash(size, tree)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := checkpoint.Sign(checkpoint.Origin("test.example", n), size, checkpoint.Hash(root), keyOf(n.Institution))
	if err != nil {
		t.Fatal(err)
	}
	note, err := checkpoint.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range by {
		line, err := note.Cosign(w, start, keyOf(w.Institution))
		if err != nil {
			t.Fatal(err)
		}
		if err := note.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	proofs := make([][]byte, len(seg.Entries))
	for i, e := range seg.Entries {
		if int64(e.Sequence) >= size {
			continue
		}
		path, err := merkle.ProveRecord(size, int64(e.Sequence), tree)
		if err != nil {
			t.Fatal(err)
		}
		proofs[i] = tlog.Proof{Index: int64(e.Sequence), Path: path, Checkpoint: note.Bytes()}.Marshal()
	}
	return proofs
}

// published is a scene in which every journal is anchored.
func published(t *testing.T, s scene) map[names.NodeID]Segment {
	m := s.segments()
	for n, seg := range m {
		seg.Proofs = publish(t, n, seg, 128, witnesses[:2]...)
		m[n] = seg
	}
	return m
}

func judged(m map[names.NodeID]Segment, known map[names.NodeID]int64) *Story {
	return Build(ticket, m, Means{Keys: keysOf, Anchored: anchoredBy, Known: known})
}

func TestAnchored(t *testing.T) {
	story := judged(published(t, permitted()), nil)
	if story.Verdict != Consistent || NotAnchored.in(story) != nil {
		t.Fatal(text(t, story))
	}
	for _, j := range story.Journals {
		if j.Anchored != j.Entries {
			t.Errorf("%+v", j)
		}
	}
}

// TestLogsThatDoNotHold: the node whose log does not hold what it shows is named, and
// nobody else.
func TestLogsThatDoNotHold(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil   func(Segment) Segment
		kind    Kind
		verdict Verdict
	}{
		"not yet in the log": {func(s Segment) Segment { s.Proofs = nil; return s }, NotAnchored, Consistent},
		"not yet cosigned":   {func(s Segment) Segment { s.Proofs = publish(t, nsso, s, 128, witnesses[0]); return s }, NotAnchored, Consistent},
		"cosigned by others": {func(s Segment) Segment { s.Proofs = publish(t, nsso, s, 128, witnesses[0], pcsa, nsso); return s }, NotAnchored, Consistent},
		"rewritten after it was published": {func(s Segment) Segment {
			e := entry(nodepb.Role_SUPPLIER, nodepb.Event_SUPPLIED, 25*time.Millisecond, answered) // another millisecond
			s.Entries = []*nodepb.StoredEntry{store(s.Entries[0].Sequence, e)}
			return s
		}, Altered, Contradicted},
		"in another place": {func(s Segment) Segment { s.Entries[0].Sequence++; return s }, Altered, Contradicted},
		"under another's checkpoint": {func(s Segment) Segment {
			s.Proofs = publish(t, rrn, s, 128, witnesses...)
			return s
		}, Altered, Contradicted},
		"garbage": {func(s Segment) Segment { s.Proofs = [][]byte{[]byte("garbage")}; return s }, Altered, Contradicted},
		"signature spoilt": {func(s Segment) Segment {
			s.Proofs[0] = []byte(strings.Replace(string(s.Proofs[0]), "\n128\n", "\n129\n", 1))
			return s
		}, Altered, Contradicted},
	} {
		m := published(t, permitted())
		m[nsso] = tt.spoil(m[nsso])
		story := judged(m, nil)
		f := tt.kind.in(story)
		if f == nil || !slices.Equal(f.By, []string{nsso.String()}) || story.Verdict != tt.verdict {
			t.Errorf("%s: %s", name, text(t, story))
		}
		for _, f := range story.Findings {
			if f.Kind.verdict() == Contradicted && !slices.Equal(f.By, []string{nsso.String()}) {
				t.Errorf("%s: %v is accused: %s", name, f.By, f.Says)
			}
		}
	}
}

// TestHiddenProof: a node whose log is known to be long enough must show that its entry
// is in it.
func TestHiddenProof(t *testing.T) {
	m := published(t, permitted())
	seg := m[rrn]
	seg.Proofs = nil
	m[rrn] = seg
	story := judged(m, map[names.NodeID]int64{rrn: 128})
	if f := Unverified.in(story); f == nil || !slices.Equal(f.By, []string{rrn.String()}) || story.Verdict != Incomplete {
		t.Fatal(text(t, story))
	}
	if got := Unproved(m); !slices.Equal(got, []names.NodeID{rrn}) {
		t.Fatal(got)
	}
}

// TestTwoLogs: two checkpoints of one size with different roots are two histories.
func TestTwoLogs(t *testing.T) {
	m := published(t, permitted())
	seg := m[pcsa]
	other := seg
	other.Entries = []*nodepb.StoredEntry{seg.Entries[1], store(100, entry(nodepb.Role_CONSULTANT, nodepb.Event_REQUESTED, time.Second, nil))}
	seg.Proofs = [][]byte{seg.Proofs[0], publish(t, pcsa, other, 128, witnesses...)[0]}
	m[pcsa] = seg
	story := judged(m, nil)
	if !slices.ContainsFunc(story.Findings, func(f Finding) bool {
		return f.Kind == Altered && strings.Contains(f.Says, "signed two logs") && slices.Equal(f.By, []string{pcsa.String()})
	}) {
		t.Fatal(text(t, story))
	}
}
