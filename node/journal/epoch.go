package journal

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal/forest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

const epochName = "epoch"

// ErrRolledBack means that this journal is not the one that the network saw last:
// the disk was restored from a backup, or rewritten. The text names the remedy.
var ErrRolledBack = errors.New("this journal is older than what the network has seen of it, or another")

// Epoch is a span of a journal's life on one disk. The first begins with the journal;
// a later one is declared when a disk was restored.
type Epoch struct {
	Number      uint64 // from 1
	ID          [16]byte
	Started     time.Time
	ResumesAt   uint64            // entries that the log held
	ResumesRoot [sha256.Size]byte // of the tree over them
	Reason, Who string
	Statement   []byte // signed: an envelope of a nodepb.Epoch
}

// NotBefore is from when on a clearance must have been issued to be accepted: the marks
// of those seen before may be lost with what the disk lost. Zero in the first epoch,
// in which nothing was.
func (e *Epoch) NotBefore(life, skew time.Duration) time.Time {
	if e == nil || e.Number <= 1 {
		return time.Time{}
	}
	return e.Started.Add(life + skew)
}

// Epoch gives the present epoch, nil when the journal was opened without a signing key
// and never with one.
func (j *Journal) Epoch() *Epoch {
	j.stating.Lock()
	defer j.stating.Unlock()
	return j.begun
}

// BeginEpoch declares that the disk was restored: a new epoch, signed, durable and in
// the log when it returns. It is called before the node takes any work.
func (j *Journal) BeginEpoch(ctx context.Context, reason, who string) (*Epoch, error) {
	j.stating.Lock()
	defer j.stating.Unlock()
	return j.beginEpoch(ctx, reason, who)
}

// beginEpoch has the caller hold stating.
func (j *Journal) beginEpoch(ctx context.Context, reason, who string) (*Epoch, error) {
	s := j.cfg.Signing
	if s == nil {
		return nil, errNoSigner
	}
	next := j.durable.Load()
	root, err := j.rootAt(ctx, next)
	if err != nil {
		return nil, err
	}
	p := &nodepb.Epoch{
		Mesh: string(s.Mesh), Node: s.ref(), Number: 1, Id: make([]byte, 16), StartedUnixMs: s.now().UnixMilli(),
		ResumesAt: next, ResumesRoot: root[:], Reason: reason, Who: who,
	}
	rand.Read(p.Id)
	if b := j.begun; b != nil {
		p.Number, p.Previous = b.Number+1, b.ID[:]
	}
	raw, err := s.envelope(envelope.Epoch, p)
	if err != nil {
		return nil, err
	}
	entry := &nodepb.Entry{
		TimeUnixMs: p.StartedUnixMs, Role: nodepb.Role_KEEPER, Event: nodepb.Event_EPOCH_BEGUN, Application: who,
		Detail: clipped(fmt.Sprintf("epoch %d: %s", p.Number, reason)), Evidence: [][]byte{raw},
	}
	if _, err := prepare(entry); err != nil {
		return nil, err
	}
	if err := j.state.write(epochName, entry); err != nil {
		return nil, err
	}
	j.begun = epochOf(p, raw)
	if err := j.settle(context.WithoutCancel(ctx), epochName, entry); err != nil {
		return nil, err
	}
	return j.begun, nil
}

// openEpoch takes the epoch that was found, or begins the first. The caller holds stating.
func (j *Journal) openEpoch(ctx context.Context) error {
	for _, n := range j.notes {
		if n.name != epochName {
			continue
		}
		p, err := decodeEpoch(n.entry.Evidence[0])
		if err != nil {
			return fmt.Errorf("%w: file %s: %w: restore it", ErrCorrupt, n.name, err)
		}
		if j.begun == nil || p.Number >= j.begun.Number {
			j.begun = epochOf(p, n.entry.Evidence[0])
		}
	}
	if j.notes = nil; j.begun != nil || j.cfg.Signing == nil {
		return nil
	}
	_, err := j.beginEpoch(ctx, "the journal begins", "node")
	return err
}

func (s statements) epochs() ([]note, error) { return s.all(epochName) }

func decodeEpoch(raw []byte) (*nodepb.Epoch, error) {
	opened, err := envelope.Open(envelope.Epoch, raw)
	if err != nil {
		return nil, err
	}
	p := new(nodepb.Epoch)
	if err := proto.Unmarshal(opened.Payload, p); err != nil || len(p.Id) != 16 || p.Number == 0 || len(p.ResumesRoot) != sha256.Size {
		return nil, errors.New("no epoch statement")
	}
	return p, nil
}

func epochOf(p *nodepb.Epoch, raw []byte) *Epoch {
	return &Epoch{
		Number: p.Number, ID: [16]byte(p.Id), Started: time.UnixMilli(p.StartedUnixMs),
		ResumesAt: p.ResumesAt, ResumesRoot: [sha256.Size]byte(p.ResumesRoot), Reason: p.Reason, Who: p.Who, Statement: raw,
	}
}

// OpenEpoch reads another's signed epoch statement. The caller compares mesh and node.
func OpenEpoch(raw []byte, pub ed25519.PublicKey) (*nodepb.Epoch, error) {
	p, err := decodeEpoch(raw)
	if err != nil {
		return nil, err
	}
	opened, err := envelope.Open(envelope.Epoch, raw)
	if err != nil {
		return nil, err
	}
	if !opened.VerifiedBy(pub) {
		return nil, envelope.ErrBadSignature
	}
	return p, nil
}

// Anchored is the last checkpoint of this journal that the network vouches for.
type Anchored struct {
	Size uint64
	Root [sha256.Size]byte
	// Epoch that it was made in.
	Epoch uint64
}

// CheckAnchored compares the log with what the network saw last of it. The error wraps
// ErrRolledBack when the log is shorter, has another past or has missed a later epoch;
// not when the present epoch was declared after that, for the loss is told then. rootAt gives the tree's root over
// the first entries; nil: it is computed from the log, which reads it.
func (j *Journal) CheckAnchored(ctx context.Context, a Anchored, rootAt func(context.Context, uint64) ([sha256.Size]byte, error)) error {
	own := uint64(1)
	if e := j.Epoch(); e != nil {
		own = e.Number
	}
	switch seen := max(a.Epoch, 1); {
	case seen < own:
		return nil
	case seen > own:
		return fmt.Errorf("%w: it is in epoch %d, and epoch %d was declared; %s", ErrRolledBack, own, seen, remedy)
	}
	next := j.durable.Load()
	if a.Size > next {
		return fmt.Errorf("%w: it holds %d entries, and a checkpoint over %d was anchored; %s", ErrRolledBack, next, a.Size, remedy)
	}
	if rootAt == nil {
		rootAt = j.rootAt
	}
	root, err := rootAt(ctx, a.Size)
	if err != nil {
		return err
	}
	if root != a.Root {
		return fmt.Errorf("%w: its first %d entries are not those that were anchored; %s", ErrRolledBack, a.Size, remedy)
	}
	return nil
}

const remedy = "bring back the newest copy of the data folder if there is one; " +
	"if this disk was restored from a backup, stop the node, declare it with `crossroads journal restore-declared --config FILE`, and start it again"

// Halt stops the journal, as a failed disk does: it takes no more entries until it
// is opened again.
func (j *Journal) Halt(cause error) error { return j.fail(cause) }

// rootAt computes the tree's root over the first entries.
func (j *Journal) rootAt(ctx context.Context, size uint64) ([sha256.Size]byte, error) {
	var f forest.Forest
	err := j.scanAll(0, size, func(_ location, h header, _ []byte) error {
		f.Leaf(h.sequence, LeafHash(h.commitment))
		return context.Cause(ctx)
	})
	return f.Root(), err
}
