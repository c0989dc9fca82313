package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// A segment file begins with
//
//	"XRJSEG1\n" ‖ first sequence (8) ‖ CRC-32C of these 16 bytes (4) ‖ 44 zero bytes
//
// and is named after the first sequence. Records follow, then zeros.
const (
	segmentMagic  = "XRJSEG1\n"
	segmentHead   = 64
	segmentSuffix = ".journal"
)

// segment is the file that is being written.
type segment struct {
	first  uint64
	file   disk.File
	end    int64 // where the next record goes
	filled int64 // the file is durable, and zero from end, up to here
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// segments gives the first sequence of every segment, in order.
func segments(fs disk.FS) ([]uint64, error) {
	names, err := fs.List()
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || segmentName(first) != name {
			return nil, fmt.Errorf("%w: %s is no name of a journal file: move it elsewhere", ErrCorrupt, name)
		}
		firsts = append(firsts, first)
	}
	slices.Sort(firsts)
	return firsts, nil
}

func segmentHeader(first uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte(segmentMagic), first)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, make([]byte, segmentHead-len(b))...)
}

// beginSegment makes the file for entries from first on, or makes a half-made one
// whole, and returns when it is durable.
func (j *Journal) beginSegment(first uint64) (*segment, error) {
	f, err := j.fs.Open(segmentName(first), true)
	if err != nil {
		return nil, err
	}
	s := &segment{first: first, file: f, end: segmentHead, filled: segmentHead}
	if _, err = f.WriteAt(segmentHeader(first), 0); err == nil {
		err = s.fill(segmentHead+1, j.cfg.ChunkSize)
	}
	if err == nil {
		err = j.fs.SyncDir()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("begin %s: %w", segmentName(first), err)
	}
	return s, nil
}

var zeros [64 << 10]byte

// fill writes zeros ahead up to at least to, in whole chunks, durably: writing
// over them later changes no size and no allocation, so that a commit is one
// plain write and a sync of data alone.
func (s *segment) fill(to, chunk int64) error {
	to = (to + chunk - 1) / chunk * chunk
	for s.filled < to {
		n, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), to-s.filled)], s.filled)
		if err != nil {
			return fmt.Errorf("zero-fill %s: %w", segmentName(s.first), err)
		}
		s.filled += int64(n)
	}
	return s.file.Sync()
}

// location is where a record lies.
type location struct {
	segment uint64 // its first sequence
	offset  int64
}

func (l location) String() string {
	return fmt.Sprintf("%s, offset %d", segmentName(l.segment), l.offset)
}

func corrupt(at location, sequence uint64, why error) error {
	return fmt.Errorf("%w: %s, entry %d: %w; nothing was changed: restore this file from a copy, "+
		"and keep the damaged one for the inspection", ErrCorrupt, at, sequence, why)
}

// scanned is where a scan ended.
type scanned struct {
	offset   int64  // of the first byte that is no valid record
	sequence uint64 // expected there
	group    int64  // offset of the last commit group's first record; offset when none
}

// scan gives fn each valid record of a segment, up to sequence until, and stops
// at the first place that holds none. The record's bytes are fn's only during
// the call.
func scan(f disk.File, first, until uint64, fn func(location, header, []byte) error) (scanned, error) {
	return scanFrom(f, first, scanned{segmentHead, first, segmentHead}, until, fn)
}

// scanFrom is scan from a place where a record is known to begin.
func scanFrom(f disk.File, first uint64, at scanned, until uint64, fn func(location, header, []byte) error) (scanned, error) {
	br := bufio.NewReaderSize(io.NewSectionReader(f, at.offset, math.MaxInt64-at.offset), 2*int(recordSize(maxBody)))
	for at.sequence < until {
		b, err := br.Peek(headerSize)
		if err != nil {
			return at, ignoreEOF(err)
		}
		h, err := parseHeader(b)
		if err != nil || h.sequence != at.sequence {
			return at, nil
		}
		if b, err = br.Peek(int(h.size())); err != nil {
			return at, ignoreEOF(err)
		}
		if h, err = parseRecord(b); err != nil {
			return at, nil
		}
		if err := fn(location{first, at.offset}, h, b); err != nil {
			return at, err
		}
		if h.place == 0 {
			at.group = at.offset
		}
		if _, err := br.Discard(len(b)); err != nil {
			return at, err
		}
		at.offset += int64(len(b))
		at.sequence++
	}
	return at, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// scanAll gives fn every record with from <= sequence < until, over all segments,
// and an error that wraps ErrCorrupt if one is missing.
func (j *Journal) scanAll(from, until uint64, fn func(location, header, []byte) error) error {
	firsts, err := segments(j.fs)
	if err != nil || len(firsts) == 0 {
		return err
	}
	if firsts[0] != 0 {
		return fmt.Errorf("%w: %s is missing: restore it", ErrCorrupt, segmentName(0))
	}
	for i, first := range firsts {
		stop := until
		if i+1 < len(firsts) {
			stop = min(until, firsts[i+1])
		}
		if stop <= from || first >= stop {
			continue
		}
		_, err := scanFile(j.fs, first, scanned{segmentHead, first, segmentHead}, stop, func(l location, h header, b []byte) error {
			if h.sequence < from {
				return nil
			}
			return fn(l, h, b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scanFile is scanFrom over a file that must hold every record before until.
func scanFile(fs disk.FS, first uint64, begin scanned, until uint64, fn func(location, header, []byte) error) (scanned, error) {
	f, err := fs.Open(segmentName(first), false)
	if err != nil {
		return begin, err
	}
	defer f.Close()
	end, err := scanFrom(f, first, begin, until, fn)
	if err == nil && end.sequence < until {
		err = corrupt(location{first, end.offset}, end.sequence, errors.New("there is no valid record"))
	}
	return end, err
}
