package archive

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/forest"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Verified is what an archive that verified says.
type Verified struct {
	Mesh         names.MeshID
	Node         names.NodeID
	First, Until uint64
	Erased       uint64 // of the entries, how many are commitments alone
	Size         uint64 // leaves of the tree that all is proven in
	Root         [sha256.Size]byte
	Checkpoint   []byte // the journal's signed note over that tree; nil: only the seal vouches for it
	Tombstones   []*nodepb.Tombstone
	Time         time.Time
	Who          string
	Key          ed25519.PublicKey // that sealed it
}

// Verify reads an archive to its end. trusted gives the keys that may speak for an
// institution of a mesh; at least one must have sealed it. fn, unless nil, gets each
// entry, an erased one with Sequence and Commitment alone; what it gets is certain only
// once Verify has returned without an error, which else wraps ErrMalformed or
// ErrAltered, or is fn's or the reader's.
func Verify(r io.Reader, trusted func(names.MeshID, names.InstitutionID) []ed25519.PublicKey, fn func(*nodepb.StoredEntry) error) (*Verified, error) {
	v := &verifier{r: bufio.NewReaderSize(r, 1<<20), sum: sha256.New(), trusted: trusted, fn: fn}
	if err := v.magic(); err != nil {
		return nil, err
	}
	if err := v.header(); err != nil {
		return nil, err
	}
	seal, err := v.frames()
	if err != nil {
		return nil, err
	}
	if _, err := v.r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, malformed("there are bytes behind the seal")
	}
	if err := v.seal(seal); err != nil {
		return nil, err
	}
	return &v.found, nil
}

type verifier struct {
	r       *bufio.Reader
	sum     hash.Hash // of everything before the frame in hand
	trusted func(names.MeshID, names.InstitutionID) []ed25519.PublicKey
	fn      func(*nodepb.StoredEntry) error

	found Verified
	keys  []ed25519.PublicKey
	next  uint64        // sequence expected
	run   forest.Forest // of the entries
	buf   []byte
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func altered(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrAltered, fmt.Sprintf(format, args...))
}

func (v *verifier) magic() error {
	b := make([]byte, len(magic))
	if _, err := io.ReadFull(v.r, b); err != nil || string(b) != magic {
		return cut(err, "it does not begin as one")
	}
	v.sum.Write(b)
	return nil
}

// cut tells a file that ends too soon from a reader that fails.
func cut(err error, what string) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("%s", what)
	}
	return err
}

// frame reads one frame. The seal is not added to the sum, which is over what is
// before it.
func (v *verifier) frame() (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(v.r, head[:]); err != nil {
		return 0, nil, cut(err, "it ends before its seal")
	}
	kind, n := head[0], binary.BigEndian.Uint32(head[1:])
	most, ok := map[byte]uint32{frameHeader: maxHeader, frameTombstone: maxTombstone, frameEntry: maxEntry, frameSeal: maxSeal}[kind]
	if !ok || n > most {
		return 0, nil, malformed("entry %d is followed by what is no part of an archive", v.next)
	}
	if uint32(cap(v.buf)) < n {
		v.buf = make([]byte, n)
	}
	v.buf = v.buf[:n]
	if _, err := io.ReadFull(v.r, v.buf); err != nil {
		return 0, nil, cut(err, "it ends within a part")
	}
	if kind != frameSeal {
		v.sum.Write(head[:])
		v.sum.Write(v.buf)
	}
	return kind, v.buf, nil
}

func (v *verifier) header() error {
	kind, b, err := v.frame()
	if err != nil {
		return err
	}
	h := new(nodepb.ArchiveHeader)
	if kind != frameHeader || proto.Unmarshal(b, h) != nil {
		return malformed("it has no header")
	}
	node := names.NodeID{Institution: names.InstitutionID(h.GetNode().GetInstitution()), Node: names.NodeName(h.GetNode().GetNode())}
	if err := errors.Join(names.MeshID(h.Mesh).Validate(), node.Validate()); err != nil {
		return malformed("its header: %v", err)
	}
	if h.First > h.Until || h.Until > h.Size || h.Size > 1<<62 {
		return malformed("its header says entries %d to %d of %d", h.First, h.Until, h.Size)
	}
	v.found = Verified{
		Mesh: names.MeshID(h.Mesh), Node: node, First: h.First, Until: h.Until, Size: h.Size, Checkpoint: h.Checkpoint,
		Time: time.UnixMilli(h.TimeUnixMs), Who: h.Who,
	}
	v.next = h.First
	if v.keys = v.trusted(v.found.Mesh, node.Institution); len(v.keys) == 0 {
		return altered("no key is known of %s in mesh %s: give its public key", node.Institution, h.Mesh)
	}
	return nil
}

// frames reads tombstones and entries, and gives the seal.
func (v *verifier) frames() ([]byte, error) {
	for {
		kind, b, err := v.frame()
		if err != nil {
			return nil, err
		}
		switch {
		case kind == frameTombstone && v.next == v.found.First && len(v.found.Tombstones) < maxTombstones:
			err = v.tombstone(b)
		case kind == frameEntry && v.next < v.found.Until:
			err = v.entry(b)
		case kind == frameSeal && v.next == v.found.Until:
			return bytes.Clone(b), nil
		default:
			err = malformed("its parts are out of order behind entry %d", v.next)
		}
		if err != nil {
			return nil, err
		}
	}
}

// tombstone takes what an erased month is excused by. The seal vouches for it: its own
// signature may be by a key that the institution has changed since.
func (v *verifier) tombstone(b []byte) error {
	t := new(nodepb.Tombstone)
	opened, err := envelope.Open(envelope.Tombstone, b)
	if err != nil || proto.Unmarshal(opened.Payload, t) != nil {
		return malformed("a tombstone cannot be read")
	}
	if t.Mesh != string(v.found.Mesh) || t.GetNode().GetInstitution() != string(v.found.Node.Institution) || t.GetNode().GetNode() != string(v.found.Node.Node) {
		return altered("the tombstone of %q is of another journal", t.Period)
	}
	v.found.Tombstones = append(v.found.Tombstones, t)
	return nil
}

func (v *verifier) entry(b []byte) error {
	s := new(nodepb.StoredEntry)
	if proto.Unmarshal(b, s) != nil || len(s.Commitment) != journal.CommitmentSize {
		return malformed("entry %d cannot be read", v.next)
	}
	if s.Sequence != v.next {
		return altered("entry %d stands where %d should", s.Sequence, v.next)
	}
	switch {
	case len(s.Entry) == 0 && len(s.Salt) == 0:
		if !v.excused(s.Sequence) {
			return altered("entry %d is a commitment alone, and no tombstone says why", s.Sequence)
		}
		v.found.Erased++
	case len(s.Salt) != journal.SaltSize:
		return malformed("entry %d has no salt", s.Sequence)
	case journal.EntryCommitment([journal.SaltSize]byte(s.Salt), s.Entry) != [journal.CommitmentSize]byte(s.Commitment):
		return altered("entry %d is not what was committed to", s.Sequence)
	}
	v.run.Leaf(s.Sequence, journal.LeafHash([journal.CommitmentSize]byte(s.Commitment)))
	v.next++
	if v.fn != nil {
		return v.fn(s)
	}
	return nil
}

func (v *verifier) excused(sequence uint64) bool {
	for _, t := range v.found.Tombstones {
		if t.First <= sequence && sequence <= t.Last {
			return true
		}
	}
	return false
}

func (v *verifier) seal(raw []byte) error {
	opened, err := envelope.Open(envelope.Archive, raw)
	if err != nil {
		return malformed("its seal: %v", err)
	}
	for _, k := range v.keys {
		if opened.VerifiedBy(k) {
			v.found.Key = k
		}
	}
	if v.found.Key == nil {
		return altered("its seal is by no key of %s that is known here", v.found.Node.Institution)
	}
	s := new(nodepb.ArchiveSeal)
	if proto.Unmarshal(opened.Payload, s) != nil {
		return malformed("its seal cannot be read")
	}
	if !bytes.Equal(s.Sha256, v.sum.Sum(nil)) {
		return altered("it is not what was sealed")
	}
	return v.tree(s)
}

// tree puts the run of entries between what the seal gives of the rest.
func (v *verifier) tree(s *nodepb.ArchiveSeal) error {
	var all forest.Forest
	err := all.Cover(0, v.found.First, s.Left)
	if err == nil {
		err = all.Cover(v.found.First, v.found.Until, v.run.Hashes())
	}
	if err == nil {
		err = all.Cover(v.found.Until, v.found.Size, s.Right)
	}
	if err != nil {
		return altered("its tree: %v", err)
	}
	v.found.Root = all.Root()
	if !bytes.Equal(v.found.Root[:], s.Root) {
		return altered("its entries do not give the root of the journal's tree")
	}
	if len(v.found.Checkpoint) == 0 {
		return nil
	}
	for _, k := range v.keys {
		c, err := tlog.OpenCheckpoint(tlog.Origin(v.found.Mesh, v.found.Node), k, v.found.Checkpoint)
		if err != nil {
			continue
		}
		if uint64(c.Size) != v.found.Size || [sha256.Size]byte(c.Root) != v.found.Root {
			return altered("its entries are not those of the journal's checkpoint over %d", c.Size)
		}
		return nil
	}
	return altered("the journal's checkpoint in it is signed by no key that is known here")
}
