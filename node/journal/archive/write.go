package archive

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
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
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Source is the log that is archived; *journal.Reader is one.
type Source interface {
	Next() uint64
	Erasures() []*journal.Erasure
	Each(ctx context.Context, from, until uint64, fn func(journal.Stored) error) error
	Commitments(ctx context.Context, from, until uint64, fn func(uint64, [journal.CommitmentSize]byte) error) error
}

// Order says what is archived, for whom and by whom.
type Order struct {
	Mesh         names.MeshID
	Node         names.NodeID  // whose journal it is
	Signer       crypto.Signer // of its institution
	First, Until uint64        // the entries First <= sequence < Until
	Checkpoint   []byte        // the journal's last signed one, which must cover them; nil: none
	Time         time.Time
	Who          string
	// Progress, unless nil, is called now and then with how many of how many leaves
	// were read.
	Progress func(done, total uint64)
}

// Write writes an archive. What was written before an error is no archive.
func Write(ctx context.Context, w io.Writer, from Source, o Order) error {
	pub, ok := o.Signer.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("archive: the signer holds no Ed25519 key")
	}
	h := &nodepb.ArchiveHeader{
		Mesh: string(o.Mesh), Node: &registrypb.NodeRef{Institution: string(o.Node.Institution), Node: string(o.Node.Node)},
		First: o.First, Until: o.Until, Size: from.Next(), Checkpoint: o.Checkpoint,
		PublicKey: pub, TimeUnixMs: o.Time.UnixMilli(), Who: o.Who,
	}
	var root *forest.Hash
	if len(o.Checkpoint) > 0 {
		c, err := tlog.OpenCheckpoint(tlog.Origin(o.Mesh, o.Node), pub, o.Checkpoint)
		if err != nil {
			return fmt.Errorf("archive: the journal's checkpoint: %w", err)
		}
		h.Size, root = uint64(c.Size), (*forest.Hash)(&c.Root)
	}
	if o.First > o.Until || o.Until > h.Size || h.Size > from.Next() {
		return fmt.Errorf("archive: entries %d to %d were asked for, the tree covers %d and the log holds %d", o.First, o.Until, h.Size, from.Next())
	}
	a := &writer{w: bufio.NewWriterSize(w, 1<<20), sum: sha256.New(), order: o, total: h.Size}
	seal, err := a.body(ctx, from, h)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if root != nil && *root != forest.Hash(seal.Root) {
		return fmt.Errorf("archive: %w: the log is not what its own checkpoint was signed over", journal.ErrCorrupt)
	}
	payload, err := proto.Marshal(seal)
	if err != nil {
		return err
	}
	raw, err := envelope.Sign(envelope.Archive, payload, o.Signer)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := a.frame(frameSeal, raw); err != nil {
		return err
	}
	return a.w.Flush()
}

type writer struct {
	w     *bufio.Writer
	sum   hash.Hash
	order Order
	buf   []byte
	done  uint64
	total uint64
}

// body writes all frames but the seal, and computes that.
func (a *writer) body(ctx context.Context, from Source, h *nodepb.ArchiveHeader) (*nodepb.ArchiveSeal, error) {
	if err := a.bytes([]byte(magic)); err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(h)
	if err != nil {
		return nil, err
	}
	if err := a.frame(frameHeader, raw); err != nil {
		return nil, err
	}
	for _, e := range from.Erasures() {
		if err := a.frame(frameTombstone, e.Tombstone); err != nil {
			return nil, err
		}
	}
	var left, right, all forest.Forest
	add := func(side *forest.Forest) func(uint64, [journal.CommitmentSize]byte) error {
		return func(n uint64, c [journal.CommitmentSize]byte) error {
			leaf := journal.LeafHash(c)
			side.Leaf(n, leaf)
			all.Leaf(n, leaf)
			a.step()
			return nil
		}
	}
	if err := from.Commitments(ctx, 0, h.First, add(&left)); err != nil {
		return nil, err
	}
	err = from.Each(ctx, h.First, h.Until, func(s journal.Stored) error {
		all.Leaf(s.Sequence, journal.LeafHash(s.Commitment))
		a.step()
		p := s.Proto()
		if s.Entry == nil {
			p.Salt, p.Entry = nil, nil
		}
		raw, err := proto.Marshal(p)
		if err != nil {
			return err
		}
		return a.frame(frameEntry, raw)
	})
	if err != nil {
		return nil, err
	}
	if err := from.Commitments(ctx, h.Until, h.Size, add(&right)); err != nil {
		return nil, err
	}
	root := all.Root()
	return &nodepb.ArchiveSeal{Sha256: a.sum.Sum(nil), Root: root[:], Left: left.Hashes(), Right: right.Hashes()}, nil
}

func (a *writer) step() {
	a.done++
	if a.order.Progress != nil && (a.done%8192 == 0 || a.done == a.total) {
		a.order.Progress(a.done, a.total)
	}
}

func (a *writer) frame(kind byte, payload []byte) error {
	a.buf = appendFrame(a.buf[:0], kind, payload)
	return a.bytes(a.buf)
}

func (a *writer) bytes(b []byte) error {
	a.sum.Write(b)
	_, err := a.w.Write(b)
	return err
}
