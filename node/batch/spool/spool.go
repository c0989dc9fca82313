// Package spool keeps the files of lots on disk, encrypted: what was handed in, until the
// lot ends, and the results of each chunk, until the application has them.
//
// A spooled file is a head and frames:
//
//	head   "XRL1" ‖ salt (32)
//	frame  size of what follows (4, big-endian) ‖ AES-256-GCM of the payload
//	key    HKDF-SHA256(storage key, salt, "crossroads lot spool v1" ‖ 0x00 ‖ the file's name)
//
// The nonce is the frame's number, and the additional data too; the salt is fresh for each
// file, so no nonce comes twice. A file gets its name once it is whole and synced.
package spool

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

const (
	magic    = "XRL1"
	saltSize = 32
	headSize = len(magic) + saltSize
	overhead = 16
	partial  = ".partial"
	// MaxFrame is the largest payload of a frame, in bytes.
	MaxFrame = 64 << 20
)

var (
	// ErrNotFound means that there is no such file.
	ErrNotFound = errors.New("lot spool: no such file")
	// ErrDamaged means that what was read is not what was written.
	ErrDamaged = errors.New("lot spool: damaged")
)

// Spool is a directory of spooled files. It is safe for concurrent use; one file is written
// by one goroutine.
type Spool struct {
	fs  disk.FS
	key []byte
}

// Open opens a spool and removes what a crash left half written.
func Open(dir disk.FS, storageKey []byte) (*Spool, error) {
	if len(storageKey) != 32 {
		return nil, fmt.Errorf("lot spool: storage key has %d bytes, want 32", len(storageKey))
	}
	s := &Spool{dir, storageKey}
	names, err := dir.List()
	if err != nil {
		return nil, fmt.Errorf("lot spool: %w", err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, partial) {
			if err := dir.Remove(n); err != nil {
				return nil, fmt.Errorf("lot spool: %w", err)
			}
		}
	}
	return s, nil
}

func (s *Spool) aead(name string, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, s.key, salt, "crossroads lot spool v1\x00"+name, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func nonce(n int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), uint64(n)) }

// Writer writes one file.
type Writer struct {
	spool  *Spool
	name   string
	file   disk.File
	aead   cipher.AEAD
	end    int64
	frames int
}

// Create begins a file. It has its name once Commit returned; until then, a file of that
// name stays as it was. Abort ends a writer that is not committed.
func (s *Spool) Create(name string) (*Writer, error) {
	w := &Writer{spool: s, name: name}
	salt := make([]byte, saltSize)
	rand.Read(salt)
	var err error
	if w.aead, err = s.aead(name, salt); err != nil {
		return nil, err
	}
	if w.file, err = s.fs.Open(name+partial, true); err != nil {
		return nil, fmt.Errorf("lot spool: %w", err)
	}
	head := append([]byte(magic), salt...)
	if _, err := w.file.WriteAt(head, 0); err != nil {
		w.Abort()
		return nil, fmt.Errorf("lot spool: %w", err)
	}
	w.end = int64(len(head))
	return w, nil
}

// Frame adds a frame.
func (w *Writer) Frame(payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("lot spool: a frame of %d bytes, at most %d", len(payload), MaxFrame)
	}
	n := nonce(w.frames)
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(payload)+overhead), uint32(len(payload)+overhead))
	b = w.aead.Seal(b, n, payload, n)
	if _, err := w.file.WriteAt(b, w.end); err != nil {
		return fmt.Errorf("lot spool: %w", err)
	}
	w.end += int64(len(b))
	w.frames++
	return nil
}

// Commit makes the file durable and gives it its name.
func (w *Writer) Commit() error {
	err := w.file.Sync()
	if err = errors.Join(err, w.file.Close()); err == nil {
		err = w.spool.fs.Rename(w.name+partial, w.name)
	}
	if err == nil {
		err = w.spool.fs.SyncDir()
	}
	if err != nil {
		return fmt.Errorf("lot spool: %w", err)
	}
	return nil
}

// Abort drops what was written.
func (w *Writer) Abort() {
	_ = w.file.Close()
	_ = w.spool.fs.Remove(w.name + partial) // what is left is removed at the next opening
}

// Put writes a file of one frame.
func (s *Spool) Put(name string, payload []byte) error {
	w, err := s.Create(name)
	if err != nil {
		return err
	}
	if err := w.Frame(payload); err != nil {
		w.Abort()
		return err
	}
	return w.Commit()
}

// Reader reads one file, any frame at any time. It is safe for concurrent use.
type Reader struct {
	file   disk.File
	aead   cipher.AEAD
	frames []int64 // where each begins
	end    int64
}

// Reader opens a file. The caller closes it. The error wraps ErrNotFound or ErrDamaged, or
// is the disk's.
func (s *Spool) Reader(name string) (*Reader, error) {
	f, err := s.fs.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("lot spool: %w", err)
	}
	r := &Reader{file: f}
	if err := r.open(s, name); err != nil {
		_ = f.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) open(s *Spool, name string) (err error) {
	if r.end, err = r.file.Size(); err != nil {
		return fmt.Errorf("lot spool: %w", err)
	}
	head := make([]byte, headSize)
	if _, err := r.file.ReadAt(head, 0); err != nil || !bytes.HasPrefix(head, []byte(magic)) {
		return fmt.Errorf("%w: %s: its head", ErrDamaged, name)
	}
	if r.aead, err = s.aead(name, head[len(magic):]); err != nil {
		return err
	}
	var size [4]byte
	for at := int64(headSize); at < r.end; {
		if _, err := r.file.ReadAt(size[:], at); err != nil {
			return fmt.Errorf("%w: %s: it ends early", ErrDamaged, name)
		}
		r.frames = append(r.frames, at)
		at += 4 + int64(binary.BigEndian.Uint32(size[:]))
		if at > r.end {
			return fmt.Errorf("%w: %s: it ends early", ErrDamaged, name)
		}
	}
	return nil
}

// Len gives the number of frames.
func (r *Reader) Len() int { return len(r.frames) }

// Frame gives the payload of a frame.
func (r *Reader) Frame(i int) ([]byte, error) {
	if i < 0 || i >= len(r.frames) {
		return nil, fmt.Errorf("%w: frame %d of %d", ErrDamaged, i, len(r.frames))
	}
	end := r.end
	if i+1 < len(r.frames) {
		end = r.frames[i+1]
	}
	b := make([]byte, end-r.frames[i]-4)
	if _, err := r.file.ReadAt(b, r.frames[i]+4); err != nil {
		return nil, fmt.Errorf("lot spool: %w", err)
	}
	n := nonce(i)
	payload, err := r.aead.Open(b[:0], n, b, n)
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d does not decrypt", ErrDamaged, i)
	}
	return payload, nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// Get gives the payload of a file of one frame.
func (s *Spool) Get(name string) ([]byte, error) {
	r, err := s.Reader(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Frame(0)
}

// Remove removes every file whose name begins with prefix.
func (s *Spool) Remove(prefix string) error {
	names, err := s.fs.List()
	if err != nil {
		return fmt.Errorf("lot spool: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			if err := s.fs.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("lot spool: %w", err)
			}
		}
	}
	return nil
}

// List gives the names of all files.
func (s *Spool) List() ([]string, error) { return s.fs.List() }
