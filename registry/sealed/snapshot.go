package sealed

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

const (
	saltSize  = 32
	chunkSize = 64 << 10
	tagSize   = 16
)

// SnapshotStore is a raft.SnapshotStore whose snapshots are sealed in the one below.
type SnapshotStore struct {
	below raft.SnapshotStore
	key   []byte
}

var _ raft.SnapshotStore = (*SnapshotStore)(nil)

// Snapshots seals what goes into below.
func Snapshots(below raft.SnapshotStore, key []byte) (*SnapshotStore, error) {
	if _, err := newCipher(key, nil, "snapshot"); err != nil {
		return nil, fmt.Errorf("seal snapshots: %w", err)
	}
	return &SnapshotStore{below, key}, nil
}

// Create begins a snapshot.
func (s *SnapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.below.Create(v, index, term, c, ci, t)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	seal, err := newCipher(s.key, salt, "snapshot")
	if err == nil {
		_, err = sink.Write(salt)
	}
	if err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return &sealingSink{SnapshotSink: sink, seal: seal, chunk: make([]byte, 0, chunkSize)}, nil
}

// List gives the snapshots, newest first, with the sizes they have when open.
func (s *SnapshotStore) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.below.List()
	for i, m := range metas {
		metas[i] = openMeta(m)
	}
	return metas, err
}

// Open gives a snapshot, opened as it is read.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.below.Open(id)
	if err != nil {
		return nil, nil, err
	}
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(r, salt); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s %w", id, ErrSealed), r.Close())
	}
	seal, err := newCipher(s.key, salt, "snapshot")
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return openMeta(meta), &openingReader{below: r, seal: seal, left: meta.Size - saltSize}, nil
}

// openMeta corrects the size: raft tells a follower how many bytes will come.
func openMeta(m *raft.SnapshotMeta) *raft.SnapshotMeta {
	c := *m
	body := m.Size - saltSize
	chunks := (body + chunkSize + tagSize - 1) / (chunkSize + tagSize)
	c.Size = body - chunks*tagSize
	return &c
}

func nonce(c cipher.AEAD, number uint64, last bool) []byte {
	n := make([]byte, c.NonceSize())
	binary.BigEndian.PutUint64(n, number)
	if last {
		n[8] = 1
	}
	return n
}

// sealingSink seals chunk by chunk. A full chunk waits for the next byte, since
// only then is it not the last.
type sealingSink struct {
	raft.SnapshotSink
	seal   cipher.AEAD
	chunk  []byte
	number uint64
	closed bool
}

func (s *sealingSink) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		if len(s.chunk) == chunkSize {
			if err := s.flush(false); err != nil {
				return written, err
			}
		}
		n := min(len(b), chunkSize-len(s.chunk))
		s.chunk = append(s.chunk, b[:n]...)
		b, written = b[n:], written+n
	}
	return written, nil
}

func (s *sealingSink) flush(last bool) error {
	_, err := s.SnapshotSink.Write(s.seal.Seal(nil, nonce(s.seal, s.number, last), s.chunk, nil))
	s.number++
	s.chunk = s.chunk[:0]
	return err
}

// Close seals the last chunk and makes the snapshot durable; closed already, it does nothing.
func (s *sealingSink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.flush(true); err != nil {
		return errors.Join(err, s.SnapshotSink.Cancel())
	}
	return s.SnapshotSink.Close()
}

type openingReader struct {
	below  io.ReadCloser
	seal   cipher.AEAD
	left   int64 // sealed bytes still to be read
	number uint64
	open   []byte
	done   bool
}

func (r *openingReader) Read(b []byte) (int, error) {
	for len(r.open) == 0 {
		if r.done {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.open)
	r.open = r.open[n:]
	return n, nil
}

func (r *openingReader) next() error {
	sealed := make([]byte, min(r.left, chunkSize+tagSize))
	if _, err := io.ReadFull(r.below, sealed); err != nil {
		return fmt.Errorf("snapshot %w: %w", ErrSealed, err)
	}
	r.left -= int64(len(sealed))
	r.done = r.left == 0
	open, err := r.seal.Open(sealed[:0], nonce(r.seal, r.number, r.done), sealed, nil)
	if err != nil {
		return fmt.Errorf("snapshot %w", ErrSealed)
	}
	r.number++
	r.open = open
	return nil
}

func (r *openingReader) Close() error { return r.below.Close() }
