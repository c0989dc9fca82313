package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// ErrBadSnapshot means that a snapshot is damaged, forged, of another mesh or of a
// version this program does not know. The store is as it was before.
var ErrBadSnapshot = errors.New("bad registry snapshot")

// A snapshot is the magic, then frames: a big-endian uint32 of the payload's
// length, one of its CRC-32C, and the payload. The first byte of a payload says
// what it is:
//
//	H  fingerprint of the rules (32), applied index (8)     first
//	C  index (8), envelope of an accepted command           in order of index
//	E  number of commands (8), SHA-256 of all payloads before   last
const (
	snapshotMagic  = "crossroads-registry-snapshot-1\n"
	frameHead      = 'H'
	frameCommand   = 'C'
	frameEnd       = 'E'
	maxFrame       = record.MaxCommand + 64
	snapshotBuffer = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frozen is the store as it stood at one index. Release it soon: it keeps old
// rows on disk, and a Close of the store waiting.
type Frozen struct {
	txn     *badger.Txn
	index   uint64
	rules   *record.Rules
	release func()
}

// Freeze holds on to the tables as they are now, for WriteTo: everything that was decided
// before the call is settled, and in it.
func (s *Store) Freeze() (*Frozen, error) {
	g, err := s.use()
	if err != nil {
		return nil, err
	}
	if err := g.settled(); err != nil {
		g.users.Done()
		return nil, err
	}
	txn := g.db.NewTransaction(false)
	f := &Frozen{txn: txn, rules: s.rules, release: sync.OnceFunc(func() { txn.Discard(); g.users.Done() })}
	if f.index, err = record.NewView(rows{txn: txn}).AppliedIndex(); err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

// Index gives the index at which the store was frozen.
func (f *Frozen) Index() uint64 { return f.index }

// Release lets go. It may be called more than once.
func (f *Frozen) Release() { f.release() }

// WriteTo writes the snapshot as a stream; nothing of it is built up in memory.
func (f *Frozen) WriteTo(to io.Writer) (int64, error) {
	w := newFrameWriter(to)
	w.head(f)
	err := record.NewView(rows{txn: f.txn}).History(0, func(index uint64, envelope []byte) error {
		w.command(index, envelope)
		return w.err
	})
	if err != nil {
		return w.n, err
	}
	return w.n, w.end()
}

// Snapshot writes the store, as it stands now, as a stream.
func (s *Store) Snapshot(w io.Writer) error {
	f, err := s.Freeze()
	if err != nil {
		return err
	}
	defer f.Release()
	_, err = f.WriteTo(w)
	return err
}

type frameWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	count uint64 // of commands
	n     int64
	err   error
}

func newFrameWriter(to io.Writer) *frameWriter {
	w := &frameWriter{w: bufio.NewWriterSize(to, snapshotBuffer), sum: sha256.New()}
	w.write([]byte(snapshotMagic))
	return w
}

func (w *frameWriter) head(f *Frozen) {
	w.frame(binary.BigEndian.AppendUint64(append([]byte{frameHead}, f.rules.Fingerprint()...), f.index))
}

func (w *frameWriter) command(index uint64, envelope []byte) {
	w.count++
	w.frame(append(binary.BigEndian.AppendUint64([]byte{frameCommand}, index), envelope...))
}

func (w *frameWriter) end() error {
	w.frame(w.sum.Sum(binary.BigEndian.AppendUint64([]byte{frameEnd}, w.count)))
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

func (w *frameWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	var n int
	n, w.err = w.w.Write(b)
	w.n += int64(n)
}

func (w *frameWriter) frame(payload []byte) {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	w.write(binary.BigEndian.AppendUint32(head, crc32.Checksum(payload, castagnoli)))
	w.write(payload)
	w.sum.Write(payload)
}

// frameReader reads what frameWriter wrote. Its errors wrap ErrBadSnapshot, or are
// those of the reader below.
type frameReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

func newFrameReader(r io.Reader) (*frameReader, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, snapshotBuffer), sum: sha256.New()}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(f.r, magic); err != nil {
		return nil, truncated(err)
	}
	if string(magic) != snapshotMagic {
		return nil, fmt.Errorf("%w: it does not begin as one of this version", ErrBadSnapshot)
	}
	return f, nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrBadSnapshot)
	}
	return err
}

// next gives the kind and the rest of the next frame.
func (f *frameReader) next() (kind byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, truncated(err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxFrame {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", ErrBadSnapshot, size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f.r, b); err != nil {
		return 0, nil, truncated(err)
	}
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return 0, nil, fmt.Errorf("%w: checksum of a frame", ErrBadSnapshot)
	}
	if b[0] != frameEnd {
		f.sum.Write(b)
	}
	return b[0], b[1:], nil
}

// readSnapshot checks the form of a snapshot and hands out its commands in order.
// Commands were handed out before a later flaw is seen: use them only when it
// returns without error.
func readSnapshot(r io.Reader, fingerprint []byte, command func(index uint64, envelope []byte) error) (applied uint64, err error) {
	f, err := newFrameReader(r)
	if err != nil {
		return 0, err
	}
	kind, b, err := f.next()
	if err != nil {
		return 0, err
	}
	if kind != frameHead || len(b) != sha256.Size+8 {
		return 0, fmt.Errorf("%w: no header", ErrBadSnapshot)
	}
	if !bytes.Equal(b[:sha256.Size], fingerprint) {
		return 0, fmt.Errorf("%w: %w", ErrBadSnapshot, record.ErrOtherRules)
	}
	applied = binary.BigEndian.Uint64(b[sha256.Size:])
	for count, last := uint64(0), uint64(0); ; count++ {
		kind, b, err := f.next()
		switch {
		case err != nil:
			return 0, err
		case kind == frameCommand && len(b) > 8:
			index := binary.BigEndian.Uint64(b)
			if index <= last || index > applied {
				return 0, fmt.Errorf("%w: index %d after %d, of %d", ErrBadSnapshot, index, last, applied)
			}
			last = index
			if err := command(index, b[8:]); err != nil {
				return 0, err
			}
		case kind == frameEnd && len(b) == 8+sha256.Size:
			if binary.BigEndian.Uint64(b) != count || !bytes.Equal(b[8:], f.sum.Sum(nil)) {
				return 0, fmt.Errorf("%w: checksum of the whole", ErrBadSnapshot)
			}
			return applied, nil
		default:
			return 0, fmt.Errorf("%w: unknown frame", ErrBadSnapshot)
		}
	}
}
