package tlog

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// MaxCheckpoint is the greatest size in bytes of a checkpoint, cosignatures
// included, that is read.
const MaxCheckpoint = 64 << 10

// Origin names the journal of a node: "<mesh>/journal/<institution>/<node>". It is
// the first line of its checkpoints, and the name of the key that signs them.
func Origin(mesh names.MeshID, n names.NodeID) string {
	return fmt.Sprintf("%s/journal/%s/%s", mesh, n.Institution, n.Node)
}

// SectorOrigin names a node's journal of its sector: "<mesh>/sector/<institution>/<node>".
// Its checkpoints are shown to nobody, and pass for those of no other journal.
func SectorOrigin(mesh names.MeshID, n names.NodeID) string {
	return fmt.Sprintf("%s/sector/%s/%s", mesh, n.Institution, n.Node)
}

// Checkpoint is a signed statement: the log of this origin had this many entries,
// and this root.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
	// Epoch of the journal. 0 and 1: the first, which is not written.
	Epoch int64
	// Note is the signed note that says so, with all its signatures.
	Note []byte
}

// Text gives the signed text.
func (c Checkpoint) Text() string {
	text := fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
	if c.Epoch > 1 {
		text += fmt.Sprintf("epoch %d\n", c.Epoch)
	}
	return text
}

func (c *Checkpoint) sign(s *noteSigner) (err error) {
	c.Note, err = note.Sign(&note.Note{Text: c.Text()}, s)
	return err
}

// OpenCheckpoint checks that a signed note is a checkpoint of origin under the
// institution's key. Signatures by others are kept, and not looked at.
func OpenCheckpoint(origin string, pub ed25519.PublicKey, msg []byte) (Checkpoint, error) {
	if len(msg) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("a checkpoint of %d bytes, at most %d are read", len(msg), MaxCheckpoint)
	}
	v, err := newVerifier(origin, pub)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint of %s: %w", origin, err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != origin {
		return Checkpoint{}, fmt.Errorf("a checkpoint of %q, want one of %q", c.Origin, origin)
	}
	c.Note = msg
	return c, nil
}

// ParseCheckpoint reads the text of a checkpoint, which must be exactly origin, size
// and root, and in a later epoch "epoch 2": what else a text could say (extension lines)
// we do not sign, and so do not take. Note stays empty; nothing is verified.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines, epoch := strings.Split(text, "\n"), int64(0)
	if len(lines) == 5 {
		n, err := strconv.ParseInt(strings.TrimPrefix(lines[3], "epoch "), 10, 64)
		if err != nil || n < 2 || lines[3] != fmt.Sprintf("epoch %d", n) {
			return Checkpoint{}, errors.New("malformed checkpoint: its fourth line is no epoch")
		}
		lines, epoch = append(lines[:3], lines[4]), n
	}
	if len(text) > MaxCheckpoint || len(lines) != 4 || lines[3] != "" || lines[0] == "" {
		return Checkpoint{}, errors.New("malformed checkpoint: want three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, errors.New("malformed checkpoint: its size is no number")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(Hash{}) || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return Checkpoint{}, errors.New("malformed checkpoint: its root is no hash")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: Hash(root), Epoch: epoch}, nil
}

// openOwn reads a checkpoint that this log has kept. One that another key signed is
// taken at its word: keys are replaced, and what it says can only bind us further.
func openOwn(s *noteSigner, msg []byte) (Checkpoint, error) {
	c, err := OpenCheckpoint(s.name, s.pub, msg)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return c, err
	}
	if c, err = ParseCheckpoint(unverified.Note.Text); err == nil && c.Origin != s.name {
		err = fmt.Errorf("it is of %q, want %q", c.Origin, s.name)
	}
	c.Note = msg
	return c, err
}

// noteSigner signs notes with a crypto.Signer; package note wants the key itself.
type noteSigner struct {
	name string
	pub  ed25519.PublicKey
	key  crypto.Signer
}

var _ note.Signer = (*noteSigner)(nil)

func newNoteSigner(name string, key crypto.Signer) (*noteSigner, error) {
	pub, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	if _, err := newVerifier(name, pub); err != nil {
		return nil, err
	}
	return &noteSigner{name, pub, key}, nil
}

func (s *noteSigner) Name() string { return s.name }

func (s *noteSigner) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(s.name+"\n\x01"), s.pub...))
	return binary.BigEndian.Uint32(sum[:])
}

func (s *noteSigner) Sign(msg []byte) ([]byte, error) { return s.key.Sign(nil, msg, crypto.Hash(0)) }

// VerifierKey gives the key that verifies a log's checkpoints, in the form of
// c2sp.org/signed-note, for other implementations.
func VerifierKey(origin string, pub ed25519.PublicKey) (string, error) {
	if len(pub) != ed25519.PublicKeySize {
		return "", fmt.Errorf("a public key of %d bytes, want %d", len(pub), ed25519.PublicKeySize)
	}
	return note.NewEd25519VerifierKey(origin, pub)
}

func newVerifier(origin string, pub ed25519.PublicKey) (note.Verifier, error) {
	key, err := VerifierKey(origin, pub)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("the origin %q is no name of a key: %w", origin, err)
	}
	return v, nil
}
