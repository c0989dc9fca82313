package journal

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Signing is whose journal it is, and who signs what it states of itself.
type Signing struct {
	Mesh   names.MeshID
	Node   names.NodeID
	Signer crypto.Signer    // the institution's, Ed25519
	Now    func() time.Time // wall clock; nil: time.Now
}

func (s *Signing) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

var errNoSigner = errors.New("the journal was opened without a signing key, which this takes")

// envelope signs a statement.
func (s *Signing) envelope(t envelope.Type, m proto.Message) ([]byte, error) {
	if s == nil || s.Signer == nil {
		return nil, errNoSigner
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return envelope.Sign(t, payload, s.Signer)
}

func (s *Signing) ref() *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(s.Node.Institution), Node: string(s.Node.Node)}
}

// A statement is what the journal says of itself and must not forget: that a month
// was erased, that an epoch began. It is an entry, whose evidence is the signed
// statement, in a file of its own:
//
//	"XRJSTM1\n" ‖ HMAC-SHA256(key, name ‖ 0x00 ‖ entry) (32) ‖ entry
//
// under a key derived from the storage key: whoever has the disk alone cannot pass off
// a missing key as an erased month. The signature is for everybody else, and need
// not verify any more after the institution has changed its key.
//
// A statement counts from the moment its file is durable. The entry follows it
// into the log; until then the name ends in ".pending", and Open makes it good.
const (
	statementMagic = "XRJSTM1\n"
	statementHead  = len(statementMagic) + sha256.Size
	statementTemp  = "new-statement"
	pendingSuffix  = ".pending"
)

type statements struct {
	fs  disk.FS
	key []byte
}

func (s statements) mac(name string, entry []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte(name))
	m.Write([]byte{0})
	m.Write(entry)
	return m.Sum(nil)
}

// write makes the statement durable, pending.
func (s statements) write(name string, e *nodepb.Entry) error {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return err
	}
	b := append([]byte(statementMagic), s.mac(name, raw)...)
	if err := writeWhole(s.fs, statementTemp, name+pendingSuffix, append(b, raw...)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// settled takes the mark of being pending off.
func (s statements) settled(name string) error {
	if err := s.fs.Rename(name+pendingSuffix, name); err != nil {
		return err
	}
	return s.fs.SyncDir()
}

// note is a statement as it was found.
type note struct {
	name    string // without the suffix
	entry   *nodepb.Entry
	pending bool
}

// all reads the statements whose names begin so, in order of their names.
func (s statements) all(prefix string) (notes []note, err error) {
	names, err := s.fs.List()
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		if !strings.HasPrefix(file, prefix) {
			continue
		}
		name, pending := strings.CutSuffix(file, pendingSuffix)
		e, err := s.read(file, name)
		if err != nil {
			return nil, err
		}
		notes = append(notes, note{name, e, pending})
	}
	return notes, nil
}

func (s statements) read(file, name string) (*nodepb.Entry, error) {
	f, err := s.fs.Open(file, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, int64(statementHead+MaxEntry+1)))
	if err != nil {
		return nil, err
	}
	if len(b) < statementHead || len(b) > statementHead+MaxEntry || !bytes.HasPrefix(b, []byte(statementMagic)) {
		return nil, fmt.Errorf("%w: %s is no statement of this journal: restore it", ErrCorrupt, file)
	}
	raw := b[statementHead:]
	if !hmac.Equal(b[len(statementMagic):statementHead], s.mac(name, raw)) {
		return nil, fmt.Errorf("%w: %s was not written under this storage key: give the key this journal was made with, or restore the file", ErrCorrupt, file)
	}
	e := new(nodepb.Entry)
	if err := proto.Unmarshal(raw, e); err != nil || len(e.Evidence) != 1 {
		return nil, fmt.Errorf("%w: %s holds no statement: restore it", ErrCorrupt, file)
	}
	return e, nil
}

// statementIn gives the event and the signed statement of an entry in which the journal
// states something of itself, and nothing for every other. It looks at what stands first
// in an entry, for it is asked of each.
func statementIn(entry []byte) (nodepb.Event, []byte) {
	for b, event := entry, false; !event; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > eventField || typ != protowire.VarintType {
			return 0, nil
		}
		v, size := protowire.ConsumeVarint(b[n:])
		if size < 0 {
			return 0, nil
		}
		if event = num == eventField; event && v != uint64(nodepb.Event_EPOCH_BEGUN) && v != uint64(nodepb.Event_ERASED) {
			return 0, nil
		}
		b = b[n+size:]
	}
	e := new(nodepb.Entry)
	if proto.Unmarshal(entry, e) != nil || e.GetRole() != nodepb.Role_KEEPER || len(e.GetEvidence()) != 1 {
		return 0, nil
	}
	return e.GetEvent(), e.GetEvidence()[0]
}

// eventField is the number of Entry.event. Entries are written in order of number, and
// what stands before it are numbers too.
const eventField = 3

// settle brings a durable statement's entry into the log. Doing so twice, as after
// a crash in between, says the same twice.
func (j *Journal) settle(ctx context.Context, name string, e *nodepb.Entry) error {
	if _, err := j.Append(ctx, e); err != nil {
		return err
	}
	return j.state.settled(name)
}

// openKept reads what the journal keeps beside its log: statements and keys.
func (j *Journal) openKept() error {
	j.state = statements{j.fs, derive(j.cfg.Key, "crossroads journal statement v1")}
	erased, notes, err := j.state.tombstones()
	if err != nil {
		return err
	}
	j.notes = notes
	if notes, err = j.state.epochs(); err != nil {
		return err
	}
	j.notes = append(j.notes, notes...)
	j.keys, err = openKeys(j.fs, j.cfg.Key, erased)
	return err
}

// settleAll finishes what a crash interrupted, and begins the first epoch.
func (j *Journal) settleAll() error {
	j.stating.Lock()
	defer j.stating.Unlock()
	ctx := context.Background()
	for _, n := range j.notes {
		if n.pending {
			if err := j.settle(ctx, n.name, n.entry); err != nil {
				return err
			}
		}
	}
	for _, p := range j.keys.erasedMonths() {
		if err := j.keys.destroy(p); err != nil {
			return err
		}
	}
	return j.openEpoch(ctx)
}

// writeWhole writes a whole file or none: under another name first.
func writeWhole(fs disk.FS, temp, name string, b []byte) error {
	f, err := fs.Open(temp, true)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size > int64(len(b)) { // left by a crash, of something longer
		if err := fs.Remove(temp); err != nil {
			return err
		}
		return writeWhole(fs, temp, name, b)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fs.Rename(temp, name); err != nil {
		return err
	}
	return fs.SyncDir()
}
