// Package archive writes a run of a journal's entries to one file that verifies by
// itself: without the journal, the node or the network, with nothing but the
// institution's public key.
//
// # The file
//
//	"crossroads-archive/1\n"
//	frame 'H'   a nodepb.ArchiveHeader
//	frame 'T'   for each erased month of the journal: the envelope of its tombstone
//	frame 'E'   for each entry, in sequence: a nodepb.StoredEntry; of an erased one the
//	            sequence and the commitment alone
//	frame 'S'   the envelope of a nodepb.ArchiveSeal
//
// and nothing behind. A frame is its letter, the length of what follows (4 bytes,
// big-endian), and so many bytes.
//
// # What is proven
//
// The seal is signed by the institution and holds the SHA-256 of everything before it.
// Each entry opens its commitment. The commitments, with the hashes of the subtrees left
// and right of them, give the root of the journal's tree; the checkpoint in the header,
// which others have seen, is over that very root. So nothing is missing from the run,
// nothing added, nothing altered, also by the institution itself, once the checkpoint is
// one that was cosigned or anchored.
//
// An archive is as secret as the journal: it is not encrypted. Pipe it through a tool
// that does.
//
// Writing and reading stream: neither holds more than one frame in memory.
package archive

import (
	"encoding/binary"
	"errors"

	"github.com/crossroads-mesh/crossroads/node/journal"
)

const magic = "crossroads-archive/1\n"

const (
	frameHeader    byte = 'H'
	frameTombstone byte = 'T'
	frameEntry     byte = 'E'
	frameSeal      byte = 'S'
)

// The largest frames that are read, in bytes, and the most tombstones.
const (
	maxHeader     = 64 << 10
	maxTombstone  = 16 << 10
	maxEntry      = journal.MaxEntry + 1<<10
	maxSeal       = 64 << 10
	maxTombstones = 4096
)

var (
	// ErrMalformed means that the bytes are no archive, or not a whole one.
	ErrMalformed = errors.New("not a whole archive")
	// ErrAltered means that the archive is not what was sealed, or that the seal is not
	// by a key that is trusted. The text says which part.
	ErrAltered = errors.New("the archive does not verify")
)

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}
