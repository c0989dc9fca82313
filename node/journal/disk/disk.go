// Package disk is the file layer of the journal: as few operations as an
// append-only log needs, each with a stated effect on what survives a loss of
// power, so that a test can put a disk underneath that drops, fails and lies
// (package disktest).
//
// The rules a caller may rely on, and an implementation must keep:
//
//   - What WriteAt wrote is certain to survive only after Sync of that file.
//   - A name that Open made or Rename moved is certain to survive, and one that
//     Remove took away to stay away, only after SyncDir.
//   - After a failed Sync nothing is known of what was written since the last
//     good one: the system may have dropped it and may report success the next
//     time. Whoever wants it on disk must write it again.
package disk

import (
	"errors"
	"io"
)

// ErrLocked is wrapped by the error of Lock when somebody else holds the lock.
var ErrLocked = errors.New("in use by another process")

// FS is one flat directory. All methods are safe for concurrent use. Names hold
// no separator.
type FS interface {
	// Open opens a file for reading and writing. An absent file is made when
	// create is set, and is otherwise an error that wraps fs.ErrNotExist.
	Open(name string, create bool) (File, error)
	// Rename gives a file another name, replacing what had it.
	Rename(from, to string) error
	// Remove takes a file's name away. An absent one is an error that wraps
	// fs.ErrNotExist.
	Remove(name string) error
	// List gives the names in the directory, in order.
	List() ([]string, error)
	// SyncDir makes the names durable.
	SyncDir() error
	// Lock takes an exclusive lock that ends with the process, or when the
	// result is closed. It does not wait: the error wraps ErrLocked.
	Lock(name string) (io.Closer, error)
}

// File is one open file. ReadAt may run beside anything; the rest has one caller
// at a time.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the content and the size durable (fdatasync).
	Sync() error
	// Size gives the present size in bytes.
	Size() (int64, error)
}
