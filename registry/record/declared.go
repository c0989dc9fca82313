package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// How many epochs one journal may declare. Each lets it lose entries that were anchored,
// so who could declare without end could rewrite without end.
const (
	// MaxDeclared is how many epochs of one journal are accepted within DeclaredPeriod.
	MaxDeclared    = 3
	DeclaredPeriod = 30 * 24 * time.Hour
	// MaxDeclaration is how many bytes the envelope of a declaration may have.
	MaxDeclaration = 2 << 10
)

var (
	// ErrNotDeclared means that a checkpoint begins an epoch that its journal did not
	// declare as it must. It wraps ErrNotAnchored.
	ErrNotDeclared = fmt.Errorf("%w: its epoch is not declared in order", ErrNotAnchored)
	// ErrNotTheLast means that a declaration does not name the last anchored checkpoint as
	// this view has it. It wraps ErrNotDeclared.
	ErrNotTheLast = fmt.Errorf("%w: it does not name the last anchored checkpoint", ErrNotDeclared)
	// ErrTooManyEpochs means that MaxDeclared were declared lately. It wraps ErrNotDeclared.
	ErrTooManyEpochs = fmt.Errorf("%w: %d were declared within %d days, and no more are accepted", ErrNotDeclared, MaxDeclared, DeclaredPeriod/(24*time.Hour))
)

// Declared is an epoch of a journal that a majority of members accepted after its holder
// declared that the disk was restored. It is never forgotten.
type Declared struct {
	Node   names.NodeID
	Number int64
	Index  uint64    // of the command by which it stands
	Time   time.Time // when members cosigned; to the second
	// Declaration is what the holder signed, and Envelope as it was signed.
	Declaration *registrypb.EpochDeclaration
	Envelope    []byte
}

// OpenDeclaration reads the declaration of an epoch. The error wraps ErrNotDeclared. The
// signature is not verified, and what is declared is not judged: see View.CheckDeclared.
func OpenDeclaration(raw []byte) (*registrypb.EpochDeclaration, *envelope.Opened, error) {
	if len(raw) == 0 || len(raw) > MaxDeclaration {
		return nil, nil, fmt.Errorf("%w: a declaration of %d bytes, want 1 to %d", ErrNotDeclared, len(raw), MaxDeclaration)
	}
	opened, err := envelope.Open(envelope.EpochDeclaration, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotDeclared, err)
	}
	d := new(registrypb.EpochDeclaration)
	if err := proto.Unmarshal(opened.Payload, d); err != nil || hasUnknown(d.ProtoReflect()) {
		return nil, nil, fmt.Errorf("%w: malformed declaration", ErrNotDeclared)
	}
	if d.Number < 2 || len(d.Id) != 16 || d.ResumesAt < 0 || len(d.ResumesRoot) != checkpoint.HashSize || len(d.StatementHash) != 32 ||
		NodeID(d.Node).Validate() != nil {
		return nil, nil, fmt.Errorf("%w: malformed declaration", ErrNotDeclared)
	}
	return d, opened, nil
}

// BeginsEpoch reports whether n is of a later epoch than what is anchored of its journal,
// so that it takes a declaration.
func (v View) BeginsEpoch(n *checkpoint.Note) (bool, error) {
	was, err := v.Anchor(n.Node)
	return err == nil && n.Epoch > epochOf(was), err
}

// epochOf gives the epoch of an anchor; that of a journal without one is the first.
func epochOf(a *Anchor) int64 {
	if a == nil {
		return 1
	}
	return a.Checkpoint.Epoch
}

// CheckDeclared judges the declaration of the epoch that n begins: a key in force of the
// journal's institution signed it, it is of this journal and epoch, and it names what is
// anchored last. That n itself is in order, and how many were declared, is not looked at. The error wraps
// ErrNotDeclared, or is that of the state.
func (v View) CheckDeclared(mesh names.MeshID, n *checkpoint.Note, raw []byte) (*registrypb.EpochDeclaration, error) {
	d, opened, err := OpenDeclaration(raw)
	if err != nil {
		return nil, err
	}
	if d.Mesh != string(mesh) || NodeID(d.Node) != n.Node || d.Number != n.Epoch {
		return nil, fmt.Errorf("%w: the declaration is of another journal or epoch", ErrNotDeclared)
	}
	ok, err := v.signed(n.Node.Institution, func(k *registrypb.Key) bool { return opened.VerifiedBy(k.PublicKey) })
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: no key in force of %s signed the declaration", ErrNotDeclared, n.Node.Institution)
	}
	was, err := v.Anchor(n.Node)
	if err != nil {
		return nil, err
	}
	last := ""
	if was != nil {
		last = was.Checkpoint.Text
	}
	if d.After != last {
		return nil, ErrNotTheLast
	}
	return d, nil
}

// TooMany reports whether of the epochs that were declared at some times so many lie in
// the period that ends at a time, or after it, that no further one is accepted.
func TooMany(declared []time.Time, at time.Time) bool {
	recent := 0
	for _, t := range declared {
		if t.After(at.Add(-DeclaredPeriod)) {
			recent++
		}
	}
	return recent >= MaxDeclared
}

// DeclaredBy gives the epochs of a journal that were accepted, in order.
func (v View) DeclaredBy(n names.NodeID) (all []*Declared, err error) {
	prefix := under(tabDeclared, n.String())
	err = ended(v.g.Scan(prefix, prefix, func(k, b []byte) error {
		d, err := unpackDeclared(n, k, b)
		all = append(all, d)
		return err
	}))
	return all, err
}

// EachDeclared calls fn with the epochs of all journals that were accepted, in order of
// institution, node and number. Only members hold them. fn may return ErrStop.
func (v View) EachDeclared(fn func(*Declared) error) error {
	return ended(v.g.Scan([]byte{tabDeclared}, []byte{tabDeclared}, func(k, b []byte) error {
		if len(k) < 10 {
			return fmt.Errorf("%w: declared epoch", ErrCorrupt)
		}
		n, err := names.ParseNodeID(string(k[1 : len(k)-9]))
		if err != nil {
			return fmt.Errorf("%w: declared epoch", ErrCorrupt)
		}
		d, err := unpackDeclared(n, k, b)
		if err != nil {
			return err
		}
		return fn(d)
	}))
}

// The row of a declared epoch: index (8 bytes), Unix time (8), the envelope.
func declaredKey(n names.NodeID, number int64) []byte {
	return binary.BigEndian.AppendUint64(under(tabDeclared, n.String()), uint64(number))
}

func unpackDeclared(n names.NodeID, k, b []byte) (*Declared, error) {
	number, err := indexOf(k)
	if err != nil || len(b) < 16 {
		return nil, fmt.Errorf("%w: declared epoch", ErrCorrupt)
	}
	d := &Declared{Node: n, Number: int64(number), Index: binary.BigEndian.Uint64(b), Time: time.Unix(int64(binary.BigEndian.Uint64(b[8:])), 0).UTC(), Envelope: bytes.Clone(b[16:])}
	if d.Declaration, _, err = OpenDeclaration(d.Envelope); err != nil {
		return nil, fmt.Errorf("%w: declared epoch", ErrCorrupt)
	}
	return d, nil
}

// cosignedAt gives when members cosigned n: of their times the middle one, of two the
// later, so that no single member moves it back.
func (v View) cosignedAt(n *checkpoint.Note) (time.Time, error) {
	members, err := v.Members()
	if err != nil {
		return time.Time{}, err
	}
	var times []time.Time
	for _, m := range members {
		stands, err := v.IsMember(m)
		if err != nil {
			return time.Time{}, err
		}
		if !stands {
			continue
		}
		_, err = v.signed(m.Institution, func(k *registrypb.Key) bool {
			t, ok := n.CosignedBy(m, k.PublicKey)
			if ok {
				times = append(times, t)
			}
			return ok
		})
		if err != nil {
			return time.Time{}, err
		}
	}
	if len(times) == 0 {
		return time.Time{}, fmt.Errorf("%w: nobody cosigned", ErrNotAnchored)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times[len(times)/2], nil
}

// declares judges the epoch that an anchored checkpoint begins; nil: it begins none, or
// the mesh is at a level that does not know of declarations.
func (a *applier) declares(n *checkpoint.Note, declarations map[names.NodeID][]byte) (*Declared, error) {
	begins, err := a.view.BeginsEpoch(n)
	if err != nil || !begins {
		return nil, err
	}
	if level, err := a.view.FeatureLevel(); err != nil || level < 2 {
		return nil, err
	}
	raw := declarations[n.Node]
	d, err := a.view.CheckDeclared(a.rules.Mesh, n, raw)
	if err != nil {
		return nil, err
	}
	at, err := a.view.cosignedAt(n)
	if err != nil {
		return nil, err
	}
	before, err := a.view.DeclaredBy(n.Node)
	if err != nil {
		return nil, err
	}
	times := make([]time.Time, len(before))
	for i, b := range before {
		times[i] = b.Time
	}
	if TooMany(times, at) {
		return nil, ErrTooManyEpochs
	}
	return &Declared{Node: n.Node, Number: d.Number, Index: a.index, Time: at, Declaration: d, Envelope: raw}, nil
}

func (a *applier) setDeclared(d *Declared) error {
	row := binary.BigEndian.AppendUint64(nil, d.Index)
	row = binary.BigEndian.AppendUint64(row, uint64(d.Time.Unix()))
	return a.Set(declaredKey(d.Node, d.Number), append(row, d.Envelope...))
}

// DeclarationsOf sorts envelopes of declarations by the journal that each says it is of;
// of several of one journal the first counts, and what has not the form of one is left
// aside. Nothing is verified.
func DeclarationsOf(raw [][]byte) map[names.NodeID][]byte {
	all := make(map[names.NodeID][]byte)
	for _, r := range raw {
		d, _, err := OpenDeclaration(r)
		if err != nil {
			continue
		}
		if n := NodeID(d.Node); all[n] == nil {
			all[n] = r
		}
	}
	return all
}
