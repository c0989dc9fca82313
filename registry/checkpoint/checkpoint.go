// Package checkpoint reads, signs and verifies the checkpoints of journals, pure
// and without a clock, for everybody who must come to the same verdict on the same
// bytes: the registry's replicas, the witnesses, the nodes, an auditor.
//
// A checkpoint is a C2SP signed note (c2sp.org/signed-note) whose text is a
// c2sp.org/tlog-checkpoint: origin, size and root of the journal's tree.
//
//	test.mesh/journal/nsso/n1
//	4
//	L0h4Pj5pAwLOUxdtB2OjvSLmtTzV4cTnxwaQ1C6ZwIo=
//
//	— test.mesh/journal/nsso/n1 <base64 of key hash (4) and Ed25519 signature (64)>
//	— test.mesh/witness/neo/n1 <base64 of key hash (4), time (8), signature (64)>
//
// After a declared restore of the journal's disk the text has a fourth line, "epoch 2" and
// so on (an extension line, as C2SP calls it): what the journal held after the backup is
// lost, and told to be, so checkpoints of different epochs do not contradict each other.
//
// The first line of signature is the journal's (algorithm 1, key name = origin), by
// its institution's signing key. The others are cosignatures of registry members
// (c2sp.org/tlog-cosignature, algorithm 4), by their institutions' signing keys over
//
//	cosignature/v1
//	time 1780000000
//	<the note's text>
//
// Reading is strict: there is one way to write a note. Signatures are Ed25519 under
// the ZIP-215 rule, as everywhere in the mesh; see package certs/envelope.
package checkpoint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Limits of what is read.
const (
	MaxNote       = 8 << 10 // bytes of a note, its signatures included
	MaxSignatures = 24      // lines of signature
	HashSize      = 32      // bytes of a root
	maxSize       = 1 << 53 // leaves; also what JSON can hold
)

var (
	// ErrMalformed means that the bytes are no checkpoint of a journal, or too large.
	ErrMalformed = errors.New("malformed checkpoint")
	// ErrUnsigned means that a signature that counts is missing or does not verify.
	ErrUnsigned = errors.New("checkpoint not signed")
)

// Hash is the root of a tree, or of a part of one.
type Hash [HashSize]byte

// Note is a checkpoint with its signatures, none of them verified yet.
type Note struct {
	Origin string
	Mesh   names.MeshID // of the origin
	Node   names.NodeID // whose journal it is
	Size   int64        // leaves
	Root   Hash
	Epoch  int64  // of the journal; 1: the first, which has no line
	Text   string // what is signed
	lines  []line
}

// line is one line of signature.
type line struct {
	name string
	hash uint32
	sig  []byte
	raw  string // with its newline
}

const (
	journalKind = "journal"
	witnessKind = "witness"
	sigPrefix   = "— "
)

// Origin gives the name of a node's journal, in its checkpoints and as the name of
// the key that signs them.
func Origin(mesh names.MeshID, n names.NodeID) string { return name(mesh, journalKind, n) }

// WitnessName gives the name of the key by which a member cosigns.
func WitnessName(mesh names.MeshID, n names.NodeID) string { return name(mesh, witnessKind, n) }

func name(mesh names.MeshID, kind string, n names.NodeID) string {
	return string(mesh) + "/" + kind + "/" + n.String()
}

// ParseOrigin reads what Origin writes.
func ParseOrigin(s string) (names.MeshID, names.NodeID, error) { return parseName(s, journalKind) }

func parseName(s, kind string) (names.MeshID, names.NodeID, error) {
	mesh, rest, _ := strings.Cut(s, "/")
	node, ok := strings.CutPrefix(rest, kind+"/")
	if !ok {
		return "", names.NodeID{}, fmt.Errorf("%w: no name of a %s", ErrMalformed, kind)
	}
	id, err := names.ParseNodeID(node)
	if err == nil {
		err = names.MeshID(mesh).Validate()
	}
	if err != nil {
		return "", names.NodeID{}, fmt.Errorf("%w: name of a %s: %w", ErrMalformed, kind, err)
	}
	return names.MeshID(mesh), id, nil
}

// Text gives the text of a checkpoint in the first epoch, ready to be signed.
func Text(origin string, size int64, root Hash) string {
	return origin + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}

// epochLine gives what follows that text in an epoch: nothing in the first.
func epochLine(epoch int64) string {
	if epoch <= 1 {
		return ""
	}
	return "epoch " + strconv.FormatInt(epoch, 10) + "\n"
}

// parseEpochLine reads what epochLine writes in a later epoch.
func parseEpochLine(line string) (int64, bool) {
	n, ok := parseSize(strings.TrimPrefix(line, "epoch "))
	return n, ok && n > 1 && strings.HasPrefix(line, "epoch ")
}

// After reports whether n is of a later epoch than o, or of the same one and larger.
func (n *Note) After(o *Note) bool {
	return n.Epoch > o.Epoch || n.Epoch == o.Epoch && n.Size > o.Size
}

// Parse reads a note. The error wraps ErrMalformed. No signature is verified.
func Parse(raw []byte) (*Note, error) {
	n, why := parse(string(raw))
	if why != "" {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, why)
	}
	return n, nil
}

func parse(s string) (_ *Note, why string) {
	if len(s) > MaxNote {
		return nil, fmt.Sprintf("more than %d bytes", MaxNote)
	}
	text, signatures, ok := strings.Cut(s, "\n\n")
	if !ok || signatures == "" {
		return nil, "no empty line between text and signatures"
	}
	n, why := parseText(text)
	if why != "" {
		return nil, why
	}
	for l := range strings.Lines(signatures) {
		if len(n.lines) == MaxSignatures {
			return nil, fmt.Sprintf("more than %d signatures", MaxSignatures)
		}
		sig, ok := parseLine(l)
		if !ok {
			return nil, "line of signature"
		}
		n.lines = append(n.lines, sig)
	}
	return n, ""
}

// ParseText reads the text of a note alone, as Note.Text holds it. The error wraps
// ErrMalformed.
func ParseText(s string) (*Note, error) {
	text, ok := strings.CutSuffix(s, "\n")
	n, why := parseText(text)
	if len(s) > MaxNote || !ok {
		why = "no text of a note"
	}
	if why != "" {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, why)
	}
	return n, nil
}

func parseText(text string) (_ *Note, why string) {
	ok := true
	n := &Note{Text: text + "\n", Epoch: 1}
	head := strings.Split(text, "\n")
	if len(head) == 4 {
		if n.Epoch, ok = parseEpochLine(head[3]); !ok {
			return nil, "epoch"
		}
		head = head[:3]
	}
	if len(head) != 3 {
		return nil, "want the three lines origin, size, root"
	}
	var err error
	n.Origin = head[0]
	if n.Mesh, n.Node, err = ParseOrigin(n.Origin); err != nil {
		return nil, "the origin is no journal of a mesh"
	}
	if n.Size, ok = parseSize(head[1]); !ok {
		return nil, "size"
	}
	if n.Root, ok = ParseHash(head[2]); !ok {
		return nil, "root"
	}
	return n, ""
}

// parseSize reads a number as C2SP writes it: ASCII decimal, no leading zero.
func parseSize(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= maxSize && strconv.FormatInt(n, 10) == s
}

// ParseHash reads a hash in standard base64, written in the one canonical way.
func ParseHash(s string) (h Hash, ok bool) {
	b, ok := decode(s)
	if !ok || len(b) != HashSize {
		return h, false
	}
	return Hash(b), true
}

func decode(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodeToString(b) == s
}

func parseLine(l string) (line, bool) {
	rest, ok := strings.CutPrefix(l, sigPrefix)
	if !ok || !strings.HasSuffix(rest, "\n") {
		return line{}, false
	}
	name, text, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
	b, ok := decode(text)
	if !ok || len(b) < 5 || !keyName(name) {
		return line{}, false
	}
	return line{name, uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), b[4:], l}, true
}

// keyName accepts the names that our keys have, and those of other networks' logs
// and witnesses as far as they are printable ASCII.
func keyName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '+' {
			return false
		}
	}
	return true
}

// Bytes gives the note as it is sent: the text, an empty line, the signatures.
func (n *Note) Bytes() []byte {
	var b strings.Builder
	b.WriteString(n.Text)
	b.WriteByte('\n')
	for _, l := range n.lines {
		b.WriteString(l.raw)
	}
	return []byte(b.String())
}

// Same reports whether two checkpoints say the same of the same journal.
func (n *Note) Same(o *Note) bool { return n.Text == o.Text }
