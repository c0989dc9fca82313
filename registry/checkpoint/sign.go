package checkpoint

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/hdevalence/ed25519consensus"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// The algorithm bytes of C2SP signed-note.
const (
	algEd25519     = 1
	algCosignature = 4
)

const timeSize = 8

// KeyHash gives the four bytes by which a line of signature names its key.
func KeyHash(name string, alg byte, pub ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write([]byte{alg})
	h.Write(pub)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// JournalKey gives a journal's public key in the form that tools of the C2SP family
// read: name+hash+base64.
func JournalKey(origin string, pub ed25519.PublicKey) string { return vkey(origin, algEd25519, pub) }

// WitnessKey does so for a witness.
func WitnessKey(mesh names.MeshID, member names.NodeID, pub ed25519.PublicKey) string {
	return vkey(WitnessName(mesh, member), algCosignature, pub)
}

func vkey(name string, alg byte, pub ed25519.PublicKey) string {
	return fmt.Sprintf("%s+%08x+%s", name, KeyHash(name, alg, pub), base64.StdEncoding.EncodeToString(append([]byte{alg}, pub...)))
}

// Sign makes a note: the checkpoint of a journal, signed by its institution's key.
// It fails only if the signer does.
func Sign(origin string, size int64, root Hash, signer crypto.Signer) ([]byte, error) {
	return SignIn(1, origin, size, root, signer)
}

// SignIn is Sign in a later epoch of the journal.
func SignIn(epoch int64, origin string, size int64, root Hash, signer crypto.Signer) ([]byte, error) {
	text := Text(origin, size, root) + epochLine(epoch)
	pub, sig, err := sign(signer, []byte(text))
	if err != nil {
		return nil, err
	}
	return []byte(text + "\n" + signature(origin, algEd25519, pub, sig)), nil
}

// Cosign gives the line by which a member says that it saw the checkpoint, at a
// time, and that it is consistent with all it had seen of that journal before.
func (n *Note) Cosign(member names.NodeID, at time.Time, signer crypto.Signer) ([]byte, error) {
	when := binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
	pub, sig, err := sign(signer, cosigned(uint64(at.Unix()), n.Text))
	if err != nil {
		return nil, err
	}
	return []byte(signature(WitnessName(n.Mesh, member), algCosignature, pub, append(when, sig...))), nil
}

func sign(s crypto.Signer, msg []byte) (ed25519.PublicKey, []byte, error) {
	pub, ok := s.Public().(ed25519.PublicKey)
	if !ok {
		return nil, nil, fmt.Errorf("signing key is %T, want Ed25519", s.Public())
	}
	sig, err := s.Sign(rand.Reader, msg, crypto.Hash(0))
	if err != nil {
		return nil, nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return pub, sig, nil
}

func signature(name string, alg byte, pub ed25519.PublicKey, sig []byte) string {
	b := append(binary.BigEndian.AppendUint32(nil, KeyHash(name, alg, pub)), sig...)
	return sigPrefix + name + " " + base64.StdEncoding.EncodeToString(b) + "\n"
}

func cosigned(at uint64, text string) []byte {
	return []byte("cosignature/v1\ntime " + strconv.FormatUint(at, 10) + "\n" + text)
}

// SignedBy reports whether the journal's line was made with pub.
func (n *Note) SignedBy(pub ed25519.PublicKey) bool {
	if envelope.CheckKey(pub) != nil {
		return false
	}
	hash := KeyHash(n.Origin, algEd25519, pub)
	for _, l := range n.lines {
		if l.name == n.Origin && l.hash == hash && len(l.sig) == ed25519.SignatureSize {
			return ed25519consensus.Verify(pub, []byte(n.Text), l.sig)
		}
	}
	return false
}

// CosignedBy reports whether member cosigned with pub, and the time it gave. Of
// several lines by one key the first counts.
func (n *Note) CosignedBy(member names.NodeID, pub ed25519.PublicKey) (at time.Time, ok bool) {
	if envelope.CheckKey(pub) != nil {
		return at, false
	}
	name := WitnessName(n.Mesh, member)
	hash := KeyHash(name, algCosignature, pub)
	for _, l := range n.lines {
		if l.name == name && l.hash == hash && len(l.sig) == timeSize+ed25519.SignatureSize {
			sec := binary.BigEndian.Uint64(l.sig)
			if sec > 1<<40 || !ed25519consensus.Verify(pub, cosigned(sec, n.Text), l.sig[timeSize:]) {
				return at, false
			}
			return time.Unix(int64(sec), 0).UTC(), true
		}
	}
	return at, false
}

// Add adds a line of signature, as Cosign gives it; one that stands there changes
// nothing. The error wraps ErrMalformed.
func (n *Note) Add(raw []byte) error {
	l, ok := parseLine(string(raw))
	if !ok || len(n.lines) == MaxSignatures {
		return fmt.Errorf("%w: line of signature", ErrMalformed)
	}
	for _, have := range n.lines {
		if have.name == l.name && have.hash == l.hash {
			return nil
		}
	}
	n.lines = append(n.lines, l)
	return nil
}

// Join adds the lines of signature that o, a note of the same text, has and n lacks, and
// tells whether there were any.
func (n *Note) Join(o *Note) (grown bool, err error) {
	if !n.Same(o) {
		return false, fmt.Errorf("%w: notes of two texts", ErrMalformed)
	}
	before := len(n.lines)
	for _, l := range o.lines {
		if err := n.Add([]byte(l.raw)); err != nil {
			return len(n.lines) > before, err
		}
	}
	return len(n.lines) > before, nil
}

// Only gives a note with the journal's line and those of the members for which keep
// is true, at most max of them: who stores notes need not store what others add.
func (n *Note) Only(max int, keep func(member names.NodeID) bool) *Note {
	trimmed := *n
	trimmed.lines = nil
	for _, l := range n.lines {
		if l.name == n.Origin {
			trimmed.lines = append(trimmed.lines, l)
			continue
		}
		mesh, member, err := parseName(l.name, witnessKind)
		if err == nil && mesh == n.Mesh && max > 0 && keep(member) {
			trimmed.lines = append(trimmed.lines, l)
			max--
		}
	}
	return &trimmed
}

// Witnesses names the members that claim to have cosigned, in order, each once;
// nothing is verified.
func (n *Note) Witnesses() (members []names.NodeID) {
	seen := make(map[names.NodeID]bool)
	for _, l := range n.lines {
		if mesh, m, err := parseName(l.name, witnessKind); err == nil && mesh == n.Mesh && !seen[m] {
			seen[m] = true
			members = append(members, m)
		}
	}
	return members
}
