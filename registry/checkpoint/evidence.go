package checkpoint

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// ErrNoContradiction means that what is offered as evidence shows nothing: the two
// checkpoints agree, or are not both signed by the journal.
var ErrNoContradiction = errors.New("no contradiction between the checkpoints")

// MaxEvidence bounds the bytes of an evidence's text.
const MaxEvidence = 2*(MaxNote+MaxNote/8) + 8<<10

// Evidence is two checkpoints of one journal that contradict each other, with the
// proof by which that was seen. It stands by itself: whoever has the public keys of
// the mesh can judge it, see Verify.
type Evidence struct {
	Older, Newer *Note // by size; with whatever cosignatures they carried
	Proof        []Hash
	Finder       names.NodeID // who found it; asserted, and of no weight
	Found        time.Time    // to the second
}

// Finding is what an Evidence proves.
type Finding struct {
	// Journal is the node that signed both checkpoints.
	Journal names.NodeID
	// Forked: it is certain that no honest log holds both. Otherwise the journal was
	// asked for the proof that joins them and gave none that does: it must show one.
	Forked bool
	// Members cosigned both of a forked pair, which none may that remembers what it
	// cosigned.
	Members []names.NodeID
}

// String says it in plain words.
func (f *Finding) String() string {
	if !f.Forked {
		return fmt.Sprintf("%s signed two checkpoints and did not prove that one grew into the other", f.Journal)
	}
	s := fmt.Sprintf("%s signed two histories of its journal", f.Journal)
	for _, m := range f.Members {
		s += fmt.Sprintf("; %s cosigned both", m)
	}
	return s
}

// NewEvidence puts two checkpoints of one journal in order: of size, or if that is the
// same of text, so that two checkpoints make one evidence whoever holds them.
func NewEvidence(a, b *Note, proof []Hash, finder names.NodeID, found time.Time) *Evidence {
	if a.Size > b.Size || a.Size == b.Size && a.Text > b.Text {
		a, b = b, a
	}
	return &Evidence{a, b, proof, finder, found.UTC().Truncate(time.Second)}
}

// Verify judges the evidence. keys gives all keys that an institution ever had in the
// registry, retired ones too. The error wraps ErrNoContradiction. An honest journal or
// member is never named as Forked or among Members, whoever made the evidence up.
func (e *Evidence) Verify(keys func(names.InstitutionID) []ed25519.PublicKey) (*Finding, error) {
	if e.Older.Origin != e.Newer.Origin {
		return nil, fmt.Errorf("%w: they are of two journals", ErrNoContradiction)
	}
	if e.Older.Epoch != e.Newer.Epoch {
		return nil, fmt.Errorf("%w: a declared restore lies between them", ErrNoContradiction)
	}
	node := e.Older.Node
	c := Compare(e.Older, e.Newer, e.Proof)
	if c == Consistent {
		return nil, fmt.Errorf("%w: one is the beginning of the other", ErrNoContradiction)
	}
	for _, n := range []*Note{e.Older, e.Newer} {
		if !anyKey(keys(node.Institution), n.SignedBy) {
			return nil, fmt.Errorf("%w: no key of %s signed that of size %d", ErrNoContradiction, node.Institution, n.Size)
		}
	}
	f := &Finding{Journal: node, Forked: c == Forked}
	if !f.Forked {
		return f, nil
	}
	for _, m := range e.Older.Witnesses() {
		by := func(n *Note) bool {
			return anyKey(keys(m.Institution), func(pub ed25519.PublicKey) bool { _, ok := n.CosignedBy(m, pub); return ok })
		}
		if by(e.Older) && by(e.Newer) {
			f.Members = append(f.Members, m)
		}
	}
	return f, nil
}

func anyKey(keys []ed25519.PublicKey, ok func(ed25519.PublicKey) bool) bool {
	for _, k := range keys {
		if ok(k) {
			return true
		}
	}
	return false
}

const (
	evidenceHead = "crossroads evidence v1\n"
	saysForked   = "No honest log holds both checkpoints below, and the journal's key signed both.\n"
	saysUnproven = "The journal's key signed both checkpoints below, and the journal did not prove that one grew into the other.\n"
	indent       = "  "
)

// Text gives the evidence for people and for ParseEvidence.
func (e *Evidence) Text() []byte {
	var b strings.Builder
	b.WriteString(evidenceHead)
	fmt.Fprintf(&b, "journal %s\n", e.Older.Origin)
	fmt.Fprintf(&b, "found by %s at %s\n", e.Finder, e.Found.Format(time.RFC3339))
	if Compare(e.Older, e.Newer, e.Proof) == Forked {
		b.WriteString(saysForked)
	} else {
		b.WriteString(saysUnproven)
	}
	b.WriteString("\nolder checkpoint\n" + indented(e.Older) + "newer checkpoint\n" + indented(e.Newer))
	b.WriteString("proof offered\n")
	for _, h := range e.Proof {
		b.WriteString(indent + base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	return []byte(b.String())
}

func indented(n *Note) string {
	var b strings.Builder
	for l := range strings.Lines(string(n.Bytes())) {
		b.WriteString(indent + l)
	}
	return b.String()
}

// ParseEvidence reads what Text writes, and nothing else. The error wraps
// ErrMalformed. Nothing is verified: see Verify.
func ParseEvidence(text []byte) (*Evidence, error) {
	malformed := func(what string) error { return fmt.Errorf("%w: evidence: %s", ErrMalformed, what) }
	if len(text) > MaxEvidence {
		return nil, malformed("too long")
	}
	head, rest, _ := strings.Cut(string(text), "\nolder checkpoint\n")
	older, rest, _ := strings.Cut(rest, "newer checkpoint\n")
	newer, proof, ok := strings.Cut(rest, "proof offered\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 {
		return nil, malformed("a part is missing")
	}
	e := new(Evidence)
	var err error
	if e.Older, err = Parse(outdented(older)); err != nil {
		return nil, err
	}
	if e.Newer, err = Parse(outdented(newer)); err != nil {
		return nil, err
	}
	finder, at, _ := strings.Cut(strings.TrimPrefix(lines[2], "found by "), " at ")
	if e.Finder, err = names.ParseNodeID(finder); err != nil {
		return nil, malformed("finder")
	}
	if e.Found, err = time.Parse(time.RFC3339, at); err != nil {
		return nil, malformed("time")
	}
	for l := range strings.Lines(proof) {
		h, ok := ParseHash(strings.TrimSuffix(strings.TrimPrefix(l, indent), "\n"))
		if !ok || len(e.Proof) == MaxProof {
			return nil, malformed("proof")
		}
		e.Proof = append(e.Proof, h)
	}
	if string(e.Text()) != string(text) { // what stands there for people is part of it
		return nil, malformed("it is not written as it says")
	}
	return e, nil
}

func outdented(s string) []byte {
	var b strings.Builder
	for l := range strings.Lines(s) {
		b.WriteString(strings.TrimPrefix(l, indent))
	}
	return []byte(b.String())
}
