// Package keyfile reads and writes the small files that identities are made of:
// never in part, never over one another, and never a secret that others can read.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Modes of files: a secret is its owner's only.
const (
	Secret fs.FileMode = 0o600
	Public fs.FileMode = 0o644
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// ErrExposed means that a secret file can be read by others than its owner.
var ErrExposed = errors.New("secret file can be read by others")

// Read reads a regular file of at most MaxSize bytes.
func Read(path string) ([]byte, error) { return read(path, 0) }

// ReadSecret reads a file that grants none of the forbidden permission bits. The
// error wraps ErrExposed if it does.
func ReadSecret(path string, forbidden fs.FileMode) ([]byte, error) { return read(path, forbidden) }

func read(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Mode().Perm()&forbidden != 0:
		return nil, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrExposed, path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, MaxSize)
	}
	return b, nil
}

// Create writes a file that must not exist yet (else the error wraps
// fs.ErrExist). After a crash it is there whole or not at all.
func Create(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, os.Link)
}

// Replace writes a file in place of the one that may be there. A reader sees the
// old bytes or the new ones.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, os.Rename)
}

func write(path string, data []byte, mode fs.FileMode, place func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if e := os.Remove(f.Name()); err == nil && e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the creation, renaming and removal of files in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
