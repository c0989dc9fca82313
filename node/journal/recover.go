package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// sectorSize is what a disk writes whole or not at all.
const sectorSize = 512

// recoverTail opens the last segment for writing and gives the sequence of the
// next entry. What a loss of power left half-written is cleared away, if it can
// only be of a commit group that nobody was told of; else the error wraps
// ErrCorrupt.
//
// The last group and the zeros behind it are then written once more. After a
// failed fsync the system may show bytes that it has given up bringing to disk,
// and would report success for them now.
func (j *Journal) recoverTail() (uint64, error) {
	firsts, err := segments(j.fs)
	if err != nil {
		return 0, err
	}
	if len(firsts) == 0 {
		j.seg, err = j.beginSegment(0)
		return 0, err
	}
	first := firsts[len(firsts)-1]
	f, err := j.fs.Open(segmentName(first), false)
	if err != nil {
		return 0, err
	}
	begun, err := begun(f, first)
	if err == nil && !begun {
		f.Close()
		j.seg, err = j.beginSegment(first)
		return first, err
	}
	s := &segment{first: first, file: f}
	var next uint64
	if err == nil {
		next, err = j.repair(s)
	}
	if err != nil {
		f.Close()
		return 0, err
	}
	j.seg = s
	return next, nil
}

// begun tells whether a segment's header was completed: records are written only
// after that.
func begun(f io.ReaderAt, first uint64) (bool, error) {
	head := make([]byte, segmentHead)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if bytes.Equal(head[:n], segmentHeader(first)) {
		return true, nil
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		return false, err
	}
	if !allZero(rest) {
		return false, corrupt(location{first, 0}, first, errors.New("the file's header is wrong"))
	}
	return false, nil
}

func (j *Journal) repair(s *segment) (uint64, error) {
	end, err := scan(s.file, s.first, math.MaxUint64, func(location, header, []byte) error { return nil })
	if err != nil {
		return 0, err
	}
	size, err := s.file.Size()
	if err != nil {
		return 0, err
	}
	last := make([]byte, size-end.group)
	if _, err := s.file.ReadAt(last, end.group); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	group, tail := last[:end.offset-end.group], last[end.offset-end.group:]
	if err := unacknowledged(tail, end); err != nil {
		return 0, corrupt(location{s.first, end.offset}, end.sequence, err)
	}
	if !allZero(tail) {
		j.log.Warn("journal: cleared a half-written commit that nobody was told of",
			"file", segmentName(s.first), "offset", end.offset, "next", end.sequence)
	}
	if _, err := s.file.WriteAt(group, end.group); err != nil {
		return 0, fmt.Errorf("write the last commit again: %w", err)
	}
	s.end, s.filled = end.offset, end.offset
	return end.sequence, s.fill(max(size, s.end+1), j.cfg.ChunkSize)
}

// unacknowledged decides whether what lies behind the last valid record may be
// cleared: nil when it can only be (part of) a commit group that was never
// synced. tail begins where the record end.sequence should be.
//
// A group is written only when the one before it is durable. So a valid record of
// a later group proves that what is missing here had been acknowledged. Within
// one group sectors arrive in any order, but each arrives whole, over zeros: a
// record of which every sector is there, and which is still wrong, was altered.
func unacknowledged(tail []byte, end scanned) error {
	if allZero(tail) {
		return nil
	}
	for off := 0; off+headerSize <= len(tail); off += alignment {
		if string(tail[off:off+len(recordMagic)]) != recordMagic {
			continue
		}
		h, err := parseRecord(tail[off:])
		if err == nil && (off == 0 || h.sequence <= end.sequence || h.group() > end.sequence) {
			return fmt.Errorf("it is unreadable, yet entry %d, committed later, stands behind it", h.sequence)
		}
	}
	head := tail[:min(headerSize, len(tail))]
	if lacksSector(tail, end.offset, len(head)) {
		return nil
	}
	h, err := parseHeader(head)
	if err != nil {
		return err
	}
	if h.size() > int64(len(tail)) ||
		!lacksSector(tail, end.offset, int(h.size())) {
		return errBody
	}
	return nil
}

// lacksSector tells whether one of the sectors that the first n bytes of tail, which
// lies at offset, reach into never came to disk: it is zero to its end then, and no
// written part of a record is.
func lacksSector(tail []byte, offset int64, n int) bool {
	for n > 0 && len(tail) > 0 {
		k := int(min(int64(len(tail)), sectorSize-offset%sectorSize))
		if allZero(tail[:k]) {
			return true
		}
		tail, offset, n = tail[k:], offset+int64(k), n-k
	}
	return false
}

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
